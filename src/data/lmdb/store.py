"""The record format: one LMDB of FLAC bytes and labels, read in place. src/data/lmdb/writer.py writes it.

    key  b"0" … b"N-1"  ->  MessagePack (flac bytes, "LabelA,LabelB")
                            or, with folds, (flac bytes, label, fold int 1…K), where ESC-50's label is its target int
    key  b"__keys__"    ->  MessagePack list of the N keys (bytes)
    key  b"__len__"     ->  MessagePack N
    key  b"__events__"  ->  MessagePack list of N lists, record by record: the events of each, [onset, offset, "Label"]
    key  b"__groups__"  ->  MessagePack list of N numbers: records of one recording have the same
    key  b"__part__"    ->  of a part of a larger LMDB alone: MessagePack map, see src/preparation/joining.py

Onset and offset are 64-bit floats, in s from the clip's start, and the label is one of the record's. An LMDB has the
events of all its records, or no such key: none had it before they were kept, and the released ones have not. It has
groups only where two records share one.

A path that is an existing folder holds the LMDB inside it (LMDB's `subdir`), any other path is
the file itself.
"""

import math
import os
import struct
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgpack

from src.data.events import Event
from src.data.labels import nfc
from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.pages import fault, values_in
from src.errors import UserError
from src.utils.progress import progress

NOTE = "labels"
EVENTS = b"__events__"
GROUPS = b"__groups__"
PART = b"__part__"
LENGTHS = {0xC4: struct.Struct(">B"), 0xC5: struct.Struct(">H"), 0xC6: struct.Struct(">I")}  # of bin 8, 16 and 32
NO_RECORD = (ValueError, TypeError, LookupError, struct.error, msgpack.UnpackException)  # raised by other bytes

Annotation = tuple[str | int, int | None]  # label field, fold
Result = TypeVar("Result")


@dataclass(frozen=True)
class Record:
    """One clip as stored."""

    flac: bytes
    label: str | int  # joined label names, or ESC-50's class index
    fold: int | None = None  # 1 … K, of data with folds

    def pack(self) -> bytes:
        """The record as MessagePack."""
        fields = (self.flac, self.label) if self.fold is None else (self.flac, self.label, self.fold)
        return msgpack.packb(fields)

    @classmethod
    def unpack(cls, value: bytes | memoryview) -> "Record":
        """The record of its MessagePack.

        Raises:
            ValueError: it is none.
        """
        try:
            flac, *fields = msgpack.unpackb(value)
            if isinstance(flac, bytes) and len(fields) <= 2:
                return cls(flac, *_annotation(*fields))
        except NO_RECORD:
            pass
        raise ValueError("not MessagePack of (flac, label)")


def _annotation(label: Any, *fold: Any) -> Annotation:
    """The fields of a record behind its audio."""
    if not isinstance(label, (str, int)) or not all(isinstance(one, int) for one in fold):
        raise TypeError("label or fold is of another type")
    return label, fold[0] if fold else None


