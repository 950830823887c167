"""One process a run folder. The file `.lock` is locked, and says which process holds it."""

import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.utils import locks
from src.utils.files import open_own, require_writable

log = logging.getLogger(__name__)


@contextmanager
def sole_process(folder: Path) -> Iterator[None]:
    """Hold a run folder. It is made if it is missing, and deleted again if it stays empty.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    require_writable(folder / ".lock")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder / ".lock"):
            yield
    finally:
        with suppress(OSError):
            for made in missing:
                made.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _take(path)
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with open(open_own(path), "w") as stream:
            stream.truncate()
            stream.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        yield
    finally:
        path.unlink(missing_ok=True)
        if descriptor is not None:
            locks.release(descriptor)


def _take(path: Path) -> int | None:
    """The lock, or None on a file system without locks, where what the file says decides."""
    descriptor = None
    try:
        descriptor = locks.take(path)
    except BlockingIOError:
        raise UserError(
            f"{path.parent}: {_named(_holder(path))} is training in it. Wait for its end, or choose another --expdir"
        ) from None
    except OSError as error:
        if error.errno not in locks.UNSUPPORTED:
            raise
    holder = _holder(path)
    if holder and descriptor is None and (holder["host"] != platform.node() or _is_alive(holder["pid"])):
        raise UserError(f"{path.parent}: {_named(holder)} is training in it. If it no longer is, delete {path}")
    if holder:
        log.info("%s: %s ended without deleting its lock", path.parent, _named(holder))
    return descriptor


def _holder(path: Path) -> dict[str, Any] | None:
    """Who wrote the file. None where nobody did so to its end."""
    try:
        found = json.loads(path.read_bytes())
        return found if {"pid", "host", "since"} <= found.keys() and isinstance(found["pid"], int) else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _named(holder: dict[str, Any] | None) -> str:
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']}," if holder else "another process"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
