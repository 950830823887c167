"""Every detection of a class that there is at any threshold.

At a threshold, a detection is a longest row of frames whose scores all reach it. It is the same detection as long as
the threshold stays above the scores of the frames beside it. A clip of T frames has at most T detections over all
thresholds, so nothing needs a grid of thresholds (Ebbers, Haeb-Umbach, Serizel, 2022, arXiv 2201.13148).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from src.learning.events.clips import EventTruth, FrameScores


@dataclass(frozen=True)
class Detections:
    """D detections of one class. Each exists at the thresholds in (above, upto]."""

    clip: np.ndarray  # (D,)
    onset: np.ndarray  # (D,) s
    offset: np.ndarray  # (D,) s
    upto: np.ndarray  # (D,) its lowest score
    above: np.ndarray  # (D,) the higher score beside it, -inf where there is none to be considered

    @property
    def length(self) -> np.ndarray:
        """(D,) s."""
        return self.offset - self.onset

    def only(self, which: np.ndarray) -> "Detections":
        """Those of a (D,) mask."""
        return Detections(*(values[which] for values in vars(self).values()))


def all_detections(scores: FrameScores, c: int, floor: float = -np.inf, ceiling: float = np.inf) -> Detections:
    """The detections of class c at all thresholds from `floor` to `ceiling`."""
    frames = np.flatnonzero(scores.values[c] >= floor)
    apart = np.append(True, (np.diff(frames) > 1) | (np.diff(scores.clip[frames]) > 0))[: len(frames)]
    places = np.arange(len(frames)) + np.cumsum(apart)  # one place is left between frames that are apart
    levels = np.full(len(frames) + apart.sum() + 1, -np.inf)
    levels[places] = np.minimum(scores.values[c, frames], ceiling)
    frame_at = np.empty(len(levels), dtype=np.intp)
    frame_at[places] = frames
    # A detection is found at its lowest frame. Of several that tie, only the first has a lower score before it.
    before = _nearest_before(levels, np.greater)
    after = len(levels) - 1 - _nearest_before(levels[::-1], np.greater_equal)[::-1]
    at = places[levels[before[places]] < levels[places]]
    first, last = frame_at[before[at] + 1], frame_at[after[at] - 1]
    above = np.maximum(levels[before[at]], levels[after[at]])
    return Detections(scores.clip[first], scores.onset[first], scores.offset[last], levels[at], above)


def _nearest_before(levels: np.ndarray, passed: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """For each of (L,) levels the place of the nearest one before it that is not `passed`, as greater ones may be.

    The first one and others of -inf are never passed. All steps are taken for all places at once, and a step goes as
    far as the place that it leads to has come.
    """
    nearest = np.arange(len(levels)) - 1
    todo = np.flatnonzero(levels > -np.inf)
    while len(todo):
        todo = todo[passed(levels[nearest[todo]], levels[todo])]
        nearest[todo] = nearest[nearest[todo]]
    return nearest


def pairs_in_time(
    detections: Detections, truth: EventTruth, events: np.ndarray, margin: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a detection and an event of one clip within a margin of each other in time, and a few others.

    Args:
        events: indices of the events to pair.
        margin: s.

    Returns:
        Two (P,) arrays, indices of detections and of events.
    """
    # All clips are laid on one axis of time, far enough apart.
    room = max(truth.offset.max(initial=0.0), detections.offset.max(initial=0.0)) + 2 * margin + 1
    events = events[np.argsort(truth.clip[events] * room + truth.onset[events], kind="stable")]
    onset, offset = (truth.clip[events] * room + time[events] for time in (truth.onset, truth.offset))
    begin, end = (detections.clip * room + time for time in (detections.onset, detections.offset))
    first = np.searchsorted(np.maximum.accumulate(offset), begin - margin)  # all before have ended by then
    count = np.maximum(np.searchsorted(onset, end + margin, side="right") - first, 0)
    detection = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return detection, events[first[detection] + within]
