"""What counts as found where a detection's ends are near an event's.

A detection may match an event where their onsets differ by no more than the collar. Their offsets may differ by the
collar or by a share of the event's length, whichever is larger. Each is matched once at most, as many as possible are,
and detections without a match are false positives (Mesaros, Heittola, Virtanen, 2016,
https://doi.org/10.3390/app6060162).
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from src.learning.events.clips import TOLERANCE, EventTruth
from src.learning.events.curves import Changes, Curve
from src.learning.events.detections import Detections, pairs_in_time


def collar_curve(detections: Detections, truth: EventTruth, c: int, collar: float = 0.2, share: float = 0.2) -> Curve:
    """The curve of class c.

    Args:
        collar: s.
        share: of an event's length.
    """
    found, event = pairs_in_time(detections, truth, truth.of_class(c), collar + TOLERANCE)
    onsets_differ = np.abs(detections.onset[found] - truth.onset[event])
    offsets_differ = np.abs(detections.offset[found] - truth.offset[event])
    near = onsets_differ <= collar + TOLERANCE
    near &= offsets_differ <= np.maximum(collar, share * truth.length[event]) + TOLERANCE
    found, event = found[near], event[near]
    several = np.bincount(found, minlength=len(detections.clip))[found] > 1
    clips = np.unique(truth.clip[event[several]])
    plain = ~np.isin(truth.clip[event], clips)
    matched = [(event[plain], detections.upto[found[plain]], detections.above[found[plain]])]
    for clip in clips:
        here = truth.clip[event] == clip
        matched += _best_matches(found[here], event[here], detections)
    of, upto, above = (np.concatenate(each) for each in zip(*matched))
    hits = Changes.within(of, upto, above, np.ones(len(of))).reaching(np.ones(len(truth.clip)))
    every = Changes.within(detections.clip, detections.upto, detections.above, np.ones(len(detections.clip)))
    return Curve(hits, every.followed_by(Changes(hits.level, truth.clip[hits.of], -hits.change)))


def _best_matches(
    found: np.ndarray, event: np.ndarray, detections: Detections
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """In a clip where a detection has a choice of events: which events are matched, and at which thresholds.

    Args:
        found, event: (P,) pairs of a detection and an event that it may match.
    """
    upto, above = detections.upto[found], detections.above[found]
    levels = -np.unique(-np.concatenate([upto, above, [-np.inf]]))
    matches = []
    for level, lower in zip(levels, levels[1:]):
        there = (above < level) & (level <= upto)
        rows, row = np.unique(found[there], return_inverse=True)
        columns, column = np.unique(event[there], return_inverse=True)
        near = np.zeros((len(rows), len(columns)))
        near[row, column] = 1
        chosen = linear_sum_assignment(near, maximize=True)
        of = columns[chosen[1][near[chosen] == 1]]
        matches.append((of, np.full(len(of), level), np.full(len(of), lower)))
    return matches
