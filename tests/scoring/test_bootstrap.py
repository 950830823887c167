"""Bootstrap intervals and paired comparisons of checkpoints."""

import csv
import json
import math
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, cfg_tree, error_line, run_script, write_cfg
from sklearn.metrics import average_precision_score, roc_auc_score

from src.config.loading import load_config
from src.learning.metrics import accuracy, ranking_scores
from src.scoring import comparison
from src.scoring.bootstrap import bootstrap, draw_counts, interval, weighted_scores
from src.scoring.comparison import compare
from src.scoring.differences import two_sided
from src.scoring.predictions import InferenceOptions, Prediction


@pytest.fixture
def scores():
    rng = np.random.default_rng(7)
    targets = (rng.random((80, 4)) < [0.1, 0.3, 0.5, 0.9]).astype(float)
    predictions = np.round(targets * 0.3 + rng.random((80, 4)), 1)  # with ties
    return predictions, targets


def test_weighted_scores_are_scikit_learns_with_sample_weights(scores):
    predictions, targets = scores
    counts = np.stack([draw_counts(80, 3, number) for number in range(6)])
    for c in range(4):
        ap, auc = weighted_scores(predictions[:, c], targets[:, c], counts)
        for row, weights in enumerate(counts):
            assert ap[row] == pytest.approx(
                average_precision_score(targets[:, c], predictions[:, c], sample_weight=weights), abs=1e-12
            )
            assert auc[row] == pytest.approx(
                roc_auc_score(targets[:, c], predictions[:, c], sample_weight=weights), abs=1e-12
            )


def test_clips_drawn_once_each_give_the_score_itself(scores):
    predictions, targets = scores
    ap, auc = zip(*(weighted_scores(predictions[:, c], targets[:, c], np.ones((1, 80))) for c in range(4)))
    exact = ranking_scores(predictions, targets)
    np.testing.assert_allclose(np.ravel(ap), exact.ap, atol=1e-12)
    np.testing.assert_allclose(np.ravel(auc), exact.auc, atol=1e-12)


def test_resamples_are_those_of_the_seed_whatever_their_number_and_chunks(scores, monkeypatch):
    first = bootstrap(*scores, resamples=5, seed=1)
    monkeypatch.setattr("src.scoring.bootstrap.CHUNK", 100)  # one resample at a time
    np.testing.assert_allclose(bootstrap(*scores, resamples=9, seed=1).mAP[:5], first.mAP, rtol=1e-12)
    assert (bootstrap(*scores, resamples=5, seed=2).mAP != first.mAP).all()


def test_accuracy_is_that_of_the_clips_drawn():
    rng = np.random.default_rng(2)
    classes = rng.integers(4, size=30)
    predictions = rng.random((30, 4)) + np.eye(4)[classes] * 0.4
    found = bootstrap(predictions, np.eye(4)[classes], resamples=8, seed=5, one_class=True).accuracy
    for number in range(8):
        drawn = np.repeat(np.arange(30), draw_counts(30, 5, number).astype(int))
        assert found[number] == pytest.approx(accuracy(predictions[drawn], classes[drawn]), abs=1e-15)
    assert bootstrap(predictions, np.eye(4)[classes], resamples=8, seed=5).accuracy is None


def test_classes_without_positives_in_a_resample_are_left_out():
    targets = np.array([[1, 1], [0, 1], [0, 0], [0, 0.0]])
    predictions = np.array([[0.9, 0.8], [0.5, 0.7], [0.4, 0.3], [0.1, 0.2]])
    found = bootstrap(predictions, targets, resamples=200, seed=0)
    drawn = np.stack([draw_counts(4, 0, number) for number in range(200)])
    none = drawn[:, :2].sum(axis=1) == 0
    assert none.any() and np.isnan(found.mAP[none]).all() and (found.mAP[~none] == 1.0).all()


def test_the_interval_covers_what_it_should():
    """Of 200 samples of a population whose mean AUC is 0.76, about 95 % have the true value in their interval."""
    rng = np.random.default_rng(5)
    covered = 0
    for number in range(200):
        targets = np.repeat([[1.0], [0.0]], 60, axis=0)
        predictions = rng.standard_normal((120, 1)) + targets  # d' = 1, AUC = Φ(1/√2) = 0.7602
        low, high = interval(bootstrap(predictions, targets, resamples=200, seed=number).mAUC)
        covered += low <= 0.7602 <= high
    assert 180 <= covered <= 199


