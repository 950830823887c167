"""The record format: one LMDB of FLAC bytes and labels, read in place. src/data/lmdb/writer.py writes it.

    key  b"0" … b"N-1"  ->  MessagePack (flac bytes, "LabelA,LabelB")
                            or, for ESC-50, (flac bytes, target int, fold int 1…5)
    key  b"__keys__"    ->  MessagePack list of the N keys (bytes)
    key  b"__len__"     ->  MessagePack N

A path that is an existing folder holds the LMDB inside it (LMDB's `subdir`), any other path is
the file itself.
"""

import os
import struct
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import msgpack

from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.pages import fault, values_in
from src.errors import UserError
from src.utils.progress import progress

NOTE = "labels"
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
    def unpack(cls, value: bytes | memoryview) -> "Record":
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


def _annotation_of(value: memoryview) -> Annotation:
    """Of a packed record, of which no more than its two ends are looked at."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(value[_audio_span(value)[1] :])
    return _annotation(*unpacker)


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
# environment for each process and file, under (process, path, inode, readahead).
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
        if not self.file.exists():
            missing = "is a folder without data.mdb in it" if Path(path).is_dir() else "no such LMDB"
            raise UserError(f"{path}: {missing}. Pack one with pack_mixtures_into_lmdb.py")
        self.inode = self.file.stat().st_ino
        self._environment()
        problem = fault(self.file)
        if problem:
            raise UserError(f"{path}: is damaged: {problem}")
        length = self._entry(b"__len__")
        if length is None:
            raise UserError(f"{path}: has no __len__ entry. Was its packing interrupted?")
        if type(length) is not int or not 0 <= length <= sys.maxsize:
            raise UserError(f"{path}: its __len__ entry, {length!r}, is no number of records. The file is damaged")
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        with self._value(index) as value:
            return Record.unpack(value)

    def audio(self, index: int) -> bytes:
        """The FLAC bytes of a record, without looking at the rest of it.

        Raises:
            UserError: it is missing or damaged.
        """
        with self._value(index) as value:
            return bytes(value[slice(*_audio_span(value))])

    def annotation(self, index: int) -> Annotation:
        """(label field, fold or None) of a record, without a copy of the audio.

        Raises:
            UserError: it is missing or damaged.
        """
        with self._value(index) as value:
            return _annotation_of(value)

    def stored(self, index: int) -> bytes:
        """A record as stored, whatever it is.

        Raises:
            UserError: it is missing, or cannot be read.
        """
        with self._value(index) as value:
            return bytes(value)

    def keys(self) -> object:
        """The `__keys__` entry, which should be the list of the records' keys. None where there is none."""
        return self._entry(b"__keys__")

    def num_entries(self) -> int:
        """All that the LMDB holds under any key: two more than there are records, if it is whole."""
        return self._environment().stat()["entries"]

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
        with (
            values_in(self.file) as values,
            progress(len(self), f"labels of {os.path.basename(self.path)}", "clip", leave=False, delay=1) as bar,
        ):
            for index in range(len(self)):
                if index in without:
                    found.append(("", None))
                else:
                    with self._checked(index, values.get(str(index).encode())) as value:
                        found.append(_annotation_of(value))
                bar.update()
        if not any(index in without for index in range(len(self))):
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

    @contextmanager
    def _value(self, index: int) -> Iterator[memoryview]:
        """A record as stored, as long as the block lasts."""
        with self._environment().begin(buffers=True) as transaction:
            try:
                value = transaction.get(str(index).encode())
            except lmdb.Error as error:
                raise UserError(f"{self.where(index)} cannot be read ({error}). The file is damaged") from None
            with self._checked(index, value) as value:
                yield value

    @contextmanager
    def _checked(self, index: int, value: Any) -> Iterator[memoryview]:
        """A record that is there. What the block does not find in it is the file's fault."""
        if value is None:
            raise UserError(f"{self.where(index)} is missing, though __len__ is {len(self)}. The file is damaged")
        try:
            yield value
        except NO_RECORD:
            raise UserError(f"{self.where(index)} is not (flac, label). The file is damaged") from None

    def _entry(self, key: bytes) -> object:
        """What is stored beside the records under a key."""
        with self._environment().begin(buffers=True) as transaction:
            try:
                value = transaction.get(key)
                return None if value is None else msgpack.unpackb(value)
            except (*NO_RECORD, lmdb.Error):
                raise UserError(f"{self.path}: its {key.decode()} entry cannot be read. The file is damaged") from None

    def _key(self) -> tuple[int, str, int, bool]:
        return os.getpid(), self.path, self.inode, self.readahead

    def _environment(self) -> lmdb.Environment:
        key = self._key()
        if key in _environments:
            return _environments[key]
        self.require_same_file()
        # What a fork inherited, and this path read in another way or with another file in its place.
        place = os.path.realpath(self.path)
        for other in [other for other in _environments if other[0] != key[0] or os.path.realpath(other[1]) == place]:
            _environments.pop(other).close()
        try:
            environment = lmdb.open(
                os.fsencode(self.path),
                subdir=Path(self.path).is_dir(),
                readonly=True,
                lock=False,
                readahead=self.readahead,
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
