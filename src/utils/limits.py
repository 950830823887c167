"""What the system allows processes: open files, further processes, shared memory. What goes wrong at a limit, in words.

Python's queues between processes need semaphores. Those lie in `/dev/shm`, which may be missing, read-only or full.
"""

import errno
import functools
import logging
import multiprocessing
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from src.errors import UserError

log = logging.getLogger(__name__)

SPARE = 16  # open files that the work itself may need
SEMAPHORES = 4  # for a worker's queue, and once for all

KILLED = "a worker process was killed. Is there too little memory? What was complete is kept"
NO_MORE = {
    errno.EAGAIN: "the system starts no more processes (`ulimit -u`, or a container's limit)",
    errno.ENOMEM: "there is too little memory",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOSPC: "/dev/shm is full",
}

# PyTorch's and Python's words, which are those of a RuntimeError or of an error within a loader worker.
OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory|[Ss]torage size calculation overflowed")
WORKER_DIED = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)")
SHARED_MEMORY = re.compile("shared memory.*(No space left|Read-only|No such file|Permission denied)")
OPEN_FILES = re.compile(rf"{os.strerror(errno.EMFILE)}|items of ancdata")
NO_THREAD = "can't start new thread"


class CannotStart(UserError):
    """Worker processes cannot be started."""


def in_words(error: Exception) -> str | None:
    """What an error says of the system's limits, as one line. None if it is about something else."""
    text = (str(error).strip().splitlines() or [""])[-1]
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(text):
        reason = f" ({text})" if text else ""
        return f"out of memory{reason}. Is a number among the flags or in the cfg too large?"
    if SHARED_MEMORY.search(text):
        return f"{text}. Docker gives more shared memory with --shm-size"
    if WORKER_DIED.search(text):
        return KILLED
    if OPEN_FILES.search(text):
        return f"{text}. `ulimit -n` is {_open_files_limit()}. Give fewer --num_workers, or raise the limit"
    if isinstance(error, OSError) and str(error).startswith("Caught "):
        return re.sub(r"^\w+: (\[Errno \d+\] )?", "", text)  # of a loader worker, where PyTorch makes text of it
    if NO_THREAD in text:
        return f"{NO_MORE[errno.EAGAIN]}. Give fewer --num_workers"
    return None


def usable_workers(num_workers: int, descriptors: int, pools: int = 1) -> int:
    """`num_workers`, or 0 where there is no shared memory for their queues. That is said once.

    Args:
        descriptors: that each worker keeps open in this process.
        pools: how many times so many workers are started.

    Raises:
        CannotStart: this process may not have so many files open.
    """
    if num_workers == 0:
        return 0
    limit, spare = _open_files_limit(), SPARE + len(os.listdir("/proc/self/fd"))
    needed = spare + pools * descriptors * (num_workers + 1)
    if needed > limit:
        fit = (limit - spare) // (pools * descriptors) - 1
        raise CannotStart(
            f"--num_workers: {num_workers} processes need {needed} open files, and `ulimit -n` is {limit}. "
            f"Raise it{f', or give {fit} at most' * (fit > 1)}"
        )
    try:
        [multiprocessing.Lock() for _ in range(pools * SEMAPHORES * (num_workers + 1))]
    except OSError as error:
        _say_once(
            f"/dev/shm cannot be used ({error.strerror}): without it there are no worker processes, and the main "
            "process does the work of --num_workers. Docker gives more shared memory with --shm-size"
        )
        return 0
    return num_workers


@contextmanager
def starting(flag: str) -> Iterator[None]:
    """Start processes within this block. If one cannot be started, those that were are ended.

    Args:
        flag: which asked for them, with its value.

    Raises:
        CannotStart: with the flag and the limit.
    """
    others = set(multiprocessing.active_children())
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else errno.EAGAIN if NO_THREAD in str(error) else None
        if number not in NO_MORE:
            raise
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
            process.join()
        raise CannotStart(f"{flag}: not all could be started, as {NO_MORE[number]}. Give fewer") from None


def _open_files_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@functools.cache
def _say_once(line: str) -> None:
    log.warning("%s", line)
