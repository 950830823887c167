"""The record format: one LMDB of FLAC bytes and labels, written whole and read in place.

    key  b"0" … b"N-1"  ->  MessagePack (flac bytes, "LabelA,LabelB")
                            or, for ESC-50, (flac bytes, target int, fold int 1…5)
    key  b"__keys__"    ->  MessagePack list of the N keys (bytes)
    key  b"__len__"     ->  MessagePack N

A path that is an existing folder holds the LMDB inside it (LMDB's `subdir`), any other path is
the file itself.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import sys
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import lmdb
import msgpack

from src.data import fingerprint
from src.data.fingerprint import combined, digest
from src.data.lmdb_pages import fault
from src.data.notes import FileState, recall, remember
from src.errors import UserError
from src.files import sync, sync_folder
from src.progress import progress

log = logging.getLogger(__name__)


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
        if not (isinstance(flac, bytes) and isinstance(label, (str, int)) and len(fold) <= 1
                and all(isinstance(one, int) for one in fold)):
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
        if not (isinstance(one, list) and len(one) == 2 and isinstance(one[0], (str, int))
                and isinstance(one[1], (int, type(None)))):
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
            raise UserError(f"{path}: its __len__ entry, {self._length!r}, is no number of records; the file is "
                            "damaged")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        with self._begin() as transaction:
            value = self._value(transaction, index)
            try:
                return Record.unpack(value)
            except ValueError:
                raise UserError(f"{self.where(index)} is not (flac, label); the file is damaged") from None

    def digest(self, index: int) -> bytes:
        """SHA-256 of a record as stored; see src/data/fingerprint.py."""
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

        LMDB reads all of a record, so this takes a pass through the file, but only once: the result is kept in a note
        beside it, as packing does.

        Args:
            without: records that cannot be read; they have the label "".
        """
        before = FileState.of(self.file)
        known = known_annotations(before, len(self))
        if known is not None:
            return known
        found = []
        with progress(len(self), f"labels of {os.path.basename(self.path)}", "clip", leave=False, delay=1) as bar:
            for index in range(len(self)):
                found.append(("", None) if index in without else self.annotation(index))
                self.let_go()
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
            value = self._value(transaction, index)
            try:
                unpacker = msgpack.Unpacker()
                unpacker.feed(value[_audio_end(value):])
                label, *fold = unpacker  # what is left of the record
                if not isinstance(label, (str, int)) or not all(isinstance(one, int) for one in fold):
                    raise TypeError("label or fold is of another type")
                return label, fold[0] if fold else None
            except (ValueError, TypeError, IndexError, struct.error, msgpack.UnpackException):
                raise UserError(f"{self.where(index)} is not (flac, label); the file is damaged") from None

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
            raise UserError(f"{self.where(index)} is missing, though __len__ is {len(self)}; the file is damaged")
        return value

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


def _audio_end(value: memoryview) -> int:
    """Where the FLAC bytes of a packed record end: after a 1-byte array head, a length head and the bytes."""
    head = value[1]
    if head == 0xC4:  # bin 8
        return 3 + value[2]
    if head == 0xC5:  # bin 16
        return 4 + struct.unpack_from(">H", value, 2)[0]
    if head == 0xC6:  # bin 32
        return 6 + struct.unpack_from(">I", value, 2)[0]
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
        environment = lmdb.open(os.fsencode(path), subdir=Path(path).is_dir(), readonly=True, lock=False,
                                readahead=readahead)
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


class LMDBWriter:
    """Writes an LMDB beside `path` and puts it in its place once it is complete and synced.

    Until then, and whatever happens, a file that was at `path` stays as it was. Records are
    numbered in the order in which they are added. Memory is that of one transaction.

    Args:
        path: the LMDB; an existing folder holds it inside.
        map_size: bytes that the LMDB may grow to at first; it is doubled as often as needed.
        write_frequency: records in one transaction; fewer where they are large.
    """

    MIN_MAP_SIZE = 1 << 20  # room for LMDB's own pages
    LARGEST_TRANSACTION = 1 << 26  # bytes, which it holds in memory twice

    def __init__(self, path: str | Path, map_size: float = 5e9, write_frequency: int = 1000):
        self.path = data_file(path)
        self.map_size = max(int(map_size), self.MIN_MAP_SIZE)
        self.write_frequency = write_frequency
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._length = 0
        self._digests = bytearray()  # 32 bytes a record
        self._annotations: list[Annotation] = []

    def __enter__(self) -> LMDBWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._lock).st_ino != self._partial.stat().st_ino:
                raise BlockingIOError  # another packing ended just now, and took the file along
        except (BlockingIOError, FileNotFoundError):
            os.close(self._lock)
            raise UserError(f"{self.path}: another process is packing into it") from None
        os.ftruncate(self._lock, 0)  # what an interrupted packing may have left
        try:
            # Nobody reads the file before it is whole, and synced once: a transaction need not wait for the disk.
            self._env = lmdb.open(os.fsencode(self._partial), subdir=False, map_size=self.map_size, lock=False,
                                  mode=0o666, sync=False)
        except (lmdb.Error, OverflowError) as error:
            self._partial.unlink()
            os.close(self._lock)
            raise UserError(f"{self.path}: cannot be made with --map_size {self.map_size:.3g} ({error})") from None
        return self

    @property
    def fingerprint(self) -> str:
        """Of the records added so far; see src/data/fingerprint.py."""
        return combined([self._digests])

    def __len__(self) -> int:
        return self._length

    def add(self, record: Record) -> None:
        """Append one record."""
        value = record.pack()
        self._length += 1
        self._digests += digest(value)
        self._annotations.append((record.label, record.fold))
        self._pending.append(value)
        self._pending_bytes += len(value)
        if len(self._pending) >= self.write_frequency or self._pending_bytes >= self.LARGEST_TRANSACTION:
            self._commit()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        done = False
        try:
            if kind is None:
                self._complete()
                done = True
        finally:
            self._env.close()
            if not done:
                self._partial.unlink(missing_ok=True)
            os.close(self._lock)

    def _complete(self) -> None:
        """Write what is left, and have all of it on the disk before the file gets its name."""
        self._commit()
        keys = [str(index).encode() for index in range(len(self))]
        self._put({b"__keys__": msgpack.packb(keys), b"__len__": msgpack.packb(len(self))})
        try:
            self._env.sync(True)
            self._env.close()
            sync(self._partial)
        except (lmdb.Error, OSError) as error:
            raise self._unwritable(error) from None
        os.replace(self._partial, self.path)
        sync_folder(self.path.parent)
        state = FileState.of(self.path, os.fstat(self._lock))
        remember(state, fingerprint.NOTE, self.fingerprint)
        remember(state, NOTE, self._annotations)

    def _commit(self) -> None:
        first = len(self) - len(self._pending)
        self._put({str(first + i).encode(): value for i, value in enumerate(self._pending)})
        self._pending, self._pending_bytes = [], 0

    def _put(self, items: dict[bytes, bytes]) -> None:
        """Write in one transaction, growing the map until it fits."""
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in items.items():
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                raise self._unwritable(error) from None

    def _grow(self) -> None:
        grown = 2 * self.map_size
        log.warning("%s: --map_size %.3g bytes is too small; grown to %.3g, nothing is lost",
                    self.path, self.map_size, grown)
        try:
            self._env.set_mapsize(grown)
        except (lmdb.Error, OverflowError) as error:
            raise UserError(f"{self.path}: its map cannot grow to {grown:.3g} bytes ({error})") from None
        self.map_size = grown

    def _unwritable(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: cannot be written ({error}); is the disk full?")
