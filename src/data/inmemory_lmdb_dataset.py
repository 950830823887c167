"""One LMDB as a torch Dataset: FLAC bytes stay FLAC until a clip is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.data.clip_dataset import ClipDataset
from src.data.fingerprint import FileState, fingerprint, recall
from src.data.lmdb_store import LMDBReader
from src.data.reading_ahead import ReadingAhead
from src.data.waveform import decode_record
from src.errors import UserError


class LMDBDataset(ClipDataset):
    """Reads records from an LMDB on the fly; for `in_memory: False`.

    Args:
        lmdb_path: an LMDB of src/data/lmdb_store.py.
        fold: of records with folds, keep this one's …
        complement: … or all others'.
        The rest is `ClipDataset`'s.

    Raises:
        UserError: there is no such fold; or as `ClipDataset`.
    """

    in_memory = False

    def __init__(self, lmdb_path: str, *args, fold: int | None = None, complement: bool = False, **kwargs):
        self.reader = LMDBReader(lmdb_path, readahead=False)  # records are read in random order
        annotations = list(self.reader.annotations())
        self.records = np.arange(len(annotations))
        if fold is not None:
            self.records = records_of_fold(fold, complement, [found for _, found in annotations], lmdb_path)
        self._labels = [annotations[record][0] for record in self.records]
        super().__init__(*args, **kwargs)
        del self._labels  # kept as two flat arrays from here on
        self.reader.unmap()
        self._ahead: ReadingAhead | None = None

    def __len__(self) -> int:
        return len(self.records)

    def labels(self) -> list[str | int]:
        return self._labels

    def waveform(self, index: int) -> np.ndarray:
        flac = self.reader[self.records[index]].flac
        self.reader.let_go()  # or a worker would come to map all of the file
        return decode_record(flac, self.audio.sample_rate, self.where(index))

    def where(self, index: int) -> str:
        return self.reader.where(self.records[index])

    def read_ahead(self) -> None:
        self._ahead = ReadingAhead(self.reader, warm=self.in_memory)

    def known_fingerprint(self) -> str | None:
        return recall(FileState.of(self.reader.file))

    def fingerprint(self) -> str:
        return self._ahead.fingerprint() if self._ahead else fingerprint(self.reader)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_ahead": None}  # a process cannot be sent to another


def records_of_fold(fold: int, complement: bool, folds: Sequence[int | None], lmdb_path: str) -> np.ndarray:
    """Indices of the records of a fold, or of all other folds."""
    present = sorted({found for found in folds if found is not None})
    if not present:
        raise UserError(f"{lmdb_path}: its records have no folds; was it packed with scripts/prepare_esc50.py?")
    if fold not in present:
        raise UserError(f"fold {fold}: {lmdb_path} has the folds {', '.join(map(str, present))}")
    return np.flatnonzero((np.array(folds) == fold) != complement)


class InMemoryLMDBDataset(LMDBDataset):
    """An LMDB that is held in memory; for `in_memory: True`, the default.

    It is mapped, not copied: the one copy in the system's page cache serves all loader workers, forked or spawned, and
    all ranks of a machine, and no process holds records of its own. `read_ahead` fills the cache in the background,
    while the first records are already being read. Where memory is too short for it, the system drops pages and reads
    them again: slower, but nothing fails.
    """

    in_memory = True
