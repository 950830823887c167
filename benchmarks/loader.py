"""Clips a second and core of the whole training chain, of the published path and of this project's.

    python benchmarks/loader.py

One loader worker, with one thread, makes batches of training clips. The main process does nothing with them. Paths take
turns, each time with a new worker, whose first batches are not counted. Clips a second are those that arrive. Clips a
CPU second are counted in the worker's own time, which other work disturbs less. The second table takes the chain apart,
in one more worker, in CPU time.
"""

from __future__ import annotations

import argparse
import functools
import io
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import soundfile
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

import _repository

from benchmarks import literal
from benchmarks.measuring import LBL_MAP, SOUNDSCAPES, in_turns, machine, print_table
from src import cli
from src.config.sections import AudioConfig
from src.data.audio.files import decode_record
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
from src.data.labels import LabelMap
from src.data.loading import loader
from src.data.sampling import EpochSampler, clip_generator
from src.data.transforms import training_chain

PREFETCH = 4  # batches
TICK = 1 / os.sysconf("SC_CLK_TCK")  # s, to which the system counts another process's CPU time
PASSES = 9  # through the clips, of the second table

Key = tuple[int, int]  # epoch, index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--lmdb", default=str(SOUNDSCAPES), help="soundscapes (the tests' 48 real ones)")
    add("--lbl_map", default=str(LBL_MAP), help="their classes (the tests')")
    add("--batches", type=cli.positive(int), default=30, help="counted batches of each run (30)")
    add("--warm_up", type=cli.positive(int), default=4, help="batches before them (4)")
    add("--batch_size", type=cli.positive(int), default=32, help="(32)")
    add("--clip_size", type=cli.positive(int), default=500, help="frames of a training clip (500)")
    add("--rounds", type=cli.positive(int), default=5, help="counted runs of each path (5)")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        published, ours = open_paths(arguments.lmdb, arguments.lbl_map, arguments.clip_size, folder)
        keys = list(islice(keys_of(len(published)), arguments.batch_size * (arguments.warm_up + arguments.batches)))
        work = {
            "published": lambda: DataLoader(
                published, arguments.batch_size, sampler=keys, num_workers=1, prefetch_factor=PREFETCH
            )
        }
        for name, dataset in ours.items():
            work[name] = functools.partial(loader, dataset, keys, arguments.batch_size, 1, PREFETCH)
        print(
            f"{arguments.batches} batches of {arguments.batch_size} clips, crops of {arguments.clip_size} frames, "
            f"medians of {arguments.rounds} rounds, {arguments.lmdb}, {len(published)} clips"
        )
        found = in_turns(
            {name: functools.partial(one_run, make, arguments.warm_up) for name, make in work.items()}, arguments.rounds
        )
        print_table(("path", "clips/s", "range", "ratio", "clips/CPU s", "ratio", "page faults a clip"), rows_of(found))
        print_table(("ms of CPU time a clip", "published", "here", "ratio"), parts_of(published, *ours.values()))


def open_paths(
    lmdb: str, lbl_map: str, clip_size: int, cache: str
) -> tuple[literal.LiteralDataset, dict[str, InMemoryLMDBDataset]]:
    """The published data set, and this project's in its three ways."""
    label_map = LabelMap.load(lbl_map)
    arguments = lmdb, AudioConfig(), label_map, "multilabel", training_chain(clip_size)
    ours = {
        "FLAC": InMemoryLMDBDataset(*arguments),
        "cached samples": InMemoryLMDBDataset(*arguments, cache_samples=cache),
        "FLAC, samples only": InMemoryLMDBDataset(*arguments),
    }
    ours["FLAC, samples only"].on_device = True
    return literal.LiteralDataset(lmdb, label_map, clip_size), ours


def keys_of(num_records: int) -> Iterator[Key]:
    """As training asks for clips, without end."""
    sampler = EpochSampler(num_records, seed=0, training=True)
    for epoch in count():
        sampler.set_epoch(epoch)
        yield from sampler


@dataclass(frozen=True)
class Run:
    """What one worker did, warm-up left out."""

    clips: int
    seconds: float
    cpu: float  # s of the worker
    faults: int  # pages that it was given, and that were in memory


