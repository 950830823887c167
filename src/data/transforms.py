"""Pad, crop, SpecAugment, and the two chains made of them.

Drawing and applying are two steps. A transform maps a view of a spectrogram to another view, with random draws from a
NumPy generator. A view knows nothing but the spectrogram's size, so that draws can be made where no spectrogram is. It
is then applied to a spectrogram: here to one in NumPy, in src/data/device_features.py to a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np


class Bands(NamedTuple):
    """A band of rows and one of columns that are set to the minimum."""

    row: int
    rows: int
    column: int
    columns: int


@dataclass(frozen=True)
class View:
    """Which part of an (F, T) spectrogram is seen, and how: column j is frame `first` + j of the clip.

    Frames before 0 and from T on are those of the clip repeated, or its minimum. Bands of rows and columns, counted in
    the view, are set to the view's minimum.
    """

    num_bins: int  # F
    num_frames: int  # T
    first: int
    size: int  # columns
    wrap: bool = True
    bands: tuple[Bands, ...] = ()

    @classmethod
    def whole(cls, num_bins: int, num_frames: int) -> "View":
        """All of a spectrogram."""
        return cls(num_bins, num_frames, 0, num_frames)

    def of(self, spectrogram: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(F, T) -> (F, size), into `out` where it is given."""
        if out is None:
            out = np.empty((self.num_bins, self.size), spectrogram.dtype)
        if 0 <= self.first and self.first + self.size <= self.num_frames:
            out[:] = spectrogram[:, self.first : self.first + self.size]
        else:
            frames = np.arange(self.first, self.first + self.size)
            out[:] = spectrogram[:, frames % self.num_frames]
            if not self.wrap:
                out[:, (frames < 0) | (frames >= self.num_frames)] = spectrogram.min()
        if self.bands:
            minimum = out.min()
            for row, rows, column, columns in self.bands:
                out[row : row + rows] = minimum
                out[:, column : column + columns] = minimum
        return out


class Transform:
    """Maps a view to another one. Called with an (F, T) spectrogram, it gives what is seen of it."""

    def view(self, view: View, rng: np.random.Generator) -> View:
        """The view of this view."""
        raise NotImplementedError

    def __call__(self, spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.view(View.whole(*spectrogram.shape), rng).of(spectrogram)


@dataclass(frozen=True)
class Compose(Transform):
    """One transform after the other."""

    transforms: Sequence[Transform]

    def view(self, view: View, rng: np.random.Generator) -> View:
        for transform in self.transforms:
            view = transform.view(view, rng)
        return view


@dataclass(frozen=True)
class OneOf(Transform):
    """One of several transforms, each as likely."""

    transforms: Sequence[Transform]

    def view(self, view: View, rng: np.random.Generator) -> View:
        return self.transforms[int(rng.integers(len(self.transforms)))].view(view, rng)


@dataclass(frozen=True)
class UseWithProb(Transform):
    """A transform with probability `prob`, otherwise nothing."""

    transform: Transform
    prob: float = 0.5

    def view(self, view: View, rng: np.random.Generator) -> View:
        return self.transform.view(view, rng) if rng.random() < self.prob else view


@dataclass(frozen=True)
class PadToSize(Transform):
    """Pad a whole clip to `size` frames, p // 2 of them on the left, by wrapping round or with its minimum."""

    size: int
    mode: Literal["wrap", "constant"] = "wrap"

    def view(self, view: View, rng: np.random.Generator) -> View:
        padding = self.size - view.size
        if padding <= 0:
            return view
        return replace(view, first=view.first - padding // 2, size=view.size + padding, wrap=self.mode == "wrap")


@dataclass(frozen=True)
class RandomCrop(Transform):
    """`size` frames from a uniformly random start."""

    size: int

    def view(self, view: View, rng: np.random.Generator) -> View:
        start = int(rng.integers(max(view.size - self.size, 0) + 1))
        return replace(view, first=view.first + start, size=min(view.size, self.size))


@dataclass(frozen=True)
class CenterCrop(Transform):
    """`size` frames from (T - size) // 2."""

    size: int

    def view(self, view: View, rng: np.random.Generator) -> View:
        start = max(view.size - self.size, 0) // 2
        return replace(view, first=view.first + start, size=min(view.size, self.size))


@dataclass(frozen=True)
class SpecAugment(Transform):
    """Bands of rows and of columns set to the minimum (Park et al., 2019, arXiv 1904.08779).

    One or two times, a band of int(U(0, freq_masking) · F) rows and one of
    int(U(0, time_masking) · T) columns.
    """

    freq_masking: float = 0.15
    time_masking: float = 0.20

    def view(self, view: View, rng: np.random.Generator) -> View:
        bands = []
        for _ in range(rng.integers(1, 3)):
            rows = int(rng.uniform(0, self.freq_masking) * view.num_bins)
            row = int(rng.integers(view.num_bins - rows + 1))
            columns = int(rng.uniform(0, self.time_masking) * view.size)
            column = int(rng.integers(view.size - columns + 1))
            bands.append(Bands(row, rows, column, columns))
        return replace(view, bands=(*view.bands, *bands))


def training_chain(size: int) -> Transform:
    """Pad (wrapped or with the minimum, half the time each), random crop, SpecAugment half the time."""
    padding = OneOf((PadToSize(size, "wrap"), PadToSize(size, "constant")))
    return Compose((padding, RandomCrop(size), UseWithProb(SpecAugment(), 0.5)))


def evaluation_chain(size: int, crop: bool = True) -> Transform:
    """Pad by wrapping, then take the centre `size` frames. ESC-50's validation only pads (`crop=False`)."""
    return Compose((PadToSize(size, "wrap"), CenterCrop(size)) if crop else (PadToSize(size, "wrap"),))
