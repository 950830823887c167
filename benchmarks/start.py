"""Seconds from opening a large LMDB, which is in the page cache, to the first training batch.

    python benchmarks/start.py

The baseline is one pass through the file, with nothing done to what is read: no start that reads all of it is faster.
Each way of starting is timed in new processes, once their imports are done. They take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import _repository

from benchmarks.measuring import (
    LBL_MAP,
    in_fresh_process,
    in_turns,
    machine,
    print_table,
    repeat_records,
)
from src import cli
from src.data.lmdb.notes import FileState, note_on
from src.data.lmdb.store import NOTE
from src.utils.memory import available_memory

CHUNK = 1 << 24  # bytes read at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--records", type=cli.positive(int), default=60_000, help="of the LMDB that is made, 0.1 MB each (60000)")
    add("--folder", help="where to make it, by default a temporary folder")
    add("--lmdb", help="take this one instead. Its labels are read anew, too")
    add("--lbl_map", default=str(LBL_MAP), help="its classes (the tests')")
    add("--batch_size", type=cli.positive(int), default=64, help="clips in a batch (64)")
    add("--num_workers", type=cli.count, default=2, help="loader processes (2)")
    add("--rounds", type=cli.positive(int), default=3, help="of which medians are taken (3)")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        lmdb = arguments.lmdb or str(repeat_records(Path(folder) / "large.lmdb", arguments.records))
        size = FileState.of(lmdb).size
        if size > available_memory():
            print(f"{lmdb}: does not fit into the free memory, {available_memory() / 1e9:.1f} GB: the disk is timed")
        print(
            f"{size / 1e9:.2f} GB, batches of {arguments.batch_size} by {arguments.num_workers} workers, medians of "
            f"{arguments.rounds}"
        )
        read_through(lmdb)  # into the page cache
        start = functools.partial(
            in_fresh_process, seconds_to_start, lmdb, arguments.lbl_map, arguments.batch_size, arguments.num_workers
        )
        found = in_turns(
            {
                "reading the file through": lambda: (0.0, read_through(lmdb)),
                "first start ever: no note of the labels": lambda: forgetful(lmdb, start),
                "any other start": lambda: start(False),
                "the same, reading ahead in the background": lambda: start(True),
            },
            arguments.rounds,
        )
        print_table(("seconds", "opening", "to the first batch", "range", "ratio"), rows_of(found))


def read_through(lmdb: str) -> float:
    """Seconds that it takes."""
    begun, buffer = time.perf_counter(), bytearray(CHUNK)
    with open(FileState.of(lmdb).path, "rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
    return time.perf_counter() - begun


def forgetful(lmdb: str, start) -> tuple[float, float]:
    """A start without the note that packing, or an earlier start, left beside the file."""
    with contextlib.suppress(FileNotFoundError):
        note_on(lmdb, NOTE).unlink()
    return start(False)


def seconds_to_start(lmdb: str, lbl_map: str, batch_size: int, num_workers: int, ahead: bool) -> tuple[float, float]:
    """(until the data set is open, until the first batch is there)."""
    from src.config.sections import AudioConfig
    from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
    from src.data.labels import LabelMap
    from src.data.loading import loader
    from src.data.sampling import EpochSampler
    from src.data.transforms import training_chain

    begun = time.perf_counter()
    dataset = InMemoryLMDBDataset(lmdb, AudioConfig(), LabelMap.load(lbl_map), "multilabel", training_chain(500))
    opened = time.perf_counter() - begun
    if ahead:
        dataset.read_ahead()
    next(iter(loader(dataset, EpochSampler(len(dataset), 0, True), batch_size, num_workers)))
    return opened, time.perf_counter() - begun


def rows_of(found: dict[str, list[tuple[float, float]]]) -> Iterator[tuple[str, ...]]:
    """Medians. Ratios are to the first way."""
    base = None
    for name, runs in found.items():
        opening, seconds = (statistics.median(part) for part in zip(*runs))
        base = base or seconds
        totals = [total for _, total in runs]
        yield (
            name,
            f"{opening:.2f}" if opening else "",
            f"{seconds:.2f}",
            f"{min(totals):.2f} … {max(totals):.2f}",
            f"{seconds / base:.2f}",
        )


if __name__ == "__main__":
    cli.run(main)
