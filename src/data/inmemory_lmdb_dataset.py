"""One LMDB as a torch Dataset, held in memory: FLAC bytes stay FLAC until a clip is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from src.data.clip_dataset import ClipDataset
from src.data.fingerprint import fingerprint
from src.data.lmdb_store import LMDBReader, data_file
from src.data.waveform import decode
from src.errors import UserError
from src.progress import progress


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

    readahead = False  # records are read in random order

    def __init__(self, lmdb_path: str, *args, fold: int | None = None, complement: bool = False, **kwargs):
        self.reader = LMDBReader(lmdb_path, self.readahead)
        annotations = list(self.reader.annotations())
        self.records = np.arange(len(annotations))
        if fold is not None:
            self.records = records_of_fold(fold, complement, [found for _, found in annotations], lmdb_path)
        self._labels = [annotations[record][0] for record in self.records]
        super().__init__(*args, **kwargs)
        del self._labels  # kept as two flat arrays from here on

    def __len__(self) -> int:
        return len(self.records)

    def labels(self) -> list[str | int]:
        return self._labels

    def waveform(self, index: int) -> np.ndarray:
        return decode(self.reader[self.records[index]].flac, self.audio.sample_rate, self.where(index))

    def where(self, index: int) -> str:
        return self.reader.where(self.records[index])

    def where_all(self, indices: Sequence[int]) -> str:
        return f"{self.reader.path}, records {', '.join(str(self.records[index]) for index in indices)}"

    def fingerprint(self) -> str:
        return fingerprint(self.reader)


def records_of_fold(fold: int, complement: bool, folds: Sequence[int | None], lmdb_path: str) -> np.ndarray:
    """Indices of the records of a fold, or of all other folds."""
    present = sorted({found for found in folds if found is not None})
    if not present:
        raise UserError(f"{lmdb_path}: its records have no folds; was it packed with scripts/prepare_esc50.py?")
    if fold not in present:
        raise UserError(f"fold {fold}: {lmdb_path} has the folds {', '.join(map(str, present))}")
    return np.flatnonzero((np.array(folds) == fold) != complement)


class InMemoryLMDBDataset(LMDBDataset):
    """An LMDB read into memory once; for `in_memory: True`, the default.

    The file is read from end to end as the data set opens. It is mapped, not copied: the one copy
    in the system's page cache serves all loader workers, forked or spawned, and all ranks of a
    machine, and no process holds records of its own. Where memory is too short for it, the system
    drops pages and reads them again: slower, but nothing fails.
    """

    readahead = True

    CHUNK = 1 << 24  # bytes read at a time

    def __init__(self, lmdb_path: str, *args, **kwargs):
        self._read_through(lmdb_path)
        super().__init__(lmdb_path, *args, **kwargs)

    def _read_through(self, lmdb_path: str) -> None:
        file = data_file(lmdb_path)
        if not file.is_file():
            return  # the reader says what is wrong
        description = f"reading {os.path.basename(lmdb_path)}"
        with (open(file, "rb", buffering=0) as stream,
              progress(os.path.getsize(file), description, "B", unit_scale=True, leave=False) as bar):
            while chunk := stream.read(self.CHUNK):
                bar.update(len(chunk))
