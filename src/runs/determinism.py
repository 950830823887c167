"""What kept a run from being repeatable to the last bit, for its record; nothing, on a CPU left as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

CIRCUMSTANCES = ("cpu", "threads", "devices", "accumulate", "versions", "git_commit")  # of an origin


class Unrepeatable(logging.Handler):
    """Collects PyTorch's warnings of operations without a deterministic form, and what else is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, *notes: str) -> None:
        """Add what is new."""
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "deterministic" in message:
            self.note(message.split(". ")[0].strip())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect the warnings that `logging.captureWarnings` passes on."""
        warnings = logging.getLogger("py.warnings")
        warnings.addHandler(self)
        try:
            yield
        finally:
            warnings.removeHandler(self)


def changes(origins: Sequence[Mapping[str, Any]]) -> list[str]:
    """In what the newest of a run's starts differs from the one before, as far as that may change its figures."""
    if len(origins) < 2:
        return []
    then, now = (flat(origin) for origin in origins[-2:])
    return [
        f"resumed with {name} {now[name]!r} instead of {then[name]!r}"
        for name in now
        if name in then and now[name] != then[name]
    ]


def flat(origin: Mapping[str, Any]) -> dict[str, Any]:
    """The circumstances of a start, each package's version by itself."""
    found = {name: origin[name] for name in CIRCUMSTANCES if name in origin}
    return {name: value for name, value in found.items() if name != "versions"} | dict(found.get("versions", {}))