def _annotation_of(value: memoryview) -> Annotation:
    """Of a packed record, of which no more than its two ends are looked at."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(value[_audio_span(value)[1] :])
    return _annotation(*unpacker)


def _audio_span(value: memoryview) -> tuple[int, int]:
    """Where the FLAC bytes of a packed record begin, after a 1-byte array head and a length head, and end."""
    length = LENGTHS[value[1]]
    start = 2 + length.size
    return start, start + length.unpack_from(value, 2)[0]


def packed_events(events: Iterable[Event]) -> bytes:
    """The events of one record as MessagePack."""
    return msgpack.packb([(float(onset), float(offset), label) for onset, offset, label in events])


def unpacked_events(value: bytes | memoryview, count: int) -> list[list[Event]]:
    """The events of `count` records, of an `__events__` entry. Their labels are as label maps spell them.

    Raises:
        ValueError, TypeError: it is not as written above.
    """
    records = msgpack.unpackb(value)
    if not (isinstance(records, list) and len(records) == count and all(isinstance(each, list) for each in records)):
        raise ValueError(f"not a list of {count} lists")
    return [[_event(*event) for event in events] for events in records]


def _event(onset: Any, offset: Any, label: Any) -> Event:
    if not (type(onset) is type(offset) is float and math.isfinite(onset) and math.isfinite(offset)):
        raise TypeError("onset or offset is no number of seconds")
    if not (isinstance(label, str) and label):
        raise TypeError("the label is no text")
    return Event(onset, offset, sys.intern(nfc(label)))  # one text for all events of a class


def unpacked_groups(value: bytes | memoryview, count: int) -> list[int]:
    """The group of each of `count` records, of a `__groups__` entry.

    Raises:
        ValueError: it is not as written above.
    """
    groups = msgpack.unpackb(value)
    if not (isinstance(groups, list) and len(groups) == count and all(type(group) is int for group in groups)):
        raise ValueError(f"not a list of {count} numbers")
    return groups


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


# LMDB refuses to open a file twice in one process, and an open environment must not be used across a fork: one
# environment for each process and file, under (process, real path, inode, readahead).
_environments: dict[tuple[int, str, int, bool], lmdb.Environment] = {}


class LMDBReader:
    """Random access to the records of an LMDB.

    The file is mapped into memory, so that all processes of a machine share one copy of its pages in the page cache. A
    reader may be pickled or inherited by a forked worker: each process maps the file anew when it first reads. A reader
    reads the file that it opened. One that was put in its place since is refused.

    Args:
        path: the LMDB.
        readahead: let the system read on behind what is asked for.

    Raises:
        UserError: there is no such file, it is not a whole LMDB, or it has no `__len__`.
    """

    AT_A_TIME = 64  # records, see `release_pages`

    def __init__(self, path: str | Path, readahead: bool = True):
        self.path = str(path)
        self.readahead = readahead
        self._read = 0  # records
        self.file = data_file(path)
        if not self.file.is_file():  # to open a FIFO is to wait for its writer
            missing = "is a folder without data.mdb in it" if Path(path).is_dir() else "no such LMDB"
            missing = "is no plain file" if self.file.exists() else missing
            raise UserError(f"{path}: {missing}. Pack one with pack_mixtures_into_lmdb.py")
        self.inode, self._place = self.file.stat().st_ino, os.path.realpath(self.file)
        self._environment()
        if problem := fault(self.file):
            raise UserError(f"{path}: is damaged: {problem}")
        length = self.entry(b"__len__")
        if length is None:
            raise UserError(f"{path}: has no __len__ entry. Was its packing interrupted?")
        if type(length) is not int or not 0 <= length <= sys.maxsize:
            raise UserError(f"{path}: its __len__ entry, {length!r}, is no number of records. The file is damaged")
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        return self._find(index, Record.unpack)

    def audio(self, index: int) -> bytes:
        """The FLAC bytes of a record, without looking at the rest of it.

        Raises:
            UserError: it is missing or damaged.
        """
        return self.look(index, bytes)

    def look(self, index: int, parse: Callable[[memoryview], Result]) -> Result:
        """What `parse` makes of a record's FLAC bytes, which are not copied, and are there until it returns.

        Raises:
            UserError: the record is missing or damaged, which is also what a ValueError says.
        """
        return self._find(index, lambda value: parse(value[slice(*_audio_span(value))]))

    def stored(self, index: int) -> bytes:
        """A record as stored, whatever it is.

        Raises:
            UserError: it is missing, or cannot be read.
        """
        return self._find(index, bytes)

    def keys(self) -> object:
        """The `__keys__` entry, which should be the list of the records' keys. None where there is none."""
        return self.entry(b"__keys__")

    def events(self) -> list[list[Event]] | None:
        """The events of every record, in the order of its annotation file. None where the LMDB has none.

        Raises:
            UserError: the entry is there, but damaged.
        """
        return self.entry(EVENTS, lambda value: unpacked_events(value, len(self)))

    def require_events(self) -> list[list[Event]]:
        """The events of every record.

        Raises:
            UserError: the LMDB has none, or they are damaged.
        """
        found = self.events()
        if found is None:
            why = "It was packed before they were kept, is a released one, or is of clips without times"
            mend = "Pack the soundscapes again with pack_mixtures_into_lmdb.py, which keeps them"
            raise UserError(f"{self.path}: has no events. {why}. {mend}")
        return found

    def groups(self) -> list[int] | None:
        """A number of every record, equal for those of one recording. None where each is of its own.

        Raises:
            UserError: the entry is there, but damaged.
        """
        return self.entry(GROUPS, lambda value: unpacked_groups(value, len(self)))

    def stored_beside(self) -> list[bytes]:
        """The `__events__` and `__groups__` entries that there are, in this order, as stored, whatever they are."""
        return [entry for key in (EVENTS, GROUPS) if (entry := self.entry(key, bytes)) is not None]

    def entry(self, key: bytes, parse: Callable[[memoryview], Any] = msgpack.unpackb) -> Any:
        """What `parse` finds in what is stored beside the records under a key. None where there is nothing."""
        with self._environment().begin(buffers=True) as transaction:
            try:
                value = transaction.get(key)
                return None if value is None else parse(value)
            except (*NO_RECORD, lmdb.Error):
                raise UserError(f"{self.path}: its {key.decode()} entry cannot be read. The file is damaged") from None

    def num_entries(self) -> int:
        """All that the LMDB holds under any key: two more than there are records, one more for each further entry."""
        return self._environment().stat()["entries"]

    def annotations(self, without: Collection[int] = ()) -> list[Annotation]:
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
        shown = progress(len(self), f"labels of {os.path.basename(self.path)}", "clip", leave=False, delay=1)
        with shown as bar, values_in(self.file) as values:
            for index in range(len(self)):
                value = values.get(str(index).encode())
                found.append(("", None) if index in without else self._parsed(index, value, _annotation_of))
                bar.update()
        if not without:
            remember(before, NOTE, found)
        return found

    def require_same_file(self) -> None:
        """Refuse a file that was put in the place of the one that was opened."""
        file = data_file(self.path)
        if not file.exists() or file.stat().st_ino != self.inode:
            raise UserError(f"{self.path}: was replaced or removed while it was in use. Start again")

    def unmap(self) -> None:
        """Release the pages that were read, which count as this process's memory while the file is mapped.

        The next access maps it anew.
        """
        environment = _environments.pop(self._key(), None)
        if environment is not None:
            environment.close()

    def release_pages(self) -> None:
        """Called after each record by who reads many: `unmap`s the file after every `AT_A_TIME` of them."""
        self._read += 1
        if self._read % self.AT_A_TIME == 0:
            self.unmap()

    def where(self, index: int) -> str:
        """How messages call a record."""
        return f"{self.path}, record {index}"

    def _find(self, index: int, parse: Callable[[memoryview], Result]) -> Result:
        with self._environment().begin(buffers=True) as transaction:
            try:
                value = transaction.get(str(index).encode())
            except lmdb.Error as error:
                raise UserError(f"{self.where(index)} cannot be read ({error}). The file is damaged") from None
            return self._parsed(index, value, parse)

    def _parsed(self, index: int, value: memoryview | None, parse: Callable[[memoryview], Result]) -> Result:
        """What `parse` finds in a record as stored."""
        if value is None:
            raise UserError(f"{self.where(index)} is missing, though __len__ is {len(self)}. The file is damaged")
        try:
            return parse(value)
        except NO_RECORD:
            raise UserError(f"{self.where(index)} is not (flac, label). The file is damaged") from None

    def _key(self) -> tuple[int, str, int, bool]:
        return os.getpid(), self._place, self.inode, self.readahead

    def _environment(self) -> lmdb.Environment:
        key = self._key()
        if key in _environments:
            return _environments[key]
        self.require_same_file()
        # What a fork inherited, and this path read in another way or with another file in its place.
        for other in [other for other in _environments if other[0] != key[0] or other[1] == key[1]]:
            _environments.pop(other).close()
        try:
            environment = lmdb.open(
                os.fsencode(self.file), subdir=False, readonly=True, lock=False, readahead=self.readahead
            )
        except lmdb.Error as error:
            raise UserError(f"{self.path}: is not an LMDB, or is damaged ({error})") from None
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        size = self.file.stat().st_size
        if size < needed:  # reading on would end the process: the map reaches past the file
            environment.close()
            raise UserError(f"{self.path}: is truncated: {size} of {needed} bytes. Was a copy interrupted?")
        _environments[key] = environment
        return environment
