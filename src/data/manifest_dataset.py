"""Audio files listed in a CSV as a torch Dataset, for `is_lmdb: False`."""

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
from src.utils.tables import numbered_rows

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
    """The fingerprint of an LMDB of these files' bytes with these labels, without events. Nothing is decoded."""
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
        UserError: as of `numbered_rows`, or there are no rows, one has no label, or its file is missing.
    """
    rows = numbered_rows(path, "a CSV with the columns files,labels", ("files", "labels"), {}, separators=",\t;")
    if not rows:
        raise UserError(f"{path}: lists no clips")
    for line, row in rows:
        if not row["labels"]:
            raise UserError(f"{path}, line {line}: {row['files']} has no label")
    clips = [(os.path.expanduser(row["files"]), row["labels"]) for _, row in rows]
    missing = [file for file, _ in clips if not os.path.isfile(file)]
    if missing:
        where = f"Paths start from the current folder, {os.getcwd()}"
        raise UserError(f"{path}: {len(missing)} of its {len(clips)} files are missing: {listed(missing)}. {where}")
    return clips
