"""Thresholds from training to a table of decisions, through the commands that users type."""

import csv
import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import (
    CLASSES,
    FIXTURES,
    ROOT,
    SAMPLE_RATE,
    cfg_tree,
    error_line,
    run_script,
    train_command,
    write_cfg,
    write_lbl_map,
    write_soundscape,
)
from released import CKPT, LMDB, clip
from scipy.special import logit

from src.errors import UserError
from src.learning.thresholds import choose
from src.models.checkpoint import keep_decisions, read_checkpoint
from src.models.decisions import DECISIONS
from src.models.safe_loading import read_torch_file
from src.models.torch_files import torch_file_digest, write_torch_file
from src.runs.folder import best
from src.scoring.predictions import Candidate, InferenceOptions, predictions
from src.tagging.tagger import Tagger

FRAMES = ("--num_timesteps", 64, "--num_workers", 0)


@pytest.fixture
def run(trained, tmp_path):
    """A run folder of a test's own, and its best checkpoint."""
    folder = shutil.copytree(trained / "r1/mixup/tiny/train_8", tmp_path / "run")
    return folder, best((folder / "ckpts").glob("*.ckpt"))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def calibrate(corpus, folder, *more, check=0):
    words = ("--ckpt_path", folder, "--lmdb_path", corpus / "val.lmdb", *FRAMES, *more)
    return run_script("scripts/calibrate.py", *words, check=check)


def evaluate(corpus, path, table, *more):
    words = ("--ckpt_path", path, "--lmdb_path", corpus / "eval.lmdb", "--results_csv", table, *FRAMES, *more)
    run_script("eval_gise_mixtures.py", *words, check=0)
    return rows_of(table)


def scored(path, lmdb_path):
    (found,) = predictions([Candidate(path)], InferenceOptions(str(lmdb_path), num_timesteps=64, num_workers=0))
    return found


def same_but_for_decisions(one, other):
    """Whether two checkpoints hold the same, to the last bit."""
    first, second = (read_torch_file(path, "a checkpoint") for path in (one, other))
    first.pop(DECISIONS, None), second.pop(DECISIONS, None)
    return same(first, second)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one


# ---- chosen in training ----


def test_every_checkpoint_has_the_thresholds_of_its_own_validation(corpus, trained):
    for path in sorted((trained / "r1").rglob("*.ckpt")):
        decisions, found = read_checkpoint(path).decisions, scored(path, corpus / "val.lmdb")
        assert decisions.by == "F1" and decisions.temperature == 1.0
        again = choose(found.probabilities, found.multi_hot)  # of other batches: the last bits may differ
        assert decisions.thresholds == pytest.approx(again.thresholds, rel=1e-3)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_class_without_validation_clips_has_no_threshold_and_is_never_present(corpus, tmp_path, kind):
    """It is named in training, and its cells in the tables are empty."""
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for number in range(8):
            label = CLASSES[number % (3 if part == "train" else 2)]
            shutil.copy(corpus / "train" / "s000.flac", tmp_path / part / f"{number}.flac")
            (tmp_path / part / f"{number}.txt").write_text(f"0\t0.5\t{label}\n")
        words = ("--lmdb_path", tmp_path / f"{part}.lmdb", "--audio_min_duration", 0.5)
        run_script("pack_mixtures_into_lmdb.py", "--mixture_dir", tmp_path / part, *words, check=0)
    write_lbl_map(tmp_path / "meta" / "lbl_map.json")
    tree = cfg_tree(tmp_path)
    tree["model"]["type"] = kind
    script = "train_gise_mixtures.py" if kind == "multilabel" else "train_classifier.py"
    words = train_command(tmp_path, tmp_path / "run", script=script, cfg=write_cfg(tmp_path / "a.cfg", tree))
    result = run_script(*words, check=0)
    assert "validation set: no threshold for 1 of the 3 classes, never decided present: Organ" in result.stderr
    (path,) = (tmp_path / "run" / "ckpts").glob("*.ckpt")
    assert read_checkpoint(path).decisions.thresholds[2] is None
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE), SAMPLE_RATE)
    words = ("--ckpt_path", path, "--audio", tmp_path / "a.wav", "--decisions", tmp_path / "d.csv")
    run_script("predict.py", *words, check=0)
    (organ,) = [row for row in rows_of(tmp_path / "d.csv") if row["class"] == "Organ"]
    assert organ["threshold"] == "" and organ["decision"] == "absent"
    if kind == "multilabel":  # the evaluation clips have several classes
        evaluate(corpus, path, tmp_path / "r.csv", "--per_class")
        (organ,) = [row for row in rows_of(tmp_path / "r_per_class.csv") if row["class"] == "Organ"]
        assert organ["AP"] and not any(organ[name] for name in ("threshold", "precision", "recall", "F1"))


