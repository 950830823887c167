"""Windows of a recording at another sample rate, without the whole of it in memory."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from src.data.audio.files import mono, resampled
from src.data.audio.recording import Recording

MARGIN = 0.05  # s around a window, for the resampling filter


def resampled_length(length: int, old: int, new: int) -> int:
    """How many samples become of `length` at the rate `old`, at the rate `new`."""
    return math.ceil(length * new / old)


def read_ahead(old: int, new: int) -> float:
    """How many s behind its end `windows` reads for a window at most, from the rate `old` to the rate `new`."""
    common = math.gcd(old, new)
    return (math.ceil(MARGIN * common) + 1) / common if old != new else 0.0


def windows(recording: Recording, starts: Iterable[int], length: int, sample_rate: int) -> Iterator[np.ndarray]:
    """(≤ length,) mono float32 samples at `sample_rate` from each start on, as if the whole file were resampled.

    One window is in memory at a time.

    Args:
        starts: in samples at `sample_rate`, in ascending order.

    Raises:
        UserError: as of `Recording`.
    """
    common = math.gcd(recording.samplerate, sample_rate)
    old, new = recording.samplerate // common, sample_rate // common
    margin = math.ceil(MARGIN * common) if old != new else 0
    read = np.empty(0, np.float32)  # (N,) the last samples that were read, up to the recording's position
    made, begin = np.empty(0, np.float32), 0  # (N,) samples at the new rate, and the place of the first one
    for start in starts:
        # Samples coincide at both rates every `old` and every `new` samples: what is made ends at such a place.
        if start < begin + len(made):
            made, begin = made[start - begin :], start
        else:
            made, begin = made[:0], start // new * new
        if begin + len(made) < min(start + length, resampled_length(recording.frames, old, new)):
            first, last = (begin + len(made)) // new, -(-(start + length) // new)
            before = max(first - margin, 0)
            here, end = (min(place * old, recording.frames) for place in (before, last + margin))
            recording.skip(max(here - recording.position, 0))
            read = read[len(read) - (recording.position - here) :]
            read = np.concatenate([read, mono(recording.read(end - recording.position))])
            more = resampled(read, old, new) if old != new else read
            made = np.concatenate([made, more[(first - before) * new : (last - before) * new]])
        yield made[start - begin : start - begin + length]
