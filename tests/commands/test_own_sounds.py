"""The README's recipe for one's own sounds, as it stands there, on five short clips of each of four classes."""

import csv
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from conftest import ROOT, SAMPLE_RATE

SMALL = {"--epochs 50 --keep 3 --random_clip_size 500": "--epochs 1 --random_clip_size 32 --val_clip_size 32"}
CLASSES = ("bell", "dog bark", "rain", "saw")


def test_the_recipe_ends_in_a_table_of_scores(tmp_path, warm_python):
    section = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("## Train on your own sounds\n")[1].split("\n## ")[0]
    )
    recipe = "".join(re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    for printed, small in SMALL.items():
        assert recipe.count(printed) == 1
        recipe = recipe.replace(printed, small)
    for name in ("scripts", "cfgs_v2", *(path.name for path in ROOT.glob("*.py"))):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "my_sounds" / name).mkdir(parents=True)
        for number in range(5):
            clip = 0.1 * rng.standard_normal(SAMPLE_RATE // 2)
            soundfile.write(tmp_path / "my_sounds" / name / f"{number}.wav", clip, SAMPLE_RATE)

    path = f"{Path(warm_python).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", recipe],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((tmp_path / "my_data/lbl_map.json").read_text()) == {name: k for k, name in enumerate(CLASSES)}
    counts = {part: len(list((tmp_path / "my_data" / part).glob("*.flac"))) for part in ("train", "val", "eval")}
    assert counts == {"train": 12, "val": 4, "eval": 4}
    (row,) = csv.DictReader((tmp_path / "my_runs/results.csv").open(newline=""))
    assert row["Model"] == "scratch" and 0 <= float(row["mAP"]) <= 1 and 0 <= float(row["accuracy"]) <= 1
    assert len(list((tmp_path / "my_runs/r1/own/scratch/ckpts").glob("*.ckpt"))) == 1
