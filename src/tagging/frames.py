"""Frame scores of windows -> those of a recording."""

import math
from dataclasses import replace

import numpy as np

from src.errors import UserError
from src.learning.events.clips import FrameScores
from src.learning.events.seen import times_of_frames
from src.models.checkpoint import Checkpoint


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
        places = np.arange(len(scores))[:, None]
        weights = np.minimum(places + 1, len(scores) - places).astype(np.float32)[: len(self._weights[here])]
        self._sums[here] += weights * scores[: len(weights)]
        self._weights[here] += weights

    def whole(self, hop: float, duration: float) -> FrameScores:
        """The scores of the recording, of so many s, with columns of `hop` s."""
        count = int(np.count_nonzero(self._weights))
        shown, times = times_of_frames(self._span, count, self.stride, hop)
        times[-1] = min(times[-1], duration)
        return FrameScores.of([(self._sums[:count] / self._weights[:count])[shown]], [times])


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
