"""speedrun.sh with the fewest clips and epochs: what each recipe trains, on which sounds, and what it is set beside."""

import json
import os
import shutil
import subprocess

import pytest
from conftest import ROOT


def speedrun(*words, python, cwd=ROOT, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GISE_")}
    return subprocess.run(
        [str(word) for word in (ROOT / "speedrun.sh", *words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        stdin=subprocess.DEVNULL,
        env=clean | {"GISE_PYTHON": str(python)} | environment,
    )


@pytest.fixture(scope="module")
def outputs(warm_python, tmp_path_factory):
    """The folder, and recipe → what its speedrun printed."""
    folder = tmp_path_factory.mktemp("speedrun") / "my speedrun"
    results = {
        recipe: speedrun("--short", folder.name, python=warm_python, cwd=folder.parent, GISE_RECIPE=recipe)
        for recipe in ("efficient", "endless", "published")
    }
    for result in results.values():
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    yield folder, {recipe: result.stdout for recipe, result in results.items()}
    shutil.rmtree(folder)


def records(folder):
    return [json.loads(file.read_text()) for file in sorted(folder.rglob("run.json"))]


def test_recipes_train_on_the_same_clips_and_endless_ones_on_the_same_sounds(outputs):
    folder, _ = outputs
    efficient, endless, published = (records(folder / name) for name in ("efficient", "endless", "published"))
    assert [[run["seed"] for run in runs] for runs in (efficient, endless, published)] == [[1, 2, 3]] * 2 + [[1, 2]]
    assert {run["protocol"] for run in published} == {"paper"} and all(run["mixup"] for run in published)
    train = str(folder / "mixtures_lmdb/train.lmdb")
    assert all(run["cfg"]["data"]["train_lmdb"] == train for run in efficient + published)
    for run in endless:
        data = run["cfg"]["data"]
        assert data["train_lmdb"] is None and data["isolated_events"] == str(folder / "isolated_events/train")
        assert run["cfg"]["opt"] == efficient[0]["cfg"]["opt"] and run["num_train_clips"] == 8
    assert all(run["finished"]["epochs"] == 1 for run in efficient + endless + published)


def test_the_table_sets_a_recipe_beside_the_stored_figures(outputs):
    folder, printed = outputs
    stored = json.loads((ROOT / "docs/speedrun.json").read_text())
    for recipe, text in printed.items():
        kept = json.loads((folder / f"{recipe}.json").read_text())
        assert kept[:-1] == stored and len(kept[-1]["runs"]) == (2 if recipe == "published" else 3)
        rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
        assert len(rows) == 1 + len(kept) and rows[-1].startswith(f"| {kept[-1]['name']}")
        assert (folder / f"{recipe}.png").stat().st_size > 0


def test_called_again_it_makes_nothing_anew(outputs, warm_python):
    folder, printed = outputs
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.suffix in (".ckpt", ".lmdb")}
    again = speedrun("--short", folder, python=warm_python)
    assert again.returncode == 0 and again.stderr.count("finished (1 epochs), skipped") == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert again.stdout.splitlines()[-5:] == printed["efficient"].splitlines()[-5:]


def test_other_epochs_are_trained_beside(outputs, warm_python):
    folder, _ = outputs
    result = speedrun("--short", folder, python=warm_python, GISE_EPOCHS="2")
    epochs = [run["finished"]["epochs"] for run in records(folder / "efficient_2_epochs")]
    assert result.returncode == 0 and epochs == [2, 2, 2]
    assert all(run["finished"]["epochs"] == 1 for run in records(folder / "efficient"))
    assert (folder / "efficient_2_epochs.json").exists()


@pytest.mark.parametrize(
    "words, environment, message",
    [
        (("a", "b"), {}, "usage: speedrun.sh [--short] [FOLDER]"),
        (("--fast",), {}, "usage: speedrun.sh [--short] [FOLDER]"),
        ((), {"GISE_RECIPE": "best"}, "GISE_RECIPE is 'best'. efficient, endless or published was expected"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(warm_python, tmp_path, words, environment, message):
    result = speedrun(*words, python=warm_python, cwd=tmp_path, **environment)
    assert result.returncode in (1, 2) and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
