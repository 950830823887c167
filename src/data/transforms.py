"""Pad, crop, SpecAugment, and the two chains made of them.

A transform takes an (F, T) spectrogram and a NumPy generator, and returns an (F, T') one. All its
random draws come from that generator, so a clip's draws are those of its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Compose:
    """One transform after the other."""

    transforms: Sequence[Transform]

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            spectrogram = transform(spectrogram, rng)
        return spectrogram


@dataclass(frozen=True)
class OneOf:
    """One of several transforms, each as likely."""

    transforms: Sequence[Transform]

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.transforms[rng.integers(len(self.transforms))](spectrogram, rng)


@dataclass(frozen=True)
class UseWithProb:
    """A transform with probability `prob`, otherwise nothing."""

    transform: Transform
    prob: float = 0.5

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.transform(spectrogram, rng) if rng.random() < self.prob else spectrogram


@dataclass(frozen=True)
class PadToSize:
    """Pad to `size` frames, p // 2 of them on the left, by wrapping round or with the minimum."""

    size: int
    mode: Literal["wrap", "constant"] = "wrap"

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        padding = self.size - spectrogram.shape[1]
        if padding <= 0:
            return spectrogram
        widths = ((0, 0), (padding // 2, padding - padding // 2))
        if self.mode == "constant":
            return np.pad(spectrogram, widths, mode="constant", constant_values=spectrogram.min())
        return np.pad(spectrogram, widths, mode="wrap")


@dataclass(frozen=True)
class RandomCrop:
    """`size` frames from a uniformly random start."""

    size: int

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        start = rng.integers(max(spectrogram.shape[1] - self.size, 0) + 1)
        return spectrogram[:, start : start + self.size]


@dataclass(frozen=True)
class CenterCrop:
    """`size` frames from (T - size) // 2."""

    size: int

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        start = max(spectrogram.shape[1] - self.size, 0) // 2
        return spectrogram[:, start : start + self.size]


@dataclass(frozen=True)
class SpecAugment:
    """Bands of rows and of columns set to the minimum (Park et al., 2019, arXiv 1904.08779).

    One or two times, a band of int(U(0, freq_masking) · F) rows and one of
    int(U(0, time_masking) · T) columns.
    """

    freq_masking: float = 0.15
    time_masking: float = 0.20

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        masked = spectrogram.copy()
        minimum = spectrogram.min()
        num_bins, num_frames = spectrogram.shape
        for _ in range(rng.integers(1, 3)):
            rows = int(rng.uniform(0, self.freq_masking) * num_bins)
            first = rng.integers(num_bins - rows + 1)
            masked[first : first + rows] = minimum
            columns = int(rng.uniform(0, self.time_masking) * num_frames)
            first = rng.integers(num_frames - columns + 1)
            masked[:, first : first + columns] = minimum
        return masked


def training_chain(size: int) -> Transform:
    """Pad (wrapped or with the minimum, half the time each), random crop, SpecAugment half the time."""
    return Compose((
        OneOf((PadToSize(size, "wrap"), PadToSize(size, "constant"))),
        RandomCrop(size),
        UseWithProb(SpecAugment(), 0.5),
    ))


def evaluation_chain(size: int, crop: bool = True) -> Transform:
    """Pad by wrapping, then the centre `size` frames; ESC-50's validation pads only (`crop=False`)."""
    return Compose((PadToSize(size, "wrap"), CenterCrop(size)) if crop else (PadToSize(size, "wrap"),))
