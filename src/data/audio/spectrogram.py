"""Samples -> (F, T) features in dB.

F is the number of frequency bins or mel bands, T the number of frames: 1 + N // hop, as far as
whole windows fit (with an odd n_fft, the last one does not where N is a multiple of the hop).
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.fft

from src.config.sections import AudioConfig

MEL_BANDS = 96


@dataclass(frozen=True)
class FeatureExtractor:
    """Log spectrograms with their mean removed, as librosa 0.8 and the published code made them.

    Computed in the samples' own precision: float64 gives the golden values to 1e-4 dB, float32 is
    what training uses.
    """

    feature: str  # "spectrogram" or "melspectrogram"
    n_fft: int  # samples
    hop_len: int  # samples
    win_len: int  # samples
    sample_rate: int  # Hz

    @classmethod
    def of(cls, audio: AudioConfig) -> "FeatureExtractor":
        """The extractor that a configuration asks for."""
        return cls(audio.feature, audio.n_fft, audio.hop_len, audio.win_len, audio.sample_rate)

    @property
    def num_bins(self) -> int:
        """F."""
        return MEL_BANDS if self.feature == "melspectrogram" else 1 + self.n_fft // 2

    @property
    def frequencies(self) -> np.ndarray:
        """(F,) Hz at the middle of each bin or band."""
        if self.feature != "melspectrogram":
            return np.arange(self.num_bins) * self.sample_rate / self.n_fft
        highest = self.sample_rate / 2
        # Slaney's mels (Auditory Toolbox, 1998) are even up to 1000 Hz, which is 15 mels, and logarithmic above.
        top = highest * 3 / 200 if highest < 1000 else 15 + 27 * math.log(highest / 1000, 6.4)
        mels = top * np.arange(1, MEL_BANDS + 1) / (MEL_BANDS + 1)
        return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))

    @property
    def dynamic_range(self) -> int:
        """dB below a clip's maximum, where the floor is."""
        return 80 if self.feature == "melspectrogram" else 150

    def num_frames(self, num_samples: int) -> int:
        """T of a clip of N samples."""
        return 1 + (num_samples + 2 * (self.n_fft // 2) - self.n_fft) // self.hop_len

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(N,) samples -> (F, T) in dB, contiguous.

        Floats in [-1, 1) give features of the same dtype. 16-bit integers stand for their 32768th part, and give
        float32.
        """
        return self.scratch(samples).copy()

    def scratch(self, samples: np.ndarray) -> np.ndarray:
        """The same, in memory that the next call writes into again: to be copied from at once, not to be kept.

        Memory of this size, asked for anew for each clip, would cost as much time as the arithmetic does.
        """
        levels, per_decade = self._magnitude(samples), 20  # (n_fft // 2 + 1, T), dB of a factor of ten
        if self.feature == "melspectrogram":
            levels, per_decade = self.mel_filters.T.astype(levels.dtype) @ np.square(levels), 10  # (96, T) of power
        # The floors at -100 dB and below the maximum, set before the logarithm. With an upper limit, clip takes half of
        # the time that maximum takes.
        floor = max(10 ** (-100 / per_decade), levels.max() * 10 ** (-self.dynamic_range / per_decade))
        decibels = np.clip(levels, floor, np.inf, out=levels)
        np.log10(decibels, out=decibels)
        decibels *= per_decade
        # The published + 75 dB does not survive this. NumPy's own mean takes nearly three times as long.
        decibels -= np.einsum("ft->", decibels) / decibels.size
        return decibels

    def _magnitude(self, samples: np.ndarray) -> np.ndarray:
        """(N,) -> (n_fft // 2 + 1, T), of the spectra of centred frames, reflected at both ends."""
        space = _workspace(self, len(samples), samples.dtype)
        left, middle, right = space.parts
        middle[:] = samples
        left[:], right[:] = middle[space.reflections[0]], middle[space.reflections[1]]
        np.multiply(space.frames, space.window, out=space.windowed)
        # Along the other axis of a view: what comes out needs no transposition any more.
        return np.abs(scipy.fft.rfft(space.windowed.T, axis=0), out=space.magnitude)

    @cached_property
    def window(self) -> np.ndarray:
        """Periodic Hann window of win_len, zero-padded on both sides to n_fft."""
        window = np.hanning(self.win_len + 1)[:-1]
        left = (self.n_fft - self.win_len) // 2
        return np.pad(window, (left, self.n_fft - self.win_len - left))

    @cached_property
    def mel_filters(self) -> np.ndarray:
        """(n_fft // 2 + 1, 96) Slaney filters, as librosa's default."""
        import torchaudio.functional  # here, because plain spectrograms need not wait for it

        bins, highest = 1 + self.n_fft // 2, self.sample_rate / 2  # Hz
        filters = torchaudio.functional.melscale_fbanks(
            bins, 0.0, highest, MEL_BANDS, self.sample_rate, norm="slaney", mel_scale="slaney"
        )
        return filters.double().numpy()


class Workspace:
    """Memory for one clip at a time, of N samples of a type."""

    def __init__(self, extractor: FeatureExtractor, num_samples: int, samples_dtype: np.dtype):
        n_fft, margin = extractor.n_fft, extractor.n_fft // 2
        dtype = np.dtype(np.float32) if samples_dtype == np.int16 else samples_dtype
        padded = np.empty(num_samples + 2 * margin, dtype)
        self.parts = padded[:margin], padded[margin : margin + num_samples], padded[margin + num_samples :]
        before, behind = np.arange(-margin, 0), np.arange(num_samples, num_samples + margin)
        self.reflections = reflected(before, num_samples), reflected(behind, num_samples)
        self.frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: extractor.hop_len]  # (T, n_fft)
        # The window takes 16-bit integers to [-1, 1) on the way.
        self.window = (extractor.window * (2**-15 if samples_dtype == np.int16 else 1)).astype(dtype)
        self.windowed = np.empty(self.frames.shape, dtype)  # (T, n_fft)
        self.magnitude = np.empty((n_fft // 2 + 1, len(self.frames)), dtype)  # (n_fft // 2 + 1, T)


_workspace = lru_cache(maxsize=2)(Workspace)  # clips of a data set are alike


def reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Where a signal of some length, reflected at both ends for ever, has its sample `index`."""
    period = max(2 * (length - 1), 1)
    index = index % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)
