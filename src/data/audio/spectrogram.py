"""Samples -> (F, T) features, in dB or in deviations from a training set's mean.

F is the number of frequency bins or mel bands, T the number of frames: 1 + N // hop, as far as
whole windows fit (with an odd n_fft, the last one does not where N is a multiple of the hop).
"""

import math
import warnings
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import scipy.fft

from src.config.sections import AudioConfig
from src.errors import UserError

MEL_BANDS = 96


@dataclass(frozen=True)
class FeatureExtractor:
    """Log spectrograms. Computed in the samples' own precision: float32 is what training uses.

    spectrogram, melspectrogram: with a clip's mean removed, as librosa 0.8 and the published code made them.
    logmel: 10 · log10(max(power, 1e-10)) of Slaney's mel bands, each of area 1, as torchaudio's `MelSpectrogram` makes
    them with `norm` and `mel_scale` "slaney". `mean` is taken off, and the rest is divided by `std`.
    """

    feature: str  # "spectrogram", "melspectrogram" or "logmel"
    n_fft: int  # samples
    hop_len: int  # samples
    win_len: int  # samples
    sample_rate: int  # Hz
    n_mels: int = MEL_BANDS
    f_min: float = 0.0  # Hz
    f_max: float | None = None  # Hz, or half of the sample rate
    mean: float | None = None  # dB, or None for logmel as it is
    std: float | None = None  # dB

    @classmethod
    def of(cls, audio: AudioConfig) -> "FeatureExtractor":
        """The extractor that a configuration asks for.

        Raises:
            UserError: a band of logmel holds no bin.
        """
        same = {spec.name: getattr(audio, spec.name) for spec in fields(cls)}
        extractor = cls(**same | {"n_mels": audio.n_mels or MEL_BANDS})
        if audio.feature == "logmel" and not extractor.mel_filters.any(axis=0).all():
            raise UserError(
                f"audio_config.n_mels: is {audio.n_mels}, and some of these bands are too narrow to hold a bin of "
                f"n_fft {audio.n_fft} from f_min to f_max. Choose fewer bands, wider limits or a longer n_fft"
            )
        return extractor

    @property
    def num_bins(self) -> int:
        """F."""
        return 1 + self.n_fft // 2 if self.feature == "spectrogram" else self.n_mels

    @property
    def frequencies(self) -> np.ndarray:
        """(F,) Hz at the middle of each bin or band."""
        if self.feature == "spectrogram":
            return np.arange(self.num_bins) * self.sample_rate / self.n_fft
        # Slaney's mels (Auditory Toolbox, 1998) are even up to 1000 Hz, which is 15 mels, and logarithmic above.
        low, top = (
            hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000, 6.4)
            for hertz in (self.f_min, self.f_max or self.sample_rate / 2)
        )
        mels = low + (top - low) * np.arange(1, self.n_mels + 1) / (self.n_mels + 1)
        return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))

    @property
    def dynamic_range(self) -> float:
        """dB below a clip's maximum, where the floor is. It is never below -100 dB."""
        return {"spectrogram": 150, "melspectrogram": 80, "logmel": math.inf}[self.feature]

    def num_frames(self, num_samples: int) -> int:
        """T of a clip of N samples."""
        return 1 + (num_samples + 2 * (self.n_fft // 2) - self.n_fft) // self.hop_len

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(N,) samples -> (F, T), contiguous.

        Floats in [-1, 1) give features of the same dtype. 16-bit integers stand for their 32768th part, and give
        float32.
        """
        return self.scratch(samples).copy()

    def scratch(self, samples: np.ndarray) -> np.ndarray:
        """The same, in memory that the next call writes into again: to be copied from at once, not to be kept.

        Memory of this size, asked for anew for each clip, would cost as much time as the arithmetic does.
        """
        levels, per_decade = self._magnitude(samples), 20  # (n_fft // 2 + 1, T), dB of a factor of ten
        if self.feature != "spectrogram":
            levels, per_decade = _filters(self, levels.dtype) @ np.square(levels), 10  # (n_mels, T) of power
        # The floors at -100 dB and below the maximum, set before the logarithm. With an upper limit, clip takes half of
        # the time that maximum takes.
        floor = max(10 ** (-100 / per_decade), levels.max() * 10 ** (-self.dynamic_range / per_decade))
        decibels = np.clip(levels, floor, np.inf, out=levels)
        np.log10(decibels, out=decibels)
        decibels *= per_decade
        if self.feature == "logmel":
            if self.mean is not None:
                decibels -= self.mean
                decibels /= self.std
            return decibels
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
        """(n_fft // 2 + 1, n_mels) Slaney filters, as librosa's default."""
        import torchaudio.functional  # here, because plain spectrograms need not wait for it

        bins, highest = 1 + self.n_fft // 2, self.f_max or self.sample_rate / 2  # Hz
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty bands, which `of` refuses
            filters = torchaudio.functional.melscale_fbanks(
                bins, self.f_min, highest, self.n_mels, self.sample_rate, norm="slaney", mel_scale="slaney"
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


@lru_cache(maxsize=2)
def _filters(extractor: FeatureExtractor, dtype: np.dtype) -> Any:
    """(n_mels, n_fft // 2 + 1) mel filters."""
    filters = extractor.mel_filters.T.astype(dtype)
    if extractor.feature == "melspectrogram":
        return filters  # dense, so that its last bits stay as they were
    import scipy.sparse  # here, as above. Nearly all is zero, and no threads of a BLAS are in the way of other workers

    return scipy.sparse.csr_array(filters)


def reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Where a signal of some length, reflected at both ends for ever, has its sample `index`."""
    period = max(2 * (length - 1), 1)
    index = index % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)
