"""Tables that are read back after somebody edited or cut them: told by row and column, and left as they are."""

import csv
import os
import re
import shutil

import pytest
from conftest import error_line, run_script, train_command

from src.errors import UserError
from src.scoring.results_table import ResultsTable, read_table
from src.utils.tables import NUMBER, WHOLE_NUMBER, read_csv

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def scored(corpus, trained, tmp_path_factory):
    """A folder with results.csv of two runs, and both tables beside it."""
    folder = tmp_path_factory.mktemp("scored")
    run_script(*evaluating(corpus, trained, folder), check=0)
    return folder


def evaluating(corpus, trained, folder, *more):
    return (
        *(
            "eval_all_mixtures.py",
            "--exp_dir",
            trained / "r1",
            "--lbl_map",
            corpus / "meta/lbl_map.json",
            "--best_only",
        ),
        *("--lmdb_path", corpus / "eval.lmdb", "--num_workers", 0, "--results_csv", folder / "results.csv"),
        *("--per_class", "--overlap_analysis", *more),
    )


def summarising(corpus, trained, folder):
    return "scripts/summarise_results.py", folder / "results.csv", "--out_dir", folder / "summary"


READERS = {  # of each table, the commands that read it
    "results.csv": (evaluating, summarising),
    "results_per_class.csv": (evaluating, summarising),
    "results_overlap.csv": (evaluating,),
}


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def cell(column, value):
    """Put a value into a column of the second row."""

    def spoil(path):
        rows = rows_of(path)
        rows[1][column] = value
        write(path, rows)
        return rf"{path.name}, line 3: {column} is {re.escape(repr(value[:100]))}, and .* was expected"

    return spoil


def without(column):
    def spoil(path):
        write(path, [{name: value for name, value in row.items() if name != column} for row in rows_of(path)])
        return f"{path.name}: is a table without the column '{column}', and a results table was expected"

    return spoil


def cut(share):
    """Leave the beginning, up to the middle of a cell of the last row."""

    def spoil(path):
        data = path.read_bytes()
        last = data.rstrip().rfind(b"\n") + 1
        path.write_bytes(data[: last + int(share * (len(data.rstrip()) - last))])
        return rf"{path.name}: its row \d+ has another number of columns|{path.name}, line \d+: ckpt_digest is "

    return spoil


def fifo(path):
    path.unlink()
    os.mkfifo(path)
    return f"{path.name}: is no plain file, and a results table was expected"


def folder(path):
    path.unlink()
    path.mkdir()
    return f"{path.name}: (is no plain file, and a results table was expected|no run folder in it)"


def empty(path):
    path.write_bytes(b"")
    return f"{path.name}: is empty, and a results table was expected"


def head_twice(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[0]]))
    return rf"{path.name}, line \d+: \w+ is '\w+', and .* was expected"


def column_twice(path):
    text = path.read_text()
    path.write_text(
        text.replace("lmdb_path", "ckpt_path", 1) if path.stem != "results" else text.replace("fold", "mAP", 1)
    )
    return rf"{path.name}: (has the column 'mAP' twice|is a table without the column 'lmdb_path')"


def no_text(path):
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    return rf"{path.name}: its row \d+ has another number of columns"


CELLS = {
    "results.csv": [
        ("evaluated", "yesterday"),
        ("evaluated", "2026-13-01"),
        ("mAP", "abc"),
        ("mAP", ""),
        ("mAUC", "0,5"),
        ("dprime", "-"),
        ("accuracy", "high"),
        ("val_figure", "x"),
        ("num_train_clips", "1.5"),
        ("num_train_clips", "9" * 5000),
        ("num_timesteps", "all"),
        ("fold", "first"),
        ("ckpt_digest", "0123"),
        *((name, "x") for name in ("precision", "recall", "F1")),
    ],
    "results_per_class.csv": [
        ("AP", ""),
        ("AP", "abc"),
        ("AUC", "x"),
        ("threshold", "low"),
        ("F1", "-"),
        ("num_timesteps", "64.0"),
    ],
    "results_overlap.csv": [("mAP", "abc"), ("mAUC", ""), ("num_timesteps", "")],
}
SPOILS = [fifo, folder, empty, head_twice, column_twice, no_text, cut(0.1), cut(0.5), cut(0.9), cut(0.999)]
NAMES = ["FIFO", "folder", "empty", "head twice", "column twice", "no text", "cut at 10 %", "half", "90 %", "99.9 %"]
CASES = [(table, spoil, f"{table}: {name}") for table in READERS for spoil, name in zip(SPOILS, NAMES)]
CASES += [(table, cell(*pair), f"{table}: {pair[0]} {pair[1][:9]!r}") for table in CELLS for pair in CELLS[table]]
CASES += [("results.csv", without(name), f"results.csv without {name}") for name in ("mAP", "Model", "ckpt_path")]
CASES += [("results_per_class.csv", without(name), f"classes without {name}") for name in ("class", "lmdb_path")]
CASES += [("results_overlap.csv", without(name), f"overlap without {name}") for name in ("events", "num_timesteps")]


