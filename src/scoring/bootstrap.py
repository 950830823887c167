"""How much scores would vary with other clips: the bootstrap over evaluation clips (Efron, 1979).

A resample draws N clips from the N there are, with replacement, and is held as how often each was
drawn. Its scores weigh each clip by that count. They are scikit-learn's average precision and ROC AUC
with these sample weights, computed for many resamples at once.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from src.learning.metrics import mean_over_classes, require_scores
from src.utils.progress import progress

CHUNK = 1 << 22  # counts held at a time


@dataclass(frozen=True)
class BootstrapScores:
    """Scores of R resamples. Classes without a positive or a negative clip in one are left out of its mean."""

    mAP: np.ndarray  # noqa: N815  (R,)
    mAUC: np.ndarray  # noqa: N815  (R,)
    accuracy: np.ndarray | None  # (R,) where clips have one class each

    @property
    def dprime(self) -> np.ndarray:
        """(R,) d′ of the mean AUC, infinite where that is 1."""
        return np.sqrt(2) * ndtri(self.mAUC)


def bootstrap(
    predictions: np.ndarray, targets: np.ndarray, resamples: int, seed: int, one_class: bool = False
) -> BootstrapScores:
    """Scores of (N, C) predictions on resampled clips.

    Resample r depends on the seed, r and N alone: two networks on the same clips see the same resamples.

    Args:
        targets: (N, C) of 0 and 1.
        resamples: R.
        one_class: whether clips have one class each, and accuracy is asked for.
    """
    require_scores(predictions, targets)
    num_clips, num_classes = predictions.shape
    size = max(1, CHUNK // num_clips)
    ap, auc = np.full((2, resamples, num_classes), np.nan)
    with progress(resamples, "bootstrap", "resample") as bar:
        for start in range(0, resamples, size):
            chunk = slice(start, min(start + size, resamples))
            counts = np.stack([draw_counts(num_clips, seed, number) for number in range(resamples)[chunk]])  # (r, N)
            for c in np.flatnonzero(targets.max(axis=0) == 1):
                ap[chunk, c], auc[chunk, c] = weighted_scores(predictions[:, c], targets[:, c], counts)
            bar.update(len(counts))
    right = predictions.argmax(axis=1) == targets.argmax(axis=1)  # (N,)
    accuracy = bootstrap_accuracy(right, resamples, seed) if one_class else None
    return BootstrapScores(mean_over_classes(ap), mean_over_classes(auc), accuracy)


def bootstrap_accuracy(right: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(R,) accuracies of the same resamples as of `bootstrap`. `right` is (N,), whether each clip's class was found."""
    return np.array([draw_counts(len(right), seed, number) @ right for number in range(resamples)]) / len(right)


def draw_counts(num_clips: int, seed: int, number: int) -> np.ndarray:
    """(N,) how often each clip is in resample `number`."""
    drawn = np.random.default_rng((seed, number)).integers(num_clips, size=num_clips)
    return np.bincount(drawn, minlength=num_clips).astype(np.float64)


def weighted_scores(predictions: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and ROC AUC of one class, for each row of counts.

    Args:
        predictions, targets: (N,).
        counts: (r, N) weights of the clips.

    Returns:
        Two (r,) arrays, NaN where a resample has no positive, or for the AUC no negative, clip.
    """
    order = np.argsort(-predictions, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(predictions[order]) != 0, True))  # the last clip of each score
    positives = np.cumsum(counts[:, order] * targets[order], axis=1)[:, ends]  # (r, thresholds)
    negatives = np.cumsum(counts[:, order] * (1 - targets[order]), axis=1)[:, ends]
    return average_precision(positives, negatives), roc_auc(positives, negatives)


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """(r,) average precision, NaN without positives.

    Args:
        positives, negatives: (r, thresholds) weights of those that reach each of falling thresholds. Only thresholds
            that a positive's score is equal to matter.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(positives / (positives + negatives))  # before the first drawn clip, no gain either
        gained = np.diff(positives, axis=1, prepend=0)
        return (gained * precision).sum(axis=1) / positives[:, -1]


def roc_auc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """(r,) area under the ROC curve, NaN without positives or without negatives.

    Args:
        positives, negatives: (r, thresholds) weights of those that reach each of falling thresholds, the last of which
            all reach.
    """
    gained = np.diff(positives, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        # Of each negative clip, the share of positive ones above it, half of those that tie with it.
        above = positives - gained / 2
        return (np.diff(negatives, axis=1, prepend=0) * above).sum(axis=1) / (positives[:, -1] * negatives[:, -1])


def interval(values: np.ndarray, share: float = 0.95) -> tuple[float, float]:
    """The percentile interval of those of (R,) resampled values that are numbers, or NaN if none is.

    Its ends are values themselves: between an infinite d′ and a finite one, nothing can be interpolated.
    """
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2], method="inverted_cdf")
    return float(low), float(high)
