"""A threshold for each class, chosen on validation clips, and precision, recall and F at it.

Scores are (N, C) float32 probabilities, targets (N, C) of 0 and 1. A class is decided to be present where its score
reaches its threshold. A class without a positive clip gets none.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.errors import listed
from src.learning.metrics import mean_defined, require_scores
from src.models.decisions import Decisions

log = logging.getLogger(__name__)

DECISION_SCORES = ("precision", "recall", "F1")


@dataclass(frozen=True)
class DecisionScores:
    """Scores of decisions. All are NaN for classes without a threshold, and those behind it without a positive clip."""

    threshold: np.ndarray  # (C,) in [0, 1]
    precision: np.ndarray  # (C,) in [0, 1]. 0 where nothing was decided to be present, as scikit-learn has it
    recall: np.ndarray  # (C,) in [0, 1]
    F1: np.ndarray  # (C,) harmonic mean of both

    def macro(self) -> dict[str, float]:
        """Means over classes of all but the threshold."""
        return {name: mean_defined(getattr(self, name)) for name in DECISION_SCORES}

    def of_class(self, c: int) -> dict[str, float | None]:
        """One class's threshold and scores, None for what is not defined."""
        return {name: None if np.isnan(values[c]) else float(values[c]) for name, values in vars(self).items()}


def choose(
    scores: np.ndarray, targets: np.ndarray, precision: float | None = None, temperature: float = 1.0
) -> Decisions:
    """Choose each class's threshold for the best F1, or for the precision asked for.

    For a precision it is the lowest threshold that reaches it, and so of the highest recall. Where none does, it is
    one of the best precision. Of equally good ones it is the lowest.

    Args:
        temperature: that the logits were divided by.
    """
    require_scores(scores, targets)
    thresholds = [_threshold(scores[:, c], targets[:, c] == 1, precision) for c in range(targets.shape[1])]
    return Decisions("F1" if precision is None else f"precision {precision:g}", thresholds, temperature)


def _threshold(scores: np.ndarray, positive: np.ndarray, precision: float | None) -> float | None:
    """Of one class. It lies between two clips' scores, for on another machine their last bits may differ.

    Args:
        scores: (N,) float32.
        positive: (N,) bool.
    """
    if not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = np.append(scores[order], np.float32(0))  # (N + 1,)
    decided = np.flatnonzero(np.append(np.diff(ranked[:-1]) != 0, True)) + 1  # clips that reach each score
    right = np.cumsum(positive[order])[decided - 1]
    if precision is None:
        quality = 2 * right / (decided + positive.sum())  # F1
    else:
        quality = np.minimum(right / decided, precision)
    best = decided[np.flatnonzero(quality == quality.max())[-1]]
    reaching, below = ranked[best - 1], ranked[best]
    between = np.float32((float(reaching) + float(below)) / 2)
    return float(between if between > below else reaching)  # neighbouring numbers have nothing between them


def decision_scores(decisions: Decisions, scores: np.ndarray, targets: np.ndarray) -> DecisionScores:
    """Precision, recall and F1 of every class at its threshold (van Rijsbergen, 1979)."""
    require_scores(scores, targets)
    present, positives = decisions.present(scores), targets.sum(axis=0)  # (N, C), (C,)
    decided, right = present.sum(axis=0), (present & (targets == 1)).sum(axis=0)  # (C,)
    thresholds = np.array(decisions.thresholds, dtype=np.float64)  # None becomes NaN
    known = (positives > 0) & ~np.isnan(thresholds)
    with np.errstate(invalid="ignore"):
        figures = right / np.maximum(decided, 1), right / positives, 2 * right / (decided + positives)
    return DecisionScores(thresholds, *(np.where(known, figure, np.nan) for figure in figures))


def report_missing(thresholds: Sequence[float | None], names: Sequence[str], where: str) -> None:
    """Say which classes have no threshold."""
    missing = [name for name, threshold in zip(names, thresholds) if threshold is None]
    if missing:
        counted = f"{len(missing)} of the {len(names)} classes"
        log.warning("%s: no threshold for %s, never decided present: %s", where, counted, listed(missing, 60))
