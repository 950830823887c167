"""One class a clip: train_classifier.py, train_esc50_classifier.py with its folds, and eval_vggsound.py."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import (
    CLASSES,
    CLIP,
    FIXTURES,
    SAMPLE_RATE,
    cfg_tree,
    error_line,
    run_script,
    tone_clip,
    train_command,
    write_cfg,
    write_lbl_map,
)
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score, top_k_accuracy_score

from src.config.loading import load_config
from src.data.datamodule import ClipDataModule
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.evaluation import EvaluationOptions
from src.learning.metrics import top_k_accuracy
from src.models.checkpoint import initial_network, read_checkpoint
from src.models.registry import count_parameters, create
from src.scoring.predictions import Candidate, predictions


def flac_of(samples):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def esc50(tmp_path_factory):
    """An LMDB in ESC-50's layout, 4 clips in each of 5 folds, and a multiclass cfg for it."""
    folder = tmp_path_factory.mktemp("esc50")
    with LMDBWriter(folder / "esc50.lmdb", 1e7) as writer:
        for number in range(20):
            target = number % 3
            samples = tone_clip([CLASSES[target]], seed=number, length=CLIP + 300 * number)
            writer.add(Record(flac_of(samples), target, 1 + number % 5))
    write_lbl_map(folder / "meta" / "lbl_map.json")
    tree = cfg_tree(folder)
    tree["model"]["type"] = "multiclass"
    tree["audio_config"]["mixup"] = True
    tree["opt"]["weight_decay"] = "1e-4"
    tree["data"] |= {"train_lmdb": str(folder / "esc50.lmdb"), "val_lmdb": str(folder / "esc50.lmdb")}
    write_cfg(folder / "tiny.cfg", tree)
    return folder


@pytest.fixture(scope="module")
def fold_run(esc50, tmp_path_factory):
    """A run on fold 2 of it: r1/mixup/tiny/fold_2."""
    exp = tmp_path_factory.mktemp("folds")
    run_script(
        *train_command(
            esc50, exp / "r1/mixup/tiny/fold_2", "--fold_index", 2, script="train_esc50_classifier.py", epochs=2
        ),
        check=0,
    )
    return exp


@pytest.mark.parametrize("fold", range(1, 6))
def test_a_fold_is_validated_on_and_never_trained_on(esc50, fold):
    config = load_config(esc50 / "tiny.cfg")
    data = ClipDataModule(
        config, LabelMap.load(esc50 / "meta/lbl_map.json"), 64, 64, 0, fold=fold, crop_validation=False
    )
    reader = LMDBReader(esc50 / "esc50.lmdb")
    folds = np.array([reader[index].fold for index in range(len(reader))])
    assert data.val_set.records.tolist() == np.flatnonzero(folds == fold).tolist()
    assert data.train_set.records.tolist() == np.flatnonzero(folds != fold).tolist()
    for dataset in (data.train_set, data.val_set):
        assert [dataset[i][1] for i in range(len(dataset))] == [reader[int(r)].label for r in dataset.records]


def test_esc50_validation_is_padded_and_not_cropped_and_vggsounds_is_cropped(esc50):
    config, label_map = load_config(esc50 / "tiny.cfg"), LabelMap.load(esc50 / "meta/lbl_map.json")
    padded = ClipDataModule(config, label_map, 64, 80, 0, fold=1, crop_validation=False).val_set
    whole = [padded.features.num_frames(len(padded.waveform(i))) for i in range(len(padded))]
    assert [padded[i][0].shape[1] for i in range(len(padded))] == [max(80, frames) for frames in whole]
    assert min(whole) < 80 < max(whole)
    cropped = ClipDataModule(config, label_map, 64, 80, 0, fold=1).val_set
    assert {cropped[i][0].shape[1] for i in range(len(cropped))} == {80}


def test_a_fold_run_says_its_fold_and_names_its_accuracy(esc50, fold_run):
    folder = fold_run / "r1/mixup/tiny/fold_2"
    record = json.loads((folder / "run.json").read_text())
    assert record["fold_index"] == 2 and record["num_train_clips"] == 16 and record["mixup"] is True
    checkpoints = sorted((folder / "ckpts").iterdir())
    assert len(checkpoints) == 2 and all("val_acc=" in path.name for path in checkpoints)


