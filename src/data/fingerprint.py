"""One hash that tells what records an LMDB holds, however its pages are laid out.

A record's digest is the SHA-256 of its bytes as stored, MessagePack of audio and label; the fingerprint
is the SHA-256 of the digests in the order of the records. So it changes with any byte of audio, any
label, any fold and the records' order; and not with the map size, the records in a transaction, or
what else the file holds. Nothing is decoded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.files import whole_file
from src.progress import progress

if TYPE_CHECKING:
    from src.data.lmdb_store import LMDBReader

HEXADECIMAL = re.compile("[0-9a-f]{64}")


def digest(value: bytes | memoryview) -> bytes:
    """SHA-256 of a record as stored, 32 bytes."""
    return hashlib.sha256(value).digest()


def combined(digests: Iterable[bytes]) -> str:
    """The fingerprint of records with these digests, in their order."""
    whole = hashlib.sha256()
    for one in digests:
        whole.update(one)
    return whole.hexdigest()


def fingerprint(reader: LMDBReader, show: Callable = progress) -> str:
    """The fingerprint of an open LMDB, 64 hexadecimal digits.

    It takes one pass through the file, at the disk's pace. The result is kept beside the file, in
    `.NAME.fingerprint.json`, with the file's path, inode, size and times of change: asked for again, of a file
    that nobody has touched, it takes no reading. Packing and checking keep it there as well. Of several
    processes that need it, let one ask.

    Args:
        show: of src/progress.py, what shows how far it is.

    Raises:
        UserError: a record is missing, or the file was replaced while it was open.
    """
    reader.require_same_file()
    before = FileState.of(reader.file)
    known = recall(before)
    if known:
        return known
    name = os.path.basename(reader.path)
    with show(len(reader), f"fingerprint of {name}", "clip", leave=False) as bar:
        found = combined(_digests(reader, bar))
    if FileState.of(reader.file) == before:
        remember(before, found)
    return found


def _digests(reader: LMDBReader, bar) -> Iterator[bytes]:
    for index in range(len(reader)):
        yield reader.digest(index)
        reader.let_go()
        bar.update()
    reader.unmap()


class FileState(NamedTuple):
    """What changes when a file does. Times are in ns; a program can set the first back, but not the second."""

    path: str
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: str | Path, status: os.stat_result | None = None) -> FileState:
        """The state of a file, or of an open one that was moved to `path`, by its `os.fstat`."""
        status = status or os.stat(path)
        return cls(os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def recall(state: FileState) -> str | None:
    """The fingerprint kept for a file in this state."""
    try:
        note = json.loads(_note(state).read_text(encoding="utf-8"))
        found = note.pop("fingerprint")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if note == state._asdict() and isinstance(found, str) and HEXADECIMAL.fullmatch(found) else None


def remember(state: FileState, found: str) -> None:
    """Keep the fingerprint of a file in this state."""
    try:
        with whole_file(_note(state)) as temporary:
            temporary.write_text(json.dumps(state._asdict() | {"fingerprint": found}) + "\n", encoding="utf-8")
    except OSError:
        pass  # a folder that cannot be written costs the next run a pass through the file, and nothing else


def _note(state: FileState) -> Path:
    """Where a file's fingerprint is kept."""
    path = Path(state.path)
    return path.with_name(f".{path.name}.fingerprint.json")
