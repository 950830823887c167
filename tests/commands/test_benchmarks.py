"""The benchmarks, tiny: that they run, what their tables hold, and that what they compare does the same work."""

import platform

import numpy as np
import pytest
import torch
from conftest import FIXTURES, ROOT, run_script

from benchmarks.literal import LiteralDataset
from src.config.sections import AudioConfig
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
from src.data.labels import LabelMap
from src.data.transforms import training_chain

SOUNDSCAPES = str(FIXTURES / "released_mixtures_layout.lmdb")


def tables(result):
    """Rows of cells of each Markdown table that was printed, the head first."""
    found = [[]]
    for line in result.stdout.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[head, *rows] for head, _, *rows in filter(None, found)]


def numbers(cells):
    return [float(cell.replace(",", "")) for cell in cells]


def run_benchmark(name, *words, fresh=False):
    result = run_script(f"benchmarks/{name}.py", *words, check=0, fresh=fresh)
    head = result.stdout.splitlines()[0]
    assert f"Python {platform.python_version()}" in head, head
    assert f"torch {torch.__version__.partition('+')[0]}" in head and "cores" in head and "load average" in head
    return tables(result)


@pytest.mark.parametrize("size", [500, 700])
def test_the_published_path_gives_the_features_of_this_one(size):
    label_map = LabelMap.load(FIXTURES / "lbl_map.json")
    published = LiteralDataset(SOUNDSCAPES, label_map, size, seed=5)
    ours = InMemoryLMDBDataset(SOUNDSCAPES, AudioConfig(), label_map, "multilabel", training_chain(size), 5)
    masked = 0
    for index in range(0, len(ours), 4):
        (theirs, their_target), (own, own_target) = published[2, index], ours[2, index]
        assert theirs.shape == (1, 221, size) and theirs.dtype == torch.float32
        assert np.array_equal(their_target, own_target) and own_target.sum() >= 1
        error = np.abs(theirs[0].numpy() - own)
        assert error[own > own.max() - 90].max() < 0.02 and error.mean() < 0.01
        masked += len(np.unique(own[:, 0])) == 1 or len(np.unique(own[0])) == 1 or (own == own.min()).mean() > 0.01
    assert 0 < masked < 12


def test_loader():
    speeds, parts = run_benchmark("loader", "--batches", 2, "--warm_up", 1, "--batch_size", 4, "--rounds", 2)
    assert [row[0] for row in speeds[1:]] == ["published", "FLAC", "cached samples", "FLAC, samples only"]
    for row in speeds[1:]:
        slowest, fastest = numbers(row[2].split(" … "))
        assert 0 < slowest <= numbers(row[1:2])[0] <= fastest
    assert speeds[1][3] == speeds[1][5] == "1.00"
    named = {row[0]: row[1:] for row in parts[1:]}
    for name in ("decoding FLAC", "features", "padding, cropping, masking", "the whole chain", "… samples only"):
        published, here, ratio = numbers(named[name])
        assert published > 0 and here > 0 and ratio == pytest.approx(published / here, rel=0.6)
    assert named["reading from the cache"][0] == ""


def test_memory(tmp_path):
    figures, growth = run_benchmark(
        "memory", "--clips", 4, "--num_workers", 1, "--clip_size", 64, "--folder", tmp_path, fresh=True
    )
    paths = ("published", "FLAC", "cached samples")
    assert [tuple(row[:3]) for row in figures[1:]] == [(path, "1", clips) for path in paths for clips in ("4", "16")]
    for main, main_last, worker, worker_last, written, written_last, everything, everything_last in (
        numbers(row[3:]) for row in figures[1:]
    ):
        assert min(main, main_last, written, written_last) > 0.1 and written <= worker and written_last <= worker_last
        assert everything > main and everything_last > main_last
    for number, (path, row) in enumerate(zip(paths, growth[1:])):
        fewer, more = (numbers(one[3:]) for one in figures[1 + 2 * number : 3 + 2 * number])
        expected = [
            there - here
            for last in (3, 5, 7)
            for there, here in ((more[last], fewer[last]), (more[last], more[last - 1]))
        ]
        assert row[:2] == [path, "1"] and numbers(row[2:]) == pytest.approx(expected, abs=0.11)
    assert list(tmp_path.iterdir()) == []


