"""Locks between processes: `flock` on a file or a folder.

A lock ends with the process that took it, however that ends. Forked children give up their copy of the descriptor
at once: a loader worker, which may outlive a killed process for seconds, holds nothing.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.utils.files import open_own

UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # errors of some network file systems

_held: set[int] = set()  # descriptors


def take(path: str | os.PathLike, folder: bool = False, wait: bool = False) -> int:
    """Lock a file of our own, which is made if it is missing, or an existing folder.

    Returns:
        An open descriptor of it, for `release`.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is not set.
        OSError: the path cannot be opened, or its file system has no locks, see `UNSUPPORTED`.
        UserError: the file is a link, or no plain file.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY) if folder else open_own(path)
        _held.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            _close(descriptor)
            raise
        with suppress(FileNotFoundError):  # whoever held it may have renamed or deleted the file
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
        release(descriptor)


def release(descriptor: int) -> None:
    """End a lock. In a child of the process that took it, nothing is left to do."""
    if descriptor in _held:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked just now may still have its copy open
        _close(descriptor)


@contextmanager
def exclusive(folder: str | os.PathLike) -> Iterator[None]:
    """Keep other processes that ask for the same folder waiting. The folder is made if it is missing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = take(folder, folder=True, wait=True)
    try:
        yield
    finally:
        release(descriptor)


def _close(descriptor: int) -> None:
    _held.remove(descriptor)
    os.close(descriptor)


def _close_in_a_child() -> None:
    for descriptor in tuple(_held):
        _close(descriptor)


os.register_at_fork(after_in_child=_close_in_a_child)
