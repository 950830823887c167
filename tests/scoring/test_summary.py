"""summarise_results.py: means over runs and folds, published figures where they belong, pictures."""

import csv
import json
import statistics
from pathlib import Path

import pytest
import torch
from conftest import error_line, run_script

from src.scoring.summaries.published import FIGURES, FULL_SETS, published_figure
from src.scoring.summaries.summary import split_at_run_index, summarise
from src.scoring.summaries.table import as_markdown

COLUMNS = [
    "Model",
    "mAP",
    "mAUC",
    "dprime",
    "ckpt_path",
    "accuracy",
    "val_figure",
    "num_train_clips",
    "num_timesteps",
    "fold",
    "cfg_file",
    "protocol",
    "arch",
    "model_depth",
    "num_classes",
    "pretrained",
    "lmdb_path",
]


def row(ckpt_path, mAP, val, clips=60000, **more):  # noqa: N803
    return {
        "Model": "m",
        "mAP": mAP,
        "mAUC": 0.9,
        "dprime": 1.8,
        "ckpt_path": ckpt_path,
        "val_figure": val,
        "num_train_clips": clips,
        "num_timesteps": 501,
        "cfg_file": "cfgs_v2/gise_mixtures_60k/resnet_18_lmdb.cfg",
        "arch": "resnet",
        "model_depth": 18,
        "num_classes": 51,
        "lmdb_path": "eval.lmdb",
    } | more


def write_table(path, rows):
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def of_run(index, epoch, name="resnet_18"):
    return f"/x/exp/r{index}/mixup/{name}/ckpts/epoch={epoch:02d}.ckpt"


def test_means_and_deviations_are_over_runs_by_their_best_validation_checkpoint(tmp_path):
    values = [0.52, 0.55, 0.57]
    rows = []
    for index, value in enumerate(values, 1):
        rows += [row(of_run(index, 0), 0.9, 0.1), row(of_run(index, 1), value, 0.6)]  # the first would score higher
    (found,) = summarise([write_table(tmp_path / "r.csv", rows)])
    assert found.num_runs == 3 and found.mean("mAP") == pytest.approx(statistics.mean(values))
    assert found.deviation("mAP") == pytest.approx(statistics.stdev(values))
    assert "0.547 ± 0.025" in as_markdown([found]) and "mAP 0.5551, released 0.5635" in as_markdown([found])


def test_tables_of_several_runs_are_one_setting(tmp_path):
    tables = [
        write_table(tmp_path / f"r{index}.csv", [row(of_run(index, 0), 0.5 + index / 100, 0.5)]) for index in (1, 2)
    ]
    (found,) = summarise(tables)
    assert found.values("mAP").tolist() == pytest.approx([0.51, 0.52])


def test_settings_stay_apart(tmp_path):
    rows = [
        row(of_run(1, 0), 0.5, 0.5),
        row(of_run(1, 0, "b"), 0.5, 0.5),
        row(of_run(1, 0), 0.5, 0.5, num_timesteps=9),
        row(of_run(1, 0, "c"), 0.5, 0.5, pretrained="w.pth"),
        row(of_run(1, 0, "d"), 0.5, 0.5, clips=5000),
    ]
    assert len(summarise([write_table(tmp_path / "r.csv", rows)])) == 5


def test_protocols_and_experiment_folders_are_not_averaged(tmp_path):
    rows = [
        row(of_run(1, 0), 0.55, 0.5),
        row(of_run(2, 0), 0.56, 0.5, protocol="corrected"),
        row(of_run(2, 0).replace("exp", "other"), 0.3, 0.5),
    ]
    found = summarise([write_table(tmp_path / "r.csv", rows)])
    assert sorted(each.mean("mAP") for each in found) == [0.3, 0.55, 0.56]
    lines = as_markdown(found).splitlines()[2:]
    assert len({line.split("|")[1] for line in lines}) == 3  # each says what it is
    assert ["published" in line or "0.5551" in line for line in lines if "corrected" in line] == [False]


def test_one_evaluation_set_under_two_spellings_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        row(of_run(1, 0), 0.5, 0.5),
        row(of_run(2, 0), 0.6, 0.5, lmdb_path="./eval.lmdb"),
        row(of_run(3, 0), 0.7, 0.5, lmdb_path=str(tmp_path / "eval.lmdb")),
    ]
    (found,) = summarise([write_table(tmp_path / "r.csv", rows)])
    assert found.num_runs == 3