def test_start(tmp_path):
    (table,) = run_benchmark(
        "start", "--records", 8, "--batch_size", 2, "--num_workers", 1, "--rounds", 1, "--folder", tmp_path
    )
    assert [row[0].partition(":")[0] for row in table[1:]] == [
        "reading the file through",
        "first start ever",
        "any other start",
        "the same, reading ahead in the background",
    ]
    for row in table[2:]:
        opening, seconds = numbers(row[1:3])
        assert 0 <= opening <= seconds and seconds > 0
    assert list(tmp_path.iterdir()) == []


def test_start_refuses_a_folder_without_room(tmp_path):
    result = run_script("benchmarks/start.py", "--records", 10**10, "--folder", tmp_path)
    assert result.returncode == 1 and "GB are needed" in result.stderr.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "network", [("--arch", "cifar_resnet", "--depth", 20), ("--cfg_file", ROOT / "cfgs_v2/efficient/demo.cfg")]
)
def test_training_does_the_same_either_way(network):
    (table,) = run_benchmark(
        "training",
        *network,
        "--frames",
        64,
        "--batch_size",
        4,
        "--clips",
        12,
        "--num_workers",
        1,
        "--rounds",
        1,
        fresh=True,
    )
    assert [row[0] for row in table[1:]] == ["bare loop", "scripts", "bare loop, freed memory kept"]
    assert table[1][3] == table[1][5] == "1.000"
    for row in table[1:]:
        assert min(numbers(row[1:2] + row[3:])) > 0
        assert float(row[6]) == pytest.approx(float(table[1][6]), rel=1e-4)


def test_packing(tmp_path):
    (table,) = run_benchmark("packing", "--clips", 12, "--num_workers", 1, 2, "--folder", tmp_path)
    rows = table[1:]
    assert [row[:3] for row in rows] == [
        ["pack", "12", "1"],
        ["check", "12", "1"],
        ["fingerprint", "12", "1"],
        ["pack", "12", "2"],
        ["check", "12", "2"],
    ]
    assert all(numbers(row[3:4])[0] > 0 and int(row[4]) >= int(row[5]) for row in rows), table
    assert list(tmp_path.iterdir()) == []


def test_freed_memory():
    (table,) = run_benchmark(
        "freed_memory",
        "--networks",
        "cifar_resnet-20",
        "--batch_size",
        2,
        "--frames",
        64,
        "--steps",
        1,
        "--rounds",
        1,
        fresh=True,
    )
    assert [row[:3] for row in table[1:]] == [
        ["cifar_resnet-20", task, way] for task in ("inference", "training") for way in ("as by default", "kept")
    ]
    for default, kept in (table[1:3], table[3:5]):
        assert default[5] == "1.00" and min(numbers([default[3], kept[3], kept[5], default[6], kept[6]])) > 0


def test_event_scores():
    clips = ("--clips", 30, "--grid_clips", 8, "--classes", 2)
    whole, psds = run_benchmark("event_scores", *clips, "--resamples", 3, "--thresholds", 2000, "--runs", 1)
    assert [row[0] for row in whole[1:]] == ["frames laid out", "all scores", "all scores of 3 resamples"]
    assert min(numbers(whole[2][1:])) > 0
    assert [row[0] for row in psds[1:]] == ["all thresholds", "2000 thresholds"] and psds[1][2] == "1.0"
    # So fine a grid sees all operating points.
    assert 0 < float(psds[1][3]) == pytest.approx(float(psds[2][3]), abs=0.005)


def test_tagging():
    found = run_benchmark("tagging", "--seconds", 12, "--rounds", 1, "--networks", "efficient")
    ways = "forward passes alone", "forward passes beside a reader", "tagger, workers", "tagger, one process"
    assert len(found) == 4
    for head, *rows in found:
        assert head[0].startswith("efficient, ") and [row[0] for row in rows] == [*ways, "plain loop"]
        times = [numbers(row[1:]) for row in rows]
        assert times[0][1] == 1 and all(ratio > 0 and hours > 0 for _, ratio, hours in times)
