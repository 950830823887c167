"""CSV tables of our own, written whole and checked as they are read back: people edit them, copies break off."""

import csv
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from src.errors import UserError
from src.utils.files import file_behind, is_special, whole_file
from src.utils.text import ENCODING, NAMES


class Kind(NamedTuple):
    """What the cells of a column hold."""

    parse: Callable[[str], Any]  # raises ValueError for other text, or gives None
    expected: str  # for messages


NUMBER = Kind(float, "a number")  # or nan, inf
WHOLE_NUMBER = Kind(int, "a whole number")
TIME = Kind(datetime.fromisoformat, "a date and time")
DIGEST = Kind(re.compile("[0-9a-f]{16}").fullmatch, "16 hexadecimal digits")


def read_csv(
    path: str | os.PathLike,
    what: str,
    needed: Sequence[str],
    kinds: Mapping[str, Kind],
    filled: Collection[str] = (),
) -> list[dict[str, str]]:
    """Rows as column → text, of `numbered_rows`."""
    return [row for _, row in numbered_rows(path, what, needed, kinds, filled)]


def numbered_rows(
    path: str | os.PathLike,
    what: str,
    needed: Sequence[str],
    kinds: Mapping[str, Kind],
    filled: Collection[str] = (),
    separators: str = ",",
) -> list[tuple[int, dict[str, str]]]:
    """(line in the file, column → text) of every row.

    Args:
        what: the table is, for messages, such as "a results table".
        needed: columns.
        kinds: of columns, which may be empty cells too unless they are `filled`.
        separators: of columns. The one that the first line has most often counts.

    Raises:
        UserError: no such file, no plain one, no table with these columns, or a cell of another kind.
    """
    file = file_behind(path)
    if is_special(file) or file.is_dir():  # to read a FIFO is to wait for its writer
        raise UserError(f"{path}: is no plain file, and {what} was expected")
    try:
        with open(file, newline="", encoding=ENCODING, errors=NAMES) as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(separators, key=first.count))
            numbered = [(reader.line_num, row) for row in reader]
            columns = list(reader.fieldnames or [])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file ({what} was expected)") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not a CSV table ({error})") from None
    if "\0" in first:
        raise UserError(f"{path}: is not text in UTF-8, and {what} was expected")
    if not columns:
        raise UserError(f"{path}: {'its first line ' * bool(first)}is empty, and {what} was expected")
    for name in needed:
        if name not in columns:
            raise UserError(f"{path}: is a table without the column '{name}', and {what} was expected")
    for name in columns:
        if columns.count(name) > 1:
            raise UserError(f"{path}: has the column '{name}' twice")
    damage = "Is it damaged, or has a cell with commas no quotes?"
    for number, (line, row) in enumerate(numbered, 1):
        if None in row or None in row.values():
            raise UserError(f"{path}: its row {number} has another number of columns than its head. {damage}")
        for name, kind in kinds.items():
            if name in row and (row[name] or name in filled) and not _fits(row[name], kind):
                where = f"{path}, line {line}"
                raise UserError(f"{where}: {name} is {row[name][:100]!r}, and {kind.expected} was expected")
    return numbered


def _fits(text: str, kind: Kind) -> bool:
    try:
        return kind.parse(text) is not None
    except ValueError:
        return False


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a CSV file by these rows."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=NAMES) as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
