"""Memory of the processes that load clips, over a data set and over one four times as large.

    python benchmarks/memory.py

USS is what a process has for itself, PSS that and its share of what it has together with others, in MB. They are looked
up after the first and the third epoch, when all batches are done with. The system's page cache, which holds the files'
one copy, belongs to no process. But a page of it that one process alone has mapped counts in that one's USS. So a
worker's is given without such pages too. Every line is of a new process with new loader workers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

import _repository

from benchmarks.measuring import LBL_MAP, in_fresh_process, machine, print_table, repeat_records, tree
from src import cli
from src.utils.progress import progress

TIMES = 4  # the larger data set in the smaller one
LOOKS = (1, 3)  # epochs after which memory is looked up
BATCH_SIZE = 32
PATHS = ("published", "FLAC", "cached samples")


class Memory(NamedTuple):
    """Bytes."""

    main: int  # USS of the main process
    worker: int  # USS of the worker that has most
    written: int  # the same without pages of mapped files
    all: int  # PSS of all processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clips", type=cli.positive(int), default=500, help="of the smaller data set, of five seconds (500)")
    add("--num_workers", type=cli.count, nargs="+", default=[0, 2, 4], help="loader processes (0 2 4)")
    add("--clip_size", type=cli.positive(int), default=500, help="frames of a training clip (500)")
    add("--folder", help="where to make the data sets, by default a temporary folder")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sizes = arguments.clips, TIMES * arguments.clips
        lmdbs = [str(repeat_records(Path(folder) / f"{size}.lmdb", size)) for size in sizes]
        found = {}
        with progress(len(PATHS) * len(arguments.num_workers) * len(sizes), "memory", "run") as bar:
            for path in PATHS:
                for workers in arguments.num_workers:
                    for size, lmdb in zip(sizes, lmdbs):
                        found[path, workers, size] = in_fresh_process(
                            memory_of, path, lmdb, workers, arguments.clip_size, folder
                        )
                        bar.update()
    first, last = (f"epoch {epoch}" for epoch in LOOKS)
    print_table(
        (
            "path",
            "workers",
            "clips",
            f"main process, USS: {first}",
            last,
            f"a worker, USS: {first}",
            last,
            f"without mapped files: {first}",
            last,
            f"all, PSS: {first}",
            last,
        ),
        rows_of(found),
    )
    print_table(
        (
            "growth of",
            "workers",
            f"a worker's USS with {TIMES} times the clips",
            "with epochs",
            "without mapped files, with the clips",
            "with epochs",
            "all processes' PSS with the clips",
            "with epochs",
        ),
        growth_of(found, *sizes),
    )


def memory_of(path: str, lmdb: str, num_workers: int, clip_size: int, folder: str) -> list[Memory]:
    """After each of LOOKS epochs of an LMDB, in this process and its workers."""
    import torch

    torch.set_num_threads(1)
    batches, own = loader_of(path, lmdb, num_workers, clip_size, folder), os.getpid()
    found = []
    for epoch in range(1, 1 + LOOKS[-1]):
        for inputs, *_ in batches:
            inputs.sum()  # look at all of it, as training does
        if epoch in LOOKS:
            processes = tree(own)
            full = [process.memory_full_info() for process in processes]
            uss = [info.uss for info in full]
            written = [one - mapped_alone(process) for one, process in zip(uss, processes)]
            found.append(
                Memory(uss[0], max(uss[1:], default=0), max(written[1:], default=0), sum(info.pss for info in full))
            )
    return found


def mapped_alone(process: psutil.Process) -> int:
    """Bytes of files' pages that a process has mapped, has not written to, and shares with no other."""
    return sum(part.private_clean for part in process.memory_maps())


def loader_of(path: str, lmdb: str, num_workers: int, clip_size: int, folder: str):
    """A DataLoader, of the published data set or of ours."""
    from torch.utils.data import DataLoader

    from benchmarks.literal import LiteralDataset
    from src.config.sections import AudioConfig
    from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
    from src.data.labels import LabelMap
    from src.data.loading import loader
    from src.data.sampling import EpochSampler
    from src.data.transforms import training_chain

    label_map = LabelMap.load(LBL_MAP)
    if path == "published":
        dataset = LiteralDataset(lmdb, label_map, clip_size)
        return DataLoader(
            dataset,
            BATCH_SIZE,
            sampler=EpochSampler(len(dataset), 0, True),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )
    dataset = InMemoryLMDBDataset(
        lmdb,
        AudioConfig(),
        label_map,
        "multilabel",
        training_chain(clip_size),
        cache_samples=folder if path == "cached samples" else None,
    )
    return loader(dataset, EpochSampler(len(dataset), 0, True), BATCH_SIZE, num_workers)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"


def rows_of(found: dict[tuple[str, int, int], list[Memory]]) -> Iterator[tuple[object, ...]]:
    """Of the first table."""
    for (path, workers, size), looks in found.items():
        figures = [megabytes(figure) for kind in zip(*looks) for figure in kind]
        if not workers:
            figures[2:6] = [""] * 4
        yield path, workers, f"{size:,}", *figures


def growth_of(found: dict[tuple[str, int, int], list[Memory]], small: int, large: int) -> Iterator[tuple[object, ...]]:
    """Of the second table: between the data sets after the last epoch, and between the epochs of the larger one."""
    for path, workers in dict.fromkeys(key[:2] for key in found):
        fewer, more = found[path, workers, small], found[path, workers, large]
        growth = [
            megabytes(there - here)
            for kind in ("worker", "written", "all")
            for there, here in (
                (getattr(more[-1], kind), getattr(fewer[-1], kind)),
                (getattr(more[-1], kind), getattr(more[0], kind)),
            )
        ]
        yield path, workers, *(growth if workers else ["", "", "", "", *growth[4:]])


if __name__ == "__main__":
    cli.run(main)