@pytest.mark.parametrize(
    "more",
    [
        {"protocol": "corrected"},
        {"lmdb_path": "val.lmdb"},
        {"num_timesteps": 9},
        {"num_train_clips": 59999},
        {"pretrained": "w.pth"},
    ],
)
def test_other_evaluations_get_no_published_figure(tmp_path, more):
    (found,) = summarise([write_table(tmp_path / "r.csv", [row(of_run(1, 0), 0.5, 0.5, **more)])])
    assert found.published is None


def test_the_untrained_network_counts_once(tmp_path):
    rows = [row(f"/x/r1/mixup/{name}/ckpts/untrained", 0.12, "", clips=0) for name in "ab"]
    (found,) = summarise([write_table(tmp_path / "r.csv", rows)])
    assert found.num_runs == 1 and found.setting.start == "untrained" and found.published is None


def test_published_figures_stand_beside_runs_on_the_full_data_alone():
    assert published_figure("resnet", "18", False, 51, 60_000).mean == 0.5551
    assert published_figure("resnet", "18", False, 51, 50_000) is None
    assert published_figure("resnet", "18", False, 18, 60_000) is None
    assert published_figure("resnet", "18", True, 51, 60_000) is None
    assert published_figure("resnet", "18", True, 527, 18_000).mean == 0.2236
    assert published_figure("efficientnet", "b1", True, 50, 1_600).released == 0.8675
    assert {name for name, *_ in FIGURES} == set(FULL_SETS)


def test_a_miniature_gets_no_published_figure(tmp_path):
    found = summarise([write_table(tmp_path / "r.csv", [row(of_run(1, 0), 0.1, 0.1, clips=96)])])
    assert "published" not in as_markdown(found)


def run_folder(folder, figures, fold=None, finished=True, depth=18):
    """A run folder as training leaves it, without checkpoints."""
    (folder / "logs").mkdir(parents=True)
    record = {
        "cfg": {"model": {"arch": "resnet", "model_depth": depth, "num_classes": 50, "pretrained": "w.pth"}},
        "seed": 1,
        "cfg_file": "cfgs_v2/esc50/resnet_18_lmdb.cfg",
        "num_train_clips": 1600,
        "finished": {"epochs": len(figures), "early": False} if finished else None,
    }
    if fold:
        record["fold_index"] = fold
    (folder / "run.json").write_text(json.dumps(record))
    lines = [f"{epoch},{epoch},0.001,0.5,0.6,{figure}" for epoch, figure in enumerate(figures)]
    (folder / "logs/metrics.csv").write_text("\n".join(["epoch,step,lr,train_loss,val_loss,val_acc", *lines]) + "\n")


def test_esc50_is_the_mean_over_folds_and_runs_of_each_runs_best_accuracy(tmp_path):
    best = {}
    for index in (1, 2):
        for fold in range(1, 6):
            best[index, fold] = 0.8 + index / 100 + fold / 1000
            run_folder(tmp_path / f"esc/r{index}/mixup/resnet_18/fold_{fold}", [0.3, best[index, fold], 0.7], fold)
    (found,) = summarise([tmp_path / "esc"])
    assert found.mean("val") == pytest.approx(statistics.mean(best.values()))
    means = [statistics.mean(best[index, fold] for fold in range(1, 6)) for index in (1, 2)]
    assert found.deviation("val") == pytest.approx(statistics.stdev(means))
    text = as_markdown([found])
    assert "2 × 5 folds" in text and "validation 0.8392, released 0.8535" in text


def test_missing_folds_are_said_and_get_no_published_figure(tmp_path):
    for index, folds in ((1, range(1, 6)), (2, [1])):
        for fold in folds:
            run_folder(tmp_path / f"esc/r{index}/mixup/resnet_18/fold_{fold}", [0.8], fold)
    text = as_markdown(summarise([tmp_path / "esc"]))
    assert "2 × 5 folds (6 of 10)" in text and "published" not in text