# ---- in the tables of an evaluation ----


def test_precision_recall_and_f1_stand_in_both_tables(corpus, run, tmp_path):
    _, path = run
    (row,) = evaluate(corpus, path, tmp_path / "r.csv", "--per_class")
    found = scored(path, corpus / "eval.lmdb")
    present, truth = found.decisions.present(found.probabilities), found.multi_hot == 1
    per_class = {each["class"]: each for each in rows_of(tmp_path / "r_per_class.csv")}
    scores = []
    for c, name in enumerate(CLASSES):
        right = (present[:, c] & truth[:, c]).sum()
        precision, recall = right / max(present[:, c].sum(), 1), right / truth[:, c].sum()
        f1 = 2 * precision * recall / (precision + recall) if right else 0
        scores.append((precision, recall, f1))
        cells = [float(per_class[name][column]) for column in ("precision", "recall", "F1")]
        assert cells == pytest.approx(scores[-1])
        assert float(per_class[name]["threshold"]) == found.decisions.thresholds[c]
    cells = [float(row[column]) for column in ("precision", "recall", "F1")]
    assert cells == pytest.approx(np.mean(scores, axis=0))
    columns = list(row)
    assert columns.index("top5") < columns.index("precision") < columns.index("F1") < columns.index("weights_digest")
    assert "ece" not in row
    run_script("scripts/summarise_results.py", tmp_path / "r.csv", "--out_dir", tmp_path / "summary", check=0)


def test_without_thresholds_the_cells_are_empty(run, corpus, tmp_path):
    """Of checkpoints of an earlier version, and of those of 2021."""
    _, path = run
    content = read_torch_file(path, "a checkpoint")
    del content[DECISIONS]
    write_torch_file(path, content)
    (row,) = evaluate(corpus, path, tmp_path / "r.csv", "--per_class")
    assert row["mAP"] and not any(row[name] for name in ("precision", "recall", "F1"))
    assert not any(each["threshold"] or each["F1"] for each in rows_of(tmp_path / "r_per_class.csv"))
    words = ("--ckpt_path", CKPT, "--lbl_map", FIXTURES / "lbl_map.json", "--lmdb_path", LMDB, "--num_workers", 0)
    run_script("eval_gise_mixtures.py", *words, "--results_csv", tmp_path / "old.csv", check=0)
    assert rows_of(tmp_path / "old.csv")[0]["F1"] == ""


def test_an_untrained_network_has_neither_thresholds_nor_temperature(run, corpus, tmp_path):
    folder, _ = run
    words = ("--exp_dir", folder, "--untrained", "--best_only", "--calibration", "--lmdb_path", corpus / "eval.lmdb")
    tables = []
    for name in ("before.csv", "after.csv"):
        run_script("eval_gise_mixtures.py", *words, *FRAMES, "--results_csv", tmp_path / name, check=0)
        tables.append(rows_of(tmp_path / name))
        calibrate(corpus, folder, "--temperature")
    (untrained, trained), (untrained_after, trained_after) = tables
    assert untrained["ckpt_path"].endswith("untrained") and untrained["F1"] == untrained_after["F1"] == ""
    assert untrained["ece"] == untrained_after["ece"] and trained["ece"] != trained_after["ece"]
    assert trained["F1"] and trained_after["F1"]


