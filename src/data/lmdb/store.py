"""The record format: one LMDB of FLAC bytes and labels, read in place. src/data/lmdb/writer.py writes it.

    key  b"0" … b"N-1"  ->  MessagePack (flac bytes, "LabelA,LabelB")
                            or, for ESC-50, (flac bytes, target int, fold int 1…5)
    key  b"__keys__"    ->  MessagePack list of the N keys (bytes)
    key  b"__len__"     ->  MessagePack N

A path that is an existing folder holds the LMDB inside it (LMDB's `subdir`), any other path is
the file itself.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgpack
import numpy as np

from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.pages import Fault, places_in
from src.errors import UserError
from src.utils.progress import progress

NOTE = "labels"
RECORD_KEY = re.compile(rb"0|[1-9]\d{0,17}")
AUDIO_HEAD = 6  # bytes in front of a record's audio, at most
NO_RECORD = (ValueError, TypeError, IndexError, struct.error, msgpack.UnpackException)  # raised by other bytes

Annotation = tuple[str | int, int | None]  # label field, fold


@dataclass(frozen=True)
class Record:
    """One clip as stored."""

    flac: bytes
    label: str | int  # joined label names, or ESC-50's class index
    fold: int | None = None  # ESC-50's fold, 1 … 5

    def pack(self) -> bytes:
        """The record as MessagePack."""
        fields = (self.flac, self.label) if self.fold is None else (self.flac, self.label, self.fold)
        return msgpack.packb(fields)

    @classmethod
    def unpack(cls, value: bytes) -> Record:
        """The record of its MessagePack.

        Raises:
            ValueError: it is none.
        """
        try:
            flac, label, *fold = msgpack.unpackb(value)
            annotation = _annotation(label, *fold)
        except NO_RECORD:
            raise ValueError("not MessagePack of (flac, label)") from None
        if not isinstance(flac, bytes) or len(fold) > 1:
            raise ValueError("fields of other types")
        return cls(flac, *annotation)


def _annotation(label: Any, *fold: Any) -> Annotation:
    """The fields of a record behind its audio."""
    if not isinstance(label, (str, int)) or not all(isinstance(one, int) for one in fold):
        raise TypeError("label or fold is of another type")
    return label, fold[0] if fold else None


def _audio_span(value: bytes) -> tuple[int, int]:
    """Where the FLAC bytes of a packed record begin, after a 1-byte array head and a length head, and end."""
    head = value[1]
    if head == 0xC4:  # bin 8
        return 3, 3 + value[2]
    if head == 0xC5:  # bin 16
        return 4, 4 + struct.unpack_from(">H", value, 2)[0]
    if head == 0xC6:  # bin 32
        return 6, 6 + struct.unpack_from(">I", value, 2)[0]
    raise ValueError(f"unexpected MessagePack head {head:#x}")


def known_annotations(state: FileState, count: int) -> list[Annotation] | None:
    """The annotations kept for a file in this state, of `count` records."""
    try:
        found = [(label, fold) for label, fold in recall(state, NOTE)]
    except (TypeError, ValueError):
        return None
    sound = all(isinstance(label, (str, int)) and isinstance(fold, (int, type(None))) for label, fold in found)
    return found if sound and len(found) == count else None


def data_file(path: str | Path) -> Path:
    """The file that holds the data: `path` itself, or `data.mdb` in it where it is a folder."""
    path = Path(path)
    return path / "data.mdb" if path.is_dir() else path


class LMDBReader:
    """Random access to the records of an LMDB.

    Records are read from the file, of which all processes of a machine share one copy in the page cache. A reader may
    be pickled or inherited by a forked worker. It reads the file that it opened. A file that was put in its place is
    refused.

    Args:
        path: the LMDB.
        readahead: let the system read on behind what is asked for.

    Raises:
        UserError: there is no such file, it is not a whole LMDB, or it has no `__len__`.
    """

    def __init__(self, path: str | Path, readahead: bool = True):
        self.path = str(path)
        self.readahead = readahead
        self.file = data_file(path)
        if not self.file.exists():
            missing = "is a folder without data.mdb in it" if Path(path).is_dir() else "no such LMDB"
            raise UserError(f"{path}: {missing}. Pack one with pack_mixtures_into_lmdb.py")
        self.inode = self.file.stat().st_ino
        self._stream: BinaryIO | None = None
        try:
            places = places_in(self._opened())
        except (Fault, OSError) as error:
            raise UserError(f"{path}: {error}") from None
        self._num_entries, self._keys = len(places), places.get(b"__keys__")
        records = sorted((int(key), *place) for key, place in places.items() if RECORD_KEY.fullmatch(key))
        # Arrays, for a list of N small objects would be copied, bit by bit, into every forked worker.
        self._numbers, self._starts, self._sizes = np.array(records, np.int64).reshape(-1, 3).T.copy()  # (N,) each
        length = self._entry("__len__", places.get(b"__len__"))
        if length is None:
            raise UserError(f"{path}: has no __len__ entry. Was its packing interrupted?")
        if type(length) is not int or not 0 <= length <= sys.maxsize:
            raise UserError(f"{path}: its __len__ entry, {length!r}, is no number of records. The file is damaged")
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        value = self.stored(index)
        try:
            return Record.unpack(value)
        except ValueError:
            raise self._damaged(index) from None

    def audio(self, index: int) -> bytes:
        """The FLAC bytes of a record, without looking at the rest of it.

        Raises:
            UserError: it is missing or damaged.
        """
        start, end, _ = self._audio_place(index)
        return self._read(start, end - start)

    def annotation(self, index: int) -> Annotation:
        """(label field, fold or None) of a record, without looking at the audio.

        Raises:
            UserError: it is missing or damaged.
        """
        _, end, end_of_record = self._audio_place(index)
        unpacker = msgpack.Unpacker()
        unpacker.feed(self._read(end, end_of_record - end))
        try:
            return _annotation(*unpacker)
        except NO_RECORD:
            raise self._damaged(index) from None

    def stored(self, index: int) -> bytes:
        """A record as stored, whatever it is.

        Raises:
            UserError: it is missing.
        """
        return self._read(*self._place(index))

    def keys(self) -> object:
        """The `__keys__` entry, which should be the list of the records' keys. None where there is none."""
        return self._entry("__keys__", self._keys)

    def num_entries(self) -> int:
        """All that the LMDB holds under any key: two more than there are records, if it is whole."""
        return self._num_entries

    def annotations(self, without: Container[int] = ()) -> list[Annotation]:
        """(label field, fold or None) of every record.

        Of each record one or two pages are read, and only once: the result is kept in a note beside the file, as
        packing does.

        Args:
            without: records that cannot be read. They have the label "".

        Raises:
            UserError: another record is missing or damaged.
        """
        self.require_same_file()
        before = FileState.of(self.file)
        known = known_annotations(before, len(self))
        if known is not None:
            return known
        found: list[Annotation] = []
        with progress(len(self), f"labels of {os.path.basename(self.path)}", "clip", leave=False, delay=1) as bar:
            for index in range(len(self)):
                found.append(("", None) if index in without else self.annotation(index))
                bar.update()
        if not any(index in without for index in range(len(self))):
            remember(before, NOTE, found)
        return found

    def require_same_file(self) -> None:
        """Refuse a file that was put in the place of the one that was opened."""
        file = data_file(self.path)
        if not file.exists() or file.stat().st_ino != self.inode:
            raise UserError(f"{self.path}: was replaced or removed while it was in use. Start again")

    def where(self, index: int) -> str:
        """How messages call a record."""
        return f"{self.path}, record {index}"

    def _place(self, index: int) -> tuple[int, int]:
        """Where in the file a record begins, and its bytes."""
        found = int(np.searchsorted(self._numbers, index))
        if found == len(self._numbers) or self._numbers[found] != index:
            raise UserError(f"{self.where(index)} is missing, though __len__ is {len(self)}. The file is damaged")
        return int(self._starts[found]), int(self._sizes[found])

    def _audio_place(self, index: int) -> tuple[int, int, int]:
        """Where in the file a record's audio begins and ends, and where the record ends."""
        start, size = self._place(index)
        head = self._read(start, min(size, AUDIO_HEAD))
        try:
            first, last = _audio_span(head)
        except NO_RECORD:
            raise self._damaged(index) from None
        if last > size:
            raise self._damaged(index)
        return start + first, start + last, start + size

    def _damaged(self, index: int) -> UserError:
        return UserError(f"{self.where(index)} is not (flac, label). The file is damaged")

    def _entry(self, name: str, place: tuple[int, int] | None) -> object:
        """What is stored beside the records."""
        if place is None:
            return None
        value = self._read(*place)
        try:
            return msgpack.unpackb(value)
        except NO_RECORD:
            raise UserError(f"{self.path}: its {name} entry cannot be read. The file is damaged") from None

    def _read(self, start: int, size: int) -> bytes:
        found = os.pread(self._opened().fileno(), size, start)
        if len(found) != size:
            raise UserError(f"{self.path}: became shorter while it was in use. Start again")
        return found

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            self.require_same_file()
            self._stream = open(self.file, "rb", buffering=0)
            if not self.readahead:
                os.posix_fadvise(self._stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return self._stream

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_stream": None}  # each process opens the file when it first reads
