"""The record format: one LMDB of FLAC bytes and labels, read in place; src/data/lmdb/writer.py writes it.

    key  b"0" … b"N-1"  ->  MessagePack (flac bytes, "LabelA,LabelB")
                            or, for ESC-50, (flac bytes, target int, fold int 1…5)
    key  b"__keys__"    ->  MessagePack list of the N keys (bytes)
    key  b"__len__"     ->  MessagePack N

A path that is an existing folder holds the LMDB inside it (LMDB's `subdir`), any other path is
the file itself.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import lmdb
import msgpack

from src.data.lmdb.fingerprint import digest
from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.pages import fault, values_in
from src.errors import UserError
from src.utils.progress import progress


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
    def unpack(cls, value: bytes | memoryview) -> Record:
        """The record of its MessagePack.

        Raises:
            ValueError: it is none.
        """
        try:
            flac, label, *fold = msgpack.unpackb(value)
        except (ValueError, TypeError, msgpack.UnpackException):
            raise ValueError("not MessagePack of (flac, label)") from None
        if not (
            isinstance(flac, bytes)
            and isinstance(label, (str, int))
            and len(fold) <= 1
            and all(isinstance(one, int) for one in fold)
        ):
            raise ValueError("fields of other types")
        return cls(flac, label, *fold)


Annotation = tuple[str | int, int | None]  # label field, fold

NOTE = "labels"


def known_annotations(state: FileState, count: int) -> list[Annotation] | None:
    """The annotations kept for a file in this state, of `count` records."""
    found = recall(state, NOTE)
    if not isinstance(found, list) or len(found) != count:
        return None
    for one in found:
        if not (
            isinstance(one, list)
            and len(one) == 2
            and isinstance(one[0], (str, int))
            and isinstance(one[1], (int, type(None)))
        ):
            return None
    return [tuple(one) for one in found]


def data_file(path: str | Path) -> Path:
    """The file that holds the data: `path` itself, or `data.mdb` in it where it is a folder."""
    path = Path(path)
    return path / "data.mdb" if path.is_dir() else path


class LMDBReader:
    """Random access to the records of an LMDB.

    The file is mapped into memory, so that all processes of a machine share one copy of its pages
    in the page cache. A reader may be pickled or inherited by a forked worker: each process maps
    the file anew when it first reads. A reader reads the file that it opened: one that was put in its
    place since is refused.

    Raises:
        UserError: there is no such file, it is not a whole LMDB, or it has no `__len__`.
    """

    AT_A_TIME = 64  # records; see `let_go`

    def __init__(self, path: str | Path, readahead: bool = True):
        self.path = str(path)
        self.readahead = readahead
        self._let_go = 0  # records
        if not data_file(path).exists():
            missing = "is a folder without data.mdb in it" if Path(path).is_dir() else "no such LMDB"
            raise UserError(f"{path}: {missing}; pack one with pack_mixtures_into_lmdb.py")
        self.file = data_file(path)
        self.inode = self.file.stat().st_ino
        _environment(*self._key())
        problem = fault(self.file)
        if problem:
            raise UserError(f"{path}: is damaged: {problem}")
        self._length = self._entry(b"__len__")
        if self._length is None:
            raise UserError(f"{path}: has no __len__ entry; was its packing interrupted?")
        if type(self._length) is not int or not 0 <= self._length <= sys.maxsize:
            raise UserError(
                f"{path}: its __len__ entry, {self._length!r}, is no number of records; the file is damaged"
            )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        with self._begin() as transaction:
            value = self._value(transaction, index)
            try:
                return Record.unpack(value)
            except ValueError:
                raise self._damaged(index) from None

    def audio(self, index: int) -> bytes:
        """The FLAC bytes of a record, without looking at the rest of it.

        Raises:
            UserError: it is missing or damaged.
        """
        with self._begin() as transaction:
            value = self._value(transaction, index)
            try:
                return bytes(value[slice(*_audio_span(value))])
            except (ValueError, IndexError, struct.error):
                raise self._damaged(index) from None

    def digest(self, index: int) -> bytes:
        """SHA-256 of a record as stored; see src/data/lmdb/fingerprint.py."""
        with self._begin() as transaction:
            return digest(self._value(transaction, index))

    def keys(self) -> object:
        """The `__keys__` entry, which should be the list of the records' keys; None where there is none."""
        return self._entry(b"__keys__")

    def num_entries(self) -> int:
        """All that the LMDB holds under any key; two more than there are records, if it is whole."""
        with self._begin() as transaction:
            return transaction.stat()["entries"]

    def labels(self) -> list[str | int]:
        """The label field of every record."""
        return [label for label, _ in self.annotations()]

    def annotations(self, without: Container[int] = ()) -> list[Annotation]:
        """(label field, fold or None) of every record.

        Of each record one or two pages are read, and only once: the result is kept in a note beside the file, as
        packing does.

        Args:
            without: records that cannot be read; they have the label "".

        Raises:
            UserError: another record is missing or damaged.
        """
        self.require_same_file()
        before = FileState.of(self.file)
        known = known_annotations(before, len(self))
        if known is not None:
            return known
        found = []
        with (
            values_in(self.file) as values,
            progress(len(self), f"labels of {os.path.basename(self.path)}", "clip", leave=False, delay=1) as bar,
        ):
            for index in range(len(self)):
                value = values.get(str(index).encode())
                found.append(("", None) if index in without else self._annotation(index, value))
                bar.update()
        if FileState.of(self.file) == before and not any(index in without for index in range(len(self))):
            remember(before, NOTE, found)
        return found

    def annotation(self, index: int) -> Annotation:
        """(label field, fold or None) of a record, without a copy of the audio.

        Raises:
            UserError: it is missing or damaged.
        """
        with self._begin() as transaction:
            return self._annotation(index, self._value(transaction, index))

    def _annotation(self, index: int, value: memoryview | None) -> Annotation:
        """Of a record's bytes, of which it looks at no more than it needs."""
        if value is None:
            raise self._missing(index)
        try:
            unpacker = msgpack.Unpacker()
            unpacker.feed(value[_audio_span(value)[1] :])
            label, *fold = unpacker  # what is left of the record
            if not isinstance(label, (str, int)) or not all(isinstance(one, int) for one in fold):
                raise TypeError("label or fold is of another type")
            return label, fold[0] if fold else None
        except (ValueError, TypeError, IndexError, struct.error, msgpack.UnpackException):
            raise self._damaged(index) from None

    def require_same_file(self) -> None:
        """Refuse a file that was put in the place of the one that was opened."""
        _require_same_file(self.path, self.inode)

    def unmap(self) -> None:
        """Give back the pages that were read, which count as this process's memory while the file is mapped.

        The next access maps it anew.
        """
        environment = _environments.pop(self._key(), None)
        if environment is not None:
            environment.close()

    def let_go(self) -> None:
        """Said of each record by who reads the file through once; `unmap`s it now and then."""
        self._let_go += 1
        if self._let_go % self.AT_A_TIME == 0:
            self.unmap()

    def where(self, index: int) -> str:
        """How messages call a record."""
        return f"{self.path}, record {index}"

    def _value(self, transaction: lmdb.Transaction, index: int) -> memoryview:
        try:
            value = transaction.get(str(index).encode())
        except lmdb.Error as error:
            raise UserError(f"{self.where(index)} cannot be read ({error}); the file is damaged") from None
        if value is None:
            raise self._missing(index)
        return value

    def _missing(self, index: int) -> UserError:
        return UserError(f"{self.where(index)} is missing, though __len__ is {len(self)}; the file is damaged")

    def _damaged(self, index: int) -> UserError:
        return UserError(f"{self.where(index)} is not (flac, label); the file is damaged")

    def _entry(self, key: bytes) -> object:
        """What is stored beside the records under a key."""
        with self._begin() as transaction:
            try:
                value = transaction.get(key)
                return None if value is None else msgpack.unpackb(value)
            except (ValueError, TypeError, lmdb.Error, msgpack.UnpackException):
                raise UserError(f"{self.path}: its {key.decode()} entry cannot be read; the file is damaged") from None

    def _begin(self) -> lmdb.Transaction:
        return _environment(*self._key()).begin(buffers=True)

    def _key(self) -> tuple[int, str, int, bool]:
        return os.getpid(), self.path, self.inode, self.readahead


