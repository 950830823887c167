"""How a stored clip becomes an example. The storages (LMDB, files) are its subclasses."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from src.config.sections import AudioConfig
from src.data.audio.opening import Source
from src.data.audio.spectrogram import FeatureExtractor
from src.data.batching import Batch, rows_for, stack_samples, together
from src.data.events import Event, frame_targets, tiled
from src.data.labels import LabelMap
from src.data.sampling import PARTNER, clip_generator
from src.data.transforms import Transform, View
from src.errors import UserError

if TYPE_CHECKING:  # it needs lmdb, which those who tag recordings do without
    from src.data.lmdb.device_cache import DeviceCache
from src.utils.progress import progress

Key = int | tuple[int, int]  # index, or (epoch, index)


class ClipDataset(Dataset, ABC):
    """Clips as (spectrogram, target) pairs.

    An item is asked for by its index, or by (epoch, index): the transform's random draws depend on
    the seed and these two alone. Labels are checked against the map when the data set is opened.

    Args:
        labels: the label field of every clip in turn.
        audio: how a clip becomes a spectrogram.
        label_map: the classes.
        target_type: multi-hot (C,) float32 targets, a class index, or multi-hot and those of frames as well.
        transform: of the (F, T) spectrogram.
        seed: of the transform's draws.

    Raises:
        UserError: when opened, for a label that the map does not have, or when read, for a broken clip.
    """

    records: np.ndarray  # (N,) of the storage's records, those that are clips of this data set
    skipped: list[int] = []  # records that are left out because they cannot be used
    teacher: np.ndarray | None = None  # (N, C) float32, a teacher's logits
    frame_stride: int | None = None  # if set, batches carry targets of frames of so many columns
    cache_on_device = False  # whether samples are wanted on the network's device …
    held: "DeviceCache | None" = None  # … where they are then, if there is room

    def __init__(
        self,
        labels: Iterable[str | int],
        audio: AudioConfig,
        label_map: LabelMap,
        target_type: Literal["multilabel", "multiclass", "events"],
        transform: Transform,
        seed: int = 0,
    ):
        self.audio = audio
        self.label_map = label_map
        self.target_type = target_type
        self.transform = transform
        self.seed = seed
        self.on_device = False  # if set, batches carry samples, for src/data/device_features.py
        self.wave_mix = 0.0  # chance that a clip is mixed with another one, which the data module sets for training
        self.features = FeatureExtractor.of(audio)
        indices = [label_map.indices(label, audio.delimiter, self.where(i)) for i, label in enumerate(labels)]
        # Two flat arrays: a list of N small objects would be copied, bit by bit, into every forked worker.
        self._classes = np.array([one for clip in indices for one in clip], dtype=np.int32)
        self._class_starts = np.cumsum([0] + [len(clip) for clip in indices])
        for index, found in enumerate(indices if target_type == "multiclass" else ()):
            if len(set(found)) != 1:
                names = audio.delimiter.join(label_map.names[i] for i in found)
                what = f"the labels '{names}'" if names else "no label"
                raise UserError(f"{self.where(index)}: has {what}. model.type multiclass needs one")
        self._kept = self._precompute() if audio.precompute_features else None

    @abstractmethod
    def __len__(self) -> int:
        """The number of clips."""

    @abstractmethod
    def stored(self, index: int) -> Source:
        """A clip's audio as it is stored: its bytes, or its file."""

    @abstractmethod
    def waveform(self, index: int) -> np.ndarray:
        """(N,) samples of a clip: int16, or float32 in [-1, 1) where it is stored otherwise."""

    @abstractmethod
    def where(self, index: int) -> str:
        """How messages call a clip."""

    def events(self, epoch: int, index: int) -> list[Event]:
        """When what is heard in a clip in an epoch. Those of a clip that `wave_mix` adds are not among them.

        Raises:
            UserError: the storage has no events, or they are damaged.
        """
        raise UserError(f"{self.where(index)}: has labels, but no events. LMDBs of soundscapes have both")

    def use_frames(self, stride: int) -> None:
        """Have batches carry targets of frames of so many columns.

        Raises:
            UserError: the storage has no events, or they are damaged.
        """
        self.events(0, 0)
        self.frame_stride = stride

    def where_all(self, indices: Iterable[int]) -> str:
        """How messages call several clips."""
        return "; ".join(map(self.where, indices))

    def read_ahead(self) -> None:
        """Begin in the background what takes a pass through the storage. It is called once for each machine."""

    def fingerprint(self, wait: bool = True) -> str | None:
        """A hash over all stored records, whichever of them are chosen, or None where the storage has none.

        Args:
            wait: until it is known. Otherwise None, where that takes reading.
        """
        return None

    def __getitem__(self, key: Key) -> tuple[np.ndarray, np.ndarray | int]:
        """(F, T) float32 spectrogram, transformed, and target."""
        epoch, index = self.epoch_and_index(key)
        clip, classes, _ = self.mixed_sound(epoch, index)
        spectrogram = clip if self._kept is not None else self.features.scratch(clip)
        return self.view(epoch, index, spectrogram.shape[1]).of(spectrogram), self.target(classes)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of these clips: PyTorch's loader asks for all of them at once."""
        epochs, indices = zip(*map(self.epoch_and_index, keys))
        # Step by step for all clips: each step finds its code and its memory in the processor's caches.
        made = self._kept is not None
        clips, classes, events = zip(*map(self.mixed_sound, epochs, indices))
        targets = torch.from_numpy(np.asarray(list(map(self.target, classes))))
        teacher = None if self.teacher is None else torch.from_numpy(self.teacher[list(indices)])
        sizes = [clip.shape[1] if made else self.features.num_frames(len(clip)) for clip in clips]
        views = list(map(self.view, epochs, indices, sizes))
        frames = spans = None
        if self.frame_stride is not None:
            frames = self._frame_targets(views, events, self.frame_stride)
            spans = torch.tensor([(view.first, view.size, view.num_frames) for view in views])
        if self.held is not None:
            return Batch(self.held.batch(clips, views), targets, teacher, frames, spans)
        if self.on_device:
            return Batch(stack_samples(clips, views), targets, teacher, frames, spans)
        rows = rows_for(views)
        for row, clip, view in zip(rows.numpy(), clips, views):
            view.of(clip if made else self.features.scratch(clip), row[0, :, : view.size])
        return Batch(rows, targets, teacher, frames, spans)

    def _frame_targets(self, views: Sequence[View], events: Sequence[list[Event]], stride: int) -> torch.Tensor:
        """(B, J, C) float32 of what is seen of B clips, 0 behind the end of the smaller ones."""
        hop = self.features.hop_len / self.features.sample_rate
        found = [frame_targets(*each, self.label_map, hop, stride) for each in zip(views, events)]
        frames = torch.zeros(len(found), max(map(len, found)), len(self.label_map))
        for row, targets in zip(frames.numpy(), found):
            row[: len(targets)] = targets
        return frames

    def sound(self, epoch: int, index: int) -> tuple[Any, np.ndarray]:
        """What a clip holds in an epoch, and the class index of every event of it.

        That is (N,) samples, a `HeldClip` where they are on a device, or its (F, T) spectrogram where these are kept.
        """
        if self.held is not None:
            return self.held[index], self.class_indices(index)
        if self._kept is None:
            return self.waveform(index), self.class_indices(index)
        frames, starts = self._kept
        return frames[starts[index] : starts[index + 1]].numpy().T, self.class_indices(index)

    def mixed_sound(self, epoch: int, index: int) -> tuple[Any, np.ndarray, list[Event]]:
        """What `sound` gives, with the chance `wave_mix` added to that of another clip, as when both sound at once.

        The sum is (N,) float32 of the longer one's length, and may leave [-1, 1). The shorter one is repeated. The
        events of both are given where frames are to have targets.
        """
        (clip, classes), wanted = self.sound(epoch, index), self.frame_stride is not None
        events = self.events(epoch, index) if wanted else []
        partner = self.partner(epoch, index)
        if partner is None:
            return clip, classes, events
        other, more_classes = self.sound(epoch, partner)
        mixed, rate = together(clip, other), self.audio.sample_rate
        if wanted:
            both = (events, len(clip)), (self.events(epoch, partner), len(other))
            events = [event for own, size in both for event in tiled(own, size, len(mixed), rate)]
        return mixed, np.concatenate([classes, more_classes]), events

    def partner(self, epoch: int, index: int) -> int | None:
        """The clip that sounds with a clip in an epoch, if any does."""
        if self.wave_mix == 0 or len(self) == 1:
            return None
        rng = clip_generator(self.seed, epoch, index, PARTNER)
        if rng.random() >= self.wave_mix:
            return None
        return (index + int(rng.integers(1, len(self)))) % len(self)

    def epoch_and_index(self, key: Key) -> tuple[int, int]:
        """Of a key, which may be the index alone."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return epoch, index

    def view(self, epoch: int, index: int, num_frames: int) -> View:
        """What the transform shows of a clip in an epoch."""
        whole = View.whole(self.features.num_bins, num_frames)
        return self.transform.view(whole, clip_generator(self.seed, epoch, index))

    def class_indices(self, index: int) -> np.ndarray:
        """(E,) class index of every event of a clip, in the order of its label field."""
        return self._classes[self._class_starts[index] : self._class_starts[index + 1]]

    def balancing_weights(self) -> np.ndarray:
        """(N,) chances to draw a clip, which sum to 1: of each class in it, 1 / the clips with that class.

        So PSLA weighs clips (Gong et al., 2021, arXiv 2102.01243). Clips without a class get the smallest chance.
        """
        clips = np.repeat(np.arange(len(self)), np.diff(self._class_starts))  # of every event
        pairs = np.unique(clips * len(self.label_map) + self._classes)  # each class once a clip
        clips, classes = np.divmod(pairs, len(self.label_map))
        weights = np.bincount(clips, 1 / np.bincount(classes)[classes], minlength=len(self))
        weights[weights == 0] = weights[weights > 0].min(initial=1.0)
        return weights / weights.sum()

    def target(self, classes: np.ndarray) -> np.ndarray | int:
        """(C,) multi-hot float32, or the class index, of a clip with these classes."""
        return int(classes[0]) if self.target_type == "multiclass" else self.label_map.multi_hot(classes)

    def _precompute(self) -> tuple[torch.Tensor, list[int]]:
        """All spectrograms as one (frames of all clips, F) tensor that workers share, and where each starts."""
        clips = []
        with progress(len(self), "spectrograms", "clip") as bar:
            for index in range(len(self)):
                clips.append(torch.from_numpy(self.features(self.waveform(index)).T))  # (T, F)
                bar.update()
        starts = np.cumsum([0] + [len(clip) for clip in clips]).tolist()
        return torch.cat(clips), starts  # which forked workers share
