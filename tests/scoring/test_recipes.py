"""compare_recipes.py: what runs score, and the compute and time that they took."""

import json
import math
import shutil

import pytest
from conftest import error_line, run_script
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

from src.errors import UserError
from src.scoring.summaries.recipes import Recipe, TrainedRun, as_markdown, draw, store, stored

SLOW = Recipe(
    "slow", None, (TrainedRun(1, 4.0, 100, 600.0, (0.2, 0.5), 0.5), TrainedRun(2, 4.0, 100, 600.0, (0.3, 0.7), 0.6))
)


def quick(*runs):
    """Runs of (validation figures, score), each of 200 clips through 0.1 GMAC in 30 s."""
    return Recipe("quick", None, tuple(TrainedRun(seed, 0.1, 200, 30.0, val, score) for seed, (val, score) in runs))


def test_compute_is_three_forward_passes_of_every_clip():
    assert SLOW.mean("gmac") == 3 * 4.0 * 100
    assert SLOW.runs[1].gmac_until(0.3) == 600 and SLOW.runs[1].gmac_until(0.5) == 1200
    assert math.isnan(SLOW.runs[0].gmac_until(0.6))


def test_the_target_is_the_mean_of_the_first_recipes_best_figures():
    recipe = quick((1, ((0.5, 0.5, 0.65, 0.7), 0.65)), (2, ((0.65, 0.7, 0.7, 0.7), 0.7)))
    assert SLOW.target == pytest.approx(0.6)
    row = as_markdown([SLOW, recipe]).splitlines()[3].split(" | ")
    assert row[3] == "60 (1/20.0)" and row[4] == "0.5 (1/20.0)"
    assert row[-1].strip(" |") == "30"  # 60 · (3/4 + 1/4) / 2
    assert as_markdown([SLOW]).splitlines()[2].endswith("| not by all |")


def test_the_interval_is_students():
    recipe = quick((1, ((0.6,), 0.60)), (2, ((0.6,), 0.64)), (3, ((0.6,), 0.71)))
    low, high = stats.t.interval(0.95, 2, loc=recipe.scores.mean(), scale=stats.sem(recipe.scores))
    assert recipe.margin == pytest.approx((high - low) / 2)
    assert math.isnan(quick((1, ((0.6,), 0.6))).margin)


@pytest.mark.parametrize("clips", [100, 100_000])
def test_the_axis_is_told_in_plain_numbers(clips):
    """Within a decade of multiply-accumulates, and over several."""
    figure = draw([SLOW, Recipe("other", None, (TrainedRun(1, 4.0, clips, None, (0.1, 0.2, 0.3), 0.3),))])
    FigureCanvasAgg(figure).draw()
    ticks = figure.axes[0].xaxis.get_ticklabels(which="both")
    told = [label.get_text().replace(",", "") for label in ticks if label.get_text()]
    assert len(told) >= 2 and all(float(text) > 0 for text in told), told


def test_stored_figures_are_read_back(tmp_path):
    store([SLOW], tmp_path / "a.json")
    assert stored(tmp_path / "a.json") == [SLOW]


@pytest.mark.parametrize("content", ["", "[]", "{}", "[{}]", '[{"name": "a", "note": "", "runs": [1]}]', "\0"])
def test_other_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    result = run_script("scripts/compare_recipes.py", tmp_path / "a.json")
    assert "a.json: holds no figures of recipes" in error_line(result)


@pytest.mark.parametrize(
    "figures",
    [
        {"score": 1.5},
        {"score": math.nan},
        {"val": []},
        {"val": [math.inf]},
        {"val": [-0.1]},
        {"clips": 0},
        {"clips": 10**30},
        {"forward_gmac": 0},
        {"forward_gmac": math.nan},
        {"seconds": -1},
        {"seconds": math.inf},
        None,
    ],
    ids=str,
)
def test_figures_that_no_run_can_have_are_refused(tmp_path, figures):
    store([SLOW], tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    if figures is None:
        content[0]["runs"] = []
    else:
        content[0]["runs"][1] |= figures
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="a.json: holds no figures of recipes .*runs"):
        stored(tmp_path / "a.json")


def test_a_run_that_took_no_time_has_no_share(tmp_path):
    store([SLOW, Recipe("none", "a|b", (TrainedRun(1, 4.0, 100, 0.0, (0.2,), 0.5),))], tmp_path / "a.json")
    assert "| none (a\\|b) | 1 | 4 | 1,200 | 0.0 |" in as_markdown(stored(tmp_path / "a.json"))


def test_runs_are_set_beside_stored_figures(corpus, trained, tmp_path):
    table, stored_figures, picture = tmp_path / "results.csv", tmp_path / "slow.json", tmp_path / "curves.png"
    more = ("--lmdb_path", corpus / "eval.lmdb", "--results_csv", table, "--num_workers", 0, "--best_only")
    run_script("eval_all_mixtures.py", "--exp_dir", trained, "--lbl_map", corpus / "meta/lbl_map.json", *more, check=0)
    store([SLOW], stored_figures)
    result = run_script(
        "scripts/compare_recipes.py",
        stored_figures,
        table,
        "--save",
        tmp_path / "all.json",
        "--picture",
        picture,
        check=0,
    )
    assert "| slow |" in result.stdout and picture.read_bytes().startswith(b"\x89PNG")
    kept = stored(tmp_path / "all.json")
    (run,) = kept[-1].runs
    record = json.loads((trained / "r1/mixup/tiny/train_8/run.json").read_text())
    assert len(kept) == 3 and len(run.val) == 2 and run.seed == 3
    assert run.forward_gmac == record["forward_gmac"] > 0
    assert run.clips == 16 and run.seconds == record["finished"]["seconds"] > 0


def test_a_run_that_does_not_say_what_it_took_is_refused(corpus, trained, tmp_path):
    """As runs of earlier versions."""
    run = shutil.copytree(trained / "r1/mixup/tiny/train_4", tmp_path / "r1/mixup/tiny")
    record = json.loads((run / "run.json").read_text())
    del record["forward_gmac"]
    (run / "run.json").write_text(json.dumps(record))
    table = tmp_path / "results.csv"
    more = ("--lmdb_path", corpus / "eval.lmdb", "--results_csv", table, "--num_workers", 0, "--best_only")
    run_script("eval_all_mixtures.py", "--exp_dir", run, "--lbl_map", corpus / "meta/lbl_map.json", *more, check=0)
    assert "does not say what its run took" in error_line(run_script("scripts/compare_recipes.py", table))
    shutil.rmtree(run)
    assert f"{run}: no such run folder" in error_line(run_script("scripts/compare_recipes.py", table))
