"""benchmarks/on_gpu.sh: its parts, tiny and on the CPU, where device and CPU are the same."""

import os
import subprocess

import pytest
import torch
from conftest import ROOT, error_line, run_script

from benchmarks import on_gpu
from benchmarks.on_gpu import Check, checks, run_all, tiny


@pytest.fixture
def place(tmp_path):
    return tiny(tmp_path)


def passes(found):
    difference, limit = found
    return 0 <= difference <= limit


@pytest.mark.parametrize("audio", on_gpu.AUDIO.values(), ids=on_gpu.AUDIO)
def test_features(place, audio):
    assert on_gpu.features_differ(place, audio) == (0, 0.05)


@pytest.mark.parametrize("way", ["32 bits", "channels first", "16-mixed", "bf16-mixed"])
def test_logits(place, way):
    found = on_gpu.logits_differ(place, ("cifar_resnet", 20), way)
    assert passes(found) and (found[0] == 0) == (way == "32 bits")


def test_the_cache_one_process_and_a_killed_run(place):
    assert on_gpu.cache_differs(place) == (0, 0)
    assert passes(on_gpu.in_fresh_process(on_gpu.group_differs, place))
    assert on_gpu.resumed_differs(place) == (0, 0)


def test_speed_memory_and_where_the_time_goes(tmp_path):
    page = tmp_path / "gpu.md"
    words = "--tiny_on_cpu", "--parts", "speed", "time", "memory", "--output", page
    assert str(page) in run_script("benchmarks/on_gpu.py", *words, check=0).stdout
    lines = page.read_text().splitlines()
    assert lines[0] == "# On a GPU" and "No GPU" in lines[3] and f"torch {torch.__version__[:3]}" in lines[2]
    rows = {cells[1]: cells[2:-1] for line in lines if (cells := [cell.strip() for cell in line.split("|")])[1:]}
    network = "CIFAR-ResNet-20"
    for way in ("bare loop", "--features workers", "--features device", "--cache_samples device"):
        speed, ratio = map(float, rows[f"{network}: {way}"])
        assert speed > 0 and ratio > 0
    shares = [int(share.rstrip("% ")) for share in rows[network]]
    assert len(shares) == 5 and sum(shares) == pytest.approx(100, abs=3)
    assert rows["60,000 clips of five seconds"] == ["13.2"]


def test_every_family_precision_and_way_is_looked_at(place):
    names = [f"{check.part}: {check.name}" for check in checks(place)]
    assert len(set(names)) == len(names) == 3 + 4 * len(on_gpu.FAMILIES) + 3 + 5 + 2 + 1
    on_a_gpu = [check.name for check in checks(on_gpu.Place(torch.device("cuda"), place.folder))]
    assert len([name for name in on_a_gpu if "--compile" in name]) == 2 and "nccl on one process" in on_a_gpu


def test_what_fails_is_a_line_and_what_there_is_no_time_for_is_named(place, tmp_path):
    def broken():
        raise RuntimeError("CUDA error | 719")

    todo = [
        Check("correctness", "exact", 1, lambda: (0.0, 0.0)),
        Check("correctness", "not a number", 1, lambda: (float("nan"), 1.0)),
        Check("correctness", "broken", 1, broken),
        Check("memory", "for long", 10_000, broken),
    ]
    assert run_all(todo, place, str(tmp_path / "gpu.md")) == 2
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert "| exact | 0 | 0 | passed |" in lines and "| not a number | nan | 1 | **failed** |" in lines
    assert "| broken |  |  | **failed**: RuntimeError CUDA error / 719 |" in lines
    assert lines[-3:] == ["## Left out, for want of time", "", "- memory: for long"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_ends_early(tmp_path):
    result = subprocess.run(
        [ROOT / "benchmarks/on_gpu.sh"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert "PyTorch finds no GPU here" in error_line(result) and not list(tmp_path.iterdir())
