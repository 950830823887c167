"""The polyphonic sound detection score (Bilen et al., 2020, arXiv 1910.08440), exact over all thresholds.

As Ebbers, Haeb-Umbach and Serizel (2022, arXiv 2201.13148) have it, every threshold between two scores is an operating
point. A class's true positive rate at an effective false positive rate is the highest of all its operating points up
to there. PSDS is the mean over classes less `alpha_st` standard deviations, not below 0, averaged over the rates up to
a maximum. A class without an event has no rate and is left out, as it is of a cross trigger's mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.learning.events.clips import EventTruth, FrameScores
from src.learning.events.curves import Changes, Curve
from src.learning.events.detections import all_detections
from src.learning.events.intersections import intersection_curve

MAX_EFPR = 100.0  # effective false positives an hour
CHUNK = 1 << 22  # sums held at a time


@dataclass(frozen=True)
class Criteria:
    """What counts as found, as a false positive and as a cross trigger, and what the latter costs."""

    dtc: float
    gtc: float
    cttc: float | None = None  # None: cross triggers are not counted
    alpha_ct: float = 0.0

    def __post_init__(self) -> None:
        shares = [self.dtc, self.gtc] + ([] if self.cttc is None else [self.cttc])
        if not all(0 < share <= 1 for share in shares) or (self.alpha_ct and self.cttc is None):
            raise ValueError(f"{self}: dtc, gtc and cttc must lie in (0, 1], and alpha_ct needs a cttc")


PSDS1 = Criteria(0.7, 0.7)  # of the DCASE challenges: when it sounds
PSDS2 = Criteria(0.1, 0.1, 0.3, 0.5)  # what sounds


@dataclass(frozen=True)
class PsdsCurve:
    """A class's curve, down to a floor below which no operating point counts."""

    curve: Curve
    beyond: np.ndarray  # (N,) clips that have a false positive at every threshold below the floor
    whole: bool  # whether there is no floor


def psds_curves(
    scores: FrameScores, truth: EventTruth, criteria: Criteria, weights: np.ndarray, max_efpr: float = MAX_EFPR
) -> list[PsdsCurve]:
    """What `psds` is computed of, for each class.

    Args:
        weights: (R, N) of the clips, all that the curves are for.
        max_efpr: 1/h.
    """
    limits = max_efpr * (weights @ truth.durations) / 3600  # (R,) false positives
    found = []
    for c in range(truth.num_classes):
        beyond, floor = _floor(scores, truth, c, weights, limits)
        detections = all_detections(scores, c, floor)
        curve = intersection_curve(detections, truth, c, criteria.dtc, criteria.gtc, criteria.cttc)
        found.append(PsdsCurve(curve, beyond, floor == -np.inf))
    return found


def _floor(
    scores: FrameScores, truth: EventTruth, c: int, weights: np.ndarray, limits: np.ndarray
) -> tuple[np.ndarray, float]:
    """A score at and below which every resample has its limit of false positives, and the clips that have them.

    In a clip without the class, a frame that reaches the threshold is a false positive or part of one.
    """
    highest = scores.highest(c)  # (N,)
    highest[truth.clip[truth.of_class(c)]] = -np.inf
    order = np.argsort(-highest, kind="stable")
    most, count = np.isfinite(highest).sum(), 1 + int(limits.max())
    while count <= most and (weights[:, order[:count]].sum(axis=1) < limits).any():
        count += 1 + count // 8
    beyond = np.isin(np.arange(len(highest)), order[:count])
    return beyond, float(highest[order[count - 1]]) if count <= most else -np.inf


@dataclass(frozen=True)
class Psds:
    """PSDS of R resamples."""

    value: np.ndarray  # (R,) NaN without any event
    per_class: np.ndarray  # (R, C) of each class alone, NaN without an event


