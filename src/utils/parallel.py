"""The same work on many items in several processes, with a progress bar."""

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from src.errors import UserError
from src.utils.limits import KILLED, starting, usable_workers
from src.utils.progress import progress

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

DESCRIPTORS = 2  # that a process keeps open in the one that started it
AHEAD = 4  # chunks in work for each process: it never waits, and results that nobody has taken yet stay few


class WorkerKilled(UserError):
    """A worker process ended before its work did."""


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    description: str,
    *,
    unit: str = "file",
    chunk: int = 1,
    isolate: bool = False,
) -> Generator[Result, None, None]:
    """`function` of every item, in order. What it raises is raised here, and ends the other workers.

    Memory does not grow with the number of items. Workers end with the process that started them,
    however that ends.

    Args:
        function: picklable, as are items and results. Each process gets it once, so it may hold much.
        num_workers: processes. With 1 or less the work is done in this one.
        unit: what the progress bar counts.
        chunk: items sent to a worker at a time: more than 1 where an item takes but milliseconds.
        isolate: work in another process in any case, so that this one outlives its death.

    Raises:
        WorkerKilled: a worker process was killed.
        CannotStart: the system does not allow so many.
    """
    with progress(len(items), description, unit) as bar:
        results = _in_workers(function, items, num_workers if len(items) > 1 else 1, chunk, description, isolate)
        for result in results:
            yield result
            bar.update()


def make_all(
    make: Callable[[Item], None],
    items: Sequence[Item],
    num_workers: int,
    folder: Path,
    what: str,
    is_made: Callable[[Item], bool] = lambda _: False,
) -> dict[Item, UserError]:
    """`make` every item that is not made yet. One that fails does not stop the others.

    Args:
        folder, what: where the items go and what they are, for messages.
        is_made: whether an item is there already.

    Returns:
        Item → what is wrong with it, for those that cannot be made.
    """
    todo = [item for item in items if not is_made(item)]
    if len(todo) < len(items):
        log.info("%s: %d of %d %s are there already", folder, len(items) - len(todo), len(items), what)
    errors = map_in_processes(functools.partial(_error_of, make), todo, num_workers, f"{what} for {folder.name}")
    return {item: error for item, error in zip(todo, errors) if error}


def _error_of(make: Callable[[Item], None], item: Item) -> UserError | None:
    try:
        make(item)
    except UserError as error:
        return error
    return None


def in_another_process(function: Callable[[Item], Result], item: Item, description: str) -> Result:
    """`function(item)`, so that this process outlives its death.

    Raises:
        WorkerKilled: the other process was killed.
    """
    (result,) = _in_workers(function, [item], 1, 1, description, isolate=True)
    return result


def _in_workers(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    chunk: int,
    description: str,
    isolate: bool,
) -> Iterator[Result]:
    """The results in order, with at most `AHEAD` chunks for each worker handed out."""
    workers = min(max(1, num_workers), max(1, len(items)))
    if (workers == 1 and not isolate) or not usable_workers(workers, DESCRIPTORS):
        yield from map(function, items)
        return
    waiting: deque[Future] = deque()
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(function,)) as pool:
        try:
            for start in range(0, len(items), chunk):
                with starting(f"--num_workers {num_workers}"):  # the first one starts the processes
                    waiting.append(pool.submit(_work, items[start : start + chunk]))
                if len(waiting) >= AHEAD * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise WorkerKilled(f"{description}: {KILLED}") from None
        finally:
            pool.shutdown(cancel_futures=True)


_function: Callable  # of this worker, sent once, not with every item


def _start_worker(function: Callable) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are the parent's to handle
    end_with_the_parent()


def _work(items: Sequence[Item]) -> list[Result]:
    return [_function(item) for item in items]


def end_with_the_parent() -> None:
    """Have this process, which another one started, end when that one does.

    A worker would wait for work for ever once its parent was killed, and keep what that had locked.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
