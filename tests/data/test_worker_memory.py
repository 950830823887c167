"""A loader worker's own memory is the same whatever the size of the data set, and after any number of epochs."""

import ctypes
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
from conftest import CLASSES, FIXTURES

from src.config.sections import AudioConfig
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.data.loading import loader
from src.data.sampling import EpochSampler
from src.data.transforms import training_chain
from src.utils.memory import keep_freed_memory

SIZES = 128, 512  # records of 0.1 MB, multiples of those that a worker maps at a time
LIMIT = 6e6  # bytes


def can_read_smaps():
    try:
        return psutil.Process().memory_full_info().uss > 0
    except (psutil.Error, AttributeError, OSError):
        return False


pytestmark = pytest.mark.skipif(not can_read_smaps(), reason="the system does not tell what memory is a process's own")


@pytest.fixture(scope="module")
def lmdbs(tmp_path_factory):
    """Of the real soundscapes' size and bytes, under one label."""
    folder, reader = tmp_path_factory.mktemp("sizes"), LMDBReader(FIXTURES / "released_mixtures_layout.lmdb")
    for size in SIZES:
        with LMDBWriter(folder / f"{size}.lmdb", 1e8) as writer:
            for index in range(size):
                writer.add(Record(reader[index % len(reader)].flac, CLASSES[index % len(CLASSES)]))
    return [str(folder / f"{size}.lmdb") for size in SIZES]


def own_memory(lmdb, cache, epochs):
    """Bytes of the one worker after each epoch."""
    dataset = InMemoryLMDBDataset(
        lmdb, AudioConfig(), LabelMap(tuple(CLASSES)), "multilabel", training_chain(64), cache_samples=cache
    )
    batches, found = loader(dataset, EpochSampler(len(dataset), 0, True), 32, 1), []
    others = set(multiprocessing.active_children())
    for _ in range(epochs):
        for inputs, *_ in batches:
            inputs.sum()  # memory that only the worker has touched counts as its own
        (worker,) = set(multiprocessing.active_children()) - others
        found.append(psutil.Process(worker.pid).memory_full_info().uss)
    return found


@pytest.mark.parametrize("cached", [False, True])
def test_it_grows_neither_with_the_data_set_nor_with_epochs(lmdbs, tmp_path, cached):
    small, large = (own_memory(lmdb, tmp_path / "cache" if cached else None, 3) for lmdb in lmdbs)
    assert max(small + large) - min(small + large) < LIMIT, (small, large)


def test_it_would_if_all_that_is_read_stayed_mapped(lmdbs, monkeypatch):
    """What the limit is there to see."""
    monkeypatch.setattr(LMDBReader, "release_pages", lambda reader: None)
    small, large = (own_memory(lmdb, None, 1) for lmdb in lmdbs)
    assert large[0] - small[0] > 4 * LIMIT, (small, large)


def page_faults(keep, size):
    """Pages that a process is given while it asks for the same memory again and again."""
    if keep:
        keep_freed_memory()
    for number in range(12):
        if number == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        pieces = [bytearray(size) for _ in range(3)]
        del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_memory_is_kept_for_what_is_asked_for_next():
    size = 2**26
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        given_back, kept = (pool.submit(page_faults, keep, size).result() for keep in (False, True))
    pages = 30 * size / resource.getpagesize()
    assert kept < 0.01 * pages < 0.9 * pages < given_back
