"""Reading an LMDB through in the background: for its fingerprint, and into the page cache."""

import logging
import multiprocessing
import os
import signal
from multiprocessing.context import SpawnProcess

from src.data.lmdb.fingerprint import fingerprint, known_fingerprint
from src.data.lmdb.store import LMDBReader
from src.utils.memory import available_memory
from src.utils.parallel import end_with_the_parent
from src.utils.progress import progress_lines

log = logging.getLogger(__name__)

SMALL = 1 << 26  # bytes. Less is read when it is needed, sooner than a process starts
CHUNK = 1 << 24  # bytes read at a time


class ReadingAhead:
    """One pass through an LMDB, in a process of its own, which ends with this one.

    A thread would not do: LMDB opens a file once in a process, and the data set releases its pages.

    Args:
        reader: of the LMDB.
        warm: read it even where its fingerprint is known, so that the page cache has all of it for all processes of the
            machine. It is not where memory is too short.
    """

    def __init__(self, reader: LMDBReader, warm: bool):
        self.reader = reader
        self._process: SpawnProcess | None = None
        size, free = os.path.getsize(reader.file), available_memory()
        unknown = known_fingerprint(reader.file) is None
        if warm and size > free:
            log.warning(
                "%s: has %.1f GB, and %.1f GB of memory are free: records are read from disk as they come",
                reader.path,
                size / 1e9,
                free / 1e9,
            )
        if size > SMALL and (unknown or (warm and size <= free)):
            self._process = multiprocessing.get_context("spawn").Process(
                target=read_through, args=(reader.path, unknown), daemon=True
            )
            self._process.start()

    def fingerprint(self) -> str:
        """The LMDB's. It is waited for where it is not known yet."""
        if self._process is not None and known_fingerprint(self.reader.file) is None:
            self._process.join()
        return fingerprint(self.reader)  # found where the process has kept it, else read here


def read_through(path: str, for_fingerprint: bool) -> None:
    """What the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its parent
    end_with_the_parent()
    reader = LMDBReader(path)
    if for_fingerprint:
        fingerprint(reader, progress_lines)
        return
    size, name, buffer = os.path.getsize(reader.file), os.path.basename(path), bytearray(CHUNK)
    with (
        open(reader.file, "rb", buffering=0) as stream,
        progress_lines(size, f"reading {name} ahead", "B", unit_scale=True) as bar,
    ):
        while count := stream.readinto(buffer):
            bar.update(count)
