"""Units of clips that belong together -> sides of a split, or folds, with each class in the wanted shares."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def stratified(counts: np.ndarray, sizes: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """The side of every unit, by iterative stratification (Sechidis, Tsoumakas & Vlahavas, ECML PKDD 2011).

    The rarest class is dealt out first, its largest units first. Each goes to the side that lacks most clips of the
    class, then to the one that lacks most clips at all. Where all else is equal, the seed decides. Where each unit is
    one clip of one class, no side has a whole clip of a class more or less than its exact share.

    Args:
        counts: (U, C) whole numbers, the clips of each class in each unit.
        sizes: (U,) clips in each unit, at least 1.
        shares: (S,) of the sides, which sum to 1.

    Returns:
        (U,) 0 … S-1.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sizes))
    side = np.full(len(sizes), -1)
    lacking = np.outer(shares, counts.sum(axis=0))  # (S, C) clips of a class
    lacking_at_all = np.array(shares) * sizes.sum()  # (S,) clips
    left = counts.sum(axis=0)  # (C,) clips of units without a side
    while (side < 0).any():
        if left.any():
            rarest = int(np.argmin(np.where(left > 0, left, np.inf)))
            weights, wanted = counts[:, rarest], lacking[:, rarest]
        else:
            weights, wanted = sizes, lacking_at_all
        members = order[(side[order] < 0) & (weights[order] > 0)]
        for unit in members[np.argsort(-weights[members], kind="stable")]:
            best = np.flatnonzero(np.isclose(wanted, wanted.max()))
            best = best[np.isclose(lacking_at_all[best], lacking_at_all[best].max())]
            side[unit] = rng.choice(best)
            lacking[side[unit]] -= counts[unit]
            lacking_at_all[side[unit]] -= sizes[unit]
            left -= counts[unit]
    return side


def connected(*keys: Sequence[object]) -> np.ndarray:
    """(N,) the number of the unit that each of N items belongs to: items that share a key are in one.

    Args:
        keys: each a sequence of N, such as the items' groups and the hashes of their audio.
    """
    count = len(keys[0])
    ids = [np.unique(list(map(str, each)), return_inverse=True)[1] for each in keys]
    starts = count + np.cumsum([0, *(each.max() + 1 for each in ids)])  # nodes: the items, then the values of each key
    columns = np.concatenate([each + start for each, start in zip(ids, starts)])
    rows = np.tile(np.arange(count), len(keys))
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(starts[-1], starts[-1]))
    return connected_components(graph, directed=False)[1][:count]
