"""What counts as scored already: the contents of checkpoint and LMDB decide, and not their names or times."""

import csv
import json
import os
import re
import shutil
import warnings

import pytest
import torch
from conftest import ROOT, error_line, run_script

from src.data.lmdb.fingerprint import fingerprint
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.evaluation import EvaluationOptions, evaluate
from src.models.torch_files import torch_file_digest
from src.scoring import predictions as scoring
from src.scoring.comparison import compare
from src.scoring.predictions import InferenceOptions

pytestmark = pytest.mark.processes


def checkpoints(trained):
    """Two of one run, with other weights."""
    return sorted((trained / "r1" / "mixup" / "tiny" / "train_8" / "ckpts").glob("*.ckpt"))


@pytest.fixture
def files(corpus, trained, tmp_path):
    """A checkpoint x.ckpt and an LMDB x.lmdb, and one of each that is older by its time."""
    old, new = checkpoints(trained)
    for source, name in ((new, "run/ckpts/x.ckpt"), (old, "old.ckpt"), (corpus / "eval.lmdb", "x.lmdb")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / name)
    shutil.copy(corpus / "val.lmdb", tmp_path / "old.lmdb")
    for name in ("old.ckpt", "old.lmdb"):
        os.utime(tmp_path / name, (1, 1))
    return tmp_path


def scoring_words(corpus, folder, *more):
    return (
        *("eval_gise_mixtures.py", "--ckpt_path", folder / "run/ckpts/x.ckpt", "--lmdb_path", folder / "x.lmdb"),
        *("--lbl_map", corpus / "meta/lbl_map.json", "--num_workers", 0, "--num_timesteps", 64),
        *("--results_csv", folder / "r.csv", *more),
    )


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def moved_lmdb(files):
    os.rename(files / "old.lmdb", files / "x.lmdb")


def copied_lmdb(files):
    """In place, with the time of its source."""
    times = os.stat(files / "old.lmdb")
    (files / "x.lmdb").write_bytes((files / "old.lmdb").read_bytes())
    os.utime(files / "x.lmdb", ns=(times.st_atime_ns, times.st_mtime_ns))


def linked_lmdb(files):
    (files / "x.lmdb").unlink()
    (files / "x.lmdb").symlink_to("old.lmdb")


def moved_checkpoint(files):
    os.rename(files / "old.ckpt", files / "run/ckpts/x.ckpt")


def copied_checkpoint(files):
    shutil.copy2(files / "old.ckpt", files / "run/ckpts/x.ckpt")


def both(files):
    moved_lmdb(files)
    moved_checkpoint(files)


SWAPS = [moved_lmdb, copied_lmdb, linked_lmdb, moved_checkpoint, copied_checkpoint, both]


def without_times(rows):
    return [row | {"evaluated": ""} for row in rows]


@pytest.mark.parametrize("swap", SWAPS)
def test_another_file_under_the_same_name_is_scored(corpus, files, swap):
    words = scoring_words(corpus, files, "--per_class", "--overlap_analysis", "--bootstrap", 5)
    run_script(*words, check=0)
    tables = ("r.csv", "r_per_class.csv", "r_overlap.csv")
    before = {name: without_times(rows_of(files / name)) for name in tables}
    assert "already holds 1 of 1" in run_script(*words, check=0).stderr
    swap(files)
    assert "already holds" not in run_script(*words, check=0).stderr
    (row,) = rows_of(files / "r.csv")
    assert row["eval_data"] == fingerprint(LMDBReader(files / "x.lmdb"))
    assert row["ckpt_digest"] == torch_file_digest(files / "run/ckpts/x.ckpt")
    after = {name: without_times(rows_of(files / name)) for name in tables}
    for name in tables:
        (files / name).unlink()
    run_script(*words, check=0)  # into new tables
    assert after == {name: without_times(rows_of(files / name)) for name in tables}
    assert after["r.csv"] != before["r.csv"] and after["r_per_class.csv"] != before["r_per_class.csv"]
    assert "already holds 1 of 1" in run_script(*words, check=0).stderr


def test_files_that_were_only_touched_moved_or_linked_are_not_scored_again(corpus, files):
    words = scoring_words(corpus, files)
    run_script(*words, check=0)
    for name in ("run/ckpts/x.ckpt", "x.lmdb"):
        os.utime(files / name)
        os.link(files / name, files / "link")
        os.rename(files / "link", files / f"{name}.old")
        shutil.copy(files / f"{name}.old", files / "copy")
        os.rename(files / "copy", files / name)
        assert "already holds 1 of 1" in run_script(*words, check=0).stderr