@pytest.mark.parametrize("table, spoil", [case[:2] for case in CASES], ids=[case[2] for case in CASES])
def test_what_is_wrong_is_told_by_row_and_column_and_nothing_is_lost(corpus, trained, scored, tmp_path, table, spoil):
    for file in scored.iterdir():
        shutil.copy(file, tmp_path / file.name)
    message = spoil(tmp_path / table)
    before = (tmp_path / table).read_bytes() if (tmp_path / table).is_file() else None
    for reader in READERS[table]:
        line = error_line(run_script(*reader(corpus, trained, tmp_path), timeout=60))
        assert re.search(message, line), line
    assert before is None or (tmp_path / table).read_bytes() == before
    assert not (tmp_path / "summary").exists()


FIFOS = {  # commands that look at a file more than once, or at those of a run
    "check": lambda corpus, trained, fifo: ("scripts/check_lmdb.py", fifo),
    "--lmdb_path": lambda corpus, trained, fifo: evaluating(corpus, trained, fifo.parent, "--lmdb_path", fifo),
    "--ckpt_path": lambda corpus, trained, fifo: ("predict.py", "--audio", corpus / "eval", "--ckpt_path", fifo),
    "--pretrained": lambda corpus, trained, fifo: train_command(corpus, fifo.parent / "run", "--pretrained", fifo),
    "train_lmdb": lambda corpus, trained, fifo: train_command(
        corpus, fifo.parent / "run", "--set", f"data.train_lmdb={fifo}"
    ),
    "--resume_from": lambda corpus, trained, fifo: train_command(corpus, fifo.parent / "run", "--resume_from", fifo),
    "run.json": lambda corpus, trained, fifo: ("scripts/summarise_results.py", fifo.parent, "--out_dir", fifo.parent),
}


@pytest.mark.parametrize("what", FIFOS)
def test_a_fifo_is_told_and_not_waited_for(corpus, trained, tmp_path, what):
    fifo = tmp_path / "run.json"
    os.mkfifo(fifo)
    line = error_line(run_script(*FIFOS[what](corpus, trained, fifo), timeout=60))
    told = (
        rf"{tmp_path}: no run .*Left out: 1 special file \(run.json\)"
        if what == "run.json"
        else f"{fifo}: .*is no plain"
    )
    assert re.search(told, line), line


@pytest.mark.parametrize("table", READERS)
def test_a_byte_order_mark_is_no_part_of_the_first_column(corpus, trained, scored, tmp_path, table):
    for file in scored.iterdir():
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / table).write_bytes(b"\xef\xbb\xbf" + (scored / table).read_bytes())
    again = run_script(*evaluating(corpus, trained, tmp_path), check=0)
    assert "already holds 2 of 2" in again.stderr
    run_script(*evaluating(corpus, trained, tmp_path), "--overwrite", check=0)
    assert list(rows_of(tmp_path / table)[0]) == list(rows_of(scored / table)[0])  # written back without it


def test_of_a_row_that_is_there_twice_the_one_evaluated_last_counts(corpus, trained, scored, tmp_path):
    for file in scored.iterdir():
        shutil.copy(file, tmp_path / file.name)
    first, second = rows_of(tmp_path / "results.csv")
    older = first | {"mAP": "0.0123", "evaluated": "2020-01-01T00:00:00+00:00"}
    for rows in ([older, first, second], [first, second, older]):
        write(tmp_path / "results.csv", rows)
        result = run_script(*evaluating(corpus, trained, tmp_path), check=0)
        assert "results.csv: 1 of its rows are there twice" in result.stderr
        assert "already holds 2 of 2" in result.stderr and "0.0123" not in result.stderr
        result = run_script(*summarising(corpus, trained, tmp_path), check=0)
        assert "| 0.012 |" not in result.stdout
    run_script(*evaluating(corpus, trained, tmp_path), "--overwrite", check=0)
    assert [row["ckpt_path"] for row in rows_of(tmp_path / "results.csv")] == [first["ckpt_path"], second["ckpt_path"]]


def test_rows_of_a_measurement_replace_its_earlier_ones(tmp_path):
    key = {"ckpt_path": "a", "lmdb_path": "b", "num_timesteps": 501}
    table = ResultsTable(tmp_path / "r.csv", [*key, "class", "AP"], part="class")
    table.put([key | {"class": name, "AP": 1} for name in ("Drum", "Harp")])
    table.put([key | {"ckpt_path": "other", "class": "Drum", "AP": 2}])
    table.put([key | {"class": name, "AP": 3} for name in ("Drum", "Organ")])
    found = [(row["ckpt_path"], row["class"], row["AP"]) for row in read_table(tmp_path / "r.csv", table.key)]
    assert found == [("a", "Drum", "3"), ("other", "Drum", "2"), ("a", "Organ", "3")]


def test_numbers_that_are_none_yet_are_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nnan,\n-inf,7\n")
    kinds = {"a": NUMBER, "b": WHOLE_NUMBER}
    assert read_csv(tmp_path / "t.csv", "a table", ["a"], kinds) == [{"a": "nan", "b": ""}, {"a": "-inf", "b": "7"}]
    with pytest.raises(UserError, match="t.csv, line 2: b is '', and a whole number was expected"):
        read_csv(tmp_path / "t.csv", "a table", ["a"], kinds, filled=["b"])
