"""Files that are either whole or not there, and folders that belong to one maker."""

import csv
import errno
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.errors import UserError

ENCODING = "utf-8-sig"  # of text that is read: UTF-8, with or without the byte order mark that some editors write
NAMES = "surrogateescape"  # of text with file names, which need not be UTF-8: their very bytes are written and read


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it takes `path`'s place in one step.

    The folder is made if it is missing. The temporary name ends in `.partial`, whatever `path` ends in,
    so that one left behind by a killed process is never taken for a whole file: writers that look at
    the extension must be told the format. If the block raises, `path` is as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:  # a full disk's names no file, others name the temporary one
        if error.filename is None or str(error.filename).endswith(".partial"):
            error.filename = str(path)
        raise


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Replace a file by this content, in one step."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode(errors=NAMES) if isinstance(content, str) else content)


def read_text(path: str | os.PathLike, expected: str, errors: str = "strict") -> str:
    """The content of a text file, for which a user gave the path. A byte order mark is no part of it.

    Args:
        errors: what to do with bytes that are no UTF-8: NAMES where the text may hold file names.

    Raises:
        UserError: it is missing, or is no UTF-8. The message ends with what was `expected`.
    """
    try:
        return Path(path).read_text(encoding=ENCODING, errors=errors)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing. Expected {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8. Expected {expected}") from None


def is_text(value: object) -> bool:
    """Whether a value is text that UTF-8 can write. Names of files hold surrogates in place of bytes that are none."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is no JSON, no text, or has a nesting or a number that Python does not read.
    """
    try:
        return json.loads(Path(path).read_text(encoding=ENCODING))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def claim_folder(folder: str | os.PathLike, recipe: Mapping[str, Any], what: str, flag: str = "--out_folder") -> None:
    """Note in `recipe.json` how the folder's files are made, or refuse a folder of another recipe.

    Args:
        what: what the folder holds, for messages.
        flag: what it was chosen with, for messages.

    Raises:
        UserError: another recipe is noted, or there are WAV or FLAC files and no note.
    """
    folder, note = Path(folder), Path(folder) / "recipe.json"
    if note.exists():
        try:
            found = dict(read_json(note))
        except (ValueError, TypeError):
            raise UserError(f"{note}: cannot be read: choose another {flag}") from None
        for name in (name for name in recipe if found.get(name) != recipe[name]):
            other = f"{what} with {name} {found.get(name)!r} instead of {recipe[name]!r}"
            raise UserError(f"{folder}: holds {other}: choose another {flag}")
    elif any(file.suffix.lower() in (".wav", ".flac") for file in folder.rglob("*")):
        other = "audio files, but no recipe.json that says how they were made"
        raise UserError(f"{folder}: holds {other}: choose another {flag}")
    else:
        write_whole(note, json.dumps(recipe, indent=2) + "\n")


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a CSV file by these rows."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=NAMES) as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def sync(path: str | os.PathLike) -> None:
    """Have the file's contents on the disk before its name says that it is whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: str | os.PathLike) -> None:
    """Have a renaming in the folder on the disk, where its file system can do so."""
    try:
        sync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