def test_another_fold_in_the_same_folder_is_refused(esc50, fold_run):
    line = error_line(
        run_script(
            *train_command(
                esc50, fold_run / "r1/mixup/tiny/fold_2", "--fold_index", 3, script="train_esc50_classifier.py"
            )
        )
    )
    assert "belongs to another run, with fold_index 2 instead of 3" in line


@pytest.mark.parametrize("fold", [0, 6, -1])
def test_folds_that_there_are_not_are_refused(esc50, tmp_path, fold):
    line = error_line(
        run_script(*train_command(esc50, tmp_path / "run", "--fold_index", fold, script="train_esc50_classifier.py"))
    )
    assert f"fold {fold}: " in line and "has the folds 1, 2, 3, 4, 5" in line and not (tmp_path / "run").exists()


def test_an_lmdb_without_folds_is_refused(esc50, corpus, tmp_path):
    line = error_line(
        run_script(
            *train_command(
                esc50,
                tmp_path / "run",
                "--set",
                f"data.train_lmdb={corpus / 'train.lmdb'}",
                script="train_esc50_classifier.py",
            )
        )
    )
    assert "its records have no folds" in line


def test_a_fold_checkpoint_is_scored_on_its_own_fold(esc50, fold_run, tmp_path):
    run_script(
        "eval_all_mixtures.py",
        "--exp_dir",
        fold_run / "r1",
        "--lbl_map",
        esc50 / "meta/lbl_map.json",
        "--lmdb_path",
        esc50 / "esc50.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--num_workers",
        0,
        check=0,
    )
    with open(tmp_path / "r.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["num_eval_clips"] for row in rows] == ["4", "4"] and {row["fold"] for row in rows} == {"2"}
    assert rows[0]["Model"] == "r1/tiny/fold_2"


def test_eval_vggsound_gives_scikit_learns_scores_of_the_softmax(esc50, tmp_path):
    run_script(*train_command(esc50, tmp_path / "e/r1/g/run", script="train_classifier.py"), check=0)
    (checkpoint,) = (tmp_path / "e/r1/g/run/ckpts").iterdir()
    result = run_script(
        "eval_vggsound.py",
        "--ckpt_path",
        checkpoint,
        "--lbl_map",
        esc50 / "meta/lbl_map.json",
        "--lmdb_path",
        esc50 / "esc50.lmdb",
        "--num_workers",
        0,
        "--per_class",
        cwd=tmp_path,
        check=0,
    )
    with open(tmp_path / "results.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["num_timesteps"] == "1001" and "accuracy" in result.stderr
    options = EvaluationOptions(
        str(esc50 / "esc50.lmdb"), str(esc50 / "meta/lbl_map.json"), num_timesteps=1001, num_workers=0
    )
    (found,) = predictions([Candidate(checkpoint)], options)
    p, y = found.probabilities, found.targets
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    hot = np.eye(3)[y]
    assert float(row["accuracy"]) == pytest.approx(accuracy_score(y, p.argmax(axis=1)))
    assert float(row["top5"]) == 1.0
    assert float(row["mAP"]) == pytest.approx(average_precision_score(hot, p, average="macro"), abs=1e-9)
    assert float(row["mAUC"]) == pytest.approx(roc_auc_score(hot, p, average="macro"), abs=1e-9)
    with open(tmp_path / "results_per_class.csv", newline="") as stream:
        classes = list(csv.DictReader(stream))
    assert [each["class"] for each in classes] == list(CLASSES)
    assert [each["clips"] for each in classes] == ["7", "7", "6"]
    recalls = [float((p.argmax(axis=1) == y)[y == c].mean()) for c in range(3)]
    assert [float(each["accuracy"]) for each in classes] == pytest.approx(recalls)
    assert np.mean([float(each["AP"]) for each in classes]) == pytest.approx(float(row["mAP"]))


def test_accuracy_has_an_interval_and_is_compared(esc50, fold_run, tmp_path):
    run, clips = fold_run / "r1/mixup/tiny/fold_2", ("--lmdb_path", esc50 / "esc50.lmdb", "--num_workers", 0)
    table = tmp_path / "r.csv"
    words = ("eval_vggsound.py", "--exp_dir", run, *clips, "--results_csv", table, "--bootstrap", 50)
    run_script(*words, check=0)
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        names = list(row)
        assert names.index("dprime_high") + 1 == names.index("accuracy_low")
    assert "already holds 2 of 2" in run_script(*words, check=0).stderr
    former = [{name: row[name] for name in row if "accuracy_" not in name} for row in rows]
    with open(table, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(former[0]))
        writer.writeheader()
        writer.writerows(former)
    assert "already holds" not in run_script(*words, check=0).stderr  # the intervals of an earlier version lack it
    one, other = (row["ckpt_path"] for row in rows)
    pair = ("--ckpt_path", one, "--other_ckpt_path", other, *clips, "--num_timesteps", 1001, "--json")
    run_script("scripts/compare_checkpoints.py", *pair, tmp_path / "c.json", "--bootstrap", 50, check=0)
    found = {row["name"]: row for row in json.loads((tmp_path / "c.json").read_text())}
    assert list(found) == ["mAP", "mAUC", "dprime", "accuracy"]
    scores = found["accuracy"]
    assert [scores["first"], scores["second"]] == [float(row["accuracy"]) for row in rows]
    assert scores["low"] <= scores["difference"] <= scores["high"] and 0 < scores["p"] <= 1


def test_top_k_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    p, y = rng.random((50, 12)), rng.integers(12, size=50)
    for k in (1, 5, 12):
        expected = top_k_accuracy_score(y, p, k=k, labels=range(12))
        assert top_k_accuracy(p, y, k) == pytest.approx(expected)
    assert top_k_accuracy(p[:, :3], y % 3, 5) == 1.0


def test_the_released_esc50_layout_trains(tmp_path, esc50):
    tree = cfg_tree(tmp_path)
    write_lbl_map(tmp_path / "meta/lbl_map.json", [f"class {index}" for index in range(50)])
    tree["model"] |= {"type": "multiclass", "num_classes": 50}
    lmdb = str(FIXTURES / "released_esc50_layout.lmdb")
    tree["data"] |= {"train_lmdb": lmdb, "val_lmdb": lmdb}
    cfg = write_cfg(tmp_path / "esc.cfg", tree)
    result = run_script(
        *train_command(tmp_path, tmp_path / "run", "--fold_index", 5, script="train_esc50_classifier.py", cfg=cfg),
        check=0,
    )
    assert "scored: all of each clip, at least 64 frames (0.6 s) (--val_clip_size)" in result.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["num_train_clips"] == 8


@pytest.mark.parametrize("arch, depth", [("resnet", 18), ("cifar_resnet", 20), ("efficientnet", "b1")])
def test_parameters_are_counted_without_making_them(arch, depth):
    expected = sum(parameter.numel() for parameter in create(arch, depth, 51).parameters())
    assert count_parameters(arch, str(depth), 51) == expected


def test_unknown_networks_have_no_count():
    assert count_parameters("nonesuch", "18", 51) is None


def test_fine_tuning_starts_from_the_exported_weights(corpus, trained, esc50, tmp_path):
    """Equal tensors before the first step, but for the last layer."""
    run_script(
        "eval_all_mixtures.py",
        "--exp_dir",
        trained / "r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--best_only",
        "--num_workers",
        0,
        "--export_weights",
        "--export_dir",
        tmp_path / "weights",
        check=0,
    )
    exported = sorted((tmp_path / "weights").rglob("*.pth"))[0]
    lbl_map = write_lbl_map(tmp_path / "four.json", [*CLASSES, "Gong"])
    command = train_command(
        esc50,
        tmp_path / "run",
        "--pretrained",
        exported,
        "--fold_index",
        1,
        "--set",
        "model.num_classes=4",
        "--set",
        f"data.label_map={lbl_map}",
        script="train_esc50_classifier.py",
    )
    line = error_line(run_script(*command, "--set", "model.pretrained_fc=5"))
    assert "2 of another shape: linear.weight [3, 128] instead of [5, 128]" in line
    assert "model.pretrained_fc is 5. With --set model.pretrained_fc=None, any number will do" in line
    result = run_script(*command, "--set", "model.pretrained_fc=3", check=0)
    assert f"starting from the weights in {exported}" in result.stderr
    weights = torch.load(exported, weights_only=True)
    (checkpoint,) = (tmp_path / "run/ckpts").iterdir()
    config = read_checkpoint(checkpoint).config
    assert config.model.pretrained == str(exported)
    before = initial_network(config, seed=3).state_dict()
    assert before.keys() == weights.keys()
    changed = {name for name in weights if not torch.equal(before[name], weights[name])}
    assert changed == {"linear.weight", "linear.bias"} and before["linear.bias"].shape == (4,)


def test_folds_are_not_compared_with_each_other(esc50, fold_run, tmp_path):
    """Even where their labels are the same."""
    run_script(
        *train_command(esc50, tmp_path / "fold_5", "--fold_index", 5, script="train_esc50_classifier.py"), check=0
    )
    one = next((fold_run / "r1/mixup/tiny/fold_2/ckpts").iterdir())
    other = next((tmp_path / "fold_5/ckpts").iterdir())
    line = error_line(
        run_script(
            "scripts/compare_checkpoints.py",
            "--ckpt_path",
            one,
            "--other_ckpt_path",
            other,
            "--lbl_map",
            esc50 / "meta/lbl_map.json",
            "--lmdb_path",
            esc50 / "esc50.lmdb",
            "--num_workers",
            0,
        )
    )
    assert "would be scored on other clips" in line and "their folds are 2 and 5" in line


def test_moved_data_is_the_same_run_and_other_data_is_not(esc50, fold_run, tmp_path):
    shutil.copy(esc50 / "esc50.lmdb", tmp_path / "esc50.lmdb")
    shutil.copy(esc50 / "esc50.lmdb", tmp_path / "other.lmdb")
    run = fold_run / "r1/mixup/tiny/fold_2"

    def again(name):
        return run_script(
            *train_command(
                esc50,
                run,
                "--fold_index",
                2,
                "--set",
                f"data.train_lmdb={tmp_path / name}",
                script="train_esc50_classifier.py",
                epochs=2,
            )
        )

    assert "finished (2 epochs), skipped" in again("esc50.lmdb").stderr
    assert "with data.train_lmdb 'esc50.lmdb' instead of 'other.lmdb'" in error_line(again("other.lmdb"))
    reader = LMDBReader(esc50 / "esc50.lmdb")
    with LMDBWriter(tmp_path / "esc50.lmdb") as writer:  # packed anew, with other records
        for index in reversed(range(len(reader))):
            writer.add(reader[index])
    assert "belongs to a run on other train data" in error_line(again("esc50.lmdb"))
    (tmp_path / "esc50.lmdb").unlink()
    assert "finished (2 epochs), skipped" in again("esc50.lmdb").stderr


def test_a_missing_pretrained_file_stops_the_run(esc50, tmp_path):
    line = error_line(
        run_script(
            *train_command(
                esc50, tmp_path / "run", "--pretrained", tmp_path / "none.pth", script="train_esc50_classifier.py"
            )
        )
    )
    assert "none.pth: no such file" in line and not (tmp_path / "run").exists()


def test_accumulated_gradients_step_as_one_batch(corpus, tmp_path):
    """Two batches of 4 a step: half the steps."""
    run_script(*train_command(corpus, tmp_path / "one"), check=0)
    run_script(*train_command(corpus, tmp_path / "two", "--accumulate_grad_batches", 3), check=0)
    steps = [
        torch.load(next((tmp_path / name / "ckpts").iterdir()), weights_only=True)["global_step"]
        for name in ("one", "two")
    ]
    assert steps == [3, 1]


@pytest.mark.parametrize("protocol", ["paper", "corrected"])
def test_a_run_says_which_protocol_it_used(esc50, tmp_path, protocol):
    result = run_script(
        *train_command(esc50, tmp_path / "run", "--set", f"protocol={protocol}", script="train_classifier.py"), check=0
    )
    (checkpoint,) = (tmp_path / "run/ckpts").iterdir()
    assert f"protocol {protocol}, mixup on" in result.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["protocol"] == protocol
    assert read_checkpoint(checkpoint).config.protocol == protocol
