"""LMDBs of the parts of a set -> the LMDB that packing the whole set gives.

The LMDB of a part notes under the key `__part__`

    part, parts      K and N: it is part K of N.

    clips            Clips of the whole set.

    names_sha256     Of the names of the whole set's files, in order.

    min_duration, sample_rate, delimiter, allow_empty
                     As `pack_mixtures` got them.

    fingerprint      The part's own.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.data.lmdb.fingerprint import fingerprint
from src.data.lmdb.store import EVENTS, PART, LMDBReader
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.utils.files import require_writable
from src.utils.processes import Part
from src.utils.progress import progress

log = logging.getLogger(__name__)

OWN = ("part", "fingerprint")  # what differs between the parts of a set


def part_entry(part: Part, files: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the LMDB of a part notes, without its fingerprint.

    Args:
        files: of the whole set. Their folders may differ from machine to machine.
        settings: of the packing, which must be the same for all parts.
    """
    names = b"\0".join(os.fsencode(os.path.basename(file)) for file in files)
    whole = {"parts": part.of, "clips": len(files), "names_sha256": hashlib.sha256(names).hexdigest()}
    return {"part": part.number, **whole, **settings}


def join_parts(
    paths: Sequence[str | Path], lmdb_path: str | Path, *, map_size: float = 5e9, write_frequency: int = 1000
) -> int:
    """Join the LMDBs of all parts of a set. Their order is that of their numbers, however they are given.

    With the map size and the write frequency of packing the whole set, the file is that one's, byte for byte. Memory
    is that of one transaction and of the events of one part.

    Returns:
        The number of records.

    Raises:
        UserError: a part is missing, given twice, damaged, or of another set. What was at `lmdb_path` stays.
    """
    readers = [LMDBReader(path) for path in paths]
    require_writable(lmdb_path, inputs=[reader.file for reader in readers])
    parts = sorted(((_noted(reader), reader) for reader in readers), key=lambda part: part[0]["part"])
    _require_all_of_one_set(parts)
    for noted, reader in parts:
        if fingerprint(reader) != noted["fingerprint"]:
            raise UserError(f"{reader.path}: its records are not those that were packed. Pack this part again")
    with (
        progress(sum(map(len, readers)), f"joining {Path(lmdb_path).name}", "clip") as bar,
        LMDBWriter(lmdb_path, map_size, write_frequency) as writer,
    ):
        for _, reader in parts:
            # As they are stored: `reader.events` spells labels as label maps do.
            events = reader.entry(EVENTS)
            of_each = itertools.repeat(None) if events is None else events
            for index, its_events in zip(range(len(reader)), of_each):
                writer.add(reader[index], its_events)
                reader.release_pages()
                bar.update()
            reader.unmap()
    log.info("%s: %d records, fingerprint %s", lmdb_path, len(writer), writer.fingerprint)
    return len(writer)


def _noted(reader: LMDBReader) -> dict[str, Any]:
    """What a part notes of itself."""
    noted = reader.entry(PART)
    reader.unmap()  # there may be more parts than files that a process may have open
    if noted is None:
        raise UserError(f"{reader.path}: is no part of a set. pack_mixtures_into_lmdb.py --part makes parts")
    try:
        if 1 <= noted["part"] <= noted["parts"]:
            return noted
    except (TypeError, LookupError):
        pass
    raise UserError(f"{reader.path}: its __part__ entry says no part of a set. The file is damaged")


def _require_all_of_one_set(parts: Sequence[tuple[dict[str, Any], LMDBReader]]) -> None:
    """Refuse parts, sorted by their numbers, that are not each part of one set once."""
    first, its_reader = parts[0]
    for noted, reader in parts:
        for name in first:
            if name not in OWN and noted.get(name) != first[name]:
                other = f"{name} {noted.get(name)!r}, and {its_reader.path} of one with {first[name]!r}"
                raise UserError(f"{reader.path}: is a part of a set with {other}")
    for (noted, reader), (following, its_reader) in itertools.pairwise(parts):
        if noted["part"] == following["part"]:
            part = Part(noted["part"], noted["parts"])
            raise UserError(f"{reader.path} and {its_reader.path} are both part {part}")
    given = {noted["part"] for noted, _ in parts}
    if len(given) < first["parts"]:
        missing = Part(next(number for number in itertools.count(1) if number not in given), first["parts"])
        raise UserError(f"part {missing} is missing: {len(given)} of {first['parts']} parts are given")
