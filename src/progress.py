"""One progress bar for all long work: lively on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from src.processes import is_first


def progress(total: int | None, description: str, unit: str, **options: Any) -> tqdm:
    """A tqdm bar on standard error; without a total it only counts."""
    interval = 0.1 if sys.stderr.isatty() else 5.0  # s
    return tqdm(total=total, desc=description, unit=unit, mininterval=interval, dynamic_ncols=True,
                disable=not is_first(), **options)
