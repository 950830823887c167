"""What counts as found where detections and events share time (Bilen et al., 2020, arXiv 1910.08440).

A detection is relevant where events of its class cover at least a share `dtc` of it (detection tolerance criterion).
Any other is a false positive. An event is found where relevant detections cover at least a share `gtc` of it (ground
truth intersection criterion). A false positive is also a cross trigger of each other class whose events cover at least
a share `cttc` of it (cross-trigger tolerance criterion). Shares are summed over events that overlap.
"""

import numpy as np

from src.learning.events.clips import TOLERANCE, EventTruth
from src.learning.events.curves import NONE, Changes, Curve
from src.learning.events.detections import Detections, pairs_in_time


def intersection_curve(
    detections: Detections, truth: EventTruth, c: int, dtc: float, gtc: float, cttc: float | None = None
) -> Curve:
    """The curve of class c. Without `cttc`, it has no cross triggers. All shares are more than 0."""
    found, event, shared = _shared_time(detections, truth, truth.of_class(c))
    covered = np.bincount(found, shared, len(detections.clip))
    relevant = covered >= dtc * detections.length - TOLERANCE
    found, event, shared = (each[relevant[found]] for each in (found, event, shared))
    hits = Changes.within(event, detections.upto[found], detections.above[found], shared).reaching(gtc * truth.length)
    wrong = detections.only(~relevant)
    false = Changes.within(wrong.clip, wrong.upto, wrong.above, np.ones(len(wrong.clip)))
    return Curve(hits, false, NONE if cttc is None else _cross_triggers(wrong, truth, c, cttc))


def _cross_triggers(wrong: Detections, truth: EventTruth, c: int, cttc: float) -> Changes:
    """Of those detections of class c that are false positives."""
    found, event, shared = _shared_time(wrong, truth, np.flatnonzero(truth.label != c))
    pairs, pair = np.unique(found * truth.num_classes + truth.label[event], return_inverse=True)
    found, label = np.divmod(pairs, truth.num_classes)
    triggered = np.bincount(pair, shared, len(pairs)) >= cttc * wrong.length[found] - TOLERANCE
    found, label = found[triggered], label[triggered]
    of = wrong.clip[found].astype(np.intp) * truth.num_classes + label
    return Changes.within(of, wrong.upto[found], wrong.above[found], np.ones(len(of)))


def _shared_time(
    detections: Detections, truth: EventTruth, events: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of a detection and one of some events that overlap: three (P,) arrays, the indices of both and s."""
    found, event = pairs_in_time(detections, truth, events)
    last_onset = np.maximum(detections.onset[found], truth.onset[event])
    shared = np.minimum(detections.offset[found], truth.offset[event]) - last_onset
    overlap = shared > 0
    return found[overlap], event[overlap], shared[overlap]
