"""Folders of soundscapes (NAME.flac, NAME.txt) -> one LMDB."""

import functools
import logging
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from src.data.audio.files import decode, encode, tile
from src.data.audio.opening import tags_end
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.utils.files import read_text
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

CHUNK = 8  # soundscapes sent to a worker at a time, of a few milliseconds each
MOST_PROBLEMS = 20  # broken soundscapes after which packing gives up looking for more


def pack_mixtures(
    folders: Sequence[str],
    lmdb_path: str,
    *,
    map_size: float = 5e9,
    write_frequency: int = 1000,
    min_duration: float = 5.0,
    sample_rate: int = 22050,
    delimiter: str = ",",
    num_workers: int = 1,
) -> int:
    """Pack every `*.flac` of the folders with its `.txt`, in sorted file order, one folder after the other.

    FLAC bytes are stored as they are: equal input gives equal records, whatever the number of workers.

    Args:
        min_duration: seconds up to which a shorter clip is tiled, and encoded anew.
        num_workers: processes that read and decode.

    Returns:
        The number of records.

    Raises:
        UserError: a folder without FLAC files, a clip without its annotation, broken audio. What
            was at `lmdb_path` is left as it was. Of several broken soundscapes, each is logged.
    """
    for folder in dict.fromkeys(folder for folder in folders if folders.count(folder) > 1):
        log.warning("%s: is given twice. Its soundscapes are packed as often", folder)
    files = [file for folder in folders for file in soundscape_files(folder)]
    read = functools.partial(_read, min_duration, sample_rate, delimiter)
    description = f"packing {Path(lmdb_path).name}"
    problems: list[UserError] = []
    with (
        closing(map_in_processes(read, files, num_workers, description, unit="clip", chunk=CHUNK)) as found,
        LMDBWriter(lmdb_path, map_size, write_frequency) as writer,
    ):
        for one in found:
            if isinstance(one, UserError):
                problems.append(one)
            elif not problems:  # behind a broken one, nothing is written any more, only looked for others
                writer.add(one)
            if len(problems) == MOST_PROBLEMS:
                break
        if len(problems) == 1:
            raise problems[0]
        for problem in problems:
            log.error("%s", problem)
        if problems:
            at_least = "at least " * (len(problems) == MOST_PROBLEMS)
            broken = f"{at_least}{len(problems)} of the {len(files)} soundscapes are broken"
            raise UserError(f"{lmdb_path}: is not packed, for {broken}. See above")
    log.info("%s: %d records, fingerprint %s", lmdb_path, len(writer), writer.fingerprint)
    return len(writer)


def _read(min_duration: float, sample_rate: int, delimiter: str, file: str) -> Record | UserError:
    """One soundscape as a record, or what is wrong with it."""
    path = Path(file)
    try:
        labels = read_labels(path.with_suffix(".txt"), delimiter)
        return Record(read_flac(path, min_duration, sample_rate), delimiter.join(labels))
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{error.filename or file}: {error.strerror}")


def soundscape_files(folder: str | Path) -> list[str]:
    """Paths of the FLAC files of a folder, sorted by name."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such mixture folder")
    names = os.listdir(folder)
    # Plain text, not `Path`s: of 100,000 these would be the largest thing that packing keeps in memory.
    files = [os.path.join(folder, name) for name in sorted(names) if name.endswith(".flac")]
    if not files:
        wav = ", but WAV files. Convert them with scripts/wav2flac.py" * any(name.endswith(".wav") for name in names)
        raise UserError(f"{folder}: has no FLAC files{wav}")
    return files


def read_labels(path: Path, delimiter: str = ",") -> list[str]:
    """Labels of an annotation file, in the order of its lines."""
    labels = []
    for number, columns in read_annotation(path):
        if delimiter in columns[-1]:
            label = f"label {columns[-1]!r} contains the delimiter {delimiter!r}"
            raise UserError(f"{path}, line {number}: {label}. Choose another one")
        labels.append(columns[-1])
    return labels


def read_annotation(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and columns of each event of an annotation file: onset, offset, label, tab-separated."""
    rows = []
    text = read_text(path, "lines of onset, offset and label: every FLAC file needs such a .txt")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not columns[-1]:
            raise UserError(f"{path}, line {number}: {line!r} is not onset, offset and label, separated by tabs")
        rows.append((number, columns))
    if not rows:
        raise UserError(f"{path}: is empty. It should list the events of the soundscape, one a line")
    return rows


def read_flac(path: Path, min_duration: float, sample_rate: int) -> bytes:
    """The bytes of a FLAC file, without tags in front, after decoding it once to see that it is whole."""
    audio = path.read_bytes()
    audio = audio[tags_end(audio) :]
    if not audio.startswith(b"fLaC"):
        raise UserError(f"{path}: is not a FLAC file, whatever its name says")
    samples = decode(audio, sample_rate, str(path), dtype="int16")
    tiled = tile(samples, round(min_duration * sample_rate))
    return audio if tiled is samples else encode(tiled, sample_rate, "FLAC")
