"""--cache_samples: a file that is not as it was written is never believed."""

import os
import pickle
import random
import shutil

import numpy as np
import pytest
from conftest import error_line, run_script, train_command

from src.data.lmdb.sample_cache import LAYOUT, TAIL, open_cache
from src.data.lmdb.store import LMDBReader


def cut_at(share):
    return lambda data: data[: int(share * len(data))]


def changed(start, end, make):
    """Part of the file, from one share of it to another, made anew."""

    def change(data):
        first, last = int(start * len(data)), int(end * len(data))
        return data[:first] + make(last - first) + data[last:]

    return change


def with_index(change):
    """The starts of the clips changed, and nothing else."""

    def spoil(data):
        count = TAIL.unpack(data[-TAIL.size :])[0]
        place = len(data) - TAIL.size - 12 * count - 8
        starts = np.frombuffer(data[place:], np.int64, count + 1).copy()
        change(starts)
        return data[:place] + starts.tobytes() + data[place + starts.nbytes :]

    return spoil


def older_layout(data):
    """Without sums, as it was once."""
    count = TAIL.unpack(data[-TAIL.size :])[0]
    return data[: len(data) - TAIL.size - 4 * count] + np.int64(count).tobytes()


AS_OPENED = {
    "empty": lambda data: b"",
    "a byte": lambda data: data[:1],
    "cut in the samples": cut_at(0.5),
    "cut in its tail": lambda data: data[:-3],
    "cut at its head": lambda data: data[100:],
    "longer": lambda data: data + bytes(100),
    "all zero": lambda data: bytes(len(data)),
    "all noise": lambda data: random.Random(1).randbytes(len(data)),
    "index out of range": with_index(lambda starts: starts.__setitem__(3, 10**12)),
    "negative index": with_index(lambda starts: starts.__setitem__(3, -5)),
    "index of zeros": with_index(lambda starts: starts.fill(0)),
    "index one sample off": with_index(lambda starts: starts.__iadd__(1)),
    "older layout": older_layout,
    "another layout": lambda data: data[: -len(LAYOUT)] + b"samples9",
    "text": lambda data: b"samples\n" * (len(data) // 8),
}
AS_READ = {
    "zeros in the samples": changed(0.4, 0.6, bytes),
    "noise in the samples": changed(0.1, 0.3, random.Random(2).randbytes),
    "one bit": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    "noise instead of them": changed(0, 0.99, random.Random(3).randbytes),
}


@pytest.fixture
def reader(corpus):
    return LMDBReader(corpus / "train.lmdb")


def clips(cache):
    return [cache[index] for index in range(12)]


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("damage", AS_OPENED)
def test_a_file_that_is_not_whole_is_made_anew(reader, tmp_path, caplog, damage):
    cache = open_cache(tmp_path, reader, 22050, 1)
    whole, expected = cache.path.read_bytes(), clips(cache)
    cache.path.write_bytes(AS_OPENED[damage](whole))
    assert same(clips(open_cache(tmp_path, reader, 22050, 1)), expected)
    assert cache.path.read_bytes() == whole
    assert f"{cache.path}: is damaged, and is made anew" in caplog.text
    caplog.clear()
    assert same(clips(open_cache(tmp_path, reader, 22050, 1)), expected) and not caplog.text


@pytest.mark.parametrize("damage", AS_READ)
def test_a_clip_that_is_not_as_written_is_not_given(reader, tmp_path, caplog, damage):
    cache = open_cache(tmp_path, reader, 22050, 1)
    whole, expected = cache.path.read_bytes(), clips(cache)
    cache.path.write_bytes(AS_READ[damage](whole))
    found = clips(open_cache(tmp_path, reader, 22050, 1))
    assert any(clip is None for clip in found) and caplog.text.count("is damaged, and decoded instead") == 1
    assert all(clip is None or np.array_equal(clip, right) for clip, right in zip(found, expected))
    assert same(clips(open_cache(tmp_path, reader, 22050, 1)), expected) and "is made anew" in caplog.text
    assert cache.path.read_bytes() == whole


def test_a_file_that_is_cut_while_it_is_read_gives_none_of_what_is_gone(reader, tmp_path):
    cache = open_cache(tmp_path, reader, 22050, 1)
    expected = clips(cache)[:2]
    fresh = pickle.loads(pickle.dumps(open_cache(tmp_path, reader, 22050, 1)))
    os.truncate(cache.path, 70000)
    found = clips(fresh)
    assert same(found[:2], expected) and found[2:] == [None] * 10


def test_the_file_of_other_clips_is_made_anew(corpus, reader, tmp_path):
    cache = open_cache(tmp_path, reader, 22050, 1)
    expected, other = clips(cache), open_cache(tmp_path, LMDBReader(corpus / "val.lmdb"), 22050, 1)
    shutil.copy(other.path, cache.path)
    assert same(clips(open_cache(tmp_path, reader, 22050, 1)), expected)


@pytest.mark.parametrize("put", [lambda path: path.symlink_to(path), os.mkfifo, lambda path: path.symlink_to("gone")])
def test_what_is_no_file_gives_way(reader, tmp_path, put):
    cache = open_cache(tmp_path, reader, 22050, 1)
    expected = clips(cache)
    cache.path.unlink()
    put(cache.path)
    assert same(clips(open_cache(tmp_path, reader, 22050, 1)), expected)


@pytest.fixture
def cached(corpus, tmp_path):
    """The caches of both LMDBs and the figures of the run that made them."""
    words = train_command(corpus, tmp_path / "undisturbed", "--cache_samples", tmp_path / "cache", epochs=2)
    run_script(*words, check=0)
    return sorted((tmp_path / "cache").iterdir()), (tmp_path / "undisturbed/logs/metrics.csv").read_text()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["cut in the samples", "negative index", "all noise", *AS_READ])
def test_training_gives_the_figures_of_the_undisturbed_run(cached, corpus, tmp_path, damage, workers):
    files, figures = cached
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes((AS_OPENED | AS_READ)[damage](file.read_bytes()))
    words = train_command(corpus, tmp_path / "run", "--cache_samples", tmp_path / "cache", epochs=2)
    result = run_script(*words, "--num_workers", workers, check=0)
    assert (tmp_path / "run/logs/metrics.csv").read_text() == figures
    for file in files:
        assert f"{file}: is damaged" in result.stderr or f"{file}: clip " in result.stderr
    again = train_command(corpus, tmp_path / "again", "--cache_samples", tmp_path / "cache")
    run_script(*again, check=0)
    assert [file.read_bytes() for file in files] == whole


def test_a_folder_in_its_place_is_told(cached, corpus, tmp_path):
    file = cached[0][0]
    file.unlink()
    (file / "mine").mkdir(parents=True)
    words = train_command(corpus, tmp_path / "run", "--cache_samples", tmp_path / "cache")
    line = error_line(run_script(*words))
    assert f"{file}: is a folder. Delete it, or choose another --cache_samples" in line
    assert (file / "mine").is_dir() and not (tmp_path / "run").exists()
