"""What the benchmarks share: where they ran, whose turn it is, tables, what a whole command takes, long LMDBs."""

import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import psutil

from src.data.lmdb.store import LMDBReader
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.utils.progress import progress

ROOT = Path(__file__).resolve().parent.parent
SOUNDSCAPES = ROOT / "tests" / "fixtures" / "released_mixtures_layout.lmdb"  # 48 real ones, of five seconds
LBL_MAP = ROOT / "tests" / "fixtures" / "lbl_map.json"  # their 18 classes
INTERVAL = 0.05  # s between two looks at the memory

Name = TypeVar("Name")
Found = TypeVar("Found")


def machine() -> str:
    """One line on where and when figures are taken. The load is that before them."""
    return (
        f"{processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB of memory, Python "
        f"{platform.python_version()}, torch {importlib.metadata.version('torch')}, load average "
        f"{os.getloadavg()[0]:.2f}, {date.today()}"
    )


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next(line.partition(":")[2].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def in_fresh_process(function: Callable[..., Found], *arguments: object) -> Found:
    """What a function gives in a new process, which has done nothing before and may start others."""
    method = multiprocessing.get_start_method()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_others_by, (method,)) as pool:
        return pool.submit(function, *arguments).result()


def _start_others_by(method: str) -> None:
    """As a process that a user starts does: one that was spawned would spawn, too."""
    multiprocessing.set_start_method(method, force=True)


def in_turns(work: Mapping[Name, Callable[[], Found]], rounds: int) -> dict[Name, list[Found]]:
    """What each work gives in each round: all take turns, so that what else the machine does falls on all of them."""
    found: dict[Name, list[Found]] = {name: [] for name in work}
    with progress(rounds * len(work), "rounds", "run") as bar:
        for _ in range(rounds):
            for name, one in work.items():
                found[name].append(one())
                bar.update()
    return found


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table, each row as soon as it is known. The first column is text."""
    print(f"\n| {' | '.join(columns)} |\n| --- |{' ---: |' * (len(columns) - 1)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    resident: int  # bytes, summed over its processes, at the peak: pages that they share count for each of them
    private: int  # bytes of these that are no mapped files


def run(*words: object) -> Cost:
    """Run a script, or Python's `-c`, and look at its memory until it ends."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=output, stderr=output)
        resident = private = 0
        running = True
        while running:
            both = [memory(one) for one in tree(process.pid)]
            resident = max(resident, sum(one for one, _ in both))
            private = max(private, sum(one for _, one in both))
            with suppress(subprocess.TimeoutExpired):
                process.wait(INTERVAL)
                running = False
        seconds = time.perf_counter() - start
        if process.returncode:
            output.seek(0)
            raise UserError(f"{words[0]} failed: {output.read().decode(errors='replace').strip().splitlines()[-1]}")
    return Cost(seconds, resident, private)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:  # it has ended
        return []


def memory(process: psutil.Process) -> tuple[int, int]:
    """(resident, of it private) bytes of a process, or nothing where the system does not tell."""
    try:
        found = process.memory_info()
    except psutil.Error:
        return 0, 0
    return found.rss, found.rss - found.shared


def repeat_records(path: Path, count: int) -> Path:
    """An LMDB of so many records, those of SOUNDSCAPES again and again.

    Raises:
        UserError: there is no room for it.
    """
    reader = LMDBReader(SOUNDSCAPES)
    size = reader.file.stat().st_size / len(reader) * count
    free = shutil.disk_usage(path.parent).free
    if size > 0.95 * free:
        raise UserError(
            f"{path.parent}: has {free / 1e9:.1f} GB free, and {size / 1e9:.1f} GB are needed. Choose another --folder"
        )
    with LMDBWriter(path, 1.1 * size) as writer, progress(count, f"making {path.name}", "clip") as bar:
        for index in range(count):
            writer.add(reader[index % len(reader)])
            bar.update()
    reader.unmap()
    return path
