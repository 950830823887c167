"""Pad, crop, SpecAugment, other changes of a spectrogram, and the two chains made of them.

Drawing and applying are two steps. A transform maps a view of a spectrogram to another view, with random draws from a
NumPy generator. A view knows nothing but the spectrogram's size, so that draws can be made where no spectrogram is. It
is then applied to a spectrogram: here to one in NumPy, in src/data/device_features.py to a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from src.config.sections import PUBLISHED_AUGMENT, AugmentConfig


class Bands(NamedTuple):
    """A band of rows and one of columns that are set to the minimum."""

    row: int
    rows: int
    column: int
    columns: int


@dataclass(frozen=True)
class View:
    """Which part of an (F, T) spectrogram is seen, and how. What is done to it comes in this order:

    1. The clip is turned round in time: its frame 0 is frame `roll` of the spectrogram.
    2. Column j is frame `first` + j. Frames before 0 and from T on are those of the clip repeated, or its minimum.
    3. All rows move up by `shift`, or down if it is negative. Rows that become free get the minimum of step 2.
    4. Bands of rows and columns, counted in the view, are set to that minimum.
    5. `gain` is added to everything, to floor and minimum too.
    """

    num_bins: int  # F
    num_frames: int  # T
    first: int
    size: int  # columns
    wrap: bool = True
    bands: tuple[Bands, ...] = ()
    roll: int = 0  # frames
    shift: int = 0  # rows
    gain: float = 0.0  # in the unit of the spectrogram

    @classmethod
    def whole(cls, num_bins: int, num_frames: int) -> "View":
        """All of a spectrogram."""
        return cls(num_bins, num_frames, 0, num_frames)

    def shown(self) -> np.ndarray:
        """(size,) of each column, the spectrogram's frame, or -1 where nothing of the clip is left."""
        frames = self.first + np.arange(self.size)
        found = (frames + self.roll) % self.num_frames
        if not self.wrap:
            found[(frames < 0) | (frames >= self.num_frames)] = -1
        for band in self.bands:
            found[band.column : band.column + band.columns] = -1
        return found

    def of(self, spectrogram: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(F, T) -> (F, size), into `out` where it is given."""
        if out is None:
            out = np.empty((self.num_bins, self.size), spectrogram.dtype)
        column, frame = 0, (self.first + self.roll) % self.num_frames
        while column < self.size:  # up to the clip's end, and from its start again
            run = spectrogram[:, frame : frame + self.size - column]
            out[:, column : column + run.shape[1]] = run
            column, frame = column + run.shape[1], 0
        if not self.wrap:
            out[:, : max(-self.first, 0)] = out[:, max(self.num_frames - self.first, 0) :] = spectrogram.min()
        if self.shift or self.bands:
            minimum = out.min()
            if self.shift > 0:
                out[self.shift :] = out[: -self.shift]
                out[: self.shift] = minimum
            elif self.shift < 0:
                out[: self.shift] = out[-self.shift :]
                out[self.shift :] = minimum
            for row, rows, column, columns in self.bands:
                out[row : row + rows] = minimum
                out[:, column : column + columns] = minimum
        if self.gain:
            out += self.gain
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


@dataclass(frozen=True)
class Roll(Transform):
    """Turn the clip round in time, by each number of frames as likely (Schmid et al., 2022, arXiv 2211.04772)."""

    def view(self, view: View, rng: np.random.Generator) -> View:
        return replace(view, roll=int(rng.integers(view.num_frames)))


@dataclass(frozen=True)
class Shift(Transform):
    """Move all rows up or down, by each number from 0 to `most` as likely."""

    most: int  # rows

    def view(self, view: View, rng: np.random.Generator) -> View:
        return replace(view, shift=int(rng.integers(-self.most, self.most + 1)))


@dataclass(frozen=True)
class Gain(Transform):
    """Make the clip louder or softer, uniformly in dB."""

    most: float  # dB
    unit: float  # dB, of the spectrogram

    def view(self, view: View, rng: np.random.Generator) -> View:
        return replace(view, gain=rng.uniform(-self.most, self.most) / self.unit)


def training_chain(size: int, augment: AugmentConfig = PUBLISHED_AUGMENT, unit: float = 1.0) -> Transform:
    """Pad (wrapped or with the minimum, half the time each), random crop, SpecAugment, and what else `augment` says.

    Draws that are made for every clip come first, so that they are the same with and without the others.

    Args:
        size: frames of the crop.
        unit: dB, of the spectrograms' values.
    """
    padding = OneOf((PadToSize(size, "wrap"), PadToSize(size, "constant")))
    masks = UseWithProb(SpecAugment(augment.freq_mask, augment.time_mask), augment.mask_prob)
    more: list[tuple[float, Transform]] = [
        (augment.roll, Roll()),
        (augment.freq_shift, Shift(augment.freq_shift)),
        (augment.gain, Gain(augment.gain, unit)),
    ]
    return Compose((padding, RandomCrop(size), masks, *(transform for wanted, transform in more if wanted)))


def evaluation_chain(size: int, crop: bool = True) -> Transform:
    """Pad by wrapping, then take the centre `size` frames. ESC-50's validation only pads (`crop=False`)."""
    return Compose((PadToSize(size, "wrap"), CenterCrop(size)) if crop else (PadToSize(size, "wrap"),))
