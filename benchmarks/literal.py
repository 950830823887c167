"""The published data path, written out against today's librosa: the baseline of what is measured here.

A Python list holds all records. Of each clip, all in double precision: soundfile decodes, librosa transforms, NumPy
pads, crops and masks. PyTorch's own collating makes the batches. Only the random draws are made as the project makes
them, so that both can be seen to give the same.
"""

from __future__ import annotations

import io

import librosa
import numpy as np
import soundfile
import torch
from torch.utils.data import Dataset

from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.data.sampling import clip_generator

FREQ_MASKING, TIME_MASKING = 0.15, 0.20  # largest shares of a band


class LiteralDataset(Dataset):
    """Soundscapes as (spectrogram, multi-hot target) pairs, asked for by (epoch, index).

    Args:
        lmdb_path: of FLAC records with labels.
        label_map: the classes.
        clip_size: frames of a training clip.
        seed: of the draws.
    """

    def __init__(self, lmdb_path: str, label_map: LabelMap, clip_size: int, seed: int = 0):
        reader = LMDBReader(lmdb_path)
        records = (reader[index] for index in range(len(reader)))
        self.records = [(record.flac, record.label) for record in records]
        reader.unmap()
        self.label_map = label_map
        self.clip_size = clip_size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, F, T) float32 and (C,) float32."""
        epoch, index = key
        flac, label = self.records[index]
        samples, _ = soundfile.read(io.BytesIO(flac))  # (N,) float64
        seen = augmented(features(samples), self.clip_size, clip_generator(self.seed, epoch, index))
        target = self.label_map.multi_hot(self.label_map.indices(label, ",", f"record {index}"))
        return torch.from_numpy(seen).float().unsqueeze(0), torch.from_numpy(target)


def features(samples: np.ndarray) -> np.ndarray:
    """(N,) -> (F, T) dB, with the mean removed."""
    magnitude = np.abs(librosa.stft(samples, n_fft=441, hop_length=220, pad_mode="reflect"))
    decibels = 20 * np.log10(np.maximum(magnitude, 1e-5))
    decibels = np.maximum(decibels, decibels.max() - 150)
    decibels = decibels + 75
    return decibels - decibels.mean()


def augmented(spectrogram: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """(F, T) -> (F, size): padded, cropped, and half the time masked."""
    padding = max(size - spectrogram.shape[1], 0)
    widths = (0, 0), (padding // 2, padding - padding // 2)
    if rng.integers(2) == 0:
        spectrogram = np.pad(spectrogram, widths, "wrap")
    else:
        spectrogram = np.pad(spectrogram, widths, "constant", constant_values=spectrogram.min())
    start = rng.integers(spectrogram.shape[1] - size + 1)
    spectrogram = spectrogram[:, start : start + size]
    return masked(spectrogram, rng) if rng.random() < 0.5 else spectrogram


def masked(spectrogram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One or two times, a band of rows and one of columns of a copy set to the minimum."""
    spectrogram = spectrogram.copy()
    num_bins, num_frames = spectrogram.shape
    for _ in range(rng.integers(1, 3)):
        rows = int(rng.uniform(0, FREQ_MASKING) * num_bins)
        row = rng.integers(num_bins - rows + 1)
        columns = int(rng.uniform(0, TIME_MASKING) * num_frames)
        column = rng.integers(num_frames - columns + 1)
        spectrogram[row : row + rows] = spectrogram.min()
        spectrogram[:, column : column + columns] = spectrogram.min()
    return spectrogram
