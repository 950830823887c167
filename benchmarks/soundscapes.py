"""How fast soundscapes are mixed: by several processes against one, and for training against Scaper.

    python benchmarks/soundscapes.py

Each run is the whole command scripts/generate_mixtures.py, imports and writing included, into a new folder.
It mixes the demo corpus (18 classes, 12 clips each). Runs with one process and with several take turns, so that what
else the machine does falls on both. The first run of each, which fills the page cache, is not counted.
"""

import argparse
import functools
import itertools
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch

import _repository

from benchmarks.measuring import in_fresh_process, in_turns, machine, print_table, run
from src import cli
from src.config.sections import AudioConfig, DataConfig
from src.data.labels import LabelMap
from src.data.soundscapes import packed
from src.data.soundscapes.dataset import SoundscapeDataset
from src.data.transforms import training_chain
from src.preparation.soundscapes import Recipe, generate_soundscapes
from src.utils.memory import keep_freed_memory


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
        by_name = in_fresh_process(one_thread_each, Path(folder), arguments.num_soundscapes, arguments.runs)
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
    rates = {name: arguments.num_soundscapes / statistics.median(seconds) for name, seconds in by_name.items()}
    print_table(
        ("one thread", "soundscapes/s", "ratio"),
        ((name, f"{rate:.1f}", f"{rate / rates['Scaper']:.2f}") for name, rate in rates.items()),
    )


def one_thread_each(corpus: Path, count: int, runs: int) -> dict[str, list[float]]:
    """Seconds that `count` soundscapes take in each run, by Scaper and for training."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as the loader's workers do
    logging.disable()
    events, noises = str(corpus / "isolated_events" / "train"), str(corpus / "noises")
    label_map = LabelMap.load(corpus / "meta" / "lbl_map.json")
    data = DataConfig(label_map="", isolated_events=events, backgrounds=noises, soundscapes=count)

    def opened() -> SoundscapeDataset:
        return SoundscapeDataset(data, AudioConfig(), label_map, "multilabel", training_chain(500))

    keeping, packed.KEPT = opened(), 0
    not_keeping, numbers = opened(), itertools.count()

    def by_scaper() -> float:
        with tempfile.TemporaryDirectory(dir=corpus) as out:
            start = time.perf_counter()
            generate_soundscapes(Recipe(events, noises, seed=next(numbers)), out, range(count), label_map)
            return time.perf_counter() - start

    def for_training(dataset: SoundscapeDataset) -> float:
        epoch, start = next(numbers), time.perf_counter()
        for index in range(count):
            dataset.sound(epoch, index)
        return time.perf_counter() - start

    work = {
        "Scaper": by_scaper,
        "data.isolated_events": functools.partial(for_training, keeping),
        "… no sound kept, as of a large corpus": functools.partial(for_training, not_keeping),
    }
    in_turns(work, 1)
    return in_turns(work, runs)


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
