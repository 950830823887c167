"""Examples -> one batch: (B, 1, F, T) float32 and targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def collate(examples: Sequence[tuple[np.ndarray, np.ndarray | int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack (F, T) spectrograms, the shorter ones zero-padded on the right to the longest.

    Returns:
        inputs (B, 1, F, T) float32, and targets: (B, C) float32 multi-hot, or (B,) int64 class indices.
    """
    spectrograms, targets = zip(*examples)
    longest = max(spectrogram.shape[1] for spectrogram in spectrograms)
    inputs = np.zeros((len(spectrograms), 1, spectrograms[0].shape[0], longest), dtype=np.float32)  # (B, 1, F, T)
    for row, spectrogram in zip(inputs, spectrograms):
        row[0, :, : spectrogram.shape[1]] = spectrogram
    return torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets))
