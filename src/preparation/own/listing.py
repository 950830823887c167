"""What there is: recordings with their events, their group, and the part that they are said to belong to."""

import logging
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from src.data.audio.files import AUDIO_SUFFIXES
from src.data.events import Event
from src.data.labels import nfc
from src.errors import UserError
from src.preparation.clip_sets import UNREADABLE_SUFFIXES
from src.utils.folders import files_in
from src.utils.text import is_text

log = logging.getLogger(__name__)

PARTS = ("train", "val", "eval")
PART_WORDS = (
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("val", "valid", "validation", "dev"), "val")
    | dict.fromkeys(("eval", "test", "evaluation"), "eval")
)
FOLDER = re.compile(r"folder(?::([1-9]\d*))?")  # a part of the path, in --group_by

Side = str | int  # one of PARTS, or a fold


@dataclass(frozen=True)
class Recording:
    """One file, as the folder or the table lists it."""

    name: str  # its path below the folder that names start from
    file: Path
    events: tuple[Event, ...]  # a label of the whole recording is an event from 0 s to infinity
    group: str  # recordings of one group are never on two sides
    side: Side | None = None  # where that is given


@dataclass
class Listing:
    """All recordings, and how the source was understood."""

    recordings: list[Recording]
    left_out: dict[str, str] = field(default_factory=dict)  # name → reason
    notes: list[str] = field(default_factory=list)


def whole(name: str) -> Event:
    """The label of a whole recording."""
    return Event(0.0, math.inf, name)


def class_name(text: str, where: str) -> str:
    """A class name as it is kept: composed form, and no white space but single spaces.

    Raises:
        UserError: it is no text.
    """
    if not is_text(text):
        raise UserError(f"{where}: the class name {text!r} is not in UTF-8. Write it anew")
    return " ".join(nfc(text).split())


def read_folder(folder: str | Path, class_level: int | None = None, group_by: str | None = None) -> Listing:
    """The recordings in and below a folder. The folder that holds a file is its class.

    Where all top-level folders are called like parts, train among them and another one, they give the split.
    Clips that were made here, in `flac/<part>/` of any data set below `folder`, are no recordings.

    Args:
        class_level: the class is the folder of this level below `folder` instead. 1 is the highest.
        group_by: of `grouping`.

    Raises:
        UserError: the folder cannot be read, there are no recordings in class folders, or `group_by` does not fit.
    """
    none = "has no audio files, nor have its subfolders"
    names = files_in(folder, AUDIO_SUFFIXES | UNREADABLE_SUFFIXES, "recordings", none=none)
    parts_made = {part for part in set(map(os.path.dirname, names)) if _is_made(folder, part)}
    if made := [name for name in names if os.path.dirname(name) in parts_made]:
        log.info("%s: left out %s clips that were made here (such as %s)", folder, f"{len(made):,}", made[0])
        names = [name for name in names if os.path.dirname(name) not in parts_made]
    tops = {name.split(os.sep)[0] for name in names if os.sep in name}
    sides = {top: PART_WORDS.get(top.lower(), "") for top in tops}
    given = all(sides.values()) and len(set(sides.values())) > 1 and "train" in sides.values()
    group_of = grouping(group_by, ())
    found = Listing([])
    if given:
        found.notes.append(f"the folders {', '.join(sorted(tops))} give the split")
    elif any(sides.values()):
        found.notes.append(f"{', '.join(sorted(top for top in tops if sides[top]))}: taken for a class, not for a part")
    for name in names:
        folders = name.split(os.sep)[:-1]
        below = folders[given:] if class_level is None else folders[class_level - 1 : class_level]
        if below and (label := class_name(below[-1], os.path.join(folder, name))):
            side = sides[folders[0]] if given else None
            found.recordings.append(Recording(name, Path(folder, name), (whole(label),), group_of(name, {}), side))
        else:
            found.left_out[name] = "lies in no class folder"
    if not found.recordings:
        example = ", such as " + next(iter(found.left_out)) if found.left_out else ""
        raise UserError(f"{folder}: no recording lies in a class folder{example}. Expected CLASS/FILE.wav")
    return found


def _is_made(folder: str | Path, part: str) -> bool:
    """Whether a path below `folder` is that of `flac/<part>` in a data set of `prepare`."""
    flac = os.path.dirname(part)
    return os.path.basename(flac) == "flac" and os.path.exists(os.path.join(folder, flac, "recipe.json"))


def grouping(group_by: str | None, columns: Collection[str]) -> Callable[[str, Mapping[str, str]], str]:
    """What gives the group of (name, row of the table).

    Args:
        group_by: a column, `folder` for the one that holds the file, `folder:N` for the N-th of its path, or a regular
            expression. Of that the first group counts, or else all that it matches. By default each file is alone.
        columns: of the table.

    Raises:
        UserError: it is none of these. The function raises it for a file that it does not fit.
    """
    if group_by is None:
        return lambda name, row: name
    if group_by in columns:
        return lambda name, row: row[group_by] or name
    part = FOLDER.fullmatch(group_by)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        neither = f"is neither a column, nor folder, folder:N or a regular expression ({error})"
        raise UserError(f"--group_by {group_by}: {neither}") from None

    def group_of(name: str, row: Mapping[str, str]) -> str:
        folders = name.split(os.sep)[:-1]
        if part and (level := int(part[1] or len(folders))) and level <= len(folders):
            return folders[level - 1]
        match = None if part else pattern.search(name)
        if not match:
            known = f", and there is no such column ({', '.join(columns)})" * bool(columns)
            raise UserError(f"--group_by {group_by}: does not fit the file {name}{known}")
        return next((text for text in match.groups() if text is not None), match[0])

    return group_of


def sides_of_values(values: Mapping[str, str], where: str) -> tuple[dict[str, Side], str]:
    """Value of a column → part or fold, and how that was understood.

    Args:
        values: each value → where it is first, for messages.

    Raises:
        UserError: some are parts and others are not, or there are no training recordings.
    """
    parts = {value: PART_WORDS[value.lower()] for value in values if value.lower() in PART_WORDS}
    if parts:
        for value, line in values.items():
            if value not in parts:
                raise UserError(f"{line}: {where} is {value!r}, and one of {', '.join(PART_WORDS)} was expected")
        return dict(parts), f"{where} gives the split"
    if "" in values or len(values) < 2:
        line = values.get("") or next(iter(values.values()))
        raise UserError(f"{line}: {where} gives no part, such as train, and no fold of two or more")
    ordered = sorted(values, key=lambda value: (int(value) if value.isdecimal() else math.inf, value))
    folds = {value: number for number, value in enumerate(ordered, 1)}
    told = "" if all(str(number) == value for value, number in folds.items()) else f" in this order: {', '.join(folds)}"
    return dict(folds), f"{where} gives {len(folds)} folds{told}"
