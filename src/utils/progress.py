"""Progress bars for all long work: lively on a terminal, a line now and then in a log."""

import sys
from typing import Any

from tqdm import tqdm

from src.utils.processes import is_first


def progress(total: int | None, description: str, unit: str, **options: Any) -> tqdm:
    """A tqdm bar on standard error. Without a total it only counts."""
    interval = 0.1 if sys.stderr.isatty() else 5.0  # s
    look = {"mininterval": interval, "dynamic_ncols": True, "disable": not is_first()}
    return tqdm(total=total, desc=description, unit=unit, **look | options)


def progress_lines(total: int, description: str, unit: str, **options: Any) -> tqdm:
    """The same for work in the background of other work that has a bar: a line every ten seconds."""
    often = dict.fromkeys(("mininterval", "maxinterval", "delay"), 10.0)  # s
    look = {"ncols": 100, "dynamic_ncols": False, "file": _Lines(), "disable": False}
    return progress(total, description, unit, **often, **look, **options)


class _Lines:
    """Standard error, on which a bar takes a line each time that it is drawn."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
