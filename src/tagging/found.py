"""Scores of a recording -> the events in it: of its frames, or of windows that follow each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from src.learning.events.choosing import smoothed
from src.learning.events.clips import FrameScores
from src.models.decisions import EventDecisions

if TYPE_CHECKING:
    from src.tagging.tagger import Tagged, Tagger

UNDECIDED = 0.5  # the threshold of a checkpoint for which nobody has chosen any


class FoundEvent(NamedTuple):
    """A sound that a network found in a recording."""

    onset: float  # s
    offset: float  # s
    label: int  # class index
    confidence: float  # the highest score of its frames, behind the filter, or of its windows


def decisions_of(tagger: "Tagger", threshold: float | None = None) -> EventDecisions:
    """From which score on each class sounds, and the filters before that, as the checkpoint has them.

    Args:
        threshold: in place of all of the checkpoint's.
    """
    num_classes = len(tagger.classes)
    thresholds: Sequence[float | None] = [UNDECIDED] * num_classes
    if tagger.event_decisions:
        thresholds = tagger.event_decisions.thresholds
    elif tagger.decisions:  # in single precision, in which scores are compared with them
        thresholds = [None if each is None else float(np.float32(each)) for each in tagger.decisions.thresholds]
    if threshold is not None:
        thresholds = [max(threshold, 0.0) if threshold <= 1 else None] * num_classes
    medians = tagger.event_decisions.medians if tagger.event_decisions else [1] * num_classes
    return EventDecisions(medians, thresholds)


def found_in(tagged: "Tagged", decisions: EventDecisions) -> list[FoundEvent]:
    """The events of one recording, by onset: of its frames where it has any, or else of its windows.

    Windows in a row whose scores all reach the threshold are one event, where none begins after the one before it ends.
    """
    return _runs(*scores_over_time(tagged, decisions), decisions.limits)


def scores_over_time(tagged: "Tagged", decisions: EventDecisions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(C, T) scores that events are found in, and their (T,) onsets and (T,) offsets in s: of frames, or of windows."""
    if tagged.frames is None:
        return tagged.scores.T, tagged.starts, tagged.ends
    return smoothed(tagged.frames, decisions.medians).values, tagged.frames.onset, tagged.frames.offset


def found_events(scores: FrameScores, decisions: EventDecisions) -> list[FoundEvent]:
    """The events of one recording's frames, by onset."""
    return _runs(smoothed(scores, decisions.medians).values, scores.onset, scores.offset, decisions.limits)


def _runs(values: np.ndarray, onset: np.ndarray, offset: np.ndarray, limits: np.ndarray) -> list[FoundEvent]:
    """The longest rows of scores that reach the limits, of (C, T) scores from (T,) onsets to (T,) offsets."""
    joins = onset[1:] <= offset[:-1]
    found = []
    for c, limit in enumerate(limits):
        above = values[c] >= limit
        both = above[1:] & above[:-1] & joins  # of which the second continues the first
        first = np.flatnonzero(above & ~np.append(False, both))
        last = np.flatnonzero(above & ~np.append(both, False))
        found += [
            FoundEvent(float(onset[i]), float(offset[k]), c, float(values[c, i : k + 1].max()))
            for i, k in zip(first, last)
        ]
    return sorted(found)
