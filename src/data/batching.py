"""Examples -> one batch: (B, 1, F, T) float32, or samples and views, and targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from src.data.shared_buffers import Message, SharedBuffers, empty
from src.data.transforms import View


class Samples(NamedTuple):
    """Clips whose features are still to be made, by src/data/device_features.py."""

    samples: torch.Tensor  # (B, N) int16, or float32 in [-1, 1), zero-padded on the right
    lengths: np.ndarray  # (B,) samples of each clip, an array, which stays with the CPU
    views: np.ndarray  # (B,) View


@dataclass(frozen=True)
class HeldClip:
    """A clip whose samples lie on the network's device, or two that sound at once."""

    index: int
    length: int  # samples, of the longer one
    partner: int | None = None

    def __len__(self) -> int:
        return self.length


class Held(NamedTuple):
    """Clips whose samples src/data/lmdb/device_cache.py gathers on the device when their turn comes."""

    gather: Callable[..., torch.Tensor]  # of the next three: `Samples.samples`
    clips: np.ndarray  # (B,) int64
    partners: np.ndarray  # (B,) int64, or -1
    lengths: np.ndarray  # (B,) samples
    views: np.ndarray  # (B,) View

    def samples(self) -> Samples:
        """The clips, on the device."""
        return Samples(self.gather(self.clips, self.partners, self.lengths), self.lengths, self.views)


class Batch(NamedTuple):
    """Clips and what is to be said of them."""

    inputs: torch.Tensor | Samples | Held  # (B, 1, F, T) float32
    targets: torch.Tensor  # (B, C) float32 multi-hot, or (B,) int64 class indices
    teacher: torch.Tensor | None = None  # (B, C) float32, a teacher's logits
    frames: torch.Tensor | None = None  # (B, J, C) float32 in [0, 1], how much of each frame the classes sound
    spans: torch.Tensor | None = None  # (B, 3) int64: the first column's frame, columns, and frames of the clip


def rows_for(views: Sequence[View]) -> torch.Tensor:
    """(B, 1, F, T) float32 for what is seen of B clips, to be written to. It is zero on the right of the smaller ones.

    In a loader worker it lies in memory that the main process shares: a batch is not copied on its way.
    """
    rows = empty((len(views), 1, views[0].num_bins, max(view.size for view in views)))
    for row, view in zip(rows.numpy(), views):
        row[..., view.size :] = 0
    return rows


def stack_samples(clips: Sequence[np.ndarray], views: Sequence[View]) -> Samples:
    """Clips of (N,) int16 or float32 samples as one batch, int16 where all are."""
    lengths = np.array([len(clip) for clip in clips])
    integers = all(clip.dtype == np.int16 for clip in clips)
    samples = empty((len(clips), lengths.max()), torch.int16 if integers else torch.float32)  # (B, N)
    for row, clip in zip(samples.numpy(), clips):
        row[: len(clip)] = clip if clip.dtype == row.dtype else as_floats(clip)
        row[len(clip) :] = 0
    return Samples(samples, lengths, np.array(views, dtype=object))


def together(clip: Any, other: Any) -> Any:
    """Two clips at once, the shorter one repeated: (N,) float32 of samples, or a `HeldClip` of these."""
    length = max(len(clip), len(other))
    if isinstance(clip, HeldClip):
        return HeldClip(clip.index, length, other.index)
    return np.resize(as_floats(clip), length) + np.resize(as_floats(other), length)


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Numbers of the CPU's, without waiting for what a GPU has to do before."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def as_floats(samples: np.ndarray) -> np.ndarray:
    """(N,) int16 or float32 samples as float32, in which 1 is full scale."""
    return samples * np.float32(2**-15) if samples.dtype == np.int16 else samples


def message_of(buffers: SharedBuffers, batch: Batch) -> Message:
    """A worker's batch, as it is sent to the main process."""
    inputs, *small = batch
    sent: torch.Tensor | Message
    assert not isinstance(inputs, Held), "workers hold nothing"
    if isinstance(inputs, Samples):
        sent = Message(Samples, (buffers.message(inputs.samples), inputs.lengths, inputs.views))
    else:
        sent = buffers.message(inputs)
    # The others go as bytes: PyTorch would make shared memory for them, and open a connection to hand it over.
    return Message(Batch, (sent, *(one if one is None else Message(torch.from_numpy, (one.numpy(),)) for one in small)))


def unchanged(batch: Any) -> Any:
    """Without workers: data sets make whole batches."""
    return batch
