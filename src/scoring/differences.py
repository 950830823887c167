"""How far two networks' scores are apart on the same resamples of the clips, and how sure that is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from src.scoring.bootstrap import interval

TEST = "two-sided paired bootstrap test, percentile"


@dataclass(frozen=True)
class Comparison:
    """One score of two networks, and their difference over paired resamples of the clips.

    A difference is defined where both scores are finite. d′ is infinite where the AUC is 1.
    """

    name: str  # mAP, mAUC, dprime, accuracy where clips have one class each, or a sound event score
    first: float
    second: float
    low: float  # 95 % interval of second - first. An end at an infinite d′ is infinite, and undefined
    high: float
    p: float  # of TEST: how often resamples put the difference on zero's other side

    @classmethod
    def of(cls, name: str, scores: Sequence[float], drawn: Sequence[np.ndarray]) -> "Comparison":
        """Of the scores of both, and their (R,) values on the same resamples."""
        with np.errstate(invalid="ignore"):  # two infinite d′
            differences = drawn[1] - drawn[0]
        return cls(name, scores[0], scores[1], *interval(differences), two_sided(differences))

    @property
    def difference(self) -> float:
        """Second minus first. Not finite where it is undefined."""
        return self.second - self.first

    def as_dict(self) -> dict[str, Any]:
        """Its figures, some of them not finite, and what p is of."""
        return asdict(self) | {"difference": self.difference, "test": TEST}


def two_sided(differences: np.ndarray) -> float:
    """p of `TEST` that there is no difference, at least 2 / (R + 1), which R resamples cannot tell from 0.

    A difference of 0 counts on both sides, an infinite one on its own. Those that are no numbers say nothing and are
    left out. With no other ones, the result is NaN.
    """
    differences = differences[~np.isnan(differences)]
    if len(differences) == 0:
        return float("nan")
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)))
