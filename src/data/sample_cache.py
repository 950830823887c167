"""All clips of an LMDB as 16-bit samples in one file, which every loader worker of a machine reads.

Decoding FLAC is half of a worker's time, and the samples take about twice the room. The file holds

    the samples of clip 0, of clip 1, …        int16
    where each begins, and where the last ends  int64, N + 1 of them, in samples
    N                                           int64
"""

import functools
import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from src.data.audio.files import decode_record
from src.data.lmdb.notes import FileState
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.utils.files import whole_file
from src.utils.locks import exclusive
from src.utils.parallel import map_in_processes


class SampleCache:
    """Reads the file. The page cache holds the one copy of it that all processes share.

    Args:
        path: the file, of `open_cache`.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        end = os.fstat(self._descriptor).st_size
        count = int(self._read(end - 8, 1, np.int64)[0])
        self._starts = self._read(end - 8 * (count + 2), count + 1, np.int64)

    def __getitem__(self, index: int) -> np.ndarray:
        """(N,) int16 samples of a clip."""
        start, end = self._starts[index : index + 2]
        return self._read(2 * start, end - start, np.int16)

    def _read(self, offset: int, count: int, dtype: type) -> np.ndarray:
        size = count * np.dtype(dtype).itemsize
        return np.frombuffer(os.pread(self._descriptor, size, offset), dtype)  # a map would count as each process's own

    def __reduce__(self) -> tuple:
        return SampleCache, (self.path,)


def open_cache(
    folder: str | Path, reader: LMDBReader, sample_rate: int, num_workers: int, without: Collection[int] = ()
) -> SampleCache:
    """The cache of an LMDB in a folder. If it is not there, `num_workers` processes make it, and others wait for it.

    Args:
        without: records that are not used, kept as no samples.

    Raises:
        UserError: a clip cannot be decoded, or is not 16-bit FLAC.
    """
    state = FileState.of(reader.file)
    name = hashlib.sha256(repr((state, sample_rate, sorted(without))).encode()).hexdigest()[:16]
    path = Path(folder) / f"{Path(reader.path).stem}-{name}.samples"
    if not path.exists():
        with exclusive(folder):
            if not path.exists():
                decode, records = functools.partial(_decoded, reader, sample_rate, without), range(len(reader))
                what = f"decoding for {path.name}"
                _write(path, map_in_processes(decode, records, num_workers, what, unit="clip", chunk=16))
    return SampleCache(path)


def _write(path: Path, clips: Iterable[bytes]) -> None:
    starts = [0]
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        for samples in clips:
            stream.write(samples)
            starts.append(starts[-1] + len(samples) // 2)
        stream.write(np.array([*starts, len(starts) - 1], np.int64).tobytes())


def _decoded(reader: LMDBReader, sample_rate: int, without: Collection[int], index: int) -> bytes:
    if index in without:
        return b""
    samples = decode_record(reader.audio(index), sample_rate, reader.where(index))
    reader.release_pages()
    if samples.dtype != np.int16:
        raise UserError(f"{reader.where(index)}: is not 16-bit FLAC, and --cache_samples keeps 16 bits")
    return samples.tobytes()
