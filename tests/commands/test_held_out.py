"""`--protocol held_out`: clips held out of training choose the checkpoint, and the scored ones are scored once."""

import csv
import json
import shutil
import subprocess

import numpy as np
import pytest
from conftest import (
    CLASSES,
    ROOT,
    SAMPLE_RATE,
    cfg_tree,
    error_line,
    run_script,
    tone_clip,
    train_command,
    write_cfg,
    write_lbl_map,
)

from src.config.loading import load_config
from src.data.audio.files import encode
from src.data.datamodule import ClipDataModule
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.subsets import SHARE
from src.data.lmdb.writer import LMDBWriter
from src.scoring.summaries.summary import summarise
from src.scoring.summaries.table import as_markdown

CLIPS, FOLDS = 120, 5
HELD_OUT = ("--protocol", "held_out")


def labels_of(number):
    """Drum, Harp and Organ in the shares 3 : 2 : 1. Every fourth clip has two classes."""
    one = CLASSES[(0, 1, 0, 2, 1, 0)[number % 6]]
    return [one, CLASSES[1]] if number % 4 == 0 and one != CLASSES[1] else [one]


def write_lmdb(path, count, first=0, fold=None, one_class=False, group_of=None):
    with LMDBWriter(path, 1e7) as writer:
        for number in range(first, first + count):
            labels = labels_of(number)[: 1 if one_class else 2]
            flac = encode(tone_clip(labels, number, 3000), SAMPLE_RATE, "FLAC")
            label = CLASSES.index(labels[0]) if fold else ",".join(labels)
            writer.add(Record(flac, label, fold and fold(number)), group=group_of and group_of(number))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """train.lmdb, of which two clips in a row are of one video, val.lmdb, which is scored, folds.lmdb, and cfgs."""
    folder = tmp_path_factory.mktemp("held out")
    write_lmdb(folder / "train.lmdb", CLIPS, group_of=lambda number: f"video {number // 2}")
    write_lmdb(folder / "val.lmdb", 24, first=CLIPS)
    write_lmdb(folder / "folds.lmdb", 40, fold=lambda number: 1 + number % FOLDS)
    write_lbl_map(folder / "meta/lbl_map.json")
    tree = cfg_tree(folder)
    tree["audio_config"]["min_duration"] = 0.1
    write_cfg(folder / "tiny.cfg", tree)
    tree["model"]["type"] = "multiclass"
    tree["data"] |= dict.fromkeys(("train_lmdb", "val_lmdb"), str(folder / "folds.lmdb"))
    write_cfg(folder / "folds.cfg", tree)
    return folder


def module_of(data, cfg, **more):
    config = load_config(data / cfg, [f"data.val_lmdb={data / 'train.lmdb'}"] * ("fold" not in more))
    return ClipDataModule(config, LabelMap.load(data / "meta/lbl_map.json"), 13, 13, 0, held_out=True, **more)


def train(data, folder, *more, check=0, script="train_gise_mixtures.py", cfg="tiny.cfg", epochs=1):
    command = train_command(data, folder, *more, script=script, cfg=data / cfg, epochs=epochs)
    words = ["13" if word == 64 else word for word in command]  # frames
    return run_script(*words, check=check)


def evaluate(data, exp, lmdb, table, *more):
    words = ("--exp_dir", exp, "--lmdb_path", data / lmdb, "--results_csv", table, "--best_only", "--num_workers", 0)
    run_script("eval_gise_mixtures.py", *words, "--num_timesteps", 13, *more, check=0)
    with open(table, newline="") as stream:
        return list(csv.DictReader(stream))


# ---- which clips ----