def _audio_span(value: memoryview) -> tuple[int, int]:
    """Where the FLAC bytes of a packed record begin, after a 1-byte array head and a length head, and end."""
    head = value[1]
    if head == 0xC4:  # bin 8
        return 3, 3 + value[2]
    if head == 0xC5:  # bin 16
        return 4, 4 + struct.unpack_from(">H", value, 2)[0]
    if head == 0xC6:  # bin 32
        return 6, 6 + struct.unpack_from(">I", value, 2)[0]
    raise ValueError(f"unexpected MessagePack head {head:#x}")


# LMDB refuses to open a file twice in one process, and an open environment must not be used across a
# fork: one environment for each process and file.
_environments: dict[tuple, lmdb.Environment] = {}


def _environment(process: int, path: str, inode: int, readahead: bool) -> lmdb.Environment:
    key = (process, path, inode, readahead)
    if key in _environments:
        return _environments[key]
    _require_same_file(path, inode)
    # What a fork inherited, and this path read in another way or with another file in its place.
    for other in [other for other in _environments if other[0] != key[0] or _same_place(other[1], path)]:
        _environments.pop(other).close()
    try:
        environment = lmdb.open(
            os.fsencode(path), subdir=Path(path).is_dir(), readonly=True, lock=False, readahead=readahead
        )
    except lmdb.Error as error:
        raise UserError(f"{path}: is not an LMDB, or is damaged ({error})") from None
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = data_file(path).stat().st_size
    if size < needed:  # reading on would end the process: the map reaches past the file
        environment.close()
        raise UserError(f"{path}: is truncated: {size} of {needed} bytes; was a copy interrupted?")
    _environments[key] = environment
    return environment


def _require_same_file(path: str, inode: int) -> None:
    file = data_file(path)
    if not file.exists() or file.stat().st_ino != inode:
        raise UserError(f"{path}: was replaced or removed while it was in use; start again")


def _same_place(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
