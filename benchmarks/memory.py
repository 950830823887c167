"""Memory of the processes that load clips, over a data set and over one four times as large.

    python benchmarks/memory.py

USS is what a process has for itself, PSS that and its share of what it has together with others; MB. Looked up after
the first and the third epoch, when all batches are done with. The system's page cache, which holds the files' one copy,
belongs to no process. Every line is of a new process with new loader workers.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import LBL_MAP, in_fresh_process, machine, print_table, repeat_records, tree  # noqa: E402
from src import cli  # noqa: E402
from src.progress import progress  # noqa: E402

TIMES = 4  # the larger data set in the smaller one
LOOKS = (1, 3)  # epochs after which memory is looked up
BATCH_SIZE = 32
PATHS = ("published", "FLAC", "cached samples")


class Memory(NamedTuple):
    """Bytes."""

    main: int  # USS of the main process
    worker: int  # USS of the worker that has most
    all: int  # PSS of all processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clips", type=cli.positive(int), default=500, help="of the smaller data set, of five seconds (500)")
    add("--num_workers", type=cli.count, nargs="+", default=[0, 2, 4], help="loader processes (0 2 4)")
    add("--clip_size", type=cli.positive(int), default=500, help="frames of a training clip (500)")
    add("--folder", help="where to make the data sets; a temporary folder if left out")
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
                        found[path, workers, size] = in_fresh_process(memory_of, path, lmdb, workers,
                                                                      arguments.clip_size, folder)
                        bar.update()
    first, last = (f"epoch {epoch}" for epoch in LOOKS)
    print_table(("path", "workers", "clips", f"main process, USS: {first}", last, f"a worker, USS: {first}", last,
                 f"all, PSS: {first}", last), rows_of(found))
    print_table(("growth of", "workers", f"a worker's USS with {TIMES} times the clips", "with epochs",
                 "all processes' PSS with the clips", "with epochs"), growth_of(found, *sizes))


def memory_of(path: str, lmdb: str, num_workers: int, clip_size: int, folder: str) -> list[Memory]:
    """After each of LOOKS epochs of an LMDB, in this process and its workers."""
    import torch

    torch.set_num_threads(1)
    batches, own = loader_of(path, lmdb, num_workers, clip_size, folder), os.getpid()
    found = []
    for epoch in range(1, 1 + LOOKS[-1]):
        for inputs, _ in batches:
            inputs.sum()  # look at all of it, as training does
        if epoch in LOOKS:
            full = {process.pid: process.memory_full_info() for process in tree(own)}
            main = full[own].uss
            workers = sorted(info.uss for pid, info in full.items() if pid != own)[-num_workers:] or [0]
            found.append(Memory(main, workers[-1], sum(info.pss for info in full.values())))
    return found


def loader_of(path: str, lmdb: str, num_workers: int, clip_size: int, folder: str):
    """A DataLoader, of the published data set or of ours."""
    from torch.utils.data import DataLoader

    from benchmarks.literal import LiteralDataset
    from src.config import AudioConfig
    from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
    from src.data.labels import LabelMap
    from src.data.loading import loader
    from src.data.sampling import EpochSampler
    from src.data.transforms import training_chain

    label_map = LabelMap.load(LBL_MAP)
    if path == "published":
        dataset = LiteralDataset(lmdb, label_map, clip_size)
        return DataLoader(dataset, BATCH_SIZE, sampler=EpochSampler(len(dataset), 0, True), num_workers=num_workers,
                          persistent_workers=num_workers > 0)
    dataset = InMemoryLMDBDataset(lmdb, AudioConfig(), label_map, "multilabel", training_chain(clip_size),
                                  cache_samples=folder if path == "cached samples" else None)
    return loader(dataset, EpochSampler(len(dataset), 0, True), BATCH_SIZE, num_workers)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"


def rows_of(found: dict[tuple[str, int, int], list[Memory]]) -> Iterator[tuple[object, ...]]:
    """Of the first table."""
    for (path, workers, size), looks in found.items():
        figures = [megabytes(figure) for kind in zip(*looks) for figure in kind]
        if not workers:
            figures[2:4] = "", ""
        yield path, workers, f"{size:,}", *figures


def growth_of(found: dict[tuple[str, int, int], list[Memory]], small: int, large: int) -> Iterator[tuple[object, ...]]:
    """Of the second table: between the data sets after the last epoch, and between the epochs of the larger one."""
    for path, workers in dict.fromkeys(key[:2] for key in found):
        fewer, more = found[path, workers, small], found[path, workers, large]
        own = (megabytes(more[-1].worker - fewer[-1].worker), megabytes(more[-1].worker - more[0].worker))
        yield (path, workers, *(own if workers else ("", "")), megabytes(more[-1].all - fewer[-1].all),
               megabytes(more[-1].all - more[0].all))


if __name__ == "__main__":
    cli.run(main)
