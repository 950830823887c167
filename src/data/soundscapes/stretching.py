"""Longer or shorter at the same pitch: waveform similarity overlap-add (Verhelst and Roelands, 1993, ICASSP).

Segments are taken from the sound at one pace and put down at another. Each is moved by up to `SEARCH` until it fits the
end of the one before, with which it is cross-faded. The lengths are those of SoX's `tempo -s`, which Scaper calls.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SEGMENT = 0.035  # s. Shorter where a sound is sped up
OVERLAP = 1 / 2.5  # of a segment
SEARCH = 1 / 2.14  # of a segment
COARSE = 4  # samples. Every so many positions are compared first, then those around the best


def stretched(samples: np.ndarray, stretch: float, sample_rate: int) -> np.ndarray:
    """(N,) float32 samples as (round(N · stretch),) ones.

    SoX compares all positions, which takes most of Scaper's time. Here they are compared in two steps.
    """
    seconds = SEGMENT * min(stretch**0.33, 1)
    segment, search = round(sample_rate * seconds), round(sample_rate * seconds * SEARCH)
    overlap = int(sample_rate * seconds * OVERLAP + 4.5) & ~7
    step, size = segment - overlap, int(len(samples) * stretch + 0.5)
    starts = (np.arange(-(-size // step)) * step / stretch + 0.5).astype(int)  # of each segment's search
    padded = np.zeros(max(starts[-1] + 2 * search + segment, len(samples) + search), np.float32)
    padded[search // 2 : search // 2 + len(samples)] = samples
    places = _places(padded, starts, search, overlap, step)
    segments = sliding_window_view(padded, segment)[places]  # (segments, segment), a copy
    fade = np.linspace(0, 1, overlap, endpoint=False, dtype=np.float32)
    segments[1:, :overlap] *= fade
    segments[1:, :overlap] += segments[:-1, step:] * (1 - fade)
    return segments[:, :step].reshape(-1)[:size]


def _places(padded: np.ndarray, starts: np.ndarray, search: int, overlap: int, step: int) -> list[int]:
    """Where each segment is taken from."""
    low = padded[: len(padded) // COARSE * COARSE].reshape(-1, COARSE).mean(axis=1)
    energy, low_energy = _half_energies(padded, overlap), _half_energies(low, overlap // COARSE)
    places = [search // 2]
    for start in starts[1:].tolist():
        end = places[-1] + step  # of the last segment, before the part that is cross-faded
        first = start // COARSE
        least = _most_alike(low, low_energy, end // COARSE, first, first + search // COARSE, overlap // COARSE)
        near = least * COARSE + end % COARSE
        first, last = max(start, near - COARSE), min(start + search, near + COARSE + 1)
        places.append(_most_alike(padded, energy, end, first, last, overlap))
    return places


def _half_energies(samples: np.ndarray, length: int) -> np.ndarray:
    """Half the sum of the squares of `length` samples, from each position on."""
    sums = np.cumsum(np.square(samples, dtype=np.float64))
    sums[length:] -= sums[:-length].copy()
    return (sums[length - 1 :] / 2).astype(np.float32)


def _most_alike(samples: np.ndarray, half_energy: np.ndarray, end: int, first: int, last: int, length: int) -> int:
    """Of the places from `first` to `last` the one from where on `length` samples differ least from those at `end`."""
    products = np.correlate(samples[first : last + length - 1], samples[end : end + length])
    return first + int((half_energy[first:last] - products).argmin())
