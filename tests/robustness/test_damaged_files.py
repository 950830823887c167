"""Files damaged in ways that the fault campaign found not to be told from whole ones."""

import re
import shutil
import struct
from pathlib import Path

import lmdb
import msgpack
import pytest
import torch
from conftest import FIXTURES, as_events, error_line, run_script, train_command
from faults.corpus import scoring_events
from faults.malformed import ODD_EVENT_DECISIONS, ODD_EVENTS, reading_events

from src.data.checks.check import check
from src.data.lmdb.pages import fault
from src.data.lmdb.store import EVENTS, LMDBReader
from src.errors import UserError
from src.models.decisions import EVENT_DECISIONS
from src.models.safe_loading import read_torch_file
from src.preparation.show import load_soundscape


def evaluate(corpus, tmp_path, ckpt, *more):
    return run_script(
        "eval_gise_mixtures.py",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--ckpt_path",
        ckpt,
        "--num_workers",
        0,
        *more,
    )


def a_checkpoint(trained):
    return next((trained / "r1").rglob("epoch=01*.ckpt"))


@pytest.mark.parametrize("layout", ["mixtures", "esc50"])
def test_pages_of_an_lmdb_that_point_outside_it(corpus, tmp_path, layout):
    """LMDB would follow them, and the process would end by SIGBUS."""
    valid = FIXTURES / f"released_{layout}_layout.lmdb"
    assert fault(valid) is None
    whole, bad = valid.read_bytes(), tmp_path / "bad.lmdb"
    nodes = list(re.finditer(re.escape(b"\x01\x00\x01\x00"), whole))  # a value with pages of its own, a key of a byte
    assert nodes
    for place, value in ((-2, b"\x00\x20"), (5, struct.pack("<Q", 10**6))):  # its length, the first of its pages
        data = bytearray(whole)
        for node in nodes:
            data[node.start() + place : node.start() + place + len(value)] = value
        bad.write_bytes(data)
        line = error_line(run_script(*train_command(corpus, tmp_path / "run", "--set", f"data.val_lmdb={bad}")))
        assert re.search(r"bad\.lmdb: is damaged: an? (value|entry) of page \d+ reaches past", line)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "place, value, message",
    [
        (0, b"\xff", "has a wrong header"),
        (10, b"\x08", "has a wrong header"),
        (12, b"\xff\xff", "has a wrong header"),
        (16, b"\xff\xff", "has a wrong table of entries"),
    ],
)
def test_a_page_with_a_wrong_header_is_a_fault(corpus, tmp_path, place, value, message):
    data = bytearray((corpus / "train.lmdb").read_bytes())
    leaves = [
        start
        for start in range(8192, len(data), 4096)
        if struct.unpack_from("<Q2xH", data, start) == (start // 4096, 2)
    ]
    for start in leaves:
        data[start + place : start + place + len(value)] = value
    (tmp_path / "bad.lmdb").write_bytes(data)
    assert message in fault(tmp_path / "bad.lmdb")


def test_a_checkpoint_with_a_bit_turned_over_is_refused(corpus, trained, tmp_path):
    """PyTorch reads such a file, and gives other weights."""
    data = bytearray(a_checkpoint(trained).read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "x.ckpt").write_bytes(data)
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)
    line = error_line(evaluate(corpus, tmp_path, tmp_path / "x.ckpt"))
    assert re.search(r"x\.ckpt: is damaged: its part .*/data/\d+ is not as it was written", line)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda value: value * float("nan"), "'conv1.weight' is no plain tensor of finite numbers"),
        (lambda value: value.to_sparse(), "'conv1.weight' is no plain tensor of finite numbers"),
        (lambda value: value * 1e38, "its network's outputs are not finite"),
    ],
)
def test_a_checkpoint_with_weights_that_are_no_numbers(corpus, trained, tmp_path, spoil, message):
    content = read_torch_file(a_checkpoint(trained), "a checkpoint")
    content["state_dict"]["net.conv1.weight"] = spoil(content["state_dict"]["net.conv1.weight"])
    torch.save(content, tmp_path / "x.ckpt")
    line = error_line(evaluate(corpus, tmp_path, tmp_path / "x.ckpt"))
    assert "x.ckpt: " in line and message in line and not (tmp_path / "r.csv").exists()


def test_a_state_of_the_optimiser_that_is_no_numbers(corpus, trained, tmp_path):
    content = read_torch_file(a_checkpoint(trained), "a checkpoint")
    content["optimizer_states"][0]["state"][0]["exp_avg"].fill_(float("inf"))
    torch.save(content, tmp_path / "x.ckpt")
    line = error_line(
        run_script(*train_command(corpus, tmp_path / "run", "--resume_from", tmp_path / "x.ckpt", epochs=3))
    )
    assert "x.ckpt: cannot be resumed from: it holds something else than tensors of finite numbers" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "weights",
    [
        torch.tensor([1.0, float("nan"), 1.0]),
        torch.tensor([1.0, -1.0, 1.0]),
        torch.ones(3, device="meta"),
        torch.ones(3).to_sparse(),
    ],
)
def test_class_weights_that_are_no_weights(corpus, tmp_path, weights):
    torch.save(weights, tmp_path / "cw.pt")
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", "--cw", tmp_path / "cw.pt")))
    assert "cw.pt: holds something else than finite numbers of 0 or more" in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("val_loss", "x", "is a table without the column 'val_loss', and a run's table of epochs was expected"),
        ("epoch", "\0", "is not text in UTF-8, and a run's table of epochs was expected"),
        ("val_mAP", "AP", "has a column 'AP', which no run's table of epochs has"),
        ("\n0,", "\nx,", ", line 2: epoch is 'x', and a whole number was expected"),
        ("\n0,", "\n0,x", ", line 2: step is 'x3', and a number was expected"),
        (",0.001", "", "its row 1 has another number of columns than its head"),
    ],
)
def test_a_damaged_table_of_epochs_is_refused_before_anything_is_done(corpus, tmp_path, old, new, message):
    run_script(*train_command(corpus, tmp_path / "run"), check=0)
    table, record = tmp_path / "run/logs/metrics.csv", tmp_path / "run/run.json"
    before, text = record.read_bytes(), table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", epochs=2)))
    assert "metrics.csv" in line and message in line and record.read_bytes() == before


