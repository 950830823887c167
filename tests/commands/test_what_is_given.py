"""Commands that know what they are given: a checkpoint's own classes, run folders and folders of them."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from conftest import SAMPLE_RATE, error_line, run_script

from src.models.registry import create
from src.runs.folder import best

EVALUATIONS = ("eval_gise_mixtures.py", "eval_all_mixtures.py", "eval_vggsound.py")


def evaluate(script, corpus, folder, *flags, check=0):
    """Rows of a new results table, by checkpoint. The current folder has no meta/ in it."""
    arguments = ("--lmdb_path", corpus / "eval.lmdb", "--results_csv", folder / "r.csv", "--num_workers", 0, *flags)
    result = run_script(script, *arguments, check=check, cwd=folder)
    if check:
        return result
    with open(folder / "r.csv", newline="") as stream:
        return {row["ckpt_path"]: row for row in csv.DictReader(stream)}


@pytest.mark.parametrize("script", EVALUATIONS)
def test_evaluation_takes_a_run_folder_and_folders_at_any_depth(corpus, trained, tmp_path, script):
    run = trained / "r1/mixup/tiny/train_4"
    every = evaluate(script, corpus, tmp_path, "--exp_dir", trained)
    assert len(every) == 4 and {row["num_classes"] for row in every.values()} == {"3"}
    own = evaluate(script, corpus, tmp_path, "--exp_dir", run, "--results_csv", tmp_path / "own.csv", "--overwrite")
    assert own == every  # of --results_csv, the last counts
    with open(tmp_path / "own.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 and all(row["mAP"] == every[row["ckpt_path"]]["mAP"] for row in rows)


@pytest.mark.parametrize("named", ["", "ckpts"])
def test_a_run_folder_is_its_best_checkpoint(corpus, trained, tmp_path, named):
    run = trained / "r1/mixup/tiny/train_8"
    chosen = best((run / "ckpts").glob("*.ckpt"))
    rows = evaluate("eval_gise_mixtures.py", corpus, tmp_path, "--ckpt_path", run / named)
    assert list(rows) == [str(chosen)]
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE), SAMPLE_RATE)
    tables = []
    for path in (run / named, chosen):
        run_script("predict.py", "--ckpt_path", path, "--audio", "a.wav", "--csv", "p.csv", check=0, cwd=tmp_path)
        tables.append((tmp_path / "p.csv").read_text())
    assert tables[0] == tables[1]
    pair = ("--ckpt_path", run / named, "--other_ckpt_path", chosen, "--lmdb_path", corpus / "eval.lmdb")
    run_script("scripts/compare_checkpoints.py", *pair, "--json", "c.json", "--num_workers", 0, check=0, cwd=tmp_path)
    assert all(row["first"] == row["second"] for row in json.loads((tmp_path / "c.json").read_text()))


def test_folders_without_checkpoints_are_refused_by_name(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    fault = "empty: is a folder without checkpoints"
    assert fault in error_line(evaluate("eval_gise_mixtures.py", corpus, tmp_path, "--ckpt_path", "empty", check=1))
    assert fault in error_line(run_script("predict.py", "--ckpt_path", "empty", "--audio", "a.wav", cwd=tmp_path))
    pair = ("--ckpt_path", "empty", "--other_ckpt_path", "empty", "--lmdb_path", corpus / "eval.lmdb")
    assert fault in error_line(run_script("scripts/compare_checkpoints.py", *pair, cwd=tmp_path))


@pytest.mark.parametrize("classes", [51, 7])
def test_a_checkpoint_of_2021_with_51_classes_has_those_of_gise_51(tmp_path, classes):
    model = {"arch": "cifar_resnet", "model_depth": 20, "num_classes": classes, "type": "multilabel"}
    cfg = {"model": model, "opt": {"optimizer": "Adam", "lr": "1e-3", "batch_size": 32}, "audio_config": {}}
    state = {f"net.{name}": value for name, value in create("cifar_resnet", 20, classes).state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"cfg": cfg}}, tmp_path / "old.ckpt")
    soundfile.write(tmp_path / "a.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    flags = ("--ckpt_path", "old.ckpt", "--audio", "a.wav", "--csv", "p.csv")
    result = run_script("predict.py", *flags, cwd=tmp_path)
    if classes == 7:
        assert "carries no label map for its 7 classes" in error_line(result)
        return
    assert result.returncode == 0 and "GISE-51's" in result.stderr
    with open(tmp_path / "p.csv", newline="") as stream:
        assert {"Applause", "Zipper_(clothing)"} <= {row["class"] for row in csv.DictReader(stream)}
