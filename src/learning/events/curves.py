"""Counts of one class as functions of the threshold, held as the changes that each event and each clip makes to them.

For a resample of the clips, or for some of the events, the same changes are added up again. Nothing is detected or
matched anew.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from src.learning.events.clips import TOLERANCE


@dataclass(frozen=True)
class Changes:
    """K changes, each made where the falling threshold comes to a level."""

    level: np.ndarray  # (K,)
    of: np.ndarray  # (K,) index of what changes: an event or a clip, say
    change: np.ndarray  # (K,) what is added

    @classmethod
    def within(cls, of: np.ndarray, upto: np.ndarray, above: np.ndarray, amount: np.ndarray) -> "Changes":
        """(K,) amounts that are there at the thresholds in (above, upto]."""
        level = np.concatenate([upto, above])
        made = level > -np.inf
        return cls(level[made], np.concatenate([of, of])[made], np.concatenate([amount, -amount])[made])

    def followed_by(self, other: "Changes") -> "Changes":
        """Both."""
        return Changes(*(np.concatenate([getattr(each, name) for each in (self, other)]) for name in vars(self)))

    def totals(self, size: int) -> np.ndarray:
        """(size,) what all changes of each add up to, at the lowest threshold."""
        return np.bincount(self.of, self.change, size)

    def matrix(self, levels: np.ndarray, size: int) -> csr_array:
        """(L, size) what each adds from one of L falling thresholds to the next."""
        place = np.searchsorted(-levels, -self.level).astype(np.int32)
        seen = place < len(levels)
        entries = self.change[seen].astype(np.float64), (place[seen], self.of[seen].astype(np.int32))
        return coo_array(entries, (len(levels), size)).tocsr()

    def sums(self, levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(L, r) weighted sums at each of L falling thresholds.

        Args:
            weights: (M, r), a row for each index of what changes.
        """
        return np.cumsum(self.matrix(levels, len(weights)) @ weights, axis=0)

    def reaching(self, needed: np.ndarray) -> "Changes":
        """1 where the sum of one event comes to what is needed of it, -1 where it no longer does.

        Args:
            needed: (E,), more than `TOLERANCE`.
        """
        order = np.lexsort((-self.level, self.of))
        level, of = self.level[order], self.of[order]
        total = np.cumsum(self.change[order])
        begins = np.append(True, np.diff(of) != 0)[: len(of)]
        before = np.append(0, total)[:-1][begins]  # what the events so far add up to
        total -= before[np.cumsum(begins) - 1]
        last = np.append((np.diff(level) != 0) | (np.diff(of) != 0), True)[: len(of)]  # of its event and level
        level, of, reached = level[last], of[last], (total[last] >= needed[of[last]] - TOLERANCE).astype(np.int8)
        change = np.diff(reached, prepend=0)
        first = np.append(True, np.diff(of) != 0)[: len(of)]
        change[first] = reached[first]
        made = change != 0
        return Changes(level[made], of[made], change[made])


NONE = Changes(np.empty(0), np.empty(0, dtype=np.intp), np.empty(0))


@dataclass(frozen=True)
class Curve:
    """What one class's detections find and what they get wrong, as the threshold falls."""

    hits: Changes  # of events, by index in the truth: 1 where one is found, -1 where it no longer is
    false: Changes  # of clips: false positives
    cross: Changes = NONE  # of clip * C + class: false positives that another class's events account for

    @property
    def levels(self) -> np.ndarray:
        """(L,) thresholds at which something changes, falling."""
        return -np.unique(-np.concatenate([self.hits.level, self.false.level]))