@pytest.mark.parametrize("gone", ["run/ckpts/x.ckpt", "x.lmdb"])
def test_a_row_of_a_file_that_is_gone_is_not_reported_as_its_score(corpus, files, gone):
    run_script(*scoring_words(corpus, files), check=0)
    (files / gone).unlink()
    assert os.path.basename(gone) in error_line(run_script(*scoring_words(corpus, files)))


@pytest.mark.parametrize("column", ["eval_data", "labels_digest", "ckpt_digest"])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_row_that_does_not_say_what_it_is_of_is_made_anew(corpus, files, column, how):
    run_script(*scoring_words(corpus, files), check=0)
    (row,) = expected = rows_of(files / "r.csv")
    row = {name: value for name, value in row.items() if name != column} | ({column: ""} if how == "empty" else {})
    with open(files / "r.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerow(row)
    assert "already holds" not in run_script(*scoring_words(corpus, files), check=0).stderr
    assert sorted(without_times(rows_of(files / "r.csv"))[0].items()) == sorted(without_times(expected)[0].items())


@pytest.mark.parametrize("flag, table", [("--per_class", "r_per_class.csv"), ("--overlap_analysis", "r_overlap.csv")])
def test_a_table_beside_it_of_another_time_is_made_anew(corpus, files, flag, table):
    run_script(*scoring_words(corpus, files, flag), check=0)
    shutil.copy(files / table, files / "kept.csv")
    moved_checkpoint(files)
    run_script(*scoring_words(corpus, files, flag), check=0)
    expected = rows_of(files / table)
    shutil.copy(files / "kept.csv", files / table)
    run_script(*scoring_words(corpus, files, flag), check=0)
    assert rows_of(files / table) == expected != rows_of(files / "kept.csv")


def test_exported_weights_of_another_checkpoint_are_not_taken_for_its_own(corpus, files):
    words = scoring_words(corpus, files, "--export_weights", "--export_dir", files / "weights")
    run_script(*words, check=0)
    (exported,) = (files / "weights").rglob("*.pth")
    own = exported.read_bytes()
    assert "already holds 1 of 1" in run_script(*words, check=0).stderr
    torch.save({"other": torch.zeros(3)}, exported)
    os.utime(exported, (1, 1))
    run_script(*words, check=0)
    assert exported.read_bytes() == own
    exported.unlink()
    run_script(*words, check=0)
    assert exported.read_bytes() == own


def test_an_untrained_network_is_scored_again_with_another_seed_or_start(corpus, trained, files):
    words = scoring_words(corpus, files, "--untrained")
    run_script(*words, check=0)
    moved_checkpoint(files)  # of the same run: the same beginning
    assert "already holds 1 of 2" in run_script(*words, check=0).stderr
    content = torch.load(files / "run/ckpts/x.ckpt", weights_only=True)
    content["hyper_parameters"]["seed"] += 1
    torch.save(content, files / "run/ckpts/x.ckpt")
    before = rows_of(files / "r.csv")
    assert "already holds" not in run_script(*words, check=0).stderr
    assert [row["ckpt_digest"] for row in rows_of(files / "r.csv")] != [row["ckpt_digest"] for row in before]


@pytest.mark.parametrize("swap, name", [(moved_lmdb, "x.lmdb"), (copied_lmdb, "x.lmdb"), (moved_checkpoint, "x.ckpt")])
def test_a_file_that_is_replaced_while_it_is_scored_gives_no_row(corpus, files, monkeypatch, swap, name):
    options = EvaluationOptions(
        *(str(files / "x.lmdb"), str(corpus / "meta/lbl_map.json"), 64),
        **{"num_workers": 0, "results_csv": str(files / "r.csv"), "ckpt_path": str(files / "run/ckpts/x.ckpt")},
    )
    make, swapped = scoring.batches_of, []

    def swapping(*arguments):
        if not swapped:
            swapped.append(swap(files))
        return make(*arguments)

    monkeypatch.setattr(scoring, "batches_of", swapping)
    with pytest.raises(UserError, match=f"{name}: was (replaced|written into)"):
        evaluate(options)
    assert not (files / "r.csv").exists()
    evaluate(options)
    assert len(rows_of(files / "r.csv")) == 1


def test_two_checkpoints_are_compared_on_one_lmdb(corpus, files, monkeypatch):
    """Those of other features are scored one after the other, and the file may be replaced between."""
    content = torch.load(files / "old.ckpt", weights_only=True)
    content["hyper_parameters"]["cfg"]["audio_config"]["win_len"] = 400
    torch.save(content, files / "other.ckpt")
    opened, open_for = [], scoring.open_for

    def opening(*arguments):
        if opened:
            moved_lmdb(files)
        opened.append(True)
        return open_for(*arguments)

    monkeypatch.setattr(scoring, "open_for", opening)
    options = InferenceOptions(str(files / "x.lmdb"), str(corpus / "meta/lbl_map.json"), 64, num_workers=0)
    with pytest.raises(UserError, match=r"x.lmdb: was (replaced|written into)"):
        compare(str(files / "run/ckpts/x.ckpt"), str(files / "other.ckpt"), options, 3, 0)


def test_a_summary_does_not_mix_rows_of_two_files_of_one_name(corpus, files):
    run_script(*scoring_words(corpus, files), check=0)
    rows = rows_of(files / "r.csv")
    moved_lmdb(files)
    run_script(*scoring_words(corpus, files), check=0)
    now = rows_of(files / "r.csv")
    other = {"ckpt_path": now[0]["ckpt_path"].replace("/run/", "/r2/run/")}
    for name, second in (("one", rows[0]), ("two", now[0])):
        with open(files / "both.csv", "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(now[0]))
            writer.writeheader()
            writer.writerows([now[0] | {"ckpt_path": other["ckpt_path"].replace("r2", "r1")}, second | other])
        result = run_script("scripts/summarise_results.py", files / "both.csv", "--out_dir", files / name, check=0)
        summary = rows_of(files / name / "summary.csv")
        assert [row["runs"] for row in summary] == (["1", "1"] if name == "one" else ["2"])
        shown = [row["eval_data"][:12] in result.stdout for row in summary]
        assert all(shown) if name == "one" else not any(shown)


# ---- the digest ----


def test_a_digest_tells_contents_and_not_names_or_times(tmp_path):
    torch.save({"a": torch.arange(1000)}, tmp_path / "one.pth")
    torch.save({"a": torch.arange(1000)}, tmp_path / "again.pth")
    torch.save({"a": torch.arange(1, 1001)}, tmp_path / "other.pth")
    torch.save({"b": torch.arange(1000)}, tmp_path / "renamed.pth")
    digests = [torch_file_digest(tmp_path / f"{name}.pth") for name in ("one", "again", "other", "renamed")]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)


def test_a_digest_of_a_file_of_before_zip_is_of_all_its_bytes(tmp_path):
    for name, start in (("one", 0), ("other", 1)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = {"a": torch.arange(start, 1000)}
            torch.save(content, tmp_path / name, _use_new_zipfile_serialization=False)
    assert torch_file_digest(tmp_path / "one") != torch_file_digest(tmp_path / "other")
    shutil.copy(tmp_path / "one", tmp_path / "copy")
    assert torch_file_digest(tmp_path / "one") == torch_file_digest(tmp_path / "copy")


def test_another_label_map_gives_other_figures(tmp_path):
    """The checkpoints of 2021 carry none, so that the one given decides what their outputs mean."""
    fixtures = ROOT / "tests" / "fixtures"
    names = json.loads((fixtures / "lbl_map.json").read_text())
    last = len(names) - 1
    for name, mapping in (("map.json", names), ("other.json", {name: last - index for name, index in names.items()})):
        (tmp_path / name).write_text(json.dumps(mapping))
    words = [
        *("eval_gise_mixtures.py", "--ckpt_path", fixtures / "released_cifar_resnet_20.ckpt", "--num_workers", 0),
        *("--lmdb_path", fixtures / "released_mixtures_layout.lmdb", "--results_csv", tmp_path / "r.csv"),
        *("--num_timesteps", 64, "--lbl_map", tmp_path / "map.json"),
    ]
    run_script(*words, check=0)
    assert "already holds 1 of 1" in run_script(*words, check=0).stderr
    before = rows_of(tmp_path / "r.csv")
    shutil.copy(tmp_path / "other.json", tmp_path / "map.json")
    assert "already holds" not in run_script(*words, check=0).stderr
    assert rows_of(tmp_path / "r.csv")[0]["mAP"] != before[0]["mAP"]