def test_intervals_stand_in_the_table(corpus, trained, tmp_path):
    command = (
        "eval_all_mixtures.py",
        "--exp_dir",
        trained / "r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--best_only",
        "--num_workers",
        0,
        "--results_csv",
        tmp_path / "r.csv",
    )
    run_script(*command, check=0)
    result = run_script(*command, "--bootstrap", 100, check=0)  # scores again: the intervals are missing
    with open(tmp_path / "r.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        for name in ("mAP", "mAUC", "dprime"):
            assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])
        assert row["accuracy"] == row["accuracy_low"] == row["accuracy_high"] == ""  # several classes a clip
    assert "already holds" not in result.stderr
    assert "already holds 2 of 2" in run_script(*command, "--bootstrap", 100, check=0).stderr
    assert "already holds" not in run_script(*command, "--bootstrap", 100, "--seed", 1, check=0).stderr
    run_script(*command, "--overwrite", check=0)
    with open(tmp_path / "r.csv", newline="") as stream:
        assert all(row["mAP_low"] == row["bootstrap"] == "" for row in csv.DictReader(stream))


def test_the_table_of_classes_is_made_once(corpus, trained, tmp_path):
    command = (
        "eval_all_mixtures.py",
        "--exp_dir",
        trained / "r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--best_only",
        "--num_workers",
        0,
        "--results_csv",
        tmp_path / "r.csv",
    )
    run_script(*command, check=0)
    assert "already holds" not in run_script(*command, "--per_class", check=0).stderr
    assert "already holds 2 of 2" in run_script(*command, "--per_class", check=0).stderr


def test_a_perfect_network_has_intervals_without_nan():
    targets = np.repeat([[1.0], [0.0]], 20, axis=0)
    found = bootstrap(targets * 0.5 + 0.1, targets, resamples=50, seed=0)
    assert interval(found.mAUC) == (1.0, 1.0) and interval(found.dprime) == (np.inf, np.inf)
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_differences_that_are_no_numbers_are_no_evidence():
    assert np.isnan(two_sided(np.full(1000, np.nan)))
    assert two_sided(np.array([np.nan] * 990 + [1.0] * 5 + [-1.0] * 5)) == 1.0
    assert two_sided(np.ones(999)) == pytest.approx(0.002)


def test_a_paired_comparison(corpus, trained, tmp_path):
    one, other = sorted((trained / "r1/mixup/tiny/train_8/ckpts").iterdir())
    command = (
        "scripts/compare_checkpoints.py",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--num_workers",
        0,
        "--bootstrap",
        50,
        "--json",
        tmp_path / "c.json",
    )
    run_script(*command, "--ckpt_path", one, "--other_ckpt_path", other, check=0)
    there = json.loads((tmp_path / "c.json").read_text())
    run_script(*command, "--ckpt_path", other, "--other_ckpt_path", one, check=0)
    back = json.loads((tmp_path / "c.json").read_text())
    for a, b in zip(there, back):
        assert (a["first"], a["second"]) == (b["second"], b["first"]) and a["p"] == b["p"]
        assert a["low"] == pytest.approx(-b["high"]) and a["low"] <= a["high"]
    run_script(*command, "--ckpt_path", one, "--other_ckpt_path", one, check=0)
    assert all(
        row["low"] == row["high"] == 0 and row["p"] == 1.0 for row in json.loads((tmp_path / "c.json").read_text())
    )


PERFECT = np.repeat([[0.9], [0.1]], 20, axis=0)  # (40, 1)
GOOD = np.where(np.arange(40) % 2 == 0, 0.5, PERFECT[:, 0])[:, None]  # with ties
NONE = np.zeros((40, 1))  # targets: no positive clip


