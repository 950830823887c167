"""The same work on many items in several processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from src.errors import UserError
from src.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 16  # items that each process has been given before the first of them is done


def map_in_processes(function: Callable[[Item], Result], items: Sequence[Item], num_workers: int,
                     description: str) -> Iterator[Result]:
    """`function` of every item, in order; what it raises is raised here, and ends the other workers.

    Args:
        function: picklable, as are items and results; each process gets it once, so it may hold much.
        num_workers: processes; with 1 or less the work is done in this one.
    """
    with progress(len(items), description, "file") as bar:
        if num_workers <= 1 or len(items) <= 1:
            for item in items:
                yield function(item)
                bar.update()
            return
        with ProcessPoolExecutor(min(num_workers, len(items)), initializer=_start_worker, initargs=(function,)) as pool:
            try:
                for result in _in_order(pool, items, AHEAD * num_workers):
                    yield result
                    bar.update()
            except BrokenProcessPool:
                raise UserError(f"{description}: a worker process was killed; is there too little memory? "
                                "What was complete is kept") from None
            finally:
                pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, items: Sequence[Item], ahead: int) -> Iterator[Result]:
    """Results in the items' order. Few are under way at a time: of 200,000, the pool's notes take 400 MB."""
    waiting: deque[Future] = deque()
    for item in items:
        if len(waiting) == ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(_work, item))
    while waiting:
        yield waiting.popleft().result()


_function: Callable  # what a worker process does to its items


def _start_worker(function: Callable) -> None:
    """Leave interrupts to the parent, and end when it is killed: nothing else would end its workers then."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _work(item: Item) -> Result:
    return _function(item)


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
