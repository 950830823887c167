"""New soundscapes in every epoch as a torch Dataset, for `data.isolated_events`."""

from typing import Any

import numpy as np

from src.config.sections import AudioConfig, DataConfig
from src.data.audio.files import as_int16, encode
from src.data.clip_dataset import ClipDataset
from src.data.events import Event
from src.data.labels import LabelMap
from src.data.lmdb.fingerprint import combined, fingerprint, known_fingerprint
from src.data.sampling import SOUNDSCAPE, clip_generator
from src.data.soundscapes.distribution import Choices, Specification
from src.data.soundscapes.packed import packed, packed_file
from src.data.soundscapes.rendering import render
from src.data.soundscapes.sources import background_files, event_files, file_weights


class SoundscapeDataset(ClipDataset):
    """Mixes each clip of each epoch when it is asked for. What is mixed depends on (seed, epoch, index) alone.

    Args:
        data: folders of isolated events and of backgrounds, the number of soundscapes in an epoch, and what they are.
        num_workers: processes that pack the folders the first time.
        The rest is `ClipDataset`'s.

    Raises:
        UserError: the folders lack a class of the map or have another one, a file cannot be mixed, or they cannot be
            packed.
    """

    def __init__(self, data: DataConfig, audio: AudioConfig, label_map: LabelMap, *args, num_workers: int = 1):
        assert data.isolated_events and data.backgrounds
        self.data, self.records = data, np.arange(data.soundscapes)
        files = event_files(data.isolated_events, label_map)
        _, kinds = background_files(data.backgrounds)

        def opened(folder: str, groups: dict[str, list[str]]):
            each = [(file, label) for label, group in groups.items() for file in group]
            return packed(folder, each, audio.sample_rate, num_workers)

        self._events, self._backgrounds = opened(data.isolated_events, files), opened(data.backgrounds, kinds)
        self._event_classes = np.repeat(np.arange(len(files)), [len(group) for group in files.values()])
        self._choices = Choices(
            self._events.lengths / audio.sample_rate,
            file_weights(files, label_map, None),
            self._backgrounds.lengths / audio.sample_rate,
            np.concatenate([np.full(len(group), 1 / len(group)) for group in kinds.values()]),
            data.duration,
            data.max_events,
        )
        super().__init__((), audio, label_map, *args)

    def __len__(self) -> int:
        return len(self.records)

    def sound(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        specification, rate = self.specification(epoch, index), self.audio.sample_rate
        samples = render(specification, self._events, self._backgrounds, rate, self.data.duration)
        return as_int16(samples), self._classes_of(specification)

    def events(self, epoch: int, index: int) -> list[Event]:
        events = self.specification(epoch, index).events
        return [Event(one.onset, one.offset, self.label_map.names[self._event_classes[one.source]]) for one in events]

    def specification(self, epoch: int, index: int) -> Specification:
        """What a clip is mixed of in an epoch."""
        return self._choices.draw(clip_generator(self.seed, epoch, index, SOUNDSCAPE))

    def _classes_of(self, specification: Specification) -> np.ndarray:
        return self._event_classes[[event.source for event in specification.events]]

    def class_indices(self, index: int) -> np.ndarray:
        """Of the first epoch, as `waveform` and `stored`."""
        return self._classes_of(self.specification(0, index))

    def waveform(self, index: int) -> np.ndarray:
        return self.sound(0, index)[0]

    def stored(self, index: int) -> bytes:
        return encode(self.waveform(index), self.audio.sample_rate, "FLAC")

    def where(self, index: int) -> str:
        return f"{self.data.isolated_events}, soundscape {index}"

    def fingerprint(self, wait: bool = True) -> str | None:
        if not wait:
            return known_source_fingerprint(self.data, self.audio.sample_rate)
        return combined(bytes.fromhex(fingerprint(sounds.reader)) for sounds in (self._events, self._backgrounds))


def known_source_fingerprint(data: DataConfig, sample_rate: int) -> str | None:
    """One hash over all sounds that soundscapes are made of, or None where they are not packed."""
    folders: Any = data.isolated_events, data.backgrounds
    files = [packed_file(folder, sample_rate) for folder in folders]
    found = [known_fingerprint(file) or "" for file in files if file.is_file()]
    return combined(map(bytes.fromhex, found)) if len(found) == len(files) and all(found) else None
