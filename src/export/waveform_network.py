"""A tagger as one network of PyTorch operations: waveforms -> probabilities, for an export to ONNX.

The features are those of src/data/audio/spectrogram.py, as sums over a window's samples: ONNX Runtime's own Fourier
transform is slow. N is the number of samples, T of frames, K of bins: n_fft // 2 + 1.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from src.data.device_features import of_power
from src.models.last_layer import outputs
from src.tagging.tagger import Tagger

BUFFERS = ("cosines", "sines", "mel_filters")  # of `WaveformNetwork`, which need all of their bits


class WaveformNetwork(nn.Module):
    """(B, N) float32 samples in [-1, 1) -> (B, C) probabilities, and of a network of events (B, J, C) of its frames.

    A spectrum's power is |Σ w[j] · x[j] · exp(2πi · k · (win_len / 2 - j) / n_fft)|². The window w is the same from
    both ends. So x[j] + x[win_len - j] meets the cosine, and x[j] - x[win_len - j] the sine, with half of the products.
    Sums are of 64 bits: what holds nothing but rounding errors is then as NumPy has it. Log-mels are not that fine.

    Args:
        tagger: on the CPU.
    """

    cosines: torch.Tensor  # (win_len // 2, K)
    sines: torch.Tensor  # (win_len // 2, K)
    mel_filters: torch.Tensor  # (K, n_mels)
    pairs: torch.Tensor  # (2, win_len // 2), where in a frame the samples of each pair are

    def __init__(self, tagger: Tagger):
        super().__init__()
        self.network, self.task, self.temperature = tagger.network.network, tagger.task, tagger.temperature
        self.features = features = tagger.features
        n_fft, length = features.n_fft, features.win_len
        left = (n_fft - length) // 2
        j = np.arange(1, length // 2 + 1)  # the window is 0 at 0, and its middle is a pair of its own
        window = features.window[left + j] * np.where(2 * j == length, 0.5, 1)
        turns = np.arange(n_fft // 2 + 1)[:, None] * (length - 2 * j) % (2 * n_fft) / (2 * n_fft)  # (K, win_len // 2)
        filters = np.empty(0) if features.feature == "spectrogram" else features.mel_filters
        constants = (window * np.cos(2 * np.pi * turns)).T, (window * np.sin(2 * np.pi * turns)).T, filters
        for name, constant in zip(BUFFERS, constants):
            self.register_buffer(name, torch.from_numpy(constant).float())
        self.register_buffer("pairs", torch.from_numpy(np.stack([left + j, left + length - j])))

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = self.inputs(waveform)
        said = outputs(self.network, inputs)
        probabilities = self.task.probabilities(self.task.clip_logits(said), self.temperature)
        return (probabilities, said.sigmoid()) if said.ndim == 3 else (probabilities,)

    def inputs(self, waveform: torch.Tensor) -> torch.Tensor:
        """(B, N) -> (B, 1, F, T), what the network sees in evaluation: of log-mels all T, else N // hop."""
        features, margin = self.features, self.features.n_fft // 2
        kind = torch.float32 if features.feature == "logmel" else torch.float64
        padded = functional.pad(waveform[:, None], (margin, margin), mode="reflect")[:, 0].to(kind)
        starts = torch.arange(0, padded.shape[1] - features.n_fft + 1, features.hop_len)[:, None]  # (T, 1)
        one, other = padded[:, starts + self.pairs[0]], padded[:, starts + self.pairs[1]]  # (B, T, win_len // 2)
        real, imaginary = (one + other) @ self.cosines.to(kind), (one - other) @ self.sines.to(kind)  # (B, T, K)
        found = of_power(features, (real.square() + imaginary.square()).float(), self.mel_filters)[:, None]
        return found if features.feature == "logmel" else found[..., : waveform.shape[1] // features.hop_len]
