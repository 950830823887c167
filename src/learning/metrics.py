"""Scores of a set of clips: average precision, ROC AUC, d′, accuracy.

Predictions are (N, C) probabilities or any scores that rank alike, targets (N, C) of 0 and 1 or,
for accuracy, (N,) class indices. A class without a positive clip has no average precision, and one
without positives or without negatives no AUC: those are NaN and left out of the means.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri


@dataclass(frozen=True)
class RankingScores:
    """Per-class and mean scores."""

    ap: np.ndarray  # (C,) average precision in [0, 1], NaN where undefined
    auc: np.ndarray  # (C,) area under the ROC curve in [0, 1], NaN where undefined

    @property
    def mAP(self) -> float:  # noqa: N802 (the field's spelling)
        """Macro average precision."""
        return mean_defined(self.ap)

    @property
    def mAUC(self) -> float:  # noqa: N802
        """Macro ROC AUC."""
        return mean_defined(self.auc)

    @property
    def dprime(self) -> float:
        """d′ of the mean AUC."""
        return dprime(self.mAUC)


def ranking_scores(predictions: np.ndarray, targets: np.ndarray) -> RankingScores:
    """Average precision and ROC AUC of every class, by scikit-learn.

    Raises:
        ValueError: shapes that differ or are not (N, C), or predictions that are not finite.
    """
    from sklearn.metrics import roc_auc_score  # here, as below: 100 MB that tagging a recording does without

    require_scores(predictions, targets)
    auc = np.full(targets.shape[1], np.nan)
    for c in np.flatnonzero((targets.min(axis=0) == 0) & (targets.max(axis=0) == 1)):
        auc[c] = roc_auc_score(targets[:, c], predictions[:, c])
    return RankingScores(_average_precisions(predictions, targets), auc)


def _average_precisions(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C,) average precision, NaN for classes without positives."""
    from sklearn.metrics import average_precision_score

    ap = np.full(targets.shape[1], np.nan)
    for c in np.flatnonzero(targets.max(axis=0) == 1):
        ap[c] = average_precision_score(targets[:, c], predictions[:, c])
    return ap


def mean_average_precision(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Macro average precision alone."""
    require_scores(predictions, targets)
    return mean_defined(_average_precisions(predictions, targets))


def dprime(auc: float) -> float:
    """d′ = √2 · Φ⁻¹(AUC): the distance, in standard deviations, of two normal distributions with that AUC."""
    return float(np.sqrt(2) * ndtri(auc))


def accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Share of (N, C) predictions whose largest score is at the (N,) target."""
    return float((predictions.argmax(axis=1) == targets).mean())


def top_k_accuracy(predictions: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Share of (N, C) predictions with the (N,) target among the k largest scores."""
    k = min(k, predictions.shape[1])
    largest = np.argpartition(-predictions, k - 1, axis=1)[:, :k]  # (N, k)
    return float((largest == targets[:, None]).any(axis=1).mean())


def mean_defined(values: np.ndarray) -> float:
    """Mean of what is defined, or NaN."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def mean_over_classes(scores: np.ndarray) -> np.ndarray:
    """(r, C) -> (r,), without the NaNs."""
    defined = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        return np.where(defined, scores, 0).sum(axis=1) / defined.sum(axis=1)


def require_scores(predictions: np.ndarray, targets: np.ndarray) -> None:
    """Refuse what cannot be scored: other shapes than (N, C), values that are not finite, or not 0 and 1."""
    if predictions.ndim != 2 or predictions.shape != targets.shape:
        raise ValueError(
            f"predictions {predictions.shape} and targets {targets.shape} must both be (N, C). "
            "Are the targets class indices?"
        )
    if not np.isfinite(predictions).all():
        raise ValueError("predictions are not all finite. Did the network diverge?")
    if not np.isin(targets, (0, 1)).all():
        raise ValueError("targets are not all 0 or 1. Are they mixed?")