def one_run(make: Callable[[], DataLoader], warm_up: int) -> Run:
    """Take all batches of a new loader as soon as they are there."""
    batches = make()
    others = set(multiprocessing.active_children())
    arriving = iter(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    for _ in range(warm_up):
        next(arriving)
    start, (cpu, faults) = time.perf_counter(), used(worker.pid)
    # No more than there are: asked for one more, a loader would end its worker.
    clips = sum(len(batch[1]) for batch in islice(arriving, len(batches) - warm_up))
    seconds, (cpu_end, faults_end) = time.perf_counter() - start, used(worker.pid)
    return Run(clips, seconds, max(TICK, cpu_end - cpu), faults_end - faults)


def used(pid: int) -> tuple[float, int]:
    """(s of CPU time, minor page faults) of a process so far, see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return TICK * (int(fields[11]) + int(fields[12])), int(fields[7])


def rows_of(found: dict[str, list[Run]]) -> Iterator[tuple[str, ...]]:
    """Medians of the rounds. Ratios are to the first path."""
    base = None
    for name, runs in found.items():
        speeds = [run.clips / run.seconds for run in runs]
        own = statistics.median(run.clips / run.cpu for run in runs)
        middle, faults = statistics.median(speeds), statistics.median(run.faults / run.clips for run in runs)
        base = base or (middle, own)
        yield (
            name,
            f"{middle:,.0f}",
            f"{min(speeds):,.0f} … {max(speeds):,.0f}",
            f"{middle / base[0]:.2f}",
            f"{own:,.0f}",
            f"{own / base[1]:.2f}",
            f"{faults:.0f}",
        )


class Parts(Dataset):
    """Asked for keys, gives a (P, 2) tensor as the inputs of a batch without targets.

    It holds the ms of CPU time that each of `NAMES` takes for a clip, in this very process, published and here.
    """

    NAMES = (
        "reading a record",
        "decoding FLAC",
        "reading from the cache",
        "features",
        "padding, cropping, masking",
        "the whole chain",
        "… from the cache",
        "… samples only",
    )

    def __init__(
        self,
        published: literal.LiteralDataset,
        ours: InMemoryLMDBDataset,
        cached: InMemoryLMDBDataset,
        samples_only: InMemoryLMDBDataset,
    ):
        self.published, self.ours, self.cached, self.samples_only = published, ours, cached, samples_only

    def __getitems__(self, keys: list[Key]) -> tuple[torch.Tensor, torch.Tensor]:
        ours, size = self.ours, self.published.clip_size
        flacs = {key: self.published.records[key[1]][0] for key in keys}
        doubles = {key: soundfile.read(io.BytesIO(flac))[0] for key, flac in flacs.items()}
        waveforms = {key: ours.waveform(key[1]) for key in keys}
        wide = {key: literal.features(samples) for key, samples in doubles.items()}
        narrow = {key: ours.features(samples) for key, samples in waveforms.items()}

        def seen(key: Key) -> None:
            ours.view(*key, narrow[key].shape[1]).of(narrow[key])

        whole = spent([keys], lambda keys: default_collate([self.published[key] for key in keys])) / len(keys)
        parts = [
            (math.nan, spent(keys, lambda key: ours.reader.audio(key[1]))),
            (
                spent(keys, lambda key: soundfile.read(io.BytesIO(flacs[key]))),
                spent(keys, lambda key: decode_record(flacs[key], ours.audio.sample_rate, "a clip")),
            ),
            (math.nan, spent(keys, lambda key: self.cached.waveform(key[1]))),
            (
                spent(keys, lambda key: literal.features(doubles[key])),
                spent(keys, lambda key: ours.features.scratch(waveforms[key])),
            ),
            (spent(keys, lambda key: literal.augmented(wide[key], size, clip_generator(0, *key))), spent(keys, seen)),
            (whole, spent([keys], ours.__getitems__) / len(keys)),
            (whole, spent([keys], self.cached.__getitems__) / len(keys)),
            (whole, spent([keys], self.samples_only.__getitems__) / len(keys)),
        ]
        return torch.tensor(parts), torch.empty(0)


def spent(items: list, work: Callable[[object], object]) -> float:
    """ms of CPU time that work on an item takes, the median of several passes, after one to warm up."""
    passes = []
    for _ in range(1 + PASSES):
        start = time.process_time()
        for item in items:
            work(item)
        passes.append(1000 * (time.process_time() - start) / len(items))
    return statistics.median(passes[1:])


def parts_of(published: literal.LiteralDataset, *ours: InMemoryLMDBDataset) -> Iterator[tuple[str, ...]]:
    """Rows of the second table."""
    keys = [(0, index) for index in range(min(len(published), 48))]
    spent_on = next(iter(loader(Parts(published, *ours), keys, len(keys), 1))).inputs
    for name, (theirs, own) in zip(Parts.NAMES, spent_on.tolist()):
        cells = (name, f"{theirs:.2f}", f"{own:.2f}", f"{theirs / own:.2f}")
        yield tuple("" if cell == "nan" else cell for cell in cells)


if __name__ == "__main__":
    cli.run(main)
