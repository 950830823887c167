"""Shared memory for the batches of loader workers, used again and again.

PyTorch makes new shared memory for each batch. The system then hands out every page of it anew, in both processes.
That takes nearly as long as the arithmetic. Here a worker keeps its buffers. It sends each one to the main process
once, and from then on its place. A buffer is free again when no tensor of the main process uses it.

PyTorch's shared memory lies in `/dev/shm`, which has 64 MB in a container of Docker's. This one lies in no file system.
"""

import itertools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

import torch

BUFFERS = 16  # of a worker. Where the main process keeps more batches, the others are used once

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


def _new_descriptor(size: int) -> int:
    """Of new memory, all 0."""
    descriptor = os.memfd_create("batches")
    os.ftruncate(descriptor, size)
    return descriptor


def _mapped(descriptor: int, size: int) -> torch.Tensor:
    """(size,) uint8, the memory of a descriptor, which is no longer needed then."""
    return torch.from_file(f"/proc/self/fd/{descriptor}", shared=True, size=size, dtype=torch.uint8)


class SharedBuffers:
    """The buffers of a loader's workers, as the main process and each of the workers see them.

    Args:
        num_workers: of the loader, 1 or more, not started yet.
    """

    def __init__(self, num_workers: int):
        self.number = next(_numbers)
        self._open(num_workers, _new_descriptor(num_workers * BUFFERS))
        _all[self.number] = self

    def _open(self, num_workers: int, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False
        self.in_use = _mapped(descriptor, num_workers * BUFFERS).view(torch.bool).view(num_workers, BUFFERS)
        self._buffers: dict[Place, torch.Tensor] = {}  # (bytes,) uint8, those that this process knows

    def __getstate__(self) -> tuple:
        return self.number, len(self.in_use), DupFd(self._descriptor)

    def __setstate__(self, state: tuple) -> None:
        self.number, num_workers, descriptor = state
        self._open(num_workers, descriptor.detach())

    def start_worker(self, worker: int) -> None:
        """Called in each worker."""
        global _of_this_worker
        _of_this_worker = self
        self._worker = worker
        self._unsent: dict[Place | None, int] = {}  # descriptors
        self._next: tuple[Place | None, torch.Tensor, torch.Tensor] | None = None  # with the buffer and the batch in it

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """In a worker: memory for the inputs of its next batch, in a free buffer if there is one."""
        size = math.prod(shape) * dtype.itemsize
        place: Place | None = (self._worker, int(self.in_use[self._worker].int().argmin()))
        if self.in_use[place]:
            place = None
        buffer = self._buffers.get(place) if place else None
        if buffer is None or len(buffer) < size:
            self._unsent[place] = descriptor = _new_descriptor(size)
            buffer = _mapped(descriptor, size)
            if place:
                self._buffers[place] = buffer
        self._next = place, buffer, buffer[:size].view(dtype).view(*shape)
        return self._next[2]

    def message(self, tensor: torch.Tensor) -> torch.Tensor | Message:
        """In a worker: what to send in place of a tensor that `empty` gave. Others are sent as they are."""
        if self._next is None or tensor is not self._next[2]:
            return tensor
        place, buffer, _ = self._next
        if place:
            self.in_use[place] = True
        sent, descriptor = None, self._unsent.pop(place, None)
        if descriptor is not None:
            sent = DupFd(descriptor), len(buffer)
            os.close(descriptor)
        return Message(_receive, (self.number, place, sent, tuple(tensor.shape), tensor.dtype))


def _receive(number: int, place: Place | None, sent: Any, shape: tuple, dtype: torch.dtype) -> torch.Tensor:
    """In the main process: the tensor. What leads to the buffer comes the first time."""
    known = _all[number]
    if sent:
        descriptor, size = sent[0].detach(), sent[1]
        buffer = _mapped(descriptor, size)
        os.close(descriptor)
        if place:
            known._buffers[place] = buffer
    else:
        assert place
        buffer = known._buffers[place]
    array = buffer[: math.prod(shape) * dtype.itemsize].numpy()
    if place:  # PyTorch keeps this very array for as long as any tensor lies in its memory.
        weakref.finalize(array, known.in_use.__setitem__, place, False).atexit = False
    return torch.from_numpy(array).view(dtype).view(*shape)


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An uninitialised tensor for the inputs of a batch, in a loader worker or without one."""
    return torch.empty(shape, dtype=dtype) if _of_this_worker is None else _of_this_worker.empty(shape, dtype)