def psds(
    curves: Sequence[PsdsCurve],
    truth: EventTruth,
    weights: np.ndarray,
    alpha_ct: float = 0.0,
    alpha_st: float = 1.0,
    max_efpr: float = MAX_EFPR,
) -> Psds:
    """PSDS of the curves of all classes.

    Args:
        weights: (R, N) of the clips, among those that the curves are for.
        alpha_ct: what cross triggers cost.
        alpha_st: what differences between classes cost.
        max_efpr: 1/h, at most that of the curves.

    Raises:
        ValueError: the curves are not for these weights or this maximum.
    """
    limits = max_efpr * (weights @ truth.durations) / 3600  # (R,)
    if not all(each.whole or (weights @ each.beyond >= limits).all() for each in curves):
        raise ValueError("these curves end too early. Were they made for other weights, or a lower max_efpr?")
    size = max(1, CHUNK // max(1, *(len(each.curve.levels) for each in curves)))
    areas = []
    for start in range(0, len(weights), size):
        clips = np.ascontiguousarray(weights[start : start + size].T)  # (N, r)
        steps = [_steps(each.curve, truth, c, alpha_ct, clips) for c, each in enumerate(curves)]
        areas += [_areas(classes, alpha_st, max_efpr) for classes in zip(*steps)]
    return Psds(np.array([value for value, _ in areas]), np.array([per_class for _, per_class in areas]))


# (S,) effective false positive rates, 1/h, that do not fall, and the true positive rates from each of them on.
Steps = tuple[np.ndarray, np.ndarray]


def _steps(curve: Curve, truth: EventTruth, c: int, alpha_ct: float, weights: np.ndarray) -> list[Steps | None]:
    """The staircase of class c for each column of (N, r) weights, None where no event is to be found."""
    levels = curve.levels
    rates = curve.false.sums(levels, weights) / (truth.durations @ weights / 3600)  # (L, r)
    if alpha_ct:
        rates += alpha_ct * _cross_trigger_rates(curve, truth, c, weights)
    counted = truth.scored[curve.hits.of]
    hits = Changes(*(values[counted] for values in (curve.hits.level, truth.clip[curve.hits.of], curve.hits.change)))
    changing = -np.unique(-hits.level)  # (S,). Between two of them, the lowest rate is the only one that counts
    lowest = np.minimum.reduceat(rates, np.searchsorted(-levels, -changing), axis=0)  # (S, r)
    found = hits.sums(changing, weights)  # (S, r)
    total = weights[truth.clip[truth.scored & (truth.label == c)]].sum(axis=0)  # (r,) events
    return [_rising(rate, hit / due) if due else None for rate, hit, due in zip(lowest.T, found.T, total)]


def _cross_trigger_rates(curve: Curve, truth: EventTruth, c: int, weights: np.ndarray) -> np.ndarray:
    """(L, r) cross triggers in an hour of another class's events, averaged over the other classes."""
    hours = truth.seconds.T @ weights / 3600  # (C, r)
    others = np.maximum((np.delete(hours, c, axis=0) > 0).sum(axis=0), 1)  # (r,)
    pairs, of = np.unique(curve.cross.of, return_inverse=True)
    clip, label = np.divmod(pairs, truth.num_classes)
    drawn = weights[clip]
    each = np.divide(drawn, hours[label] * others, out=np.zeros_like(drawn), where=drawn > 0)
    return Changes(curve.cross.level, of, curve.cross.change).sums(curve.levels, each)


def _rising(rates: np.ndarray, found: np.ndarray) -> Steps:
    """Those of (S,) operating points that find more than any at a lower rate."""
    order = np.argsort(rates, kind="stable")
    best = np.maximum.accumulate(found[order])
    rises = np.diff(best, prepend=0) > 0
    return rates[order][rises], best[rises]


def _areas(classes: Sequence[Steps | None], alpha_st: float, max_efpr: float) -> tuple[float, np.ndarray]:
    """PSDS of one resample, and (C,) of each class alone."""
    per_class = np.full(len(classes), np.nan)
    steps = {c: each for c, each in enumerate(classes) if each is not None}
    if not steps:
        return float("nan"), per_class
    rates, found = (np.concatenate([each[part] for each in steps.values()]) for part in (0, 1))
    column = np.repeat(np.arange(len(steps)), [len(each[0]) for each in steps.values()])
    order = np.argsort(rates, kind="stable")
    order = order[rates[order] < max_efpr]
    table = np.zeros((1 + len(order), len(steps)))  # the TPR of each class from the first rate, 0, and all others on
    table[np.arange(1, len(table)), column[order]] = found[order]
    np.maximum.accumulate(table, axis=0, out=table)
    widths = np.diff(np.concatenate([[0], rates[order], [max_efpr]])) / max_efpr
    table, widths = table[widths > 0], widths[widths > 0]
    per_class[list(steps)] = widths @ table
    together = np.maximum(table.mean(axis=1) - alpha_st * table.std(axis=1), 0)
    return float(widths @ together), per_class
