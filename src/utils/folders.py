"""Which files of a folder are read, and what is left out of it."""

import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path

from src.errors import UserError
from src.utils.progress import progress

log = logging.getLogger(__name__)

COMPANIONS = (".txt", ".jams")  # annotations, which lie beside clips: nobody expects them to be read as one
BY_NAME = ("file", "folder", "link to nothing", "file that cannot be read")  # taken for a file that is called like one
UNREADABLE = "folder that cannot be read"
MOST_REASONS = 6  # named in one line
QUICK = 2.0  # s of looking through a folder that need no progress bar


def files_in(
    folder: str | Path,
    suffixes: Collection[str],
    what: str,
    *,
    levels: range | None = None,
    apart_from: str | Path | None = None,
    none: str = "",
    others: bool = True,
) -> list[str]:
    """Paths, relative to `folder`, of the files in and below it that have one of these suffixes, in any case.

    Links are followed. Names that begin with a dot are skipped. One line of the log counts what is left out, by
    reason. A link to nothing that is called like such a file is among the paths, for the caller to refuse by its name.
    The paths are sorted, folder by folder.

    Args:
        suffixes: in lower case, such as ".wav", or "/run.json" for a whole name.
        what: the files are, for messages.
        levels: at which files are taken: 0 is the folder itself. By default at all, and then each folder counts
            once, by whatever links it is reached.
        apart_from: a folder not to look into.
        none: what to say where there are no such files.
        others: count files with other suffixes, too.

    Raises:
        UserError: the folder is missing or cannot be read, or with `none`, there are no such files.
    """
    found, left_out = [], _LeftOut()
    with progress(None, f"looking through {folder}", "file", delay=QUICK) as bar:
        for path, kind in _walk(str(folder), what, levels, apart_from):
            bar.update()
            suffix, named = os.path.splitext(path)[1].lower(), f"/{path}".lower().endswith(tuple(suffixes))
            wanted = named and kind in BY_NAME
            if wanted and (levels is None or path.count(os.sep) in levels):
                found.append(path)
            elif not others and (wanted or not named) and kind != UNREADABLE:
                continue
            elif wanted:
                left_out.add("file at another depth", path)
            elif kind != "file":
                left_out.add(kind, path)
            elif suffix not in COMPANIONS and os.path.basename(path) != "recipe.json":
                left_out.add(f"{suffix} file" if suffix else "file without a suffix", path)
    if none and not found:
        raise UserError(f"{folder}: {none}" + f". Left out: {left_out}" * bool(left_out))
    if left_out:
        log.info("%s: left out %s", folder, left_out)
    return sorted(found, key=lambda path: path.replace(os.sep, "\0"))


def require_folder(folder: str | Path, what: str) -> None:
    """Refuse what is no folder, or one that cannot be read.

    Raises:
        UserError: as of `files_in`.
    """
    _entries(str(folder), what)


def subfolders(folder: str | Path, what: str) -> list[str]:
    """Sorted names of the folders in a folder, or links to such, but not of hidden ones.

    Raises:
        UserError: as of `files_in`.
    """
    return [entry.name for entry in _entries(str(folder), what) if _kind(entry) == "folder"]


def beside(file: Path, suffix: str) -> Path:
    """The file of the same name with another suffix, in whichever case that is written. It need not be there."""
    spellings = itertools.product(*(dict.fromkeys((letter, letter.upper())) for letter in suffix))
    candidates = (file.with_suffix("".join(spelling)) for spelling in spellings)
    return next(filter(os.path.exists, candidates), file.with_suffix(suffix))


def require_different_stems(folder: str | Path, paths: Collection[str]) -> None:
    """Refuse two files of which only the suffix differs: what is made of them, or lies beside them, has one name.

    Raises:
        UserError: there are such files.
    """
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(os.path.splitext(path)[0], path)
        if other is not path:
            alike = f"differs from {other} in the case of its suffix alone, so that files made of both have one name"
            raise UserError(f"{Path(folder, path)}: {alike}. Rename one of them")


class _LeftOut(dict[str, list[str]]):
    """Reason → paths that were left out for it."""

    def add(self, reason: str, path: str) -> None:
        self.setdefault(reason, []).append(path)

    def __str__(self) -> str:
        """Such as "2 hidden files (such as ._a.wav), 1 link to nothing (b.wav)"."""
        ranked = sorted(self.items(), key=lambda item: -len(item[1]))
        parts = []
        for reason, paths in ranked[:MOST_REASONS]:
            many = len(paths) > 1
            named = re.sub(r"(file|folder|link)\b", r"\1s", reason, count=1) if many else reason
            parts.append(f"{len(paths):,} {named} ({'such as ' * many}{min(paths)})")
        more = sum(len(paths) for _, paths in ranked[MOST_REASONS:])
        return ", ".join(parts) + f" and {more:,} more" * bool(more)


def _walk(top: str, what: str, levels: range | None, apart_from: str | Path | None) -> Iterator[tuple[str, str]]:
    """(path below `top`, kind) of all in it but folders looked into. Folders themselves come before links to them."""
    seen = {_identity(apart_from)} if apart_from and os.path.isdir(apart_from) else set()
    waiting = deque([""])
    while waiting:
        below = waiting.popleft()
        folder = os.path.join(top, below) if below else top
        try:
            entries, identity = _entries(folder, what), _identity(folder)
        except (UserError, OSError):
            if not below:
                raise
            yield below, UNREADABLE
            continue
        if levels is None and identity in seen:
            yield below, "folder read before"
            continue
        seen.add(identity)
        for entry in entries:
            path, kind = os.path.join(below, entry.name), _kind(entry)
            if kind == "folder" and (levels is None or path.count(os.sep) + 1 < levels.stop):
                (waiting.append if entry.is_symlink() else waiting.appendleft)(path)
            else:
                yield path, kind


def _entries(folder: str, what: str) -> list[os.DirEntry]:
    """What is in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        reason = "is a link to nothing, and no folder" if os.path.islink(folder) else "no such folder"
    except NotADirectoryError:
        reason = "is a file, and no folder"
    except OSError as error:
        reason = f"cannot be read ({error.strerror}), as a folder"
    raise UserError(f"{folder}: {reason} of {what}")


def _kind(entry: os.DirEntry) -> str:
    """What an entry of a folder is."""
    try:
        kind = "folder" if entry.is_dir() else "file" if entry.is_file() else "special file"
    except OSError:  # a link to itself, or no right to look
        kind = "file that cannot be read"
    if entry.name.startswith("."):
        return f"hidden {'folder' if kind == 'folder' else 'file'}"
    return "link to nothing" if entry.is_symlink() and not os.path.exists(entry.path) else kind


def _identity(folder: str | Path) -> tuple[int, int]:
    """The same for every path to a folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
