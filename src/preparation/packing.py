"""Folders of soundscapes (NAME.flac, NAME.txt) -> one LMDB."""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from src.data.audio.files import decode, encode, tile
from src.data.audio.opening import plain
from src.data.events import Event, tiled
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.preparation.annotations import read_events
from src.preparation.joining import part_entry
from src.utils.folders import beside, files_in, require_different_stems
from src.utils.parallel import map_in_processes
from src.utils.processes import Part

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
    allow_empty: bool = False,
    folds: Mapping[str, int] | None = None,
    groups: Mapping[str, str] | None = None,
    keep_events: bool = True,
    part: Part | None = None,
) -> int:
    """Pack every FLAC file of the folders with its `.txt`, in sorted file order, one folder after the other.

    FLAC bytes are stored as they are, and events as the `.txt` lists them. Those of a clip that is tiled are repeated
    with it, see src/data/events.py. Equal input gives an equal LMDB, whatever the number of workers.

    Args:
        min_duration: seconds up to which a shorter clip is tiled, and encoded anew.
        num_workers: processes that read and decode.
        allow_empty: pack a clip whose `.txt` lists no event, too: a negative clip, with the label "".
        folds: name of every clip, without its suffix → the fold that its record gets.
        groups: name of every clip → its group, such as the recording that it was cut from.
        keep_events: store when each event sounds, beside its label.
        part: of all files, for src/preparation/joining.py. By default all.

    Returns:
        The number of records.

    Raises:
        UserError: a folder without FLAC files, a clip without its annotation, broken audio. What
            was at `lmdb_path` is left as it was. Of several broken soundscapes, each is logged.
    """
    for folder in dict.fromkeys(folder for folder in folders if folders.count(folder) > 1):
        log.warning("%s: is given twice. Its soundscapes are packed as often", folder)
    files: Sequence[str] = [file for folder in folders for file in soundscape_files(folder)]
    noted = None
    if part:
        options = {"min_duration": min_duration, "sample_rate": sample_rate, "delimiter": delimiter}
        noted = part_entry(part, files, {**options, "allow_empty": allow_empty})
        files = part.take(files)
    read = functools.partial(_read, min_duration, sample_rate, delimiter, allow_empty, folds)
    description = f"packing {Path(lmdb_path).name}"
    problems: list[UserError] = []
    with (
        closing(map_in_processes(read, files, num_workers, description, unit="clip", chunk=CHUNK)) as found,
        LMDBWriter(lmdb_path, map_size, write_frequency, noted) as writer,
    ):
        for file, one in zip(files, found):
            if isinstance(one, UserError):
                problems.append(one)
            elif not problems:  # behind a broken one, nothing is written any more, only looked for others
                record, events = one
                group = None if groups is None else groups[Path(file).stem]
                writer.add(record, events if keep_events else None, group)
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


def _read(
    min_duration: float,
    sample_rate: int,
    delimiter: str,
    allow_empty: bool,
    folds: Mapping[str, int] | None,
    file: str,
) -> tuple[Record, list[Event]] | UserError:
    """One soundscape as a record with its events, or what is wrong with it."""
    path = Path(file)
    try:
        events = listed_events(beside(path, ".txt"), delimiter, allow_empty)
        audio, length = read_flac(path, min_duration, sample_rate)
        label, fold = delimiter.join(event.label for event in events), None if folds is None else folds[path.stem]
        return Record(audio, label, fold), tiled(events, length, round(min_duration * sample_rate), sample_rate)
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{error.filename or file}: {error.strerror}")


def soundscape_files(folder: str | Path) -> list[str]:
    """Paths of the FLAC files of a folder, sorted by name.

    Raises:
        UserError: there are none, or two that only their suffixes tell apart.
    """
    none = "has no FLAC files. scripts/wav2flac.py makes them of WAV files"
    names = files_in(folder, {".flac"}, "soundscapes", levels=range(1), none=none)
    require_different_stems(folder, names)
    # Plain text, not `Path`s: of 100,000 these would be the largest thing that packing keeps in memory.
    return [os.path.join(folder, name) for name in names]


def listed_events(path: Path, delimiter: str = ",", allow_empty: bool = False) -> list[Event]:
    """The events of an annotation file, in the order of its lines.

    Raises:
        UserError: as of `read_events`, or there are none, and `allow_empty` is not set.
    """
    events = read_events(path, delimiter)
    if not events and not allow_empty:
        raise UserError(f"{path}: is empty. It lists no event. Is it a negative clip? --allow_empty packs such clips")
    return events


def read_flac(path: Path, min_duration: float, sample_rate: int) -> tuple[bytes, int]:
    """The bytes of a FLAC file, as `plain` gives them, and its samples, decoded once to see that it is whole.

    A file shorter than `min_duration` seconds is tiled up to it, and encoded anew. The samples are those before.
    """
    audio = bytes(plain(path.read_bytes()))
    if not audio.startswith(b"fLaC"):
        raise UserError(f"{path}: is not a FLAC file, whatever its name says")
    samples = decode(audio, sample_rate, str(path), dtype="int16")
    longer = tile(samples, round(min_duration * sample_rate))
    return audio if longer is samples else encode(longer, sample_rate, "FLAC"), len(samples)
