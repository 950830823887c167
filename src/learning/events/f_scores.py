"""F-scores of detections at one threshold a class, and the thresholds that are best for them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from src.learning.events.clips import EventTruth, FrameScores
from src.learning.events.curves import Curve
from src.learning.events.detections import Detections, all_detections
from src.learning.metrics import mean_over_classes

CurveOf = Callable[[Detections, EventTruth, int], Curve]  # such as collar_curve


@dataclass(frozen=True)
class Counts:
    """What was found and what was wrong in each clip and class, all (N, C)."""

    found: np.ndarray  # events, or segments
    missed: np.ndarray
    false: np.ndarray


@dataclass(frozen=True)
class FScores:
    """F-scores of R resamples."""

    per_class: np.ndarray  # (R, C) NaN for a class without an event to be found
    macro: np.ndarray  # (R,) their mean, without the NaNs
    micro: np.ndarray  # (R,) of the sums of all classes' counts, also of those without an event


def f_scores(counts: Counts, weights: np.ndarray) -> FScores:
    """2 TP / (2 TP + FN + FP) of sums over clips (van Rijsbergen, 1979), with (R, N) weights."""
    found, missed, false = (weights @ each for each in (counts.found, counts.missed, counts.false))  # (R, C)
    with np.errstate(invalid="ignore"):
        per_class = np.where(found + missed > 0, 2 * found / (2 * found + missed + false), np.nan)
        twice, wrong = 2 * found.sum(axis=1), (missed + false).sum(axis=1)
        return FScores(per_class, mean_over_classes(per_class), twice / (twice + wrong))


def event_counts(scores: FrameScores, truth: EventTruth, thresholds: np.ndarray, curve_of: CurveOf) -> Counts:
    """Counts at (C,) thresholds. A class whose threshold is NaN is never detected."""
    false, hit = np.zeros((truth.num_clips, truth.num_classes)), np.zeros(len(truth.clip))
    for c, threshold in enumerate(thresholds):
        curve = curve_of(all_detections(scores, c, threshold, threshold), truth, c)
        hit += curve.hits.totals(len(hit))
        false[:, c] = curve.false.totals(truth.num_clips)
    found, missed = np.zeros((2, *false.shape))
    cells = truth.clip[truth.scored], truth.label[truth.scored]
    np.add.at(found, cells, hit[truth.scored])
    np.add.at(missed, cells, 1 - hit[truth.scored])
    return Counts(found, missed, false)


def best_thresholds(
    scores: FrameScores, truth: EventTruth, curve_of: CurveOf, most: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """(C,) thresholds of each class's best F-score, and that score. Both are NaN for a class without an event.

    Each is in the middle of those that give the same score. Of separate ranges it is the highest. All events count.

    Args:
        most: thresholds at which more clips have a detection than so many times the class has events are left out.
    """
    none = np.nan, np.nan
    classes = range(truth.num_classes)
    found = np.array([_best(scores, truth, c, curve_of, most) if len(truth.of_class(c)) else none for c in classes])
    return found[:, 0], found[:, 1]


def _best(scores: FrameScores, truth: EventTruth, c: int, curve_of: CurveOf, most: float) -> tuple[float, float]:
    """Of class c. Where m clips have a detection, the F-score of E events is at most 2 E / (m + E)."""
    highest, events = -np.sort(-scores.highest(c)), len(truth.of_class(c))
    few = 2 * events
    while True:  # twice at most
        floor = highest[few] if few < len(highest) else -np.inf
        curve = curve_of(all_detections(scores, c, floor), truth, c)
        found = curve.hits.sums(curve.levels, np.ones((len(truth.clip), 1)))[:, 0]
        false = curve.false.sums(curve.levels, np.ones((truth.num_clips, 1)))[:, 0]
        quality = 2 * found / (found + false + events)
        enough = min(events * (2 / quality.max() - 1) if quality.max() else np.inf, most * events)
        if few + 1 > enough or floor == -np.inf:
            return _middle_of_best(curve.levels, quality), float(quality.max())
        few = int(min(enough, len(highest)))


def _middle_of_best(levels: np.ndarray, quality: np.ndarray) -> float:
    """Of the highest range of thresholds with the best quality. If no level is below, its first one."""
    best = int(quality.argmax())
    others = np.flatnonzero(quality[best:] != quality[best])
    below = levels[best + others[0]] if len(others) else -np.inf
    middle = (levels[best] + below) / 2
    return float(middle if middle > below else levels[best])  # neighbouring numbers have nothing between them
