"""What the benchmarks share: the time and the memory of a whole command."""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
INTERVAL = 0.05  # s between two looks at the memory


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
        while process.poll() is None:
            both = [memory(one) for one in tree(process.pid)]
            resident = max(resident, sum(one for one, _ in both))
            private = max(private, sum(one for _, one in both))
            time.sleep(INTERVAL)
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
    """(resident, of it private) bytes of a process; nothing where the system does not tell."""
    try:
        found = process.memory_info()
    except psutil.Error:
        return 0, 0
    return found.rss, found.rss - found.shared
