"""How much memory there is to use, and what becomes of it when it is done with."""

import ctypes
import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def available_memory() -> int:
    """Bytes that processes may still take without swapping, as far as the system tells."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if MEMINFO.exists():
        figures = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        if "MemAvailable" in figures:
            found.append(1024 * int(figures["MemAvailable"].split()[0]))  # stated in kB
    if LIMIT.exists() and LIMIT.read_text().strip().isdigit():  # otherwise "max"
        found.append(int(LIMIT.read_text()))
    return min(found)


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees, for what it asks for next.

    Every batch asks for the same amounts as the one before. By default large ones go back to the system at once. To be
    given each page anew takes 6 % of a training step of ResNet-18 on the CPU, and 14 % of a forward pass, see
    benchmarks/freed_memory.py. The process then stays as large as it was at its largest.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc alone
    if mallopt:
        mallopt(M_MMAP_MAX, 0)  # no array gets pages of its own, which would go when it does
        mallopt(M_TRIM_THRESHOLD, -1)  # and the heap's end is never given back
