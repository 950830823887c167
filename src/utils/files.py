"""Files that are either whole or not there, and folders that belong to one maker."""

import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.utils.folders import files_in
from src.utils.text import NAMES, read_json

MOST_LINKS = 40  # one after the other, as the system follows
OPEN_FILE = re.compile(r"/proc/(?P<process>\d+)/fd/(?P<descriptor>\d+)")  # what /dev/stdout and /dev/fd/3 are links to
BLOCK = 4096  # bytes, the least that a file takes on most disks


@contextmanager
def whole_file(path: str | os.PathLike, follow: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it takes `path`'s place in one step.

    The folder is made if it is missing. The temporary name ends in `.partial`, whatever `path` ends in,
    so that one left behind by a killed process is never taken for a whole file: writers that look at
    the extension must be told the format. If the block raises, `path` is as it was before.

    A link stays, and the file that it points to is replaced. Into a device, a FIFO or an open file such as
    /dev/stdout, the finished file is copied.

    Args:
        follow: links. Otherwise, for files that are our own, the link itself is replaced.

    Raises:
        UserError: the link leads nowhere.
    """
    target = file_behind(path) if follow else Path(path)
    copied = follow and is_special(target)
    if not copied:
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.gettempdir() if copied else target.parent, f".{uuid.uuid4().hex}.partial")
    try:
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            if copied:
                _copy_into(temporary, target)
            else:
                sync(temporary)
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:  # a full disk's names no file, others name the temporary one
        if error.filename is None or str(error.filename).endswith(".partial"):
            error.filename = str(path)
        raise


def file_behind(path: str | os.PathLike) -> Path:
    """The file that a path means, behind links to it. It need not be there yet.

    Raises:
        UserError: a link leads to a folder that is not there, or in a circle.
    """
    file = Path(path)
    for _ in range(MOST_LINKS):
        if not file.is_symlink() or OPEN_FILE.fullmatch(_place_of(file)):
            return file
        file = Path(_place_of(file)).parent / file.readlink()
        if not file.parent.is_dir():
            raise UserError(f"{path}: is a link to {file}, and there is no such folder")
    raise UserError(f"{path}: is a link that leads in a circle")


def is_special(file: Path) -> bool:
    """Whether what `file_behind` found is a device, a FIFO or an open file: written into, and never replaced."""
    if not file.exists() and not file.is_symlink():
        return False
    mode = file.stat().st_mode
    return bool(OPEN_FILE.fullmatch(_place_of(file))) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _place_of(file: Path) -> str:
    """Its absolute path without links among the folders."""
    return os.path.join(os.path.realpath(file.parent), file.name)


def _copy_into(source: Path, special: Path) -> None:
    own = OPEN_FILE.fullmatch(_place_of(special))
    if own and int(own["process"]) == os.getpid():  # opened anew, a redirected file would be overwritten from its start
        sys.stdout.flush()
        descriptor = os.dup(int(own["descriptor"]))
    else:
        descriptor = os.open(special, os.O_WRONLY)
    with open(descriptor, "wb") as stream, open(source, "rb") as content:
        shutil.copyfileobj(content, stream)


def require_writable(*paths: str | os.PathLike | None, inputs: Iterable[str | os.PathLike | None] = ()) -> None:
    """Refuse files that could not be written, before the work that would end in them. None stands for no file.

    Nothing is left behind: a block is written into the folder, or into the first one above it that is there.

    Args:
        inputs: what is read, and so must not be among the files.

    Raises:
        UserError: one is a folder, or its folder is none, is closed to this user, full or read-only. Or two are one.
    """
    taken = {os.path.realpath(path): (path, "is read") for path in inputs if path}
    for path in (path for path in paths if path):
        try:
            file = file_behind(path)
            if file.is_dir():
                raise UserError(f"{path}: is a folder, and a file was expected")
            if is_special(file):
                if not os.access(file, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                continue
            if place := taken.get(os.path.realpath(file)):
                raise UserError(f"{path}: is to be written, and the same file, {place[0]}, {place[1]}")
            taken[os.path.realpath(file)] = path, "is to be written too"
            folder = next(parent for parent in file.absolute().parents if parent.exists())
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
            missing = file.absolute().relative_to(folder).parts
            if len(missing) > 1 and (folder / missing[0]).is_symlink():
                raise FileNotFoundError(errno.ENOENT, "it is a link to nothing", str(folder / missing[0]))
            for part in missing:
                with suppress(FileNotFoundError):
                    os.lstat(folder / part)  # a name may be too long
            with tempfile.NamedTemporaryFile(prefix=".", suffix=".partial", dir=folder, buffering=0) as probe:
                probe.write(bytes(BLOCK))
                os.fsync(probe.fileno())
            if file.exists():
                _require_replaceable(file)
        except OSError as error:
            where = f"{error.filename}: " if error.filename and ".partial" not in str(error.filename) else ""
            raise UserError(f"{path}: cannot be written ({where}{error.strerror})") from None


def _require_replaceable(file: Path) -> None:
    """Refuse a file that is mounted in its place, or that nobody may change (chattr +i)."""
    name = os.path.realpath(file).replace(" ", r"\040")
    table = Path("/proc/self/mountinfo")  # devices differ within one disk too, where it is an overlay
    mounts = table.read_text(errors="surrogateescape").splitlines() if table.exists() else []
    if any(line.split()[4] == name for line in mounts):
        raise OSError(errno.EBUSY, "it is mounted by itself, and cannot be replaced. Mount its folder")
    try:
        os.close(os.open(file, os.O_WRONLY))
    except PermissionError as error:
        if error.errno != errno.EACCES:  # whoever may write into the folder may replace a file that is read-only
            raise


def open_own(path: str | os.PathLike, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """A descriptor of a file that is this project's own: a lock, or what is half written. No link is followed.

    Raises:
        UserError: something else has that name.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    else:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
    raise UserError(f"{path}: is a link or no plain file, and this command's own file belongs there. Remove it")


def write_whole(path: str | os.PathLike, content: str | bytes, follow: bool = True) -> None:
    """Replace a file by this content, in one step, as `whole_file` does."""
    with whole_file(path, follow) as temporary:
        temporary.write_bytes(content.encode(errors=NAMES) if isinstance(content, str) else content)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Replace a file by plain data as JSON, in one step. What is no finite number becomes null, as JSON has none."""
    finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_whole(path, json.dumps(finite, indent=2) + "\n")


def claim_folder(folder: str | os.PathLike, recipe: Mapping[str, Any], what: str, flag: str = "--out_folder") -> None:
    """Note in `recipe.json` how the folder's files are made, or refuse a folder of another recipe.

    Args:
        what: what the folder holds, for messages.
        flag: what it was chosen with, for messages.

    Raises:
        UserError: another recipe is noted, or there are WAV or FLAC files and no note, or nothing can be written there.
    """
    folder, note = Path(folder), Path(folder) / "recipe.json"
    require_writable(note)
    # Looked for before the note: another process may claim the folder meanwhile, and writes its note first.
    audio = not note.exists() and folder.is_dir() and files_in(folder, (".wav", ".flac"), "audio", others=False)
    if note.exists():
        try:
            found = dict(read_json(note))
        except (ValueError, TypeError):
            raise UserError(f"{note}: cannot be read: choose another {flag}") from None
        for name in (name for name in recipe if found.get(name) != recipe[name]):
            other = f"{what} with {name} {found.get(name)!r} instead of {recipe[name]!r}"
            raise UserError(f"{folder}: holds {other}: choose another {flag}")
    elif audio:
        other = "audio files, but no recipe.json that says how they were made"
        raise UserError(f"{folder}: holds {other}: choose another {flag}")
    else:
        write_json(note, recipe)


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
