"""A specification -> samples, as Scaper 1.6.5 mixes them (Salamon et al., 2017, WASPAA)."""

from typing import Protocol

import numpy as np

from src.data.audio.files import tile
from src.data.soundscapes.distribution import FADE, REF_DB, Event, Specification
from src.data.soundscapes.loudness import integrated_loudness
from src.data.soundscapes.stretching import stretched


class Sounds(Protocol):
    """Where parts of sounds come from: src/data/soundscapes/packed.py, or arrays."""

    def part(self, index: int, start: int, stop: int) -> np.ndarray:
        """(≤ stop - start,) float32 samples."""
        ...


def render(
    specification: Specification, events: Sounds, backgrounds: Sounds, sample_rate: int, duration: float
) -> np.ndarray:
    """(int(duration · sample_rate),) float32 samples in [-1, 1]. What would clip is made softer as a whole."""
    mixed = background(specification, backgrounds, sample_rate, int(duration * sample_rate))
    for event in specification.events:
        sound = foreground(event, events, sample_rate)
        place = mixed[int(sample_rate * event.onset) :][: len(sound)]
        place += sound[: len(place)]
    peak = max(mixed.max(), -mixed.min())
    return mixed / peak if peak > 1 else mixed


def background(specification: Specification, backgrounds: Sounds, sample_rate: int, size: int) -> np.ndarray:
    """(size,) samples at `REF_DB`. A background that is shorter is repeated."""
    start = int(specification.background_time * sample_rate)
    samples = tile(backgrounds.part(specification.background, start, start + size), size)
    return _at(REF_DB, samples, sample_rate)


def foreground(event: Event, events: Sounds, sample_rate: int) -> np.ndarray:
    """(N,) samples of an event, as loud as it says before it is faded in and out."""
    start, end = event.source_time, event.source_time + event.duration
    samples = events.part(event.source, int(start * sample_rate), int(end * sample_rate))
    if event.time_stretch != 1:
        samples = stretched(samples, event.time_stretch, sample_rate)
    samples = _at(REF_DB + event.snr, samples, sample_rate)
    fade = np.sin(np.linspace(0, np.pi / 2, int(FADE * sample_rate), dtype=np.float32))[: len(samples)]
    samples[: len(fade)] *= fade
    samples[-len(fade) :] *= fade[::-1]
    return samples


def _at(lufs: float, samples: np.ndarray, sample_rate: int) -> np.ndarray:
    return samples * np.float32(10 ** ((lufs - integrated_loudness(samples, sample_rate)) / 20))
