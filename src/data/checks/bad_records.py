"""Which records of an LMDB cannot be used, and why: found by decoding all of them once."""

import functools
import logging

from src.data.audio.files import decode_record
from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

NOTE = "bad_records"


def bad_records(reader: LMDBReader, sample_rate: int, num_workers: int) -> dict[int, str]:
    """Index -> reason, on one line, of every record that is not a label and a mono clip at `sample_rate` Hz.

    Kept in a note beside the LMDB, for as long as that is not touched.
    """
    state = FileState.of(reader.file)
    known = recall(state, NOTE)
    if isinstance(known, dict) and known.get("sample_rate") == sample_rate and isinstance(known.get("found"), dict):
        return {int(index): str(reason) for index, reason in known["found"].items()}
    find = functools.partial(problem_of, reader, sample_rate)
    problems = map_in_processes(find, range(len(reader)), num_workers, f"checking {reader.path}", unit="clip", chunk=16)
    found = {index: problem for index, problem in enumerate(problems) if problem}
    if FileState.of(reader.file) == state:
        remember(state, NOTE, {"sample_rate": sample_rate, "found": found})
    return found


def problem_of(reader: LMDBReader, sample_rate: int, index: int) -> str | None:
    """Why a record cannot be used, or None where it can."""
    try:
        reader[index]  # a sound label too
        decode_record(reader.audio(index), sample_rate, reader.where(index))
    except UserError as error:
        return str(error)
    finally:
        reader.release_pages()
    return None


def unusable(reader: LMDBReader, sample_rate: int, num_workers: int) -> set[int]:
    """The same records, said to the user.

    Raises:
        UserError: there are no others.
    """
    found = bad_records(reader, sample_rate, num_workers)
    for reason in found.values():
        log.warning("skipped: %s", reason)
    if found:
        log.warning("%s: %d of %d records are skipped (--skip_bad_records)", reader.path, len(found), len(reader))
    if len(found) == len(reader):
        raise UserError(f"{reader.path}: none of its {len(reader)} records can be used. The first: {found.get(0)}")
    return set(found)
