"""Two checkpoints on the same clips: how far apart they are, and how sure that is."""

import logging
from dataclasses import dataclass

import numpy as np

from src.errors import UserError
from src.learning.metrics import ranking_scores
from src.runs.folder import checkpoint_at
from src.scoring.bootstrap import bootstrap, interval
from src.scoring.predictions import Candidate, InferenceOptions, predictions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """One score of two networks, and their difference over paired resamples of the clips."""

    name: str  # mAP, mAUC or dprime
    first: float
    second: float
    low: float  # 95 % interval of second - first
    high: float
    p: float  # two-sided: how often resamples put the difference on zero's other side

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


def compare(first: str, second: str, options: InferenceOptions, resamples: int, seed: int) -> list[Comparison]:
    """Score two checkpoints on the clips of `options.source` and on the same resamples of them.

    Raises:
        UserError: a checkpoint cannot be read, a file is replaced meanwhile, or the two were validated on other folds.
    """
    candidates = [Candidate(checkpoint_at(first)), Candidate(checkpoint_at(second))]
    one, other = predictions(candidates, options)
    if not np.array_equal(one.dataset.records, other.dataset.records):
        folds = " and ".join(str(each.checkpoint.record.get("fold_index")) for each in (one, other))
        where = f"on other clips of {options.source}"
        raise UserError(f"{first} and {second} would be scored {where}: their folds are {folds}")
    scores = [ranking_scores(each.probabilities, each.multi_hot) for each in (one, other)]
    bootstrapped = [bootstrap(each.probabilities, each.multi_hot, resamples, seed) for each in (one, other)]
    found = []
    for name in ("mAP", "mAUC", "dprime"):
        with np.errstate(invalid="ignore"):  # two infinite d′
            differences = getattr(bootstrapped[1], name) - getattr(bootstrapped[0], name)  # (R,)
        low, high = interval(differences)
        first_score, second_score = (getattr(each, name) for each in scores)
        found.append(Comparison(name, first_score, second_score, low, high, two_sided(differences)))
    return found


def two_sided(differences: np.ndarray) -> float:
    """Bootstrap p-value of no difference, at least 2 / (R + 1), which R resamples cannot tell from 0.

    Differences that are no numbers say nothing and are left out. With no other ones, the result is NaN.
    """
    differences = differences[~np.isnan(differences)]
    if len(differences) == 0:
        return float("nan")
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)))
