"""Samples -> (F, T) features in dB.

F is the number of frequency bins or mel bands, T the number of frames: 1 + N // hop, as far as
whole windows fit (with an odd n_fft, the last one does not where N is a multiple of the hop).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft

from src.config import AudioConfig

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
    def of(cls, audio: AudioConfig) -> FeatureExtractor:
        """The extractor that a configuration asks for."""
        return cls(audio.feature, audio.n_fft, audio.hop_len, audio.win_len, audio.sample_rate)

    @property
    def num_bins(self) -> int:
        """F."""
        return MEL_BANDS if self.feature == "melspectrogram" else 1 + self.n_fft // 2

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(N,) float samples in [-1, 1) -> (F, T) in dB, of the same dtype, contiguous."""
        magnitude = self._magnitude(samples)  # (T, n_fft // 2 + 1)
        if self.feature == "melspectrogram":
            power = magnitude**2 @ self._mel_filters.astype(samples.dtype)  # (T, 96)
            decibels = 10 * np.log10(np.maximum(power, 1e-10))
            decibels = np.maximum(decibels, decibels.max() - 80)
        else:
            decibels = 20 * np.log10(np.maximum(magnitude, 1e-5))
            decibels = np.maximum(decibels, decibels.max() - 150)
        decibels += 75
        decibels -= decibels.mean(dtype=np.float64)
        return np.ascontiguousarray(decibels.T)  # (F, T)

    def _magnitude(self, samples: np.ndarray) -> np.ndarray:
        """(N,) -> (T, n_fft // 2 + 1): centred frames, reflected at both ends."""
        padded = np.pad(samples, self.n_fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft)[:: self.hop_len]  # (T, n_fft)
        return np.abs(scipy.fft.rfft(frames * self._window.astype(samples.dtype), axis=1))

    @cached_property
    def _window(self) -> np.ndarray:
        """Periodic Hann window of win_len, zero-padded on both sides to n_fft."""
        window = np.hanning(self.win_len + 1)[:-1]
        left = (self.n_fft - self.win_len) // 2
        return np.pad(window, (left, self.n_fft - self.win_len - left))

    @cached_property
    def _mel_filters(self) -> np.ndarray:
        """(n_fft // 2 + 1, 96) Slaney filters, as librosa's default."""
        import torchaudio.functional  # here, because plain spectrograms need not wait for it

        return torchaudio.functional.melscale_fbanks(
            1 + self.n_fft // 2, 0.0, self.sample_rate / 2, MEL_BANDS, self.sample_rate, norm="slaney",
            mel_scale="slaney",
        ).double().numpy()
