"""Parts of the events, by SNR, overlap and length, and the scores of clips for such a part.

`EventTruth.only` makes the truth of a part: the other events count neither as missed nor as found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from src.learning.events.clips import TOLERANCE, EventTruth
from src.learning.metrics import RankingScores, ranking_scores, require_scores

SNR_LIMITS = (0, 10, 20, 30, 40, 50)  # dB. GISE-51's soundscapes have 10 to 60
LENGTH_LIMITS = (0.25, 0.5, 1, 2, 4)  # s


@dataclass(frozen=True)
class Slice:
    """Events that are alike in one way."""

    by: str  # "snr", "overlap" or "length"
    range: str  # such as "10 to 20 dB", "2 events" or "0.5 to 1 s", without its upper limit
    scored: np.ndarray  # (E,) whether an event is one of them


def slices(truth: EventTruth, snr: np.ndarray | None = None) -> list[Slice]:
    """The slices that have an event, of those that are to be found. The ranges are the same for all sets of clips.

    Args:
        snr: (E,) dB of each event, NaN where it is unknown. Without it there are no slices by SNR.

    Raises:
        ValueError: there are other numbers of events and SNRs.
    """
    if snr is not None and snr.shape != truth.clip.shape:
        raise ValueError(
            f"{truth.clip.shape} events have {snr.shape} SNRs. Those of events that a view leaves out must go, too"
        )
    found = [] if snr is None else list(_between("snr", snr, SNR_LIMITS, "dB"))
    most = most_at_once(truth)
    counts = np.unique(most).tolist()
    found += [Slice("overlap", f"{count} event" + "s" * (count > 1), most == count) for count in counts]
    found += _between("length", truth.length, LENGTH_LIMITS, "s")
    found = [replace(each, scored=each.scored & truth.scored) for each in found]
    return [each for each in found if each.scored.any()]


def most_at_once(truth: EventTruth) -> np.ndarray:
    """(E,) the most events of its clip, itself included, that sound at any one moment of an event."""
    most = np.ones(len(truth.clip), dtype=int)
    starts = np.searchsorted(truth.clip, np.arange(truth.num_clips + 1))
    for here in (slice(*each) for each in pairwise(starts)):
        onset, offset = truth.onset[here], truth.offset[here]
        # Events become more only where one begins. Those that merely touch do not overlap.
        sounds = (onset[:, None] <= onset) & (offset[:, None] > onset + TOLERANCE)  # (n, n) one at another's onset
        most[here] = np.where(sounds, sounds.sum(axis=0), 1).max(axis=1, initial=1)
    return most


def _between(by: str, values: np.ndarray, limits: Sequence[float], unit: str) -> Iterator[Slice]:
    """A slice for each range. A value that is a limit, as far as rounding tells, is in the range above it."""
    place = np.searchsorted(np.array(limits) - TOLERANCE, values, side="right")  # (E,)
    inner = [f"{low} to {high} {unit}" for low, high in pairwise(limits)]
    for number, name in enumerate([f"below {limits[0]} {unit}", *inner, f"{limits[-1]} {unit} or more"]):
        yield Slice(by, name, (place == number) & ~np.isnan(values))


def clip_scores_of_slice(probabilities: np.ndarray, truth: EventTruth) -> RankingScores:
    """Scores of whole clips for the events that are to be found, which `truth.only` says.

    For a class, clips with such an event are positive, and clips without any event of it negative. Clips that have only
    other events of it are left out. Where all events are to be found, these are the scores of `ranking_scores`.

    Args:
        probabilities: (N, C), or any scores that rank alike.

    Raises:
        ValueError: as of `ranking_scores`.
    """
    holds, positive = np.zeros((2, truth.num_clips, truth.num_classes), dtype=bool)
    holds[truth.clip, truth.label] = True
    positive[truth.clip[truth.scored], truth.label[truth.scored]] = True
    require_scores(probabilities, positive)
    ap, auc = np.full((2, truth.num_classes), np.nan)
    for c in np.flatnonzero(positive.any(axis=0)):
        known = positive[:, c] | ~holds[:, c]
        each = ranking_scores(probabilities[known, c : c + 1], positive[known, c : c + 1])
        ap[c], auc[c] = each.ap[0], each.auc[0]
    return RankingScores(ap, auc)