def test_the_calibration_error_and_its_picture_are_made_on_request_and_anew_if_one_is_gone(corpus, run, tmp_path):
    _, path = run
    (before,) = evaluate(corpus, path, tmp_path / "r.csv")
    (row,) = evaluate(corpus, path, tmp_path / "r.csv", "--calibration")
    assert 0 <= float(row["ece"]) <= 1 and row["evaluated"] > before["evaluated"]
    assert {name: row[name] for name in before if name != "evaluated"} == {
        name: value for name, value in before.items() if name != "evaluated"
    }
    (picture,) = tmp_path.glob("r_reliability_*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    (again,) = evaluate(corpus, path, tmp_path / "r.csv", "--calibration")
    assert again == row
    picture.unlink()
    (again,) = evaluate(corpus, path, tmp_path / "r.csv", "--calibration")
    assert again["ece"] == row["ece"] and again["evaluated"] > row["evaluated"] and picture.is_file()


# ---- chosen anew ----


def test_calibrate_writes_thresholds_and_temperature_and_leaves_all_else(corpus, run, tmp_path):
    folder, path = run
    shutil.copy(path, tmp_path / "before.ckpt")
    found = scored(path, corpus / "val.lmdb")
    result = calibrate(corpus, folder, "--temperature", "--json", tmp_path / "c.json", "--plot", tmp_path / "p.png")
    told = json.loads((tmp_path / "c.json").read_text())
    decisions = read_checkpoint(path).decisions
    assert same_but_for_decisions(tmp_path / "before.ckpt", path)
    assert decisions.as_dict() == {name: told[name] for name in ("by", "thresholds", "temperature")}
    assert decisions.temperature != 1 and told["ece"] != told["ece_before"]
    probabilities = (found.logits / decisions.temperature).sigmoid().numpy()
    assert decisions == choose(probabilities, found.multi_hot, temperature=decisions.temperature)
    assert np.array_equal(scored(path, corpus / "val.lmdb").probabilities, probabilities)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    table = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    assert table[0][0] == "| class" and [row[0] for row in table[2:]] == ["| Drum", "| Harp", "| Organ"]
    assert result.stdout.count("expected calibration error") == 2
    # Without --temperature it stays, and thresholds chosen for it are the same ones.
    calibrate(corpus, path)
    assert read_checkpoint(path).decisions == decisions
    assert not [file for file in path.parent.iterdir() if file.suffix != ".ckpt"]


def test_the_temperature_divides_logits_in_tagging_as_in_evaluation(corpus, run, tmp_path):
    _, path = run
    before = Tagger(path, window=0.65)(corpus / "eval" / "s001.flac").scores
    calibrate(corpus, path, "--temperature")
    after = Tagger(path, window=0.65)(corpus / "eval" / "s001.flac").scores
    temperature = read_checkpoint(path).temperature
    logits = logit(before.astype(np.float64))
    known = np.abs(logits) < 12  # float32 probabilities nearer to 0 or 1 have no logits to speak of
    assert known.any() and after[known] == pytest.approx(1 / (1 + np.exp(-logits / temperature))[known], abs=1e-3)


def test_a_precision_is_reached_where_it_can_be_and_else_the_class_is_named(corpus, run, tmp_path):
    _, path = run
    result = calibrate(corpus, path, "--precision", 0.9, "--json", tmp_path / "c.json")
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["by"] == read_checkpoint(path).decisions.by == "precision 0.9"
    short = [row["class"] for row in told["classes"] if row["precision"] < 0.9]
    assert short and f"a precision of 0.9 is not reached by {', '.join(short)}" in result.stderr
    for share, fault in (
        (90, "90 is above 1"),
        (0, "0 is not a number above 0"),
        ("nan", "nan is not a number above 0"),
    ):
        assert fault in calibrate(corpus, path, "--precision", share, check=2).stderr
    for value, fault in (
        ("nan", "nan is not a finite number"),
        ("-inf", "-inf is not a"),
        ("x", "'x' is not a number"),
    ):
        words = ("--ckpt_path", path, "--audio", corpus / "eval", f"--threshold={value}")
        assert fault in run_script("predict.py", *words, check=2).stderr
    line = error_line(calibrate(corpus, path, "--plot", tmp_path / "out.xyz", check=1))
    assert "out.xyz: a picture ends in .png" in line


def test_a_run_is_resumed_from_a_calibrated_checkpoint_as_from_the_one_before(corpus, tmp_path):
    for name in ("plain", "calibrated"):
        run_script(*train_command(corpus, tmp_path / name, epochs=1), check=0)
    calibrate(corpus, tmp_path / "calibrated", "--temperature", "--precision", 0.7)
    for name in ("plain", "calibrated"):
        run_script(*train_command(corpus, tmp_path / name, epochs=2), check=0)
    ends = [next((tmp_path / name / "ckpts").glob("epoch=01*")) for name in ("plain", "calibrated")]
    assert ends[0].name == ends[1].name
    contents = [read_torch_file(path, "a checkpoint") for path in ends]
    for name in ("state_dict", "optimizer_states", DECISIONS):
        assert same(contents[0][name], contents[1][name])
    tables = [(tmp_path / name / "logs" / "metrics.csv").read_text() for name in ("plain", "calibrated")]
    assert tables[0] == tables[1]


def test_a_copy_leaves_the_checkpoint_as_it_is(corpus, run, tmp_path):
    _, path = run
    digest = torch_file_digest(path)
    calibrate(corpus, path, "--precision", 0.5, "--output", tmp_path / "copy.ckpt")
    assert torch_file_digest(path) == digest and same_but_for_decisions(path, tmp_path / "copy.ckpt")
    assert read_checkpoint(tmp_path / "copy.ckpt").decisions.by == "precision 0.5"


def test_a_checkpoint_of_2021_is_left_alone_and_its_copy_decides(tmp_path):
    shutil.copy(CKPT, tmp_path / "old.ckpt")
    own = ("--ckpt_path", tmp_path / "old.ckpt", "--lbl_map", FIXTURES / "lbl_map.json")
    words = (*own, "--lmdb_path", LMDB, "--num_workers", 0)
    line = error_line(run_script("scripts/calibrate.py", *words))
    assert "old.ckpt: was released in 2021, and is left as it is. Give --output" in line
    assert (tmp_path / "old.ckpt").read_bytes() == CKPT.read_bytes()
    run_script("scripts/calibrate.py", *words, "--temperature", "--output", tmp_path / "new.ckpt", check=0)
    old, new = read_checkpoint(CKPT), read_checkpoint(tmp_path / "new.ckpt")
    assert same(old.weights, new.weights) and old.config == new.config and new.label_map is None
    assert old.record["seed"] == new.record["seed"] and len(new.decisions.thresholds) == 18
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    flags = ("--audio", tmp_path / "a.wav", "--decisions", tmp_path / "d.csv")
    run_script("predict.py", "--ckpt_path", tmp_path / "new.ckpt", *own[2:], *flags, check=0)
    assert len(rows_of(tmp_path / "d.csv")) == 18
    line = error_line(run_script("predict.py", *own, *flags))
    assert "old.ckpt has no thresholds to decide by" in line and "scripts/calibrate.py" in line
    assert len(rows_of(tmp_path / "d.csv")) == 18  # the table of before


# ---- recordings ----


@pytest.fixture
def recordings(corpus, tmp_path):
    """Two recordings of several windows, and one that is none."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in ("a", "b,c"):
        parts = [soundfile.read(corpus / "eval" / f"s00{number}.flac")[0] for number in range(len(name) + 1)]
        soundfile.write(folder / f"{name}.wav", np.concatenate(parts), SAMPLE_RATE)
    (folder / "broken.wav").write_text("none")
    return folder


def test_decisions_and_summary_have_the_strongest_window(corpus, run, recordings, tmp_path):
    _, path = run
    tables = ("--csv", tmp_path / "s.csv", "--decisions", tmp_path / "d.csv", "--summary", tmp_path / "t.csv")
    windows = ("--window", 0.65, "--hop", 0.3)
    result = run_script("predict.py", "--ckpt_path", path, "--audio", recordings, *windows, *tables)
    assert "1 of 3 recordings could not be read" in error_line(result)
    strongest = {}
    for row in rows_of(tmp_path / "s.csv"):
        key = row["file"], row["class"]
        strongest[key] = max(strongest.get(key, 0), float(row["score"]))
    assert len(strongest) == 6 and {file for file, _ in strongest} == {f"{recordings}/a.wav", f"{recordings}/b,c.wav"}
    thresholds = dict(zip(CLASSES, read_checkpoint(path).decisions.thresholds))
    decided = rows_of(tmp_path / "d.csv")
    assert [(row["file"], row["class"]) for row in decided] == list(strongest)
    for row in decided:
        assert float(row["score"]) == pytest.approx(strongest[row["file"], row["class"]], abs=1e-6)
        assert np.float32(row["threshold"]) == np.float32(thresholds[row["class"]])
        assert row["decision"] == ("present" if float(row["score"]) >= float(row["threshold"]) else "absent")
    assert {row["decision"] for row in decided} == {"present", "absent"}
    summary = rows_of(tmp_path / "t.csv")
    assert list(summary[0]) == ["file", *CLASSES]
    assert [row["file"] for row in summary] == sorted({file for file, _ in strongest})
    for row in summary:
        assert all(float(row[name]) == strongest[row["file"], name] for name in CLASSES)
    shown = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    said = [line.split("(")[1].split(",")[0] for line in shown]
    assert sorted(said) == sorted(row["decision"] for row in decided)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.999, 1.1])
def test_a_threshold_filters_the_table_as_the_screen(run, recordings, tmp_path, threshold):
    _, path = run
    words = ("predict.py", "--ckpt_path", path, "--audio", recordings / "a.wav", "--window", 0.65, "--hop", 0.3)
    run_script(*words, "--csv", tmp_path / "all.csv", "--summary", tmp_path / "t.csv", check=0)
    result = run_script(*words, "--csv", tmp_path / "s.csv", "--threshold", threshold, check=0)
    rows = rows_of(tmp_path / "all.csv")
    assert rows_of(tmp_path / "s.csv") == [row for row in rows if float(row["score"]) >= threshold]
    shown = {line.split()[1] for line in result.stdout.splitlines() if line.startswith("  ")}
    assert shown == {row["class"] for row in rows if float(row["score"]) >= threshold}
    assert (tmp_path / "s.csv").read_text().startswith("file,start,end,class,score")


def test_a_summary_with_a_class_called_as_its_first_column_is_refused(run, recordings, tmp_path):
    _, path = run
    content = read_torch_file(path, "a checkpoint")
    names = {"file": 0, "a,b": 1, 'say "x"': 2}
    content["hyper_parameters"]["lbl_map"] = names
    write_torch_file(path, content)
    words = ("predict.py", "--ckpt_path", path, "--audio", recordings / "a.wav")
    line = error_line(run_script(*words, "--summary", tmp_path / "t.csv"))
    assert "--summary: a class is called 'file'" in line and not (tmp_path / "t.csv").exists()
    content["hyper_parameters"]["lbl_map"] = {"File": 0, "a,b": 1, 'say "x"': 2}
    write_torch_file(path, content)
    run_script(*words, "--summary", tmp_path / "t.csv", "--decisions", tmp_path / "d.csv", check=0)
    assert list(rows_of(tmp_path / "t.csv")[0]) == ["file", "File", "a,b", 'say "x"']
    assert [row["class"] for row in rows_of(tmp_path / "d.csv")] == ["File", "a,b", 'say "x"']


def test_a_checkpoint_that_cannot_be_written_back_is_as_it_was(corpus, run):
    """A limit on the size of files stands for the disk's end."""
    folder, path = run
    before = path.read_bytes()
    words = ("--ckpt_path", path, "--lmdb_path", corpus / "val.lmdb", *FRAMES)
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/calibrate.py", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert f"{path}: File too large" in error_line(result)
    assert path.read_bytes() == before and not list(folder.rglob("*.partial"))


def test_clips_without_any_class_choose_nothing(run, tmp_path):
    _, path = run
    before = path.read_bytes()
    write_soundscape(tmp_path / "mix", "a", [])
    words = ("--mixture_dir", tmp_path / "mix", "--lmdb_path", tmp_path / "none.lmdb", "--audio_min_duration", 0.5)
    run_script("pack_mixtures_into_lmdb.py", *words, "--allow_empty", check=0)
    words = ("--ckpt_path", path, "--lmdb_path", tmp_path / "none.lmdb", *FRAMES)
    assert "none.lmdb: has no clip of any class" in error_line(run_script("scripts/calibrate.py", *words))
    assert path.read_bytes() == before


def test_a_checkpoint_that_was_replaced_meanwhile_is_not_written_over(run):
    folder, path = run
    checkpoint = read_checkpoint(path)
    other = next(file for file in (folder / "ckpts").iterdir() if file != path)
    shutil.copy(other, path)
    with pytest.raises(UserError, match="was replaced while it was in use"):
        keep_decisions(checkpoint, checkpoint.decisions)
    assert path.read_bytes() == other.read_bytes()
