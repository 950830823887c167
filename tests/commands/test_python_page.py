"""docs/python.md: its code and its commands, run as they stand."""

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import soundfile
from conftest import ROOT, SAMPLE_RATE, run_script

from src.runs.folder import best

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PREDICT = re.search(r"^python (predict\.py .*)$", PAGE, re.MULTILINE)[1]


def test_the_page_runs_as_it_stands(trained, tmp_path):
    (tmp_path / "mine.ckpt").symlink_to(best((trained / "r1/mixup/tiny/train_8/ckpts").glob("*.ckpt")))
    (tmp_path / "GISE-51-pytorch").symlink_to(ROOT)
    (tmp_path / "recordings").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (6 * SAMPLE_RATE, 2))
    for name in ("recording.wav", "recordings/a.wav"):
        soundfile.write(tmp_path / name, noise, SAMPLE_RATE)
    run_script(*shlex.split(PREDICT), check=0, cwd=tmp_path)
    assert len(BLOCKS) >= 6
    code = "\n".join(BLOCKS) + "\nprint(scores.shape, vectors.shape, tuple(logits.shape))\n"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    strongest, several, stored, shapes = result.stdout.splitlines()
    assert re.fullmatch(r"(Drum|Harp|Organ): [01]\.\d{3} from \d\.\d to \d\.\d s", strongest)
    assert several == "[(2, 3), (1, 3)]" and stored == "(2, 128) recordings/a.wav 0.0 5.0"
    assert shapes == "(2, 3) (2, 128) (2, 10)"