def test_the_two_sides_have_no_clip_and_no_video_in_common(data):
    module = module_of(data, "tiny.cfg")
    train_records, held_out = (set(each.records.tolist()) for each in (module.train_set, module.val_set))
    assert train_records | held_out == set(range(CLIPS)) and not train_records & held_out
    assert {one // 2 for one in train_records}.isdisjoint(one // 2 for one in held_out)
    assert LMDBReader(data / "train.lmdb").groups() == [number // 2 for number in range(CLIPS)]


def test_each_class_is_held_out_in_its_share_up_to_a_video(data):
    records = module_of(data, "tiny.cfg").val_set.records.tolist()
    for name in CLASSES:
        everywhere, here = (sum(name in labels_of(one) for one in some) for some in (range(CLIPS), records))
        assert abs(here - SHARE * everywhere) <= 2 and here > 0


def test_without_groups_the_shares_are_exact_up_to_one_clip(data, tmp_path):
    write_lmdb(tmp_path / "a.lmdb", CLIPS, one_class=True, group_of=str)
    reader = LMDBReader(tmp_path / "a.lmdb")
    assert reader.groups() is None and reader.stored_beside() == []  # each its own: nothing to keep
    config = load_config(data / "tiny.cfg", [f"data.{name}_lmdb={tmp_path / 'a.lmdb'}" for name in ("train", "val")])
    module = ClipDataModule(config, LabelMap.load(data / "meta/lbl_map.json"), 13, 13, 0, held_out=True)
    records = module.val_set.records.tolist()
    for name in CLASSES:
        everywhere, here = (sum(labels_of(one)[0] == name for one in some) for some in (range(CLIPS), records))
        assert abs(here - SHARE * everywhere) < 1


@pytest.mark.parametrize("workers, seed", [(0, 1), (2, 0), (3, 7)])
def test_the_clips_are_the_same_for_all_workers_seeds_and_notes(data, tmp_path, workers, seed):
    expected = module_of(data, "tiny.cfg").val_set.records
    shutil.copy(data / "train.lmdb", tmp_path / "train.lmdb")  # without its notes
    config = load_config(data / "tiny.cfg", [f"data.{name}_lmdb={tmp_path}/train.lmdb" for name in ("train", "val")])
    label_map = LabelMap.load(data / "meta/lbl_map.json")
    for note in (None, {"records": [0, 10**9]}, {"share": 0.2}):
        module = ClipDataModule(config, label_map, 13, 13, workers, seed=seed, held_out=True)
        assert module.val_set.records.tolist() == expected.tolist()
        file = tmp_path / ".train.lmdb.held_out.json"
        content = json.loads(file.read_text())
        if isinstance(note, dict):  # by somebody else
            file.write_text(json.dumps(content | {"held_out": content["held_out"] | note}))
            module = ClipDataModule(config, label_map, 13, 13, workers, seed=seed, held_out=True)
            assert module.val_set.records.tolist() == expected.tolist()


@pytest.mark.parametrize("fold, following", [(1, 2), (4, 5), (5, 1)])
def test_the_next_fold_validates_and_neither_is_trained_on(data, fold, following):
    module = module_of(data, "folds.cfg", fold=fold)
    folds = 1 + np.arange(40) % FOLDS
    assert module.val_set.records.tolist() == np.flatnonzero(folds == following).tolist()
    assert set(folds[module.train_set.records]) == set(range(1, 6)) - {fold, following}


# ---- runs ----


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """One run of either protocol, and the rows of both on the set that the published one validates on."""
    exp = tmp_path_factory.mktemp("runs")
    train(data, exp / "r1/mixup/published")
    train(data, exp / "r1/mixup/held_out", *HELD_OUT)
    return exp, evaluate(data, exp, "val.lmdb", exp / "results.csv")


def test_a_run_holds_clips_out_and_says_so(data, runs):
    record = json.loads((runs[0] / "r1/mixup/held_out/run.json").read_text())
    held_out = len(module_of(data, "tiny.cfg").val_set)
    assert record["validation"] == "held_out" and record["num_train_clips"] == CLIPS - held_out
    assert record["data"]["train"] == record["data"]["val"] and record["cfg"]["data"]["val_lmdb"].endswith("train.lmdb")
    assert json.loads((runs[0] / "r1/mixup/published/run.json").read_text())["validation"] == "published"


def test_a_run_needs_no_evaluation_clips_and_resumes_on_the_same_clips(data, tmp_path):
    """In two calls, with other workers and without a note: the weights of one call."""
    gone = ("--set", f"data.val_lmdb={tmp_path / 'gone.lmdb'}", *HELD_OUT)
    result = train(data, tmp_path / "whole", *gone, epochs=2)
    assert "validation clips" in result.stderr and "held out of training" in result.stderr
    train(data, tmp_path / "parts", *gone)
    (data / ".train.lmdb.held_out.json").unlink()
    train(data, tmp_path / "parts", *gone, "--num_workers", 2, epochs=2)
    names = [sorted(file.name for file in (tmp_path / each / "ckpts").iterdir()) for each in ("whole", "parts")]
    assert names[0] == names[1] and len(names[0]) == 2
    figures = [(tmp_path / each / "logs/metrics.csv").read_text() for each in ("whole", "parts")]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("first, then", [("published", "held_out"), ("held_out", "published")])
def test_the_other_protocol_in_the_same_folder_is_refused(data, runs, first, then):
    line = error_line(train(data, runs[0] / "r1/mixup" / first, "--protocol", then, check=None))
    assert f"belongs to another run, with validation '{first}' instead of '{then}'" in line


def test_a_run_of_an_earlier_version_is_a_published_one(data, tmp_path):
    """Of folds too, whose LMDB is the same under both protocols."""
    words = {"script": "train_esc50_classifier.py", "cfg": "folds.cfg"}
    train(data, tmp_path / "run", "--fold_index", 2, **words)
    record = json.loads((tmp_path / "run/run.json").read_text())
    del record["validation"]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    assert "skipped" in train(data, tmp_path / "run", "--fold_index", 2, **words).stderr
    line = error_line(train(data, tmp_path / "run", "--fold_index", 2, *HELD_OUT, check=None, **words))
    assert "with validation 'published' instead of 'held_out'" in line
    (row,) = evaluate(data, tmp_path / "run", "folds.lmdb", tmp_path / "r.csv")
    assert row["validated_on"] == "test fold"


def test_the_fold_that_neither_trains_nor_validates_is_scored(data, tmp_path):
    folder = tmp_path / "esc/r1/mixup/net/fold_5"
    words = {"script": "train_esc50_classifier.py", "cfg": "folds.cfg"}
    result = train(data, folder, "--fold_index", 5, *HELD_OUT, **words)
    assert "of fold after 5" in result.stderr
    (row,) = evaluate(data, folder, "folds.lmdb", tmp_path / "r.csv", "--per_class")
    assert (row["fold"], row["num_eval_clips"], row["num_train_clips"]) == ("5", "8", "24")
    assert row["validated_on"] == "next fold" and row["accuracy"]
    with open(tmp_path / "r_per_class.csv", newline="") as stream:
        counts = {each["class"]: int(each["clips"]) for each in csv.DictReader(stream)}
    fifth = [labels_of(number)[0] for number in range(40) if number % FOLDS == 4]
    assert counts == {name: fifth.count(name) for name in set(fifth)}


@pytest.mark.parametrize(
    "count, folds, message", [(4, None, "are too few to hold 10% of them out"), (6, 2, "three at")]
)
def test_too_little_to_hold_out_is_refused(data, tmp_path, count, folds, message):
    lmdb = write_lmdb(tmp_path / "few.lmdb", count, fold=folds and (lambda number: 1 + number % folds))
    more = ("--set", f"data.train_lmdb={lmdb}", *(("--fold_index", 1) if folds else ()))
    words = {"script": "train_esc50_classifier.py", "cfg": "folds.cfg"} if folds else {}
    line = error_line(train(data, tmp_path / "run", *more, *HELD_OUT, check=None, **words))
    assert message in line and "held_out" in line and not (tmp_path / "run").exists()


def test_manifests_are_refused(data, tmp_path):
    tree = cfg_tree(data)
    manifest = tmp_path / "clips.csv"
    manifest.write_text("files,labels\na.flac,Drum\n")
    tree["data"] |= {"is_lmdb": False, "train_manifest": str(manifest), "val_manifest": str(manifest)}
    cfg = write_cfg(tmp_path / "manifest.cfg", tree)
    line = error_line(run_script(*train_command(data, tmp_path / "run", *HELD_OUT, cfg=cfg)))
    assert "is a manifest, and --protocol held_out are for LMDBs" in line


# ---- tables ----


def test_rows_say_what_chose_their_checkpoint(data, runs, tmp_path):
    assert {row["Model"]: row["validated_on"] for row in runs[1]} == {
        "published": "evaluation set",
        "held_out": "held-out training clips",
    }
    rows = evaluate(data, runs[0], "folds.lmdb", tmp_path / "r.csv", "--untrained")
    assert sorted(row["validated_on"] for row in rows) == ["", "", "held-out training clips", "validation set"]


def test_a_summary_shows_both_and_says_which_is_which(runs, tmp_path):
    result = run_script("scripts/summarise_results.py", runs[0] / "results.csv", "--out_dir", tmp_path, check=0)
    lines = [[cell.strip() for cell in line.split("|")] for line in result.stdout.splitlines() if "|" in line]
    place = lines[0].index("validated on")
    assert sorted(line[place] for line in lines[2:]) == ["evaluation set", "held-out training clips"]
    with open(tmp_path / "summary.csv", newline="") as stream:
        named = {row["validated_on"]: row["mAP_mean"] for row in csv.DictReader(stream)}
    assert named == {row["validated_on"]: row["mAP"] for row in runs[1]}


def test_a_table_of_an_earlier_version_is_read(runs, tmp_path):
    """Without the column, its rows are published ones, of one setting with the new ones."""
    with open(runs[0] / "results.csv", newline="") as stream:
        row = next(row for row in csv.DictReader(stream) if row["Model"] == "published")
    paths = [tmp_path / f"{index}.csv" for index in (1, 2)]
    for index, path in enumerate(paths, 1):
        own = row | {"ckpt_path": f"/x/r{index}/mixup/net/ckpts/epoch=00.ckpt"}
        kept = [name for name in own if index == 2 or name != "validated_on"]
        path.write_text(f"{','.join(kept)}\n{','.join(own[name] for name in kept)}\n")
    (found,) = summarise(paths)
    assert found.num_runs == 2 and not found.setting.held_out and found.validated_on == "evaluation set"
    assert "validated on" not in as_markdown([found])


@pytest.mark.parametrize(
    "chosen, published", [("evaluation set", True), ("held-out training clips", False), ("", True)]
)
def test_published_figures_stand_beside_the_published_protocol_alone(tmp_path, chosen, published):
    row = {"Model": "m", "mAP": 0.2, "mAUC": 0.9, "dprime": 1.8, "ckpt_path": "/x/r1/m/ckpts/epoch=00.ckpt"}
    row |= {"val_figure": 0.2, "num_train_clips": 17_400, "num_timesteps": 1001, "lmdb_path": "eval.lmdb"}
    row |= {"arch": "resnet", "model_depth": 18, "num_classes": 527, "cfg_file": "cfgs_v2/audioset/a.cfg"}
    row["validated_on"] = chosen
    (tmp_path / "r.csv").write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    (found,) = summarise([tmp_path / "r.csv"])
    assert (found.published is not None) == published


# ---- shell scripts ----


@pytest.mark.parametrize(
    "script, folders",
    [
        ("experiments_audioset.sh", ["{}_ft/r2/mixup/", "{}_scratch/r2/mixup/"]),
        ("experiments_audioset_v100.sh", ["{}_ft/r2/mixup/", "{}_scratch/r2/mixup/"]),
        ("experiments_vggsound_v100.sh", ["{}/r2/no_mixup/"]),
        ("esc50_experiments.sh", ["{}/r2/mixup/"]),
    ],
)
@pytest.mark.parametrize("protocol", ["held_out", "published"])
def test_experiment_scripts_pass_the_protocol_on(tmp_path, script, folders, protocol):
    """With a Python that writes down how it is called. The two protocols have folders of their own."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" != -c ] || exec echo 1\necho "$@" >> "{tmp_path}/calls"\n')
    python.chmod(0o755)
    for network in ("resnet_18", "efficientnet-b1"):
        (tmp_path / f"{network}.pth").touch()
    environment = {"GISE_PYTHON": str(python), "GISE_WEIGHTS_DIR": str(tmp_path), "GISE_PROTOCOL": protocol}
    run = {"env": environment | {"PATH": "/usr/bin:/bin"}, "cwd": tmp_path, "capture_output": True, "text": True}
    result = subprocess.run([ROOT / script, "exp", "2"], check=False, **run)
    assert result.returncode == 0, result.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    trained = [call for call in calls if call.startswith("train_")]
    name = str(tmp_path / "exp") + "_held_out" * (protocol == "held_out")
    assert trained and all(any(f" -e {folder.format(name)}" in call for folder in folders) for call in trained)
    assert all(("--protocol held_out" in call) == (protocol == "held_out") for call in trained)
    scored = [call.split()[0] for call in calls[len(trained) :]]
    ends = ["eval_gise_mixtures.py", "scripts/summarise_results.py"]
    assert scored == (ends if (script, protocol) == ("esc50_experiments.sh", "held_out") else [])
    result = subprocess.run(
        [ROOT / script, "exp", "2"], check=False, **run | {"env": environment | {"GISE_PROTOCOL": "x"}}
    )
    assert result.returncode == 1 and "GISE_PROTOCOL is 'x'. published or held_out was expected." in result.stderr
