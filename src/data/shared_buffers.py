"""Shared memory that loader workers lend the main process for a batch, and write to again when it is done with that.

PyTorch makes new shared memory for each batch. The system then hands out every page of it anew, in both processes, and
that takes nearly as long as the arithmetic. Here a worker keeps what it has: a piece of memory is sent once, and from
then on batches in it are announced by its number. It is free again when no tensor of the main process lies in it.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

PIECES = 16  # of a worker; batches beyond, where the main process keeps so many, go PyTorch's way

_numbers = itertools.count()
_lendings: weakref.WeakValueDictionary[int, Lending] = weakref.WeakValueDictionary()
_own: Lending | None = None  # of this process, where it is a worker


class Place(NamedTuple):
    """A piece of memory."""

    worker: int
    piece: int


class Lending:
    """The pieces of a loader's workers, as the main process and each of the workers see them.

    Args:
        num_workers: of the loader, not started yet.
    """

    def __init__(self, num_workers: int):
        self.number = next(_numbers)
        self.lent = torch.zeros((num_workers, PIECES), dtype=torch.bool).share_memory_()
        self._pieces: dict[Place, torch.Tensor] = {}  # (bytes,) uint8, those that this process knows
        _lendings[self.number] = self

    def start_worker(self, worker: int) -> None:
        """Called in each worker."""
        global _own
        _own = self
        self._worker = worker
        self._sent: set[Place] = set()
        self._next: tuple[Place, torch.Tensor] | None = None

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """In a worker: memory for the inputs of its next batch, in a free piece if there is one."""
        size = int(np.prod(shape)) * dtype.itemsize
        place = Place(self._worker, int(self.lent[self._worker].int().argmin()))
        if self.lent[place]:
            return torch.empty(shape, dtype=dtype)
        if place not in self._pieces or len(self._pieces[place]) < size:
            storage = torch.UntypedStorage._new_shared(size)  # as PyTorch's own collating does
            self._pieces[place] = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._sent.discard(place)
        self._next = place, self._pieces[place][:size].view(dtype).view(*shape)
        return self._next[1]

    def lend(self, tensor: torch.Tensor) -> torch.Tensor | Lent:
        """In a worker: what to send instead of a tensor that `empty` gave; others as they are."""
        if self._next is None or tensor is not self._next[1]:
            return tensor
        place, _ = self._next
        self.lent[place] = True
        memory = None if place in self._sent else self._pieces[place]
        self._sent.add(place)
        return Lent(self.number, place, memory, tuple(tensor.shape), tensor.dtype)

    def receive(self, lent: Lent) -> torch.Tensor:
        """In the main process: the tensor."""
        if lent.memory is not None:
            self._pieces[lent.place] = lent.memory
        size = int(np.prod(lent.shape)) * lent.dtype.itemsize
        array = self._pieces[lent.place][:size].numpy()
        # PyTorch keeps this very array for as long as any tensor lies in its memory.
        weakref.finalize(array, self._take_back, lent.place).atexit = False
        return torch.from_numpy(array).view(lent.dtype).view(*lent.shape)

    def _take_back(self, place: Place) -> None:
        self.lent[place] = False


class Lent(NamedTuple):
    """A tensor on its way: what is pickled in a worker is a tensor once it is unpickled."""

    lending: int
    place: Place
    memory: torch.Tensor | None  # (bytes,) uint8, when it is sent for the first time
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __reduce__(self) -> tuple:
        return _receive, tuple(self)


def _receive(*fields) -> torch.Tensor:
    lent = Lent(*fields)
    return _lendings[lent.lending].receive(lent)


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An uninitialised tensor for the inputs of a batch, on whichever side of a loader this is."""
    return torch.empty(shape, dtype=dtype) if _own is None else _own.empty(shape, dtype)
