"""How fast, and in how much memory, many short clips are packed, checked and hashed."""

import argparse
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

import _repository

from benchmarks.measuring import machine, print_table, run
from src import cli
from src.utils.parallel import map_in_processes

SAMPLE_RATE = 22050  # Hz
FINGERPRINT = (
    "import sys; from src.data.lmdb import fingerprint, store as lmdb_store; "
    "fingerprint.fingerprint(lmdb_store.LMDBReader(sys.argv[1]))"
)


def main() -> None:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--clips", type=cli.positive(int), nargs="+", default=[10_000, 60_000], help="numbers of clips to measure")
    add("--seconds", type=cli.positive(float), default=0.1, help="length of a clip of noise")
    add("--num_workers", type=cli.positive(int), nargs="+", default=[1, 2], help="numbers of processes to measure")
    add("--folder", help="where to make the clips, by default a temporary folder")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print_table(
            ("step", "clips", "processes", "clips/s", "peak memory, MB", "of it private, MB"),
            rows(Path(folder), arguments),
        )


def rows(folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Of the table: each step, for each number of clips and of processes."""
    for clips in arguments.clips:
        mixtures = make_clips(folder / str(clips), clips, arguments.seconds)
        for workers in arguments.num_workers:
            for step, cost in measured(mixtures, folder / "packed.lmdb", arguments.seconds, workers):
                yield (
                    step,
                    f"{clips:,}",
                    workers,
                    f"{clips / cost.seconds:,.0f}",
                    round(cost.resident / 1e6),
                    round(cost.private / 1e6),
                )


def measured(mixtures: Path, lmdb_path: Path, seconds: float, workers: int):
    """(step, its cost) of packing, checking and the fingerprint."""
    yield (
        "pack",
        run(
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            mixtures,
            "--lmdb_path",
            lmdb_path,
            "--audio_min_duration",
            seconds,
            "--num_workers",
            workers,
        ),
    )
    yield "check", run("scripts/check_lmdb.py", lmdb_path, "--num_workers", workers)
    if workers == 1:
        for note in lmdb_path.parent.glob(".*.fingerprint.json"):
            note.unlink()
        yield "fingerprint", run("-c", FINGERPRINT, lmdb_path)


def make_clips(folder: Path, count: int, seconds: float) -> Path:
    """NAME.flac and NAME.txt of noise, no two alike."""
    folder.mkdir()
    for _ in map_in_processes(
        functools.partial(make_clip, folder, seconds),
        range(count),
        os.cpu_count(),
        "making clips",
        unit="clip",
        chunk=100,
    ):
        pass
    return folder


def make_clip(folder: Path, seconds: float, number: int) -> None:
    """One of them, in 16 bits."""
    samples = np.random.default_rng(number).uniform(-0.5, 0.5, round(seconds * SAMPLE_RATE))
    soundfile.write(folder / f"soundscape_{number:06d}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
    (folder / f"soundscape_{number:06d}.txt").write_text(f"0.0\t{seconds}\tclass {number % 51}\n")


if __name__ == "__main__":
    cli.run(main)
