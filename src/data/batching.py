"""Examples -> one batch: (B, 1, F, T) float32, or samples and views, and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info

from src.data.transforms import View


class Samples(NamedTuple):
    """Clips whose features are still to be made; see src/data/device_features.py."""

    samples: torch.Tensor  # (B, N) int16, or float32 in [-1, 1), zero-padded on the right
    lengths: np.ndarray  # (B,) samples of each clip; an array, which stays with the CPU
    views: np.ndarray  # (B,) View


# Inputs and targets, which are (B, C) float32 multi-hot, or (B,) int64 class indices.
Batch = tuple[torch.Tensor | Samples, torch.Tensor]


class Rows:
    """Arrays of the B clips of a batch, written one by one; the smaller ones stay zero-padded on the right.

    In a loader worker they are written into memory that the main process shares: a batch is not copied on its way.
    """

    def __init__(self, count: int):
        self.count = count
        self.tensor = torch.empty(count, 0)  # (B, …)

    def row(self, number: int, shape: Sequence[int]) -> np.ndarray:
        """float32 zeros of this shape, to be written to."""
        own = self.tensor.shape[1:]
        if len(own) != len(shape) or any(size > there for size, there in zip(shape, own)):
            self._grow([max(sizes) for sizes in zip(shape, own)] if len(own) == len(shape) else shape)
        return self.tensor[number].numpy()[tuple(map(slice, shape))]

    def _grow(self, shape: Sequence[int]) -> None:
        old, numbers = self.tensor, self.count * int(np.prod(shape))
        if get_worker_info() is None:
            self.tensor = torch.zeros(self.count, *shape)
        else:
            storage = torch.UntypedStorage._new_shared(4 * numbers)  # as PyTorch's own collating does; it is zeroed
            self.tensor = torch.empty(0).set_(storage).view(self.count, *shape)
        if old.dim() == self.tensor.dim():
            self.tensor[tuple(map(slice, old.shape))] = old


def stack_samples(clips: Sequence[np.ndarray], views: Sequence[View]) -> Samples:
    """Clips of (N,) int16 or float32 samples as one batch; int16 where all are."""
    lengths = np.array([len(clip) for clip in clips])
    dtype = np.int16 if all(clip.dtype == np.int16 for clip in clips) else np.float32
    samples = np.zeros((len(clips), lengths.max()), dtype)  # (B, N)
    for row, clip in zip(samples, clips):
        row[: len(clip)] = clip if clip.dtype == dtype else clip * np.float32(2**-15)
    return Samples(torch.from_numpy(samples), lengths, np.array(views, dtype=object))
