"""Writing an LMDB of src/data/lmdb/store.py: whole, or not at all."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lmdb
import msgpack

from src.data.events import Event
from src.data.lmdb import fingerprint
from src.data.lmdb.notes import FileState, remember
from src.data.lmdb.store import EVENTS, GROUPS, NOTE, PART, Annotation, Record, data_file, packed_events
from src.errors import UserError
from src.utils import locks
from src.utils.files import file_behind, is_special, require_writable, sync, sync_folder

log = logging.getLogger(__name__)


class LMDBWriter:
    """Writes an LMDB beside `path` and puts it in its place once it is complete and synced.

    Until then, and whatever happens, a file that was at `path` stays as it was. Of a link, that is the file
    that it points to. What is half done is `.NAME.partial`. Records are numbered in the order in which they
    are added. Memory is that of one transaction.

    Args:
        path: the LMDB. An existing folder holds it inside.
        map_size: bytes that the LMDB may grow to at first. It is doubled as often as needed.
        write_frequency: records in one transaction, fewer where they are large.
        part: what is noted of an LMDB that is a part of a larger one. The fingerprint is added to it.
    """

    MIN_MAP_SIZE = 1 << 20  # room for LMDB's own pages
    LARGEST_TRANSACTION = 1 << 26  # bytes, which it holds in memory twice

    def __init__(
        self,
        path: str | Path,
        map_size: float = 5e9,
        write_frequency: int = 1000,
        part: Mapping[str, Any] | None = None,
    ):
        self.path = data_file(path)
        self.map_size = max(int(map_size), self.MIN_MAP_SIZE)
        self.write_frequency = write_frequency
        self._part = part
        self._file = file_behind(self.path)
        self._partial = self._file.with_name(f".{self._file.name}.partial")
        self._pending: dict[bytes, bytes] = {}  # key -> value
        self._pending_bytes = 0
        self._digests = bytearray()  # 32 bytes a record
        self._annotations: list[Annotation] = []
        self._events = bytearray()  # packed, of one record behind the other
        self._num_with_events = 0  # records
        self._groups: list[int] = []
        self._numbers: dict[str, int] = {}  # of the groups

    def __enter__(self) -> "LMDBWriter":
        if is_special(self._file):
            raise UserError(f"{self.path}: is a device, a FIFO or an open file, and an LMDB is a plain file")
        require_writable(self.path)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = locks.take(self._partial)
        except BlockingIOError:
            raise UserError(f"{self.path}: another process is packing into it") from None
        os.ftruncate(self._lock, 0)  # what an interrupted packing may have left
        try:
            # Nobody reads the file before it is whole, and synced once: a transaction need not wait for the disk.
            self._env = lmdb.open(
                os.fsencode(self._partial), subdir=False, map_size=self.map_size, lock=False, mode=0o666, sync=False
            )
        except (lmdb.Error, OverflowError) as error:
            self._partial.unlink()
            locks.release(self._lock)
            raise UserError(f"{self.path}: cannot be made with --map_size {self.map_size:.3g} ({error})") from None
        return self

    @property
    def fingerprint(self) -> str:
        """Of the records added so far."""
        return fingerprint.combined([self._digests, *map(fingerprint.digest, self._entries_beside().values())])

    def __len__(self) -> int:
        return len(self._annotations)

    def add(self, record: Record, events: Iterable[Event] | None = None, group: str | None = None) -> None:
        """Append one record. All records come with their events, or none does, and so with their groups.

        Args:
            group: such as the recording that the clip is of.
        """
        value = record.pack()
        self._pending[str(len(self)).encode()] = value
        self._digests += fingerprint.digest(value)
        self._annotations.append((record.label, record.fold))
        if events is not None:
            self._events += packed_events(events)
            self._num_with_events += 1
        if group is not None:
            self._groups.append(self._numbers.setdefault(group, len(self._numbers)))
        assert self._num_with_events in (0, len(self)), "some records have events, and others do not"
        assert len(self._groups) in (0, len(self)), "some records have a group, and others do not"
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
            locks.release(self._lock)

    def _complete(self) -> None:
        """Write what is left, and have all of it on the disk before the file gets its name."""
        self._commit()
        keys = [str(index).encode() for index in range(len(self))]
        part = {} if self._part is None else {PART: msgpack.packb({**self._part, "fingerprint": self.fingerprint})}
        ends = {b"__keys__": msgpack.packb(keys), b"__len__": msgpack.packb(len(self))}
        self._put(ends | self._entries_beside() | part)
        try:
            self._env.sync(True)
            self._env.close()
            sync(self._partial)
        except (lmdb.Error, OSError) as error:
            raise self._unwritable(error) from None
        os.replace(self._partial, self._file)
        sync_folder(self._file.parent)
        state = FileState.of(self._file, os.fstat(self._lock))
        remember(state, fingerprint.NOTE, self.fingerprint)
        remember(state, NOTE, self._annotations)

    def _entries_beside(self) -> dict[bytes, bytes]:
        """Keys and values of the events and the groups of the records added so far, as far as they have any."""
        entries = {}
        if self._num_with_events:
            entries[EVENTS] = msgpack.Packer().pack_array_header(len(self)) + bytes(self._events)
        if len(self._numbers) < len(self._groups):
            entries[GROUPS] = msgpack.packb(self._groups)
        return entries

    def _commit(self) -> None:
        self._put(self._pending)
        self._pending, self._pending_bytes = {}, 0

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
        log.warning(
            "%s: --map_size %.3g bytes is too small: grown to %.3g, nothing is lost", self.path, self.map_size, grown
        )
        try:
            self._env.set_mapsize(grown)
        except (lmdb.Error, OverflowError) as error:
            raise UserError(f"{self.path}: its map cannot grow to {grown:.3g} bytes ({error})") from None
        self.map_size = grown

    def _unwritable(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: cannot be written ({error}). Is the disk full?")
