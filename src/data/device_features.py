"""Samples of a whole batch -> what the network sees of it, where the network is.

The arithmetic is that of src/data/audio/spectrogram.py and the views are those of src/data/transforms.py,
batched in PyTorch. Loader workers then only decode. Both forms of the features stay: on a CPU the NumPy form
takes 0.64 ms of a core for each clip, this one 1.6 ms. On a GPU this one spares the workers that time.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from src.data.audio.spectrogram import FeatureExtractor, reflected
from src.data.batching import Held, Samples, on_device
from src.data.transforms import View
from src.errors import UserError

Features = Literal["auto", "device", "workers"]


def makes_features(device: torch.device, features: Features, precomputed: bool) -> bool:
    """Whether spectrograms are to be made on the network's device.

    Args:
        precomputed: the data set keeps them in memory.

    Raises:
        UserError: they are to be, but are kept in memory.
    """
    if precomputed and features == "device":
        raise UserError(
            "--features device: audio_config.precompute_features keeps spectrograms in memory, which are not made "
            "on the device. Leave out one of the two"
        )
    return not precomputed and (features == "device" or (features == "auto" and device.type != "cpu"))


class DeviceFeatures:
    """Makes the inputs of a network.

    Args:
        extractor: of the same features, clip by clip.
    """

    def __init__(self, extractor: FeatureExtractor):
        self.extractor = extractor
        self._constants: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.no_grad()
    def __call__(self, batch: torch.Tensor | Samples | Held) -> torch.Tensor:
        """(B, 1, F, T) float32 on the batch's device. Shorter views are zero-padded on the right."""
        if isinstance(batch, torch.Tensor):
            return batch
        if isinstance(batch, Held):
            batch = batch.samples()
        sizes = [view.size for view in batch.views]
        kinds = sorted(set(zip(batch.lengths, sizes)))  # mostly one length and one size
        if len(kinds) == 1:
            return views_of(self.spectrograms(batch.samples), list(batch.views))[:, None]
        inputs = batch.samples.new_zeros((len(sizes), 1, self.extractor.num_bins, max(sizes)), dtype=torch.float32)
        for length, size in kinds:
            rows = [row for row in range(len(sizes)) if (batch.lengths[row], sizes[row]) == (length, size)]
            spectrograms = self.spectrograms(batch.samples[rows, :length])
            inputs[rows, 0, :, :size] = views_of(spectrograms, [batch.views[row] for row in rows])
        return inputs

    def spectrograms(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, N) int16, or float32 in [-1, 1), -> (B, F, T) float32, as of `FeatureExtractor`."""
        extractor, (window, mel_filters) = self.extractor, self._constants_on(samples.device)
        floats = samples * 2.0**-15 if samples.dtype == torch.int16 else samples
        margin, length = extractor.n_fft // 2, samples.shape[1]
        places = _reflected_places(margin, length, samples.device)
        frames = floats[:, places].unfold(1, extractor.n_fft, extractor.hop_len)  # (B, T, n_fft)
        power = torch.view_as_real(torch.fft.rfft(frames * window)).square().sum(dim=-1)  # (B, T, n_fft // 2 + 1)
        return of_power(extractor, power, mel_filters)

    def _constants_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if device not in self._constants:
            filters = np.empty(0) if self.extractor.feature == "spectrogram" else self.extractor.mel_filters
            window, mel_filters = torch.from_numpy(self.extractor.window), torch.from_numpy(filters)
            self._constants[device] = window.to(device, torch.float32), mel_filters.to(device, torch.float32)
        return self._constants[device]


def of_power(extractor: FeatureExtractor, power: torch.Tensor, mel_filters: torch.Tensor) -> torch.Tensor:
    """(B, T, n_fft // 2 + 1) power of spectra -> (B, F, T) features.

    Args:
        mel_filters: (n_fft // 2 + 1, n_mels), not used for plain spectrograms.
    """
    if extractor.feature != "spectrogram":
        power = power @ mel_filters  # (B, T, n_mels)
    floor = (power.amax(dim=(1, 2), keepdim=True) * 10 ** (-extractor.dynamic_range / 10)).clamp(min=1e-10)
    decibels = 10 * torch.log10(torch.maximum(power, floor))
    if extractor.feature != "logmel":
        decibels = decibels - decibels.mean(dim=(1, 2), keepdim=True)
    elif extractor.mean is not None and extractor.std is not None:
        decibels = (decibels - extractor.mean) / extractor.std
    return decibels.transpose(1, 2)  # (B, F, T)


@lru_cache(maxsize=8)
def _reflected_places(margin: int, length: int, device: torch.device) -> torch.Tensor:
    return on_device(torch.from_numpy(reflected(np.arange(-margin, length + margin), length)), device)


def views_of(spectrograms: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """(B, F, T) -> (B, F, size), of views of one size."""
    device, size = spectrograms.device, views[0].size
    num_bins, num_frames = spectrograms.shape[1:]
    numbers = torch.tensor([(view.first, view.roll, view.shift, view.wrap) for view in views])
    first, roll, shift, wrap = on_device(numbers, device).T[..., None]  # (B, 1) each
    frames = first + torch.arange(size, device=device)  # (B, size)
    seen = spectrograms.gather(2, ((frames + roll) % num_frames)[:, None].expand(-1, num_bins, -1))  # (B, F, size)
    outside = ((frames < 0) | (frames >= num_frames)) & (wrap == 0)  # (B, size)
    seen = torch.where(outside[:, None], spectrograms.amin(dim=(1, 2), keepdim=True), seen)
    minimum, masked = seen.amin(dim=(1, 2), keepdim=True), in_bands(views, num_bins, size, device)
    if any(view.shift for view in views):
        rows = torch.arange(num_bins, device=device) - shift  # (B, F)
        seen = seen.gather(1, rows.clamp(0, num_bins - 1)[..., None].expand(-1, -1, size))
        masked |= ((rows < 0) | (rows >= num_bins))[..., None]
    seen = torch.where(masked, minimum, seen)
    if any(view.gain for view in views):
        seen += on_device(torch.tensor([view.gain for view in views], dtype=seen.dtype), device)[:, None, None]
    return seen


def in_bands(views: Sequence[View], num_bins: int, size: int, device: torch.device) -> torch.Tensor:
    """(B, F, size) bool: what the views' bands cover."""
    rows, columns = np.zeros((len(views), num_bins, 1), bool), np.zeros((len(views), 1, size), bool)
    for view, in_row, in_column in zip(views, rows, columns):
        for band in view.bands:
            in_row[band.row : band.row + band.rows] = True
            in_column[:, band.column : band.column + band.columns] = True
    return on_device(torch.from_numpy(rows), device) | on_device(torch.from_numpy(columns), device)
