"""Frame scores of windows -> those of a recording."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from src.errors import UserError
from src.learning.events.choosing import smoothed
from src.learning.events.clips import FrameScores
from src.learning.events.seen import times_of_columns, times_of_frames
from src.models.checkpoint import Checkpoint

Slot = tuple[np.ndarray, float, float]  # (C,) scores, from when to when, in s


class JoinedFrames:
    """The frame scores of a recording, of windows that overlap.

    A frame's score is the weighted mean over the windows that hold it. A window's weights fall evenly from its centre
    to both ends, where it knows least of what is around.

    Args:
        span: of the recording, as in `Batch`.
        stride: columns of a frame.
        num_classes: C.
    """

    def __init__(self, span: tuple[int, int, int], stride: int, num_classes: int):
        self._span, self.stride = span, stride
        count = math.ceil(span[1] / stride)
        self._sums, self._weights = np.zeros((count, num_classes), np.float32), np.zeros((count, 1), np.float32)

    def add(self, first: int, scores: np.ndarray) -> None:
        """Add a window's (J, C) scores, from the frame `first` on. Those behind the recording's end are left out."""
        here = slice(first, first + len(scores))
        weights = _weights_of(len(scores))[: len(self._weights[here])]
        self._sums[here] += weights * scores[: len(weights)]
        self._weights[here] += weights

    def whole(self, hop: float, duration: float) -> FrameScores:
        """The scores of the recording, of so many s, with columns of `hop` s."""
        count = int(np.count_nonzero(self._weights))
        shown, times = times_of_frames(self._span, count, self.stride, hop)
        times[-1] = min(times[-1], duration)
        return FrameScores.of([(self._sums[:count] / self._weights[:count])[shown]], [times])


class FramesSoFar:
    """The filtered frame scores of a recording that goes on, equal to those of `JoinedFrames` at its end.

    A frame is final when no later window can hold it, and its filter needs no later frame.

    Args:
        stride: columns of a frame.
        hop: s of a column.
        medians: (C,) frames of each class's filter.
    """

    def __init__(self, stride: int, hop: float, medians: Sequence[int]):
        self.stride, self._hop, self._medians = stride, hop, medians
        self._half = max(medians) // 2
        self._first = 0  # frame from which on windows may still add something
        self._sums, self._weights = np.zeros((0, len(medians)), np.float32), np.zeros((0, 1), np.float32)
        self._final = np.zeros((0, len(medians)), np.float32)  # the last frames before it, unfiltered
        self._given, self._next = 0, 0  # how many of these were given, and the number of the next frame to give

    def add(self, first: int, scores: np.ndarray) -> Iterator[Slot]:
        """Add the (J, C) scores of the next window, from the frame `first` on. What is final then is given."""
        gone, weights = first - self._first, _weights_of(len(scores))
        final = self._sums[:gone] / self._weights[:gone]
        missing = (0, len(scores) - len(self._sums[gone:])), (0, 0)
        self._sums = np.pad(self._sums[gone:], missing) + weights * scores
        self._weights = np.pad(self._weights[gone:], missing) + weights
        self._first = first
        yield from self._filtered(final)

    def end(self, num_columns: int, duration: float) -> Iterator[Slot]:
        """All that is left, of a recording of so many columns and so many s."""
        left = slice(math.ceil(num_columns / self.stride) - self._first)
        end = min(float(times_of_columns(np.array(num_columns), self._hop)), duration)
        yield from self._filtered(self._sums[left] / self._weights[left], end)

    def _filtered(self, final: np.ndarray, end: float | None = None) -> Iterator[Slot]:
        """What can be given after some more (K, C) final frames, the last of which end the recording at `end`."""
        self._final = np.concatenate([self._final, final])
        ready = len(self._final) if end is not None else max(len(self._final) - self._half, 0)
        if ready > self._given:
            filtered = smoothed(FrameScores.of([self._final], 1.0), self._medians)
            values = filtered.values.T[self._given : ready]
            edges = times_of_columns(self.stride * (self._next + np.arange(len(values) + 1)), self._hop)
            if end is not None:
                edges[-1] = end
            self._next += len(values)
            yield from zip(values, map(float, edges), map(float, edges[1:]))
        gone = max(ready - self._half, 0)
        self._final, self._given = self._final[gone:], ready - gone


def _weights_of(count: int) -> np.ndarray:
    """(J, 1) weights of a window's frames."""
    places = np.arange(count)[:, None]
    return np.minimum(places + 1, count - places).astype(np.float32)


def with_frames(checkpoint: Checkpoint) -> Checkpoint:
    """A tagger's checkpoint as that of a network of events, which it becomes without being trained for it.

    Its thresholds are left out: they are of other scores.

    Raises:
        UserError: it was trained with one class a clip.
    """
    config = checkpoint.config
    if config.model.type == "multiclass":
        raise UserError(f"{checkpoint.path}: has one class a clip (model.type multiclass), and no frame scores")
    if config.model.type == "events":
        return checkpoint
    return replace(checkpoint, config=replace(config, model=replace(config.model, type="events")), decisions=None)


def aligned_starts(length: int, window: int, hop: int, step: int) -> list[int]:
    """Where windows begin, in samples, each where a frame of `step` samples does. The last one reaches the end."""
    last = math.ceil(max(length - window, 0) / step) * step
    return [*range(0, last, hop), last]
