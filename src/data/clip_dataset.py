"""How a stored clip becomes an example; the storages (LMDB, files) are its subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from src.config import AudioConfig
from src.data.labels import LabelMap
from src.data.sampling import clip_generator
from src.data.spectrogram import FeatureExtractor
from src.data.transforms import Transform
from src.errors import UserError
from src.progress import progress


class ClipDataset(Dataset, ABC):
    """Clips as (spectrogram, target) pairs.

    An item is asked for by its index, or by (epoch, index): the transform's random draws depend on
    the seed and these two alone. Labels are checked against the map when the data set is opened.

    Args:
        audio: how a clip becomes a spectrogram.
        label_map: the classes.
        target_type: multi-hot (C,) float32 targets, or a class index.
        transform: applied to the (F, T) spectrogram.
        seed: of the transform's draws.

    Raises:
        UserError: when opened, for a label that the map does not have; when read, for a broken clip.
    """

    def __init__(self, audio: AudioConfig, label_map: LabelMap, target_type: Literal["multilabel", "multiclass"],
                 transform: Transform, seed: int = 0):
        self.audio = audio
        self.label_map = label_map
        self.target_type = target_type
        self.transform = transform
        self.seed = seed
        self.features = FeatureExtractor.of(audio)
        indices = [
            label_map.indices(label, audio.delimiter, self.where(index)) for index, label in enumerate(self.labels())
        ]
        # Two flat arrays: a list of N small objects would be copied, bit by bit, into every forked worker.
        self._classes = np.array([one for clip in indices for one in clip], dtype=np.int32)
        self._class_starts = np.cumsum([0] + [len(clip) for clip in indices])
        if target_type == "multiclass":
            self._require_one_label()
        self._kept = self._precompute() if audio.precompute_features else None

    @abstractmethod
    def __len__(self) -> int:
        """The number of clips."""

    @abstractmethod
    def labels(self):
        """The label field of every clip in turn."""

    @abstractmethod
    def waveform(self, index: int) -> np.ndarray:
        """(N,) float32 samples of a clip."""

    @abstractmethod
    def where(self, index: int) -> str:
        """How messages call a clip."""

    def where_all(self, indices: Sequence[int]) -> str:
        """How messages call several clips."""
        return "; ".join(map(self.where, indices))

    def fingerprint(self) -> str | None:
        """A hash over all stored records, whichever of them are chosen; None where the storage has none."""
        return None

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[np.ndarray, np.ndarray | int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        spectrogram = self.transform(self.spectrogram(index), clip_generator(self.seed, epoch, index))
        return spectrogram, self.target(index)

    def class_indices(self, index: int) -> np.ndarray:
        """(E,) class index of every event of a clip, in the order of its label field."""
        return self._classes[self._class_starts[index] : self._class_starts[index + 1]]

    def spectrogram(self, index: int) -> np.ndarray:
        """(F, T) float32 features of a whole clip."""
        if self._kept is not None:
            frames, starts = self._kept
            return frames[starts[index] : starts[index + 1]].numpy().T  # (F, T)
        return self.features(self.waveform(index))

    def target(self, index: int) -> np.ndarray | int:
        """(C,) multi-hot float32, or the class index."""
        if self.target_type == "multiclass":
            return int(self.class_indices(index)[0])
        return self.label_map.multi_hot(self.class_indices(index))

    def _require_one_label(self) -> None:
        for index in range(len(self)):
            indices = self.class_indices(index)
            if len(set(indices)) != 1:
                names = self.audio.delimiter.join(self.label_map.names[i] for i in indices)
                raise UserError(f"{self.where(index)}: has the labels '{names}'; model.type multiclass needs one")

    def _precompute(self) -> tuple[torch.Tensor, list[int]]:
        """All spectrograms as one (frames of all clips, F) tensor that workers share, and where each starts."""
        clips = []
        with progress(len(self), "spectrograms", "clip") as bar:
            for index in range(len(self)):
                clips.append(torch.from_numpy(self.features(self.waveform(index)).T))  # (T, F)
                bar.update()
        starts = np.cumsum([0] + [len(clip) for clip in clips]).tolist()
        return torch.cat(clips).share_memory_(), starts
