"""Longer or shorter at the same pitch: waveform similarity overlap-add (Verhelst and Roelands, 1993, ICASSP).

Segments are taken from the sound at one pace and put down at another. Each is moved by up to `SEARCH` until it fits the
end of the one before, with which it is cross-faded. All lengths are those of SoX's `tempo`. Scaper asks it for those
for speech, a third as long, and so for three times as many segments.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SEGMENT, OVERLAP, SEARCH = 0.082, 0.012, 0.01468  # s


def stretched(samples: np.ndarray, stretch: float, sample_rate: int) -> np.ndarray:
    """(N,) float32 samples as (round(N · stretch),) ones, those of SoX."""
    segment, search = round(sample_rate * SEGMENT), round(sample_rate * SEARCH)
    overlap = int(sample_rate * OVERLAP + 4.5) & ~7
    step, pace = segment - overlap, 1 / stretch
    size = int(len(samples) / pace + 0.5)
    starts = (pace * (np.arange(-(-size // step)) * step) + 0.5).astype(int)  # of each segment's search
    padded = np.zeros(max(starts[-1] + 2 * search + segment, len(samples) + search), np.float32)
    padded[search // 2 : search // 2 + len(samples)] = samples
    places = _places(padded, starts, search, overlap, step)
    segments = sliding_window_view(padded, segment)[places]  # (segments, segment), a copy
    fade = np.linspace(0, 1, overlap, endpoint=False, dtype=np.float32)
    segments[1:, :overlap] *= fade
    segments[1:, :overlap] += segments[:-1, step:] * (1 - fade)
    return segments[:, :step].reshape(-1)[:size]


def _places(padded: np.ndarray, starts: np.ndarray, search: int, overlap: int, step: int) -> list[int]:
    """Where each segment is taken from: there the samples differ least from those that follow the one before."""
    windows = sliding_window_view(padded, search + overlap - 1)[starts]  # (segments, search + overlap - 1), a copy
    sums = np.pad(np.square(windows).cumsum(axis=1), ((0, 0), (1, 0)))
    half_energy = (sums[:, overlap:] - sums[:, :-overlap]) / 2  # (segments, search), from each place on
    places = [search // 2]
    for start, window, half in zip(starts[1:].tolist(), windows[1:], half_energy[1:]):
        end = places[-1] + step
        places.append(start + int((half - np.correlate(window, padded[end : end + overlap])).argmin()))
    return places
