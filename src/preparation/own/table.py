"""A CSV or TSV of recordings: a label each, several, events with their times, or a column for each class."""

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from src.data.audio.files import AUDIO_SUFFIXES
from src.data.events import Event
from src.errors import UserError, listed
from src.preparation.own.listing import Listing, Recording, Side, class_name, grouping, sides_of_values, whole
from src.utils.folders import beside
from src.utils.tables import numbered_rows

FILE_COLUMNS = ("filename", "file_name", "file", "files", "filepath", "path", "audio", "fname")
LABEL_COLUMNS = ("event_label", "label", "labels", "class", "category")
NO_CLASSES = {*FILE_COLUMNS, "split", "fold", "group"}
IN_ANY_CASE = NO_CLASSES.union(LABEL_COLUMNS, ("onset", "offset"))
FLAGS = {"0": False, "0.0": False, "1": True, "1.0": True}
GUESSED_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")  # of a file that the table names without one

Row = tuple[str, dict[str, str]]  # file and line for messages, column → cell
EventsOf = Callable[[str, dict[str, str]], Iterable[Event]]  # of (where, cells)


def read_table(
    path: str | Path,
    audio_dir: str | Path | None = None,
    label_separator: str = ",",
    group_by: str | None = None,
    split_by: str | None = None,
) -> Listing:
    """The recordings of a table. Rows of one file are gathered.

    Args:
        audio_dir: where file names start from, by default the table's folder.
        label_separator: between the labels of a cell.
        group_by: of `grouping`.
        split_by: the column of parts or folds, by default `split`, or else `fold`, if there is one.

    Raises:
        UserError: the table cannot be read, or a row in it, with its line. Or all of its files are missing.
    """
    rows = _rows(path)
    columns = tuple(rows[0][1])
    file_column = _first(FILE_COLUMNS, columns)
    if file_column is None:
        raise UserError(f"{path}: has no column of file names. Call it one of {', '.join(FILE_COLUMNS)}")
    split_column = split_by or _first(("split", "fold"), columns)
    if split_column and split_column not in columns:
        raise UserError(f"{path}: has no column '{split_by}' (--split_by), but {', '.join(columns)}")
    found = Listing([])
    events_of = _labels(path, rows, label_separator, {file_column, split_column, group_by}, found)
    sides: dict[str, Side | None] = {}
    if split_column:
        first_lines: dict[str, str] = {}
        for where, row in rows:
            first_lines.setdefault(row[split_column], where)
        given, note = sides_of_values(first_lines, f"column '{split_column}'")
        sides |= given
        found.notes.append(note)
    group_of = grouping(group_by, columns)
    folder = Path(path).parent if audio_dir is None else Path(audio_dir)
    gathered: dict[str, tuple[str, tuple, list[Event]]] = {}  # name → first row, side and group, events
    for where, row in rows:
        if not row[file_column]:
            raise UserError(f"{where}: names no file")
        cell = os.path.expanduser(row[file_column])
        name = os.path.relpath(cell, folder) if os.path.isabs(cell) else os.path.normpath(cell)
        belongs = sides[row[split_column]] if split_column else None, group_of(name, row)
        first, known, events = gathered.setdefault(name, (where, belongs, []))
        if belongs != known:
            raise UserError(f"{where}: {name} has another part or group here than in {first}")
        events += events_of(where, row)
    for name, (_, (side, group), events) in sorted(gathered.items()):
        file = next(filter(os.path.isfile, _spellings(folder / name)), None)
        if file is None:
            found.left_out[name] = "no such file"
        else:
            found.recordings.append(Recording(name, file, tuple(sorted(events)), group, side))
    if not found.recordings:
        example = folder / min(gathered)
        raise UserError(f"{path}: none of its {len(gathered)} files is there, such as {example}. Give --audio_dir")
    return found


def _spellings(file: Path) -> Iterator[Path]:
    """What a file may be called that a table names: with accents in either form, and perhaps without its suffix."""
    forms = dict.fromkeys((str(file), *(unicodedata.normalize(form, str(file)) for form in ("NFC", "NFD"))))
    yield from map(Path, forms)
    if file.suffix.lower() not in AUDIO_SUFFIXES:  # to look for each is slow where thousands are missing
        yield from (beside(Path(f"{form}.x"), suffix) for form in forms for suffix in GUESSED_SUFFIXES)


def _rows(path: str | Path) -> list[Row]:
    rows = numbered_rows(path, "a folder or a table of recordings", (), {}, separators=",\t;")
    if not rows:
        raise UserError(f"{path}: lists no recordings")
    stripped = [name.strip() for name in rows[0][1]]
    columns = [name.lower() if name.lower() in IN_ANY_CASE else name for name in stripped]
    if len(set(columns)) < len(columns):
        raise UserError(f"{path}: has two columns of one name: {', '.join(columns)}")
    return [(f"{path}, line {line}", dict(zip(columns, map(str.strip, row.values())))) for line, row in rows]


def _first(names: Sequence[str], columns: Collection[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _labels(path: str | Path, rows: Sequence[Row], separator: str, used: set, found: Listing) -> EventsOf:
    """What gives the events of a row, by the columns that there are."""
    columns = rows[0][1]
    label = _first(LABEL_COLUMNS, columns)
    if label and "onset" in columns and "offset" in columns:
        found.notes.append(f"the columns onset, offset and {label} give events")
        return lambda where, row: _event(where, row, label)
    if label:
        found.notes.append(f"column '{label}' gives the labels of whole recordings")
        return lambda where, row: [
            whole(name) for text in row[label].split(separator) if (name := class_name(text, where))
        ]
    others = [name for name in columns if name not in {"", *NO_CLASSES, *used}]
    classes = [name for name in others if all(row[name] in FLAGS for _, row in rows)]
    if not classes:
        wanted = f"Expected {', '.join(LABEL_COLUMNS[1:])}, or a column for each class with cells of 0 and 1"
        raise UserError(f"{path}: has no column of labels. {wanted}")
    found.notes.append(f"{len(classes)} columns of 0 and 1 are the classes: {listed(classes)}")
    return lambda where, row: [whole(class_name(name, where)) for name in classes if FLAGS[row[name]]]


def _event(where: str, row: dict[str, str], label: str) -> list[Event]:
    """The event of a row, or none where it has no label."""
    name = class_name(row[label], where)
    if not name:
        return []
    try:
        event = Event(float(row["onset"]), float(row["offset"]), name)
    except ValueError:
        event = None
    if event is None or not 0 <= event.onset <= event.offset < float("inf"):
        times = f"{row['onset']!r} and {row['offset']!r}"
        raise UserError(f"{where}: onset and offset are {times}, and seconds were expected, 0 ≤ onset ≤ offset")
    return [event]
