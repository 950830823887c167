"""How much faster several processes mix soundscapes than one: the ratio of the medians of several runs.

    python benchmarks/soundscapes.py

Each run is the whole command scripts/generate_mixtures.py, imports and writing included, into a new folder.
It mixes the demo corpus (18 classes, 12 clips each). Runs with one process and with several take turns, so that what
else the machine does falls on both. The first run of each, which fills the page cache, is not counted.
"""

import argparse
import functools
import statistics
import tempfile
from pathlib import Path

import _repository

from benchmarks.measuring import in_turns, machine, print_table, run
from src import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--num_soundscapes", type=cli.positive(int), default=60, help="in each run (60)")
    add("--num_workers", type=cli.positive(int), default=2, help="processes to compare with one (2)")
    add("--runs", type=cli.positive(int), default=3, help="counted runs of each (3)")
    arguments = parser.parse_args()
    print(f"{machine()}\n{arguments.num_soundscapes} soundscapes a run, medians of {arguments.runs}")
    with tempfile.TemporaryDirectory() as folder:
        run(
            "scripts/make_demo_corpus.py",
            "--out_folder",
            folder,
            "--train_clips",
            12,
            "--val_clips",
            1,
            "--eval_clips",
            1,
        )
        work = {
            workers: functools.partial(generate, Path(folder), workers, arguments.num_soundscapes)
            for workers in (1, arguments.num_workers)
        }
        in_turns(work, 1)
        found = in_turns(work, arguments.runs)
    medians = {workers: statistics.median(seconds) for workers, seconds in found.items()}
    print_table(
        ("processes", "seconds", "range", "soundscapes/s", "ratio"),
        (
            (
                workers,
                f"{medians[workers]:.2f}",
                f"{min(seconds):.2f} … {max(seconds):.2f}",
                f"{arguments.num_soundscapes / medians[workers]:.1f}",
                f"{medians[1] / medians[workers]:.2f}",
            )
            for workers, seconds in found.items()
        ),
    )


def generate(corpus: Path, workers: int, count: int) -> float:
    """Seconds that one run takes."""
    with tempfile.TemporaryDirectory(dir=corpus) as out:
        return run(
            "scripts/generate_mixtures.py",
            "--fg_path",
            corpus / "isolated_events" / "train",
            "--bg_path",
            corpus / "noises",
            "--out_folder",
            Path(out) / "run",
            "--num_soundscapes",
            count,
            "--lbl_map",
            corpus / "meta" / "lbl_map.json",
            "--num_workers",
            workers,
        ).seconds


if __name__ == "__main__":
    cli.run(main)
