"""Annotation files, NAME.txt beside NAME.flac: a line an event, with onset, offset and label between tabs."""

import math
from pathlib import Path

from src.data.events import Event
from src.errors import UserError
from src.utils.text import read_text

LONGEST = 200  # characters of a line in a message


def read_events(path: Path, delimiter: str | None = None) -> list[Event]:
    """The events of an annotation file, in the order of its lines. A file without events gives none.

    Empty lines are skipped, and so are Audacity's lines that begin with a backslash: they hold the frequencies of the
    event above.

    Args:
        delimiter: what no label may contain.

    Raises:
        UserError: a line is no event, or the file is missing or no text.
    """
    events = []
    if path.exists() and not path.is_file():  # to read a FIFO is to wait for its writer
        raise UserError(f"{path}: is no plain file, and annotations were expected")
    text = read_text(path, "lines of onset, offset and label: every FLAC file needs such a .txt")
    for number, line in enumerate(text.splitlines(), 1):
        columns = [column.strip() for column in line.split("\t")]
        if not any(columns) or columns[0] == "\\":
            continue
        event = _event(columns)
        if event is None:
            fault = f"{line[:LONGEST]!r} is not onset, offset and label, separated by tabs{_cause(columns)}"
            raise UserError(f"{path}, line {number}: {fault}")
        if delimiter and delimiter in event.label:
            label = f"label {event.label!r} contains the delimiter {delimiter!r}"
            raise UserError(f"{path}, line {number}: {label}. Choose another one")
        events.append(event)
    return events


def _event(columns: list[str]) -> Event | None:
    try:
        onset, offset, label = columns
        times = float(onset), float(offset)
    except ValueError:
        return None
    return Event(*times, label) if 0 <= times[0] <= times[1] < math.inf and label else None


def _cause(columns: list[str]) -> str:
    """What may be wrong with a line that is no event."""
    if len(columns) != 3:
        return f". It has {len(columns)} column{'s' * (len(columns) > 1)}, not three"
    if not columns[2]:
        return ". It has no label"
    return ". Onset and offset are seconds, 0 ≤ onset ≤ offset. Is it a header?"
