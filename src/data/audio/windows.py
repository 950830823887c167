"""Windows of a recording at another sample rate, without the whole of it in memory."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from src.data.audio.files import resampled
from src.data.audio.recording import Recording

MARGIN = 0.05  # s around a window, for the resampling filter


def resampled_length(length: int, old: int, new: int) -> int:
    """How many samples become of `length` at the rate `old`, at the rate `new`."""
    return math.ceil(length * new / old)


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
    kept = np.empty(0, np.float32)  # the last samples that were read, (N,) up to the recording's position
    for start in starts:
        # Samples coincide at both rates every `old` and every `new` samples: a window is read from such a place on.
        first = max(start // new - margin, 0)
        last = -(-(start + length) // new) + margin
        begin, end = min(first * old, recording.frames), min(last * old, recording.frames)
        recording.skip(max(begin - recording.position, 0))
        kept = kept[len(kept) - (recording.position - begin) :]
        kept = np.concatenate([kept, recording.read(end - recording.position).mean(axis=1)])
        offset = start - first * new
        yield (resampled(kept, old, new) if old != new else kept)[offset : offset + length]
