"""Files that are either whole or not there, and folders that belong to one maker."""

import csv
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.errors import UserError


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it takes `path`'s place in one step.

    The folder is made if it is missing. The temporary name ends in `.partial`, whatever `path` ends in,
    so that one left behind by a killed process is never taken for a whole file: writers that look at
    the extension must be told the format. If the block raises, `path` is as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path):
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are private to the user
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Replace a file by this content, in one step."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have errors name the file that was asked for: a full disk's names none, others name the temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename).endswith(".partial"):
            error.filename = str(path)
        raise


def read_text(path: str | os.PathLike, expected: str) -> str:
    """The content of a text file, for which a user gave the path.

    Raises:
        UserError: it is missing, or is no UTF-8. The message ends with what was `expected`.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: is missing. Expected {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text. Expected {expected}") from None


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is no JSON, no text, or has a nesting or a number that Python does not read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
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
        for name, value in recipe.items():
            if found.get(name) != value:
                old = found.get(name)
                raise UserError(
                    f"{folder}: holds {what} with {name} {old!r} instead of {value!r}: choose another {flag}"
                )
    elif any(file.suffix in (".wav", ".flac") for file in folder.rglob("*")):
        raise UserError(
            f"{folder}: holds audio files, but no recipe.json that says how they were made: choose another {flag}"
        )
    else:
        with whole_file(note) as temporary:
            temporary.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a CSV file by these rows."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
