"""The README's recipe for one's own sounds, as it stands there, on five short clips of each of four classes."""

import csv
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from conftest import ROOT, SAMPLE_RATE

PREPARE = "prepare_own.py --src my_sounds"
CLASSES = ("bell", "dog bark", "rain", "saw")


def test_the_recipes_end_in_scores(tmp_path, warm_python):
    sections = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")
    own, tuned = (
        "".join(re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
        for title in ("Train on your own sounds", "Fine-tune and compare")
        for section in sections
        if section.startswith(title)
    )
    assert own.count(PREPARE) == 1 and len(own.splitlines()) <= 5
    own = own.replace(PREPARE, f"{PREPARE} --clip_seconds 0.3 --epochs 1")
    smaller = {"--epochs 50 --keep 3 --random_clip_size 500": "--epochs 1", " FILE": " my_runs/my_data"}
    for printed, small in smaller.items():
        assert tuned.count(printed) == 1
        tuned = tuned.replace(printed, small)
    for name in ("scripts", "cfgs_v2", *(path.name for path in ROOT.glob("*.py"))):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "my_sounds" / name).mkdir(parents=True)
        for number in range(5):
            clip = 0.1 * rng.standard_normal(SAMPLE_RATE // 2)
            soundfile.write(tmp_path / "my_sounds" / name / f"{number}.wav", clip, SAMPLE_RATE)

    path = f"{Path(warm_python).parent}{os.pathsep}{os.environ['PATH']}"
    for recipe in (own, tuned):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", recipe],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr[-3000:]
    (row,) = csv.DictReader((tmp_path / "my_runs/my_data/results.csv").open(newline=""))
    assert 0 <= float(row["mAP"]) <= 1 and 0 <= float(row["accuracy"]) <= 1
    assert "| accuracy |" in result.stdout
    assert len(list((tmp_path / "my_runs/tuned/ckpts").glob("*.ckpt"))) == 1
