"""How much memory there is."""

from __future__ import annotations

import os


def available_memory() -> int:
    """Bytes that programs can still have without others' being written to disk, as far as the system says."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name == "MemAvailable":
                    return 1024 * int(value.split()[0])
    except OSError:
        pass  # no Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
