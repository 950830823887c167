"""One process a run folder: a second one is refused, and the lock of one that died does not count.

The lock is a POSIX record lock on `.lock`: it ends with its process, however that ends, and loader
workers, which may outlive a killed process for seconds, do not inherit it. The file says who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from src.errors import UserError

log = logging.getLogger(__name__)

HELD = {errno.EACCES, errno.EAGAIN}
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # on some network file systems


@contextmanager
def sole_process(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if it is missing; left empty, it is taken away again.

    Raises:
        UserError: another process holds it.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    descriptor = -1
    try:
        descriptor = _take(path)
        yield
    finally:
        if descriptor >= 0:
            path.unlink(missing_ok=True)
            os.close(descriptor)
        with suppress(OSError):
            for made in missing:
                made.rmdir()


def _take(path: Path) -> int:
    """An open descriptor that holds the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            holder = _holder(descriptor)
            _lock(descriptor, path, holder)
            if not _is_still(path, descriptor):  # whoever held it took it away meanwhile
                os.close(descriptor)
                continue
            if holder:
                log.info(
                    "%s: process %s on %s ended without giving it back", path.parent, holder["pid"], holder["host"]
                )
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_myself()).encode(), 0)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _lock(descriptor: int, path: Path, holder: dict | None) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except OSError as error:
        held, unsupported = error.errno in HELD, error.errno in UNSUPPORTED
        if not held and not unsupported:
            raise
    who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}" if holder else "another process"
    if held:
        raise UserError(f"{path.parent}: {who}, is training in it; wait for its end, or choose another --expdir")
    if holder and (holder["host"] != platform.node() or _is_alive(holder["pid"])):
        raise UserError(f"{path.parent}: {who}, is training in it; if it no longer is, delete {path}")


def _holder(descriptor: int) -> dict | None:
    """Who wrote the file; None where nobody did so to its end."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        return found if {"pid", "host", "since"} <= found.keys() and isinstance(found["pid"], int) else None
    except (ValueError, AttributeError):
        return None


def _myself() -> dict:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
