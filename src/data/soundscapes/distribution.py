"""What soundscapes are drawn from: the one statement of it, for Scaper's files and for those of training."""

from dataclasses import dataclass
from typing import Any

import numpy as np

REF_DB = -60  # LUFS of the background
EVENT: dict[str, Any] = {  # how Scaper draws an event
    "source_time": ("uniform", 0, 140),  # s in its file
    "event_time": ("uniform", 0, 5),  # s in the soundscape
    "event_duration": ("uniform", 1.5, 5),  # s
    "snr": ("uniform", 10, 60),  # dB above the background
    "pitch_shift": None,
    "time_stretch": ("uniform", 0.95, 1.05),
}
BACKGROUND_TIME = ("uniform", 0, 600)  # s in its file, where the background begins
FADE = 0.01  # s that an event is faded in, and out. It lasts no less


@dataclass(frozen=True)
class Event:
    """One sound in a soundscape."""

    source: int  # which of the isolated events
    source_time: float  # s in its file
    duration: float  # s in its file
    time_stretch: float  # by which it lasts longer
    snr: float  # dB above the background
    onset: float  # s in the soundscape

    @property
    def offset(self) -> float:
        """Where it ends in the soundscape, in s."""
        return self.onset + self.duration * self.time_stretch


@dataclass(frozen=True)
class Specification:
    """All that a soundscape is made by."""

    background: int  # which of the backgrounds
    background_time: float  # s in its file
    events: tuple[Event, ...]


class Choices:
    """What may be drawn.

    Args:
        event_seconds: (E,) of each isolated event.
        event_weights: (E,) how often each is drawn, relative to the others.
        background_seconds: (B,) of each background.
        background_weights: (B,) how often each is drawn.
        duration: s of a soundscape.
        max_events: 1 to so many events, each number as likely.
    """

    def __init__(
        self,
        event_seconds: np.ndarray,
        event_weights: np.ndarray,
        background_seconds: np.ndarray,
        background_weights: np.ndarray,
        duration: float,
        max_events: int,
    ):
        self.duration, self.max_events = duration, max_events
        self._event_seconds, self._background_seconds = event_seconds, background_seconds
        # Summed once, and not for each soundscape.
        self._event_sums, self._background_sums = np.cumsum(event_weights), np.cumsum(background_weights)

    def draw(self, rng: np.random.Generator) -> Specification:
        """One soundscape's specification, as Scaper 1.6.5 draws it and makes it fit the files (core.py)."""
        (background,) = _drawn(rng, self._background_sums, 1)
        begins = _source_time(rng, BACKGROUND_TIME, self._background_seconds[background], self.duration)
        sources = _drawn(rng, self._event_sums, int(rng.integers(1, self.max_events + 1)))
        return Specification(background, begins, tuple(self._event(rng, source) for source in sources))

    def _event(self, rng: np.random.Generator, source: int) -> Event:
        seconds = float(self._event_seconds[source])
        duration = min(_uniform(rng, EVENT["event_duration"]), seconds)
        stretch = _uniform(rng, EVENT["time_stretch"])
        duration = min(duration, self.duration / stretch)
        source_time = _source_time(rng, EVENT["source_time"], seconds, duration)
        onset = max(0.0, min(_uniform(rng, EVENT["event_time"]), self.duration - duration * stretch))
        return Event(source, source_time, duration, stretch, _uniform(rng, EVENT["snr"]), onset)


def _drawn(rng: np.random.Generator, sums: np.ndarray, count: int) -> list[int]:
    """`count` indices, each as likely as its share of the weights, of which these are the sums up to each."""
    return np.searchsorted(sums[:-1], sums[-1] * rng.random(count), side="right").tolist()


def _uniform(rng: np.random.Generator, distribution: tuple[str, float, float]) -> float:
    return float(rng.uniform(*distribution[1:]))


def _source_time(
    rng: np.random.Generator, distribution: tuple[str, float, float], seconds: float, duration: float
) -> float:
    """Where to begin in a file. Both limits are moved until what is taken lies in the file."""
    latest = max(0.0, seconds - duration)
    first, last = (min(limit, latest) for limit in distribution[1:])
    return float(rng.uniform(first, last))
