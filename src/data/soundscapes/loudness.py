"""Integrated loudness in LUFS, as ITU-R BS.1770-4 defines it and Scaper measures it, with pyloudnorm 0.2."""

import functools
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from src.data.audio.files import tile

BLOCK, HOP = 0.4, 0.25  # s of a gating block, and how far the next one is, in blocks
SHORTEST = 0.5  # s. Scaper repeats what is shorter
SILENCE = -70.0  # LUFS, at which blocks are left out, and which Scaper takes silence for


def integrated_loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Loudness of (N,) samples in LUFS, at least -70.

    An event's blocks are few, so where they begin matters: to the sample where pyloudnorm has them.
    """
    import scipy.signal  # here, as below: half a second that commands without new soundscapes do without

    duration = len(samples) / sample_rate
    if duration < SHORTEST:
        samples = tile(samples, math.ceil(SHORTEST / duration) * len(samples))
    weighted = scipy.signal.lfilter(*k_weighting(sample_rate), samples)
    count = round((len(samples) / sample_rate - BLOCK) / (BLOCK * HOP)) + 1
    edges = (BLOCK * (np.arange(count + 4) * HOP) * sample_rate).astype(int)
    quarters = np.add.reduceat(np.square(weighted[: edges[-1]]), edges[:-1])  # (count + 3,)
    power = sliding_window_view(quarters, 4).sum(axis=1) / (BLOCK * sample_rate)  # (count,)
    loud = power[power >= _power(SILENCE)]
    if len(loud):
        loud = loud[loud > loud.mean() / 10]  # 10 LU below
    return max(_lufs(loud.mean()), SILENCE) if len(loud) else SILENCE


@functools.lru_cache
def k_weighting(sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator (5,) of the K-weighting filter, a shelf and a high-pass, as pyloudnorm designs them."""
    from pyloudnorm.iirfilter import IIRfilter

    shelf, high_pass = (
        IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf"),
        IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass"),
    )
    return np.polymul(shelf.b, high_pass.b), np.polymul(shelf.a, high_pass.a)


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)
