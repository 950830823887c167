"""The events of clips: what is heard from when to when."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # scripts that only read events start without these
    from src.data.labels import LabelMap
    from src.data.transforms import View


class Event(NamedTuple):
    """A sound in a clip."""

    onset: float  # s from the clip's start
    offset: float  # s, no less than `onset`
    label: str


def tiled(events: Sequence[Event], length: int, min_length: int, sample_rate: int) -> list[Event]:
    """The events of a clip that `tile` of src/data/audio/files.py repeats: they sound again in each repeat.

    An event ends with the repeat that it is in, and at the new end of the clip at the latest. What begins behind the
    clip's old end is not repeated: none of it sounds.

    Args:
        length: samples of the clip, not 0.
        min_length: samples up to which it is repeated. The events of a longer clip are left alone.
        sample_rate: Hz.
    """
    if length >= min_length:
        return list(events)
    end = min_length / sample_rate
    repeats = []
    for number in range(math.ceil(min_length / length)):
        start, stop = number * length / sample_rate, min((number + 1) * length / sample_rate, end)
        shifted = (Event(start + max(onset, 0), min(start + offset, stop), label) for onset, offset, label in events)
        repeats += [event for event in shifted if event.onset < stop]
    return repeats


def frame_targets(view: "View", events: Sequence[Event], label_map: "LabelMap", hop: float, stride: int) -> np.ndarray:
    """(J, C) float32 in [0, 1]: how much of each frame of `stride` columns of a view each class sounds.

    Columns that show nothing of the clip, as SpecAugment's, hold no event. The last frame may have fewer columns.

    Args:
        hop: seconds between two frames of the spectrogram.
    """
    shown = view.shown()  # (T,)
    frames = np.arange(0, view.size, stride)  # (J,) their first columns
    targets = np.zeros((len(label_map), len(frames)), np.float32)
    columns = np.minimum(stride, view.size - frames)  # (J,)
    for label in {event.label for event in events}:
        sounds, until = np.zeros(view.size), 0.0  # hops of each column
        for onset, offset, _ in sorted(event for event in events if event.label == label):
            begin, end = max(onset, until) / hop + 0.5, offset / hop + 0.5  # of frames, of which t is [t, t + 1)
            sounds += np.clip(np.minimum(end, shown + 1) - np.maximum(begin, shown), 0, None)
            until = max(offset, until)
        targets[label_map.mapping[label]] = np.add.reduceat(sounds * (shown >= 0), frames) / columns
    return targets.T
