"""Audio files listed in a CSV as a torch Dataset, for `is_lmdb: False`."""

import csv
import io
import os

import numpy as np

from src.data.audio.files import decode, tile
from src.data.clip_dataset import ClipDataset
from src.errors import UserError, listed
from src.utils.text import NAMES, read_text


class ManifestDataset(ClipDataset):
    """Reads clips from the files of a manifest, a CSV with the columns `files` and `labels`.

    Clips shorter than `audio.min_duration` seconds are tiled up to it.

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
        samples = decode(self.stored(index), self.audio.sample_rate, self.where(index))
        return tile(samples, round((self.audio.min_duration or 0) * self.audio.sample_rate))

    def stored(self, index: int) -> str:
        return self.rows[index][0]

    def where(self, index: int) -> str:
        return f"{self.manifest}, {self.rows[index][0]}"


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
