"""Shared memory for the batches of loader workers, used again and again.

PyTorch makes new shared memory for each batch. The system then hands out every page of it anew, in both processes.
That takes nearly as long as the arithmetic. Here a worker keeps its buffers. It sends each one to the main process
once, and from then on its place. A buffer is free again when no tensor of the main process uses it.
"""

import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

BUFFERS = 16  # of a worker. Where the main process keeps more batches, PyTorch shares the others

Place = tuple[int, int]  # worker, and which of its buffers

_numbers = itertools.count()
_all: "weakref.WeakValueDictionary[int, SharedBuffers]" = weakref.WeakValueDictionary()
_of_this_worker: "SharedBuffers | None" = None


class Message(NamedTuple):
    """`function(*arguments)`, called in the process that unpickles it."""

    function: Callable[..., Any]
    arguments: tuple

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


class SharedBuffers:
    """The buffers of a loader's workers, as the main process and each of the workers see them.

    Args:
        num_workers: of the loader, not started yet.
    """

    def __init__(self, num_workers: int):
        self.number = next(_numbers)
        self.in_use = torch.zeros((num_workers, BUFFERS), dtype=torch.bool).share_memory_()
        self._buffers: dict[Place, torch.Tensor] = {}  # (bytes,) uint8, those that this process knows
        _all[self.number] = self

    def start_worker(self, worker: int) -> None:
        """Called in each worker."""
        global _of_this_worker
        _of_this_worker = self
        self._worker = worker
        self._sent: set[Place] = set()
        self._next: tuple[Place, torch.Tensor] | None = None

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """In a worker: memory for the inputs of its next batch, in a free buffer if there is one."""
        size = math.prod(shape) * dtype.itemsize
        place = self._worker, int(self.in_use[self._worker].int().argmin())
        if self.in_use[place]:
            return torch.empty(shape, dtype=dtype)
        if place not in self._buffers or len(self._buffers[place]) < size:
            storage = torch.UntypedStorage._new_shared(size)  # as PyTorch's own collating does
            self._buffers[place] = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._sent.discard(place)
        self._next = place, self._buffers[place][:size].view(dtype).view(*shape)
        return self._next[1]

    def message(self, tensor: torch.Tensor) -> torch.Tensor | Message:
        """In a worker: what to send in place of a tensor that `empty` gave. Others are sent as they are."""
        if self._next is None or tensor is not self._next[1]:
            return tensor
        place, _ = self._next
        self.in_use[place] = True
        buffer = None if place in self._sent else self._buffers[place]
        self._sent.add(place)
        return Message(_receive, (self.number, place, buffer, tuple(tensor.shape), tensor.dtype))


def _receive(number: int, place: Place, buffer: torch.Tensor | None, shape: tuple, dtype: torch.dtype) -> torch.Tensor:
    """In the main process: the tensor. The (bytes,) buffer comes the first time."""
    known = _all[number]
    if buffer is not None:
        known._buffers[place] = buffer
    array = known._buffers[place][: math.prod(shape) * dtype.itemsize].numpy()
    # PyTorch keeps this very array for as long as any tensor lies in its memory.
    weakref.finalize(array, known.in_use.__setitem__, place, False).atexit = False
    return torch.from_numpy(array).view(dtype).view(*shape)


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An uninitialised tensor for the inputs of a batch, in a loader worker or without one."""
    return torch.empty(shape, dtype=dtype) if _of_this_worker is None else _of_this_worker.empty(shape, dtype)
