"""How fast, and in how much memory, many short clips are packed, checked and hashed."""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src import cli  # noqa: E402
from src.errors import UserError  # noqa: E402
from src.preparation.parallel import map_in_processes  # noqa: E402

SAMPLE_RATE = 22050  # Hz
INTERVAL = 0.1  # s between two looks at the memory
FINGERPRINT = "import sys; from src.data import fingerprint, lmdb_store; " \
    "fingerprint.fingerprint(lmdb_store.LMDBReader(sys.argv[1]))"


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    resident: int  # bytes, summed over its processes, at the peak: pages that they share count for each of them
    private: int  # bytes of these that are no mapped files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--clips", type=cli.positive(int), nargs="+", default=[10_000, 60_000], help="numbers of clips to measure")
    add("--seconds", type=cli.positive(float), default=0.1, help="length of a clip of noise")
    add("--num_workers", type=cli.positive(int), nargs="+", default=[1, 2], help="numbers of processes to measure")
    add("--folder", help="where to make the clips; a temporary folder if left out")
    arguments = parser.parse_args()
    print("| step | clips | processes | clips/s | peak memory, MB | of it private, MB |\n|" + " --- |" * 6, flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for clips in arguments.clips:
            mixtures = make_clips(Path(folder) / str(clips), clips, arguments.seconds)
            for workers in arguments.num_workers:
                for step, cost in measured(mixtures, Path(folder) / "packed.lmdb", arguments.seconds, workers):
                    cells = (step, f"{clips:,}", workers, f"{clips / cost.seconds:,.0f}",
                             round(cost.resident / 1e6), round(cost.private / 1e6))
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def measured(mixtures: Path, lmdb_path: Path, seconds: float, workers: int):
    """(step, its cost) of packing, checking and the fingerprint."""
    yield "pack", run("pack_mixtures_into_lmdb.py", "--mixture_dir", mixtures, "--lmdb_path", lmdb_path,
                      "--audio_min_duration", seconds, "--num_workers", workers)
    yield "check", run("scripts/check_lmdb.py", lmdb_path, "--num_workers", workers)
    if workers == 1:
        for note in lmdb_path.parent.glob(".*.fingerprint.json"):
            note.unlink()
        yield "fingerprint", run("-c", FINGERPRINT, lmdb_path)


def make_clips(folder: Path, count: int, seconds: float) -> Path:
    """NAME.flac and NAME.txt of noise, no two alike."""
    folder.mkdir()
    for _ in map_in_processes(functools.partial(make_clip, folder, seconds), range(count), os.cpu_count(),
                              "making clips", unit="clip", chunk=100):
        pass
    return folder


def make_clip(folder: Path, seconds: float, number: int) -> None:
    """One of them, in 16 bits."""
    samples = np.random.default_rng(number).uniform(-0.5, 0.5, round(seconds * SAMPLE_RATE))
    soundfile.write(folder / f"soundscape_{number:06d}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
    (folder / f"soundscape_{number:06d}.txt").write_text(f"0.0\t{seconds}\tclass {number % 51}\n")


def run(*words: object) -> Cost:
    """Run a script, or Python's `-c`, and look at its memory until it ends."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=output, stderr=output)
        resident = private = 0
        while process.poll() is None:
            both = [memory(pid) for pid in tree(process.pid)]
            resident = max(resident, sum(one for one, _ in both))
            private = max(private, sum(one for _, one in both))
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - start
        if process.returncode:
            output.seek(0)
            raise UserError(f"{words[0]} failed: {output.read().decode(errors='replace').strip().splitlines()[-1]}")
    return Cost(seconds, resident, private)


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return [pid] + [one for child in children for one in tree(child)]


def memory(pid: int) -> tuple[int, int]:
    """(resident, of it private) bytes of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    fields = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()}
    resident, mapped = (1024 * int(fields.get(name, 0)) for name in ("VmRSS", "RssFile"))
    return resident, resident - mapped


if __name__ == "__main__":
    cli.run(main)
