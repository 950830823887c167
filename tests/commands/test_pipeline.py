"""Pack, train, evaluate, export through the command lines, on a tiny corpus."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_script, train_command, write_folder
from sklearn.metrics import average_precision_score, roc_auc_score

from src.evaluation import EvaluationOptions
from src.models.checkpoint import read_checkpoint
from src.models.registry import create
from src.scoring.forward_pass import batches_of, outputs_of
from src.scoring.predictions import open_for
from src.scoring.results_table import ResultsTable, best_of_each_run, export_path, row_name

NAME = re.compile(r"epoch=\d\d_train_loss=\d+\.\d{3}_val_mAP=[01]\.\d{3}\.ckpt")


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def eval_all(corpus, trained, results, *more, check=0):
    return run_script(
        "eval_all_mixtures.py",
        "--exp_dir",
        trained / "r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        results,
        "--num_workers",
        0,
        *more,
        check=check,
    )


def test_a_run_folder_holds_every_epoch_and_the_runs_record(corpus, trained):
    for name, clips in (("train_4", 4), ("train_8", 8)):
        folder = trained / "r1" / "mixup" / "tiny" / name
        checkpoints = sorted(path.name for path in (folder / "ckpts").iterdir())
        assert len(checkpoints) == 2 and all(NAME.fullmatch(checkpoint) for checkpoint in checkpoints)
        rows = rows_of(folder / "logs" / "metrics.csv")
        assert [row["epoch"] for row in rows] == ["0", "1"]
        for row, checkpoint in zip(rows, checkpoints):
            figures = f"train_loss={float(row['train_loss']):.3f}_val_mAP={float(row['val_mAP']):.3f}"
            assert figures in checkpoint and float(row["lr"]) == 1e-3 and float(row["val_loss"]) > 0
        assert list((folder / "logs").glob("events.out.tfevents.*"))
        record = json.loads((folder / "run.json").read_text())
        assert record["seed"] == 3 and record["protocol"] == "paper" and record["mixup"] is True
        assert record["num_train_clips"] == clips and record["finished"]["epochs"] == 2
        assert "train_all_mixtures.py" in record["command"] and "--use_mixup" in record["command"]
        assert record["cfg"]["opt"]["lr"] == 1e-3 and record["cfg"]["data"]["train_lmdb"].endswith(f"{name}.lmdb")
        assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", record["git_commit"])


def test_checkpoints_carry_plain_data_and_the_published_names(corpus, trained):
    path = next((trained / "r1").rglob("epoch=01*.ckpt"))
    content = torch.load(path, map_location="cpu", weights_only=True)
    assert content["hyper_parameters"]["cfg"]["model"]["arch"] == "cifar_resnet"
    assert content["hyper_parameters"]["lbl_map"] == {"Drum": 0, "Harp": 1, "Organ": 2}
    keys = list(create("cifar_resnet", 20, 3).state_dict())
    assert list(content["state_dict"]) == [f"net.{key}" for key in keys]
    json.dumps(content["hyper_parameters"])


def test_eval_all_scores_every_checkpoint_and_exports(corpus, trained, tmp_path):
    result = eval_all(
        corpus,
        trained,
        tmp_path / "results.csv",
        "--export_weights",
        "--export_dir",
        tmp_path / "weights",
        "--untrained",
    )
    rows = rows_of(tmp_path / "results.csv")
    assert list(rows[0])[:7] == ["Model", "run", "train_set", "mAP", "mAUC", "dprime", "ckpt_path"]
    assert len(rows) == 6 and {row["Model"] for row in rows} == {"r1/tiny/train_4", "r1/tiny/train_8"}
    assert {row["run"] for row in rows} == {"r1"} and {row["train_set"] for row in rows} == {"train_4", "train_8"}
    trained_rows = [row for row in rows if not row["ckpt_path"].endswith("untrained")]
    exported = sorted((tmp_path / "weights").rglob("*.pth"))
    assert len(exported) == len({(row["train_set"], row["mAP"], row["dprime"]) for row in trained_rows})
    row = trained_rows[-1]
    name = f"mAP={float(row['mAP']):.4f}_dprime={float(row['dprime']):.4f}_num_classes=3.pth"
    weights = torch.load(tmp_path / "weights" / "tiny" / row["train_set"] / name, weights_only=True)
    checkpoint = read_checkpoint(row["ckpt_path"])
    assert list(weights) == list(checkpoint.weights)
    assert all(torch.equal(weights[key], checkpoint.weights[key]) for key in weights)
    assert "results:" in result.stderr


def test_a_results_row_is_what_the_network_scores(corpus, trained, tmp_path):
    path = next((trained / "r1").rglob("epoch=01*.ckpt"))
    run_script(
        "eval_gise_mixtures.py",
        "--ckpt_path",
        path,
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--num_timesteps",
        64,
        check=0,
    )
    (row,) = rows_of(tmp_path / "r.csv")
    assert list(row)[:5] == ["Model", "mAP", "mAUC", "dprime", "ckpt_path"] and row["Model"] == path.parts[-3]
    checkpoint = read_checkpoint(path)
    options = EvaluationOptions(str(corpus / "eval.lmdb"), num_timesteps=64, num_workers=0, batch_size=1)
    dataset = open_for(checkpoint, options)
    network = checkpoint.network().eval()
    with torch.no_grad():
        by_hand = np.concatenate([network(torch.from_numpy(dataset[i][0])[None, None]).sigmoid() for i in range(6)])
    targets = np.stack([dataset[i][1] for i in range(6)])
    assert abs(float(row["mAP"]) - average_precision_score(targets, by_hand, average="macro")) < 1e-6
    assert abs(float(row["mAUC"]) - roc_auc_score(targets, by_hand, average="macro")) < 1e-6
    (batched,) = outputs_of([lambda: network], batches_of(dataset, 4, 0, torch.device("cpu")), len(dataset), 0)
    assert np.allclose(batched.logits.sigmoid().numpy(), by_hand, atol=1e-6)


def test_scored_checkpoints_are_not_scored_again(corpus, trained, tmp_path):
    first = eval_all(corpus, trained, tmp_path / "results.csv", "--best_only")
    assert "already holds" not in first.stderr
    before = (tmp_path / "results.csv").read_text()
    again = eval_all(corpus, trained, tmp_path / "results.csv")
    assert "already holds 2 of 4 rows" in again.stderr
    after = (tmp_path / "results.csv").read_text()
    assert after.startswith(before) and len(after.splitlines()) == 5
    # What is asked for in addition is made.
    eval_all(
        corpus,
        trained,
        tmp_path / "results.csv",
        "--best_only",
        "--export_weights",
        "--export_dir",
        tmp_path / "weights",
    )
    assert len(list((tmp_path / "weights").rglob("*.pth"))) == 2


def test_best_only_takes_the_highest_validation_figure_of_each_run(corpus, trained, tmp_path):
    eval_all(corpus, trained, tmp_path / "best.csv", "--best_only")
    rows = rows_of(tmp_path / "best.csv")
    assert len(rows) == 2
    for row in rows:
        folder = trained / "r1" / "mixup" / "tiny" / row["train_set"]
        figures = {int(each["epoch"]): float(each["val_mAP"]) for each in rows_of(folder / "logs" / "metrics.csv")}
        assert float(row["val_figure"]) == figures[int(row["epoch"])] == max(figures.values())
        assert f"val_mAP={max(figures.values()):.3f}" in row["ckpt_path"]


def test_overlap_analysis_splits_the_clips_by_their_events(corpus, trained, tmp_path):
    eval_all(corpus, trained, tmp_path / "r.csv", "--best_only", "--overlap_analysis")
    rows = rows_of(tmp_path / "r_overlap.csv")
    by_checkpoint = {}
    for row in rows:
        by_checkpoint.setdefault(row["ckpt_path"], []).append(int(row["clips"]))
    assert {row["events"] for row in rows} == {"1", "2"} and all(sum(c) == 6 for c in by_checkpoint.values())


def test_classes_that_the_evaluation_set_lacks_are_left_out_and_named(corpus, trained, tmp_path):
    folder = tmp_path / "mix"
    write_folder(folder, 6, 5)
    for file in folder.glob("*.txt"):
        labels = [line.split("\t")[2] for line in file.read_text().splitlines()]
        file.write_text("".join(f"0\t1\t{label if label != 'Organ' else 'Drum'}\n" for label in labels))
    run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        folder,
        "--lmdb_path",
        tmp_path / "e.lmdb",
        "--audio_min_duration",
        0.5,
        check=0,
    )
    path = next((trained / "r1").rglob("epoch=01*.ckpt"))
    result = run_script(
        "eval_gise_mixtures.py",
        "--ckpt_path",
        path,
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        tmp_path / "e.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        check=0,
    )
    assert "no clip of 1 of the 3 classes" in result.stderr and "(Organ)" in result.stderr
    (row,) = rows_of(tmp_path / "r.csv")
    # The mean over the two classes that are there, not over three.
    checkpoint = read_checkpoint(path)
    dataset = open_for(checkpoint, EvaluationOptions(str(tmp_path / "e.lmdb")))
    network = checkpoint.network().eval()
    with torch.no_grad():
        outputs = torch.cat([network(torch.from_numpy(dataset[i][0])[None, None]) for i in range(6)])
    outputs = outputs.sigmoid().numpy()
    targets = np.stack([dataset[i][1] for i in range(6)])
    two = [average_precision_score(targets[:, c], outputs[:, c]) for c in (0, 1)]
    assert abs(float(row["mAP"]) - np.mean(two)) < 1e-6


def test_both_evaluations_may_write_one_table(corpus, trained, tmp_path):
    eval_all(corpus, trained, tmp_path / "results.csv", "--best_only")
    common = (
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "results.csv",
        "--num_workers",
        0,
    )
    run_script(
        "eval_gise_mixtures.py",
        "--exp_dir",
        trained / "r1" / "mixup",
        "--best_only",
        "--num_timesteps",
        64,
        *common,
        check=0,
    )
    rows = rows_of(tmp_path / "results.csv")
    assert list(rows[0])[:5] == ["Model", "mAP", "mAUC", "dprime", "ckpt_path"]
    assert [row["Model"] for row in rows] == ["r1/tiny/train_4", "r1/tiny/train_8", "train_4", "train_8"]
    assert [row["run"] for row in rows] == ["r1", "r1", "", ""]
    # And a column of the user's own stays.
    lines = (tmp_path / "results.csv").read_text().splitlines()
    (tmp_path / "results.csv").write_text("\n".join([lines[0] + ",note"] + [line + ",mine" for line in lines[1:]]))
    eval_all(corpus, trained, tmp_path / "results.csv")
    rows = rows_of(tmp_path / "results.csv")
    assert list(rows[0])[:4] == ["Model", "run", "train_set", "mAP"] and len(rows) == 6
    assert [row["note"] for row in rows] == ["mine"] * 4 + [""] * 2


def test_rows_of_another_process_are_kept(tmp_path):
    one, other = (ResultsTable(tmp_path / "r.csv", ["a", "b"], ["a"]) for _ in range(2))
    one.put([{"a": 1, "b": 2}])
    other.put([{"a": 3, "b": 4}])
    one.put([{"a": 1, "b": 5}])
    assert rows_of(tmp_path / "r.csv") == [{"a": "1", "b": "5"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize(
    "path, levels, expected",
    [
        (
            "/x/e/r2/mixup/net/train_5k/ckpts/a.ckpt",
            3,
            {"Model": "r2/net/train_5k", "run": "r2", "train_set": "train_5k"},
        ),
        ("/x/e/r2/mixup/net/ckpts/a.ckpt", 2, {"Model": "net"}),
        ("/a.ckpt", 2, {"Model": ""}),
        ("/net/ckpts/a.ckpt", 2, {"Model": "net"}),
    ],
)
def test_names_of_rows(path, levels, expected):
    assert row_name(Path(path), levels) == expected


def test_exports_stay_in_their_folder():
    name = "mAP=0.6097_dprime=1.9525_num_classes=51.pth"
    figures = (0.60971, 1.95249, 51)
    assert export_path("w/r1", Path("/e/r1/mixup/net/ckpts/a.ckpt"), *figures) == Path("w/r1/mixup/net") / name
    assert export_path("w", Path("/run/ckpts/a.ckpt"), *figures) == Path("w/run") / name


def test_a_checkpoint_without_a_figure_is_never_the_best():
    names = (
        "best.ckpt",
        "epoch=00_train_loss=0.1_val_mAP=nan.ckpt",
        "epoch=01_train_loss=0.1_val_mAP=0.300.ckpt",
        "epoch=02_train_loss=0.1_val_mAP=0.300.ckpt",
        "epoch=03_train_loss=0.1_val_mAP=0.200.ckpt",
    )
    found = best_of_each_run([Path("/r/ckpts") / name for name in names])
    assert [path.name for path in found] == [names[2]]


def test_paths_with_odd_names_work(corpus, tmp_path):
    folder = tmp_path / "an odd; 'name' & ünïcode"
    run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        corpus / "val",
        "--lmdb_path",
        folder / "v a.lmdb",
        "--audio_min_duration",
        0.5,
        check=0,
    )
    override = f"data.train_lmdb={json.dumps(str(folder / 'v a.lmdb'))}"
    run_script(*train_command(corpus, folder / "exp", "--set", override), check=0)
    assert len(list((folder / "exp" / "ckpts").iterdir())) == 1


SCRIPTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.py"), *ROOT.glob("scripts/[!_]*.py"))
    if path.name != "hubconf.py"  # which torch.hub reads
)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_every_script_has_help(script, tmp_path):
    result = run_script(script, "--help", cwd=tmp_path, check=0, fresh=True)
    assert "usage:" in result.stdout and "--" in result.stdout
