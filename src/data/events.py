"""The events of clips: what is heard from when to when."""

import math
from collections.abc import Sequence
from typing import NamedTuple


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
        shifted = (Event(start + onset, min(start + offset, stop), label) for onset, offset, label in events)
        repeats += [event for event in shifted if event.onset < stop]
    return repeats
