"""Folders of soundscapes (NAME.flac, NAME.txt) -> one LMDB."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from src.data.lmdb_store import LMDBWriter, Record
from src.data.waveform import decode, encode, tile
from src.errors import UserError
from src.progress import progress

log = logging.getLogger(__name__)


def pack_mixtures(folders: Sequence[str], lmdb_path: str, *, map_size: float = 5e9, write_frequency: int = 1000,
                  min_duration: float = 5.0, sample_rate: int = 22050, delimiter: str = ",") -> int:
    """Pack every `*.flac` of the folders with its `.txt`, in sorted file order.

    FLAC bytes are stored as they are, so that equal input gives equal records; a clip shorter than
    `min_duration` (seconds) is tiled up to it and encoded anew.

    Returns:
        The number of records.

    Raises:
        UserError: a folder without FLAC files, a clip without its annotation, broken audio; what
            was at `lmdb_path` is left as it was.
    """
    files = [file for folder in folders for file in soundscape_files(folder)]
    with (LMDBWriter(lmdb_path, map_size, write_frequency) as writer,
          progress(len(files), f"packing {Path(lmdb_path).name}", "clip") as bar):
        for file in files:
            labels = read_labels(file.with_suffix(".txt"), delimiter)
            writer.add(Record(read_flac(file, min_duration, sample_rate), delimiter.join(labels)))
            bar.update()
    log.info("%s: %d records", lmdb_path, len(files))
    return len(files)


def soundscape_files(folder: str | Path) -> list[Path]:
    """The FLAC files of a folder, sorted by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such mixture folder")
    files = sorted(folder.glob("*.flac"))
    if not files:
        found = "WAV files; convert them with scripts/wav2flac.py" if any(folder.glob("*.wav")) else "nothing to pack"
        raise UserError(f"{folder}: has no FLAC files, but {found}")
    return files


def read_labels(path: Path, delimiter: str = ",") -> list[str]:
    """Labels of an annotation file, in the order of its lines."""
    labels = []
    for number, columns in read_annotation(path):
        if delimiter in columns[-1]:
            raise UserError(f"{path}, line {number}: label {columns[-1]!r} contains the delimiter {delimiter!r}; "
                            "choose another one")
        labels.append(columns[-1])
    return labels


def read_annotation(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and columns of each event of an annotation file: onset, offset, label, tab-separated."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; every FLAC file needs the .txt that lists its events") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text; lines of onset, offset and label were expected") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not columns[-1]:
            raise UserError(f"{path}, line {number}: {line!r} is not onset, offset and label, separated by tabs")
        rows.append((number, columns))
    if not rows:
        raise UserError(f"{path}: is empty; it should list the events of the soundscape, one a line")
    return rows


def read_flac(path: Path, min_duration: float, sample_rate: int) -> bytes:
    """The bytes of a FLAC file, after decoding it once to see that it is whole."""
    audio = path.read_bytes()
    if not audio.startswith(b"fLaC"):
        raise UserError(f"{path}: is not a FLAC file, whatever its name says")
    samples = decode(audio, sample_rate, str(path), dtype="int16")
    tiled = tile(samples, round(min_duration * sample_rate))
    if tiled is samples:
        return audio
    return encode(tiled, sample_rate, "FLAC")