def test_unfinished_runs_are_said_to_be_and_runs_without_an_epoch_left_out(tmp_path):
    run_folder(tmp_path / "e/r1/mixup/a", [0.3], finished=False)
    run_folder(tmp_path / "e/r1/mixup/b", [])
    (found,) = summarise([tmp_path / "e"])
    assert "1 (1 unfinished)" in as_markdown([found])


def test_where_the_run_index_is():
    assert split_at_run_index(Path("/a/r1/exp/r2/mixup/net/fold_3")) == ("/a/r1/exp/r2", "mixup/net")
    assert split_at_run_index(Path("/a/net")) == ("/a/net", "net")


def test_the_table_and_the_pictures_of_real_runs(corpus, trained, tmp_path):
    run_script(
        "eval_all_mixtures.py",
        "--exp_dir",
        trained / "r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "results.csv",
        "--num_workers",
        0,
        "--untrained",
        "--per_class",
        check=0,
    )
    result = run_script(
        "scripts/summarise_results.py", tmp_path / "results.csv", trained, "--out_dir", tmp_path / "my summary", check=0
    )
    table = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")][2:]
    assert [(cells[3].strip(), cells[4].strip()) for cells in table] == [
        ("untrained", ""),
        ("scratch", "4"),
        ("scratch", "8"),
    ]
    with open(tmp_path / "results.csv", newline="") as stream:
        rows = [each for each in csv.DictReader(stream) if each["num_train_clips"] == "8"]
    best = max(rows, key=lambda each: float(each["val_figure"]))
    with open(tmp_path / "my summary/summary.csv", newline="") as stream:
        summary = list(csv.DictReader(stream))
    assert float(summary[2]["mAP_mean"]) == float(best["mAP"]) and summary[2]["mAP_sd"] == ""
    network = next((trained / "r1/mixup/tiny/train_8/ckpts").iterdir())
    state = torch.load(network, weights_only=True)["state_dict"]
    trainable = sum(value.numel() for name, value in state.items() if "running" not in name and "num_b" not in name)
    assert int(summary[2]["parameters"]) == trainable
    pictures = sorted(path.name for path in (tmp_path / "my summary").glob("*.png"))
    kinds = ["class_ap", "soundscapes_vs_map", "training"]
    assert [name.rsplit("_corpus", 1)[0] for name in pictures] == kinds
    for name in pictures:
        assert (tmp_path / "my summary" / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in (tmp_path / "my summary/summary.md").read_text()


def test_networks_are_drawn_against_their_parameters(tmp_path):
    rows = [
        row(of_run(1, 0), 0.5, 0.5),
        row(of_run(1, 0, "34"), 0.52, 0.5, model_depth=34),
        row(of_run(2, 0), 0.51, 0.5),
    ]
    write_table(tmp_path / "r.csv", rows)
    result = run_script("scripts/summarise_results.py", tmp_path / "r.csv", "--out_dir", tmp_path / "s", check=0)
    assert "map_by_network_gise_mixtures_60k.png" in result.stdout and "ResNet-34" in result.stdout


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "no such file (a results table was expected"),
        (lambda path: path.mkdir(), "no run folder in it"),
        (
            lambda path: path.write_text("a,b\n1,2\n"),
            "without the column 'ckpt_path', and a results table was expected",
        ),
        (lambda path: write_table(path, []), "no results yet"),
        (
            lambda path: path.write_text(
                ",".join(COLUMNS) + "\nm,high,0.9,1.8,/a/b/ckpts/c.ckpt,,0.5,9,501,,,,,,,,e\n"
            ),
            "'high'",
        ),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, make, message):
    make(tmp_path / "x")
    line = error_line(run_script("scripts/summarise_results.py", tmp_path / "x", "--out_dir", tmp_path / "s"))
    assert message in line and not (tmp_path / "s").exists()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_data_may_have_any_number_of_folds(tmp_path, count):
    for fold in range(1, count + 1):
        run = tmp_path / f"own/r1/fold_{fold}"
        run_folder(run, [fold / 100], fold)
        record = json.loads((run / "run.json").read_text()) | {"cfg_file": "my_data/mine.cfg"}
        record["cfg"]["model"]["num_classes"] = 4
        (run / "run.json").write_text(json.dumps(record))
    (found,) = summarise([tmp_path / "own"])
    assert found.mean("val") == pytest.approx((count + 1) / 200) and not found.published
    assert f"1 × {count} folds |" in as_markdown([found])
