"""One hash that tells what records an LMDB holds, however its pages are laid out.

A record's digest is the SHA-256 of its bytes as stored, MessagePack of audio and label. The fingerprint is the SHA-256
of the digests in the order of the records. Where the LMDB has events or groups, the SHA-256 of that entry as stored is
one more digest behind them. So it changes with any byte of audio, any label, any fold, any time of an event, any group,
and the order. It does not change with the map size, the records in a transaction, or what else the file holds. Nothing
is decoded.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.store import LMDBReader
from src.utils.progress import progress

NOTE = "fingerprint"
HEXADECIMAL = re.compile("[0-9a-f]{64}")

_found: dict[FileState, str] = {}  # by this process, of files in folders that take no notes


def digest(value: bytes) -> bytes:
    """SHA-256 of a record, of all events or of all groups, as stored, 32 bytes."""
    return hashlib.sha256(value).digest()


def combined(digests: Iterable[bytes | bytearray]) -> str:
    """The fingerprint of records with these digests, in their order, and of their events and groups behind them."""
    whole = hashlib.sha256()
    for one in digests:
        whole.update(one)
    return whole.hexdigest()


def fingerprint(reader: LMDBReader, show: Callable = progress) -> str:
    """The fingerprint of an open LMDB, 64 hexadecimal digits.

    It takes one pass through the file, at the disk's pace, and is kept in a note beside it. Asked for again, of a file
    that nobody has touched, it takes no reading. Packing and checking keep it there as well. Of several processes that
    need it, let one ask.

    Args:
        show: of src/utils/progress.py, what shows how far it is.

    Raises:
        UserError: a record is missing, or the file was replaced while it was open.
    """
    reader.require_same_file()
    before = FileState.of(reader.file)
    found = known_fingerprint(reader.file)
    if found is None:
        found = _found.get(before) or _computed(reader, show)
        _found[before] = found
        remember(before, NOTE, found)
    return found


def _computed(reader: LMDBReader, show: Callable) -> str:
    name = os.path.basename(reader.path)
    with show(len(reader), f"fingerprint of {name}", "clip", leave=False) as bar:
        return combined(_digests(reader, bar))


def _digests(reader: LMDBReader, bar) -> Iterator[bytes]:
    for index in range(len(reader)):
        yield digest(reader.stored(index))
        reader.release_pages()
        bar.update()
    yield from map(digest, reader.stored_beside())
    reader.unmap()


def known_fingerprint(file: Path) -> str | None:
    """The fingerprint kept for a file as it is now."""
    found = recall(FileState.of(file), NOTE)
    return found if isinstance(found, str) and HEXADECIMAL.fullmatch(found) else None
