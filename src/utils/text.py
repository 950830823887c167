"""Text files, as editors and other programs write them."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError

ENCODING = "utf-8-sig"  # of text that is read: UTF-8, with or without the byte order mark that some editors write
NAMES = "surrogateescape"  # of text with file names, which need not be UTF-8: their very bytes are written and read


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


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is no JSON, no text, or has a nesting or a number that Python does not read.
    """
    try:
        return json.loads(Path(path).read_text(encoding=ENCODING))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_text(value: object) -> bool:
    """Whether a value is text that UTF-8 can write. Names of files hold surrogates in place of bytes that are none."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a table in Markdown. A cell's own bars and line ends do not break it."""
    return "\n".join(
        "| " + " | ".join(" ".join(cell.splitlines()).replace("|", r"\|") for cell in row) + " |" for row in rows
    )
