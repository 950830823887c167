"""How much faster several processes mix soundscapes than one: the ratio of the medians of several runs.

    python benchmarks/soundscapes.py

Each run is the whole command scripts/generate_mixtures.py, imports and writing included, into a new folder, on the
demo corpus (18 classes, 12 clips each); runs with one process and with several take turns, so that what else the
machine does falls on both. The first run of each, which fills the page cache, is not counted.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src import cli  # noqa: E402
from src.progress import progress  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--num_soundscapes", type=cli.positive(int), default=60, help="in each run (60)")
    add("--num_workers", type=cli.positive(int), default=2, help="processes to compare with one (2)")
    add("--runs", type=cli.positive(int), default=3, help="counted runs of each (3)")
    arguments = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], arguments.num_workers: []}
    with tempfile.TemporaryDirectory() as folder:
        run("make_demo_corpus.py", "--out_folder", folder, "--train_clips", 12, "--val_clips", 1, "--eval_clips", 1)
        with progress((1 + arguments.runs) * len(seconds), "runs", "run") as bar:
            for number in range(1 + arguments.runs):
                for workers, found in seconds.items():
                    found.append(generate(Path(folder), number, workers, arguments.num_soundscapes))
                    bar.update()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"load {os.getloadavg()[0]:.1f}; {arguments.num_soundscapes} soundscapes a run")
    medians = {workers: statistics.median(found[1:]) for workers, found in seconds.items()}
    for workers, found in seconds.items():
        print(f"{workers} process{'es' * (workers > 1)}: {medians[workers]:.2f} s "
              f"({min(found[1:]):.2f} to {max(found[1:]):.2f}), "
              f"{arguments.num_soundscapes / medians[workers]:.1f} soundscapes a second")
    print(f"ratio: {medians[1] / medians[arguments.num_workers]:.2f}")


def generate(corpus: Path, number: int, workers: int, count: int) -> float:
    """Seconds that one run takes."""
    begun = time.perf_counter()
    run("generate_mixtures.py", "--fg_path", corpus / "isolated_events" / "train", "--bg_path", corpus / "noises",
        "--out_folder", corpus / f"run_{number}_{workers}", "--num_soundscapes", count, "--lbl_map",
        corpus / "meta" / "lbl_map.json", "--num_workers", workers)
    return time.perf_counter() - begun


def run(script: str, *arguments) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / script, *map(str, arguments)], check=True,
                   stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    cli.run(main)
