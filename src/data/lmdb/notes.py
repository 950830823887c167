"""What took a pass through a file to find out, kept beside it for as long as nobody touches it.

A note on `NAME` is `.NAME.KIND.json`: the file's path, inode, size and times of change, and under KIND what was found.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from src.utils.files import write_whole
from src.utils.text import read_json


class FileState(NamedTuple):
    """What changes when a file does. Times are in ns. A program can set the first back, but not the second."""

    path: str
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: str | Path, status: os.stat_result | None = None) -> "FileState":
        """The state of a file, or of an open one that was moved to `path`, by its `os.fstat`."""
        status = status or os.stat(path)
        return cls(os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def recall(state: FileState, kind: str) -> Any:
    """What is kept for a file in this state, or None."""
    path = note_on(state.path, kind)
    if not path.is_file():  # a FIFO would be waited for
        return None
    try:
        note = read_json(path)
        found = note.pop(kind)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if note == state._asdict() else None


def remember(state: FileState, kind: str, found: Any) -> None:
    """Keep what was found, which JSON can hold, for a file that is still in the state of before.

    What is kept already is not written again.
    """
    # A folder that cannot be written, or labels of a strange type, cost the next run a pass, and nothing else.
    with suppress(OSError, TypeError):
        if FileState.of(state.path) == state and recall(state, kind) != found:
            write_whole(note_on(state.path, kind), json.dumps(state._asdict() | {kind: found}) + "\n", follow=False)


def note_on(file: str | Path, kind: str) -> Path:
    """Where the note on a file is, also of one that is not there yet."""
    path = Path(os.path.realpath(file))
    return path.with_name(f".{path.name}.{kind}.json")
