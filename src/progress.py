"""One progress bar for all long work, lively on a terminal, a line now and then in a log; and who shows it."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm


def progress(total: int | None, description: str, unit: str, **options: Any) -> tqdm:
    """A tqdm bar on standard error; without a total it only counts."""
    interval = 0.1 if sys.stderr.isatty() else 5.0  # s
    return tqdm(total=total, desc=description, unit=unit, mininterval=interval, dynamic_ncols=True,
                disable=not speaks_for_all(), **options)


def speaks_for_all() -> bool:
    """Whether this process is the first of those that torchrun, SLURM or a script has started for one run."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"))
