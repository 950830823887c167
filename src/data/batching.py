"""Examples -> one batch: (B, 1, F, T) float32, or samples and views, and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from src.data.shared_buffers import Lending, empty
from src.data.transforms import View


class Samples(NamedTuple):
    """Clips whose features are still to be made; see src/data/device_features.py."""

    samples: torch.Tensor  # (B, N) int16, or float32 in [-1, 1), zero-padded on the right
    lengths: np.ndarray  # (B,) samples of each clip; an array, which stays with the CPU
    views: np.ndarray  # (B,) View


# Inputs and targets, which are (B, C) float32 multi-hot, or (B,) int64 class indices.
Batch = tuple[torch.Tensor | Samples, torch.Tensor]


def rows_for(views: Sequence[View]) -> torch.Tensor:
    """(B, 1, F, T) float32 for what is seen of B clips, to be written to; zero on the right of the smaller ones.

    In a loader worker it lies in memory that the main process shares: a batch is not copied on its way.
    """
    rows = empty((len(views), 1, views[0].num_bins, max(view.size for view in views)))
    for row, view in zip(rows.numpy(), views):
        row[..., view.size :] = 0
    return rows


def stack_samples(clips: Sequence[np.ndarray], views: Sequence[View]) -> Samples:
    """Clips of (N,) int16 or float32 samples as one batch; int16 where all are."""
    lengths = np.array([len(clip) for clip in clips])
    integers = all(clip.dtype == np.int16 for clip in clips)
    samples = empty((len(clips), lengths.max()), torch.int16 if integers else torch.float32)  # (B, N)
    for row, clip in zip(samples.numpy(), clips):
        row[: len(clip)] = clip if clip.dtype == row.dtype else clip * np.float32(2**-15)
        row[len(clip) :] = 0
    return Samples(samples, lengths, np.array(views, dtype=object))


def hand_over(lending: Lending, batch: Batch) -> tuple:
    """A worker's batch, as it is sent to the main process."""
    inputs, targets = batch
    if isinstance(inputs, Samples):
        return inputs._replace(samples=lending.lend(inputs.samples)), Copied(targets)
    return lending.lend(inputs), Copied(targets)


class Copied(NamedTuple):
    """A small tensor on its way from a worker: it goes along as bytes, and is a tensor once it is unpickled.

    PyTorch would make shared memory for it, and open a connection to hand that over.
    """

    tensor: torch.Tensor

    def __reduce__(self) -> tuple:
        return torch.from_numpy, (self.tensor.numpy(),)


def batch_as_it_is(batch: Batch) -> Batch:
    """Data sets make whole batches; without workers nothing is left to do."""
    return batch
