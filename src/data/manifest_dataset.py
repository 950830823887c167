"""Audio files listed in a CSV as a torch Dataset, for `is_lmdb: False`."""

import csv
import io
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from src.data.audio.files import decode, read_mono, tile
from src.data.clip_dataset import ClipDataset
from src.data.lmdb.fingerprint import combined, digest
from src.data.lmdb.notes import FileState
from src.data.lmdb.store import Record
from src.errors import UserError, listed
from src.utils.progress import progress
from src.utils.text import NAMES, read_text

HINT = ", or set audio_config.resample: True (--resample in evaluation)"


class ManifestDataset(ClipDataset):
    """Reads clips from the files of a manifest, a CSV with the columns `files` and `labels`.

    Clips shorter than `audio.min_duration` seconds are tiled up to it. With `audio.resample`, files have any rate and
    number of channels.

    Args:
        manifest: the CSV. Its paths start from the current folder.
        The rest is `ClipDataset`'s.
    """

    def __init__(self, manifest: str, *args, **kwargs):
        self.manifest = manifest
        self.rows = read_manifest(manifest)
        self.records = np.arange(len(self.rows))
        super().__init__((label for _, label in self.rows), *args, **kwargs)

    def __len__(self) -> int:
        return len(self.rows)

    def waveform(self, index: int) -> np.ndarray:
        file, rate, where = self.stored(index), self.audio.sample_rate, self.where(index)
        samples = read_mono(file, rate, where=where) if self.audio.resample else decode(file, rate, where, hint=HINT)
        return tile(samples, round((self.audio.min_duration or 0) * rate))

    def stored(self, index: int) -> str:
        return self.rows[index][0]

    def where(self, index: int) -> str:
        return f"{self.manifest}, {self.rows[index][0]}"

    def fingerprint(self, wait: bool = True) -> str | None:
        return manifest_fingerprint(self.rows) if wait else None


def manifest_fingerprint(rows: Iterable[tuple[str, str]]) -> str:
    """The fingerprint of an LMDB whose records are these files' bytes with these labels. Nothing is decoded."""
    return _fingerprint(tuple((FileState.of(file), label) for file, label in rows))


@lru_cache(maxsize=1)  # for as long as nobody touches the files
def _fingerprint(rows: tuple[tuple[FileState, str], ...]) -> str:
    digests = []
    with progress(len(rows), "fingerprint of the manifest's files", "clip", leave=False) as bar:
        for state, label in rows:
            digests.append(digest(Record(Path(state.path).read_bytes(), label).pack()))
            bar.update()
    return combined(digests)


def read_manifest(path: str) -> list[tuple[str, str]]:
    """(file, label field) of every row.

    Raises:
        UserError: no such file, a column is missing, there are no rows, one has no label or too many
            columns, or its file is missing.
    """
    expected = "a CSV with the columns files,labels"
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, expected, NAMES))))
    except csv.Error as error:
        raise UserError(f"{path}: is not a CSV file ({error})") from None
    for column in ("files", "labels"):
        if not rows or rows[0].get(column) is None:
            fault = f"has no column '{column}'" if rows else "lists no clips"
            raise UserError(f"{path}: {fault}. Expected {expected}")
    for row in rows:
        if not row["labels"]:
            raise UserError(f"{path}, {row['files']}: has no label")
        if None in row:
            raise UserError(f"{path}, {row['files']}: has more columns than the first line. Quote labels with commas")
    clips = [(os.path.expanduser(row["files"]), row["labels"]) for row in rows]
    missing = [file for file, _ in clips if not os.path.isfile(file)]
    if missing:
        where = f"Paths start from the current folder, {os.getcwd()}"
        raise UserError(f"{path}: {len(missing)} of its {len(clips)} files are missing: {listed(missing)}. {where}")
    return clips
