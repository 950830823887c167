"""All clips of an LMDB as 16-bit samples in one file, which every loader worker of a machine reads.

Decoding FLAC is half of a worker's time, and the samples take about twice the room. The file holds

    the samples of clip 0, of clip 1, …         int16

    where each begins, and where the last ends  int64, N + 1 of them, in samples
    the CRC-32 of each clip's samples           uint32

    N, the bytes of all samples                 int64
    the CRC-32 of the two arrays, LAYOUT        uint32, 8 bytes

What surrounds the samples is compared as the file is opened, and a clip when a process first reads it.
"""

import functools
import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from src.data.audio.files import decode_record
from src.data.lmdb.notes import FileState
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.utils.files import whole_file
from src.utils.locks import exclusive
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

LAYOUT = b"samples2"
TAIL = struct.Struct("<qqI8s")


class SampleCache:
    """Reads the file. The page cache holds the one copy of it that all processes share.

    Args:
        path: the file.
        count: clips that it should hold.

    Raises:
        ValueError: it is not such a file, or not as it was written.
    """

    def __init__(self, path: Path, count: int):
        self.path = path
        if not path.is_file():
            raise ValueError("is no file")
        self._descriptor = os.open(path, os.O_RDONLY)
        size = 12 * count + 8  # bytes of the two arrays
        place = os.fstat(self._descriptor).st_size - TAIL.size - size
        arrays = os.pread(self._descriptor, size, max(place, 0))
        tail = os.pread(self._descriptor, TAIL.size, max(place, 0) + size)
        if tail != TAIL.pack(count, place, zlib.crc32(arrays), LAYOUT):
            os.close(self._descriptor)
            raise ValueError("is damaged")
        self._starts = np.frombuffer(arrays[: 8 * count + 8], np.int64)
        self._sums = np.frombuffer(arrays[8 * count + 8 :], np.uint32)
        self._compared = np.zeros(count, bool)  # by this process
        self._is_damaged = False

    def __getitem__(self, index: int) -> np.ndarray | None:
        """(N,) int16 samples of a clip, or None where they are not as they were written."""
        start, end = self._starts[index : index + 2]
        # A map of the file would count as each process's own memory.
        samples = os.pread(self._descriptor, 2 * (end - start), 2 * start)
        if not self._compared[index]:
            if zlib.crc32(samples) != self._sums[index]:
                self._give_up(index)
                return None
            self._compared[index] = True
        return np.frombuffer(samples, np.int16)

    def _give_up(self, index: int) -> None:
        """Say that a clip is damaged, and have the file made anew when it is next opened."""
        if self._is_damaged:
            return
        self._is_damaged = True
        log.warning("%s: clip %d is damaged, and decoded instead. The next start makes the file anew", self.path, index)
        with suppress(OSError), open(self.path, "r+b") as stream:
            stream.seek(-len(LAYOUT), os.SEEK_END)
            stream.write(bytes(len(LAYOUT)))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_descriptor": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"_descriptor": os.open(state["path"], os.O_RDONLY)}


def open_cache(
    folder: str | Path, reader: LMDBReader, sample_rate: int, num_workers: int, without: Collection[int] = ()
) -> SampleCache:
    """The cache of an LMDB in a folder. If it is not there and whole, `num_workers` processes make it, and others
    wait for it.

    Args:
        without: records that are not used, kept as no samples.

    Raises:
        UserError: a clip cannot be decoded, or is not 16-bit FLAC, or a folder has the file's name.
    """
    state = FileState.of(reader.file)
    name = hashlib.sha256(repr((LAYOUT, state, sample_rate, sorted(without))).encode()).hexdigest()[:16]
    path = Path(folder) / f"{Path(reader.path).stem}-{name}.samples"
    if path.is_dir():
        raise UserError(f"{path}: is a folder. Delete it, or choose another --cache_samples")
    with suppress(ValueError):
        return SampleCache(path, len(reader))
    with exclusive(folder):
        try:
            return SampleCache(path, len(reader))  # another process has made it meanwhile
        except ValueError as error:
            if os.path.lexists(path):
                log.warning("%s: %s, and is made anew", path, error)
        decode, records = functools.partial(decoded, reader, sample_rate, without), range(len(reader))
        what = f"decoding for {path.name}"
        _write(path, map_in_processes(decode, records, num_workers, what, unit="clip", chunk=16))
    return SampleCache(path, len(reader))


def _write(path: Path, clips: Iterable[bytes]) -> None:
    starts, sums = [0], []
    with whole_file(path, follow=False) as temporary, open(temporary, "wb") as stream:
        for samples in clips:
            stream.write(samples)
            starts.append(starts[-1] + len(samples) // 2)
            sums.append(zlib.crc32(samples))
        arrays = np.array(starts, np.int64).tobytes() + np.array(sums, np.uint32).tobytes()
        stream.write(arrays + TAIL.pack(len(sums), 2 * starts[-1], zlib.crc32(arrays), LAYOUT))


def decoded(reader: LMDBReader, sample_rate: int, without: Collection[int], index: int) -> bytes:
    """The 16-bit samples of a record, none of those to leave out.

    Raises:
        UserError: it cannot be decoded, or is not 16-bit FLAC.
    """
    if index in without:
        return b""
    samples = decode_record(reader.audio(index), sample_rate, reader.where(index))
    reader.release_pages()
    if samples.dtype != np.int16:
        raise UserError(f"{reader.where(index)}: is not 16-bit FLAC, and --cache_samples keeps 16 bits")
    return samples.tobytes()