@pytest.fixture
def scored_as(tmp_path, monkeypatch):
    """Let two checkpoints have these probabilities for clips of which the first half is of the class."""

    def patch(first, second, targets):
        config = load_config(write_cfg(tmp_path / "tiny.cfg", cfg_tree(tmp_path)))
        head, dataset = SimpleNamespace(config=config), SimpleNamespace(records=np.arange(len(targets)))
        found = [Prediction(None, head, None, dataset, None, scores, targets, "") for scores in (first, second)]
        monkeypatch.setattr(comparison, "predictions", lambda *_: found)
        monkeypatch.setattr(comparison, "with_events", lambda options, _: options)

    return patch


@pytest.mark.parametrize(
    "first, second, targets, dprime, p",
    [
        (PERFECT, PERFECT, PERFECT.round(), (math.inf, math.inf), None),  # inf - inf
        (GOOD, PERFECT, PERFECT.round(), (1, math.inf), 2 / 201),
        (PERFECT, GOOD, PERFECT.round(), (math.inf, 1), 2 / 201),
        (PERFECT, GOOD, NONE, (math.nan, math.nan), None),
        (1 - PERFECT, PERFECT, PERFECT.round(), (-math.inf, math.inf), 2 / 201),
    ],
)
def test_a_difference_of_infinite_scores_is_undefined(scored_as, capsys, tmp_path, first, second, targets, dprime, p):
    """The sign of a difference is known where one d′ is infinite, and p with it. Its size is not."""
    scored_as(first, second, targets)
    row = compare("a", "b", InferenceOptions("x.lmdb"), 200, 0)[2]
    for found, due in zip((row.first, row.second), dprime):
        assert due == 1 and math.isfinite(found) or found == due or math.isnan(found) and math.isnan(due)
    words = ("--ckpt_path", "a", "--other_ckpt_path", "b", "--lmdb_path", "x.lmdb", "--bootstrap", "200")
    script = str(ROOT / "scripts/compare_checkpoints.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words, "--json", str(tmp_path / "c.json")])
        runpy.run_path(script)["main"]()
    printed = {line.split(" | ")[0].strip("| "): line for line in capsys.readouterr().out.splitlines()}
    cells = [cell.strip() for cell in printed["dprime"].strip("|").split("|")]
    assert cells[3] == "undefined" and "undefined" in cells[4] and "+inf" not in printed["dprime"]
    assert "nan" not in "".join(printed.values())
    assert cells[5] == ("undefined" if p is None else f"{p:.3g}")
    written = json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)[2]  # no NaN, no Infinity
    assert written["difference"] is None and written["p"] == (p and pytest.approx(p))
    assert written["first"] is None or dprime[0] == 1


def test_the_test_behind_p_is_named(scored_as, capsys, tmp_path):
    """In the output, in the file and in the help."""
    scored_as(GOOD, GOOD, PERFECT.round())
    found = compare("a", "b", InferenceOptions("x.lmdb"), 99, 0)
    assert [row.p for row in found] == [1.0] * 3 and [row.difference for row in found] == [0.0] * 3
    assert all("two-sided paired bootstrap" in row.as_dict()["test"] for row in found)
    script = str(ROOT / "scripts/compare_checkpoints.py")
    parser = runpy.run_path(script)["build_parser"]()
    assert "two-sided paired bootstrap" in " ".join(parser.format_help().split()).replace("- ", "-")
    with pytest.MonkeyPatch.context() as patch:
        words = ("--ckpt_path", "a", "--other_ckpt_path", "b", "--lmdb_path", "x.lmdb", "--bootstrap", "99")
        patch.setattr(sys, "argv", [script, *words])
        runpy.run_path(script)["main"]()
    assert "of the hypothesis that the difference is 0, by 99 resamples, 0.02 at least" in capsys.readouterr().out


def test_a_comparison_names_a_missing_checkpoint(corpus, trained, tmp_path):
    one = next((trained / "r1/mixup/tiny/train_8/ckpts").iterdir())
    line = error_line(
        run_script(
            "scripts/compare_checkpoints.py",
            "--ckpt_path",
            one,
            "--other_ckpt_path",
            tmp_path / "none.ckpt",
            "--lbl_map",
            corpus / "meta/lbl_map.json",
            "--lmdb_path",
            corpus / "eval.lmdb",
        )
    )
    assert "none.ckpt: no such file" in line
