"""How much memory is there to use."""

from __future__ import annotations

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


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