@pytest.mark.parametrize("name, value", [("data", "true"), ("finished", "3"), ("resumed", '{"a": 1}')])
def test_a_damaged_record_of_a_run_is_refused(corpus, tmp_path, name, value):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(f'{{"cfg": {{}}, "seed": 3, "{name}": {value}}}')
    line = error_line(run_script(*train_command(corpus, tmp_path / "run")))
    assert "run.json: is not a run's record" in line


def test_a_ragged_table_of_results_is_refused(corpus, trained, tmp_path):
    assert evaluate(corpus, tmp_path, a_checkpoint(trained)).returncode == 0
    table = tmp_path / "r.csv"
    cut = table.read_text()[:-40]
    table.write_text(cut)
    for result in (
        evaluate(corpus, tmp_path, a_checkpoint(trained)),
        run_script("scripts/summarise_results.py", table, "--out_dir", tmp_path / "summary"),
    ):
        assert "r.csv: its row 1 has another number of columns than its head" in error_line(result)
    assert table.read_text() == cut


@pytest.mark.parametrize("number", range(len(ODD_EVENT_DECISIONS)))
def test_odd_decisions_of_events_are_refused_by_a_command_that_reads_them(corpus, trained, tmp_path, number):
    """The commands in turn: they read them in one place, `read_checkpoint`."""
    network, out = as_events(a_checkpoint(trained), tmp_path / "x.ckpt"), tmp_path / "out"
    content = read_torch_file(network, "a checkpoint")
    torch.save(content | {EVENT_DECISIONS: ODD_EVENT_DECISIONS[number]}, network)
    before, commands = network.read_bytes(), reading_events(corpus, network, out)
    line = error_line(run_script(*commands[number % len(commands)]))
    assert "x.ckpt: " in line and "Is it damaged?" in line and len(line) < 1000
    assert network.read_bytes() == before and not out.exists()


@pytest.fixture(scope="module")
def scored_events(corpus, trained, tmp_path_factory):
    """A folder with a network of events, and its scores in results.csv and the tables beside it."""
    folder = tmp_path_factory.mktemp("scored_events")
    as_events(a_checkpoint(trained), folder / "e.ckpt", medians=[1, 3, 5], thresholds=[0.3, 0.5, None])
    run_script(*scoring_events(corpus, folder / "results.csv", folder / "e.ckpt"), check=0)
    return folder


@pytest.mark.parametrize("name", ["results_events.csv", "results_slices.csv"])
@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda text: text[:-40], r"its row \d+ has another number of columns than its head"),
        (lambda text: text.replace("lmdb_path", "path", 1), "is a table without the column 'lmdb_path'"),
        (lambda text: text.replace("psds1", "psds2", 1), "has the column 'psds2' twice"),
        (lambda text: "", "is empty, and a results table was expected"),
    ],
)
def test_spoilt_tables_of_events_are_refused_and_stay(corpus, scored_events, tmp_path, name, spoil, message):
    """Where all is scored already, and where it is scored anew."""
    for table in scored_events.glob("results*.csv"):
        shutil.copy(table, tmp_path)
    whole = (tmp_path / name).read_text()
    (tmp_path / name).write_text(spoil(whole))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert spoil(whole) != whole
    words = scoring_events(corpus, tmp_path / "results.csv", scored_events / "e.ckpt")
    line = error_line(run_script(*words))
    assert re.search(rf"{re.escape(str(tmp_path / name))}: {message}", line), line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    line = error_line(run_script(*words, "--overwrite"))
    assert re.search(rf"{re.escape(str(tmp_path / name))}: {message}", line), line
    assert all((tmp_path / each).read_bytes() == before[each] for each in (name, "results.csv"))


def test_too_little_memory_is_told_in_a_line(corpus, trained, tmp_path):
    result = evaluate(corpus, tmp_path, a_checkpoint(trained), "--num_timesteps", "1e17")
    assert "out of memory" in error_line(result)


def test_a_value_of_any_length_makes_a_line_of_some_length(corpus, tmp_path):
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", "--set", f"model.arch={'x' * 50_000}")))
    assert "model.arch is 'xxx" in line and len(line) < 2000


@pytest.mark.processes
@pytest.mark.parametrize("odd", ODD_EVENTS, ids=lambda odd: repr(odd)[:30])
def test_odd_events_are_findings_and_end_nothing(corpus, tmp_path, odd):
    path = Path(shutil.copy(corpus / "eval.lmdb", tmp_path / "a.lmdb"))
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 26) as env, env.begin(write=True) as transaction:
        events = msgpack.unpackb(transaction.get(EVENTS))
        events[3] = [odd]
        transaction.put(EVENTS, msgpack.packb(events))
    found = check([path])
    (line,) = [line for line in found.errors + found.warnings if "without an event" not in line]
    assert "\n" not in line and len(line) < 200_000
    source = f"{path}:3"
    if "events that cannot be read" in line:
        with pytest.raises(UserError, match=r"a\.lmdb: its __events__ entry cannot be read\. The file is damaged"):
            load_soundscape(source)
    else:
        assert "record 3: " in line and load_soundscape(source).events[0].label == odd[2]
    assert len(LMDBReader(path).annotations()) == 6
