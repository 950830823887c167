"""The sounds of a folder, mono, 16-bit and at one rate, packed once into an LMDB of FLAC beside it."""

import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.data.audio.files import decode_part, encode, num_samples, read_mono
from src.data.lmdb.notes import FileState, note_on, recall, remember
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.data.soundscapes.sources import require_source
from src.errors import UserError
from src.utils.files import require_writable, write_whole
from src.utils.locks import exclusive
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

NOTE = "sources"  # what an LMDB was packed from
KEPT = 1 << 26  # bytes of decoded sounds that a process keeps
SHORT = 30  # s. Of what lasts longer, the part that is asked for is decoded
ELSEWHERE = "The sounds are packed beside their folder. Where that cannot be, name a link to it that lies elsewhere"


class PackedSounds:
    """Random access to any part of any sound.

    Each process keeps the first sounds that it decodes, up to `KEPT` bytes. All are drawn as often, so that no other
    choice would be better.

    Args:
        path: the LMDB.
        sample_rate: Hz.
    """

    def __init__(self, path: Path, sample_rate: int):
        self._short, self._kept, self._room = SHORT * sample_rate, dict[int, np.ndarray](), KEPT
        self.reader = LMDBReader(path, readahead=False)
        self.lengths = np.array([self.reader.look(index, num_samples) for index in range(len(self.reader))])
        self.reader.unmap()

    def part(self, index: int, start: int, stop: int) -> np.ndarray:
        """(≤ stop - start,) float32 samples in [-1, 1) of a sound, as many as it has.

        Raises:
            UserError: the LMDB is damaged, or was replaced.
        """
        length = int(self.lengths[index])
        start, stop, _ = slice(start, stop).indices(length)
        if index in self._kept:
            samples = self._kept[index][start:stop]
        elif length <= self._short and 2 * length <= self._room:
            self._kept[index] = self._decoded(index, 0, length)
            self._room -= 2 * length
            samples = self._kept[index][start:stop]
        else:
            samples = self._decoded(index, start, stop)
        return samples * np.float32(2**-15)

    def _decoded(self, index: int, start: int, stop: int) -> np.ndarray:
        samples = self.reader.look(index, lambda flac: decode_part(flac, start, stop))
        self.reader.release_pages()
        return samples


def packed_file(folder: str | Path, sample_rate: int) -> Path:
    """Where a folder's sounds at a rate (Hz) are packed."""
    return Path(f"{os.path.abspath(folder)}.{sample_rate}.lmdb")


def packed(
    folder: str | Path, files: Sequence[tuple[str, str]], sample_rate: int, num_workers: int = 1
) -> PackedSounds:
    """The sounds of a folder. They are packed if they are not yet, or not as they are now. Other processes wait.

    Args:
        files: (file, label) of each, in their order.
        sample_rate: Hz.
        num_workers: processes that pack.

    Raises:
        UserError: a file is not audio, or too short, or the LMDB cannot be written.
    """
    path = packed_file(folder, sample_rate)
    states = [(FileState.of(file), label) for file, label in files]
    digest = hashlib.sha256(repr((sample_rate, states)).encode()).hexdigest()
    if not _is_packed(path, digest):
        try:
            require_writable(path)
        except UserError as error:
            raise UserError(f"{error}. {ELSEWHERE}") from None
        with exclusive(path.parent):
            if not _is_packed(path, digest):  # by another process meanwhile
                _pack(path, files, sample_rate, num_workers)
                remember(FileState.of(path), NOTE, digest)
    return PackedSounds(path, sample_rate)


def _is_packed(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    if not note_on(path, NOTE).exists():
        raise UserError(f"{path}: is there already, and nothing says that it was packed from that folder. Move it away")
    return recall(FileState.of(path), NOTE) == digest


def _pack(path: Path, files: Sequence[tuple[str, str]], sample_rate: int, num_workers: int) -> None:
    records = map_in_processes(
        functools.partial(_record, sample_rate), files, num_workers, f"packing {path.name}", chunk=4
    )
    with LMDBWriter(path) as writer:
        for record in records:
            writer.add(record)
        # Before the LMDB has its name. Whoever is killed then, or finds the disk full, packs again next time.
        write_whole(note_on(path, NOTE), "{}", follow=False)
    log.info("%s: %d sounds, packed once", path, len(files))


def _record(sample_rate: int, file: tuple[str, str]) -> Record:
    source, label = file
    require_source(source)
    return Record(encode(read_mono(source, sample_rate), sample_rate, "FLAC"), label)
