"""Scores of segments of one length, as if events and scores over time were constant in each.

A clip's first segment begins where the clip does, and its last one may end behind it. An event is in every segment that
it shares time with. A segment's score is the highest of the frames that it shares time with, or -inf behind the last
frame (Mesaros, Heittola, Virtanen, 2016, https://doi.org/10.3390/app6060162).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from src.learning.events.clips import TOLERANCE, EventTruth, FrameScores
from src.learning.events.curves import Changes
from src.learning.events.f_scores import Counts
from src.scoring.bootstrap import average_precision, roc_auc

RESAMPLES_AT_A_TIME = 16  # their weights of 20,000 clips stay in a processor's cache


@dataclass(frozen=True)
class Segments:
    """S segments of one class. Those that hold no event but ones that are not to be found are left out."""

    clip: np.ndarray  # (S,)
    score: np.ndarray  # (S,)
    positive: np.ndarray  # (S,) whether an event that is to be found is in it


def segments_of_classes(scores: FrameScores, truth: EventTruth, seconds: float) -> Iterator[Segments]:
    """The segments of so many seconds of each class, clip after clip."""
    count = np.ceil((truth.durations - TOLERANCE) / seconds).astype(int)
    starts = np.append(0, np.cumsum(count))
    clip = np.repeat(np.arange(truth.num_clips, dtype=np.int32), count)
    first, behind = _frames_of_segments(scores, clip, (np.arange(len(clip)) - starts[clip]) * seconds, seconds)
    for c in range(truth.num_classes):
        values = np.append(scores.values[c], scores.values.dtype.type(-np.inf))
        score = np.maximum.reduceat(values, np.stack([first, behind], axis=1).ravel())[::2]
        score[first == behind] = -np.inf
        ours = truth.label == c
        positive, other = (_inside(truth, ours & of, starts, seconds) for of in (truth.scored, ~truth.scored))
        known = positive | ~other
        yield Segments(clip[known], score[known], positive[known])


def _frames_of_segments(
    scores: FrameScores, clip: np.ndarray, begin: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """The first frame that each of S segments shares time with, and the first one behind it.

    Args:
        clip, begin: (S,) where each segment is, s from its clip's start.
    """
    # All clips are laid on one axis of time, far enough apart that no segment comes near the next clip.
    room = max(scores.offset.max(), begin.max() + seconds) + 1
    at = begin + clip * room
    first = np.searchsorted(scores.offset + scores.clip * room, at + TOLERANCE, side="right")
    behind = np.searchsorted(scores.onset + scores.clip * room, at + seconds - TOLERANCE, side="left")
    return first, np.maximum(first, behind)


def _inside(truth: EventTruth, which: np.ndarray, starts: np.ndarray, seconds: float) -> np.ndarray:
    """(S,) whether any of some events, an (E,) mask, is in each segment."""
    clip = truth.clip[which]
    first = np.floor((truth.onset[which] + TOLERANCE) / seconds).astype(int) + starts[clip]
    behind = np.ceil((truth.offset[which] - TOLERANCE) / seconds).astype(int) + starts[clip]
    steps = np.zeros(starts[-1] + 1, dtype=int)
    np.add.at(steps, np.minimum(first, starts[clip + 1]), 1)
    np.add.at(steps, np.minimum(np.maximum(behind, first), starts[clip + 1]), -1)
    return np.cumsum(steps)[:-1] > 0


def segment_counts(scores: FrameScores, truth: EventTruth, thresholds: np.ndarray, seconds: float = 1.0) -> Counts:
    """Counts of segments, each detected where its score reaches its class's threshold, of (C,) ones."""
    found, missed, false = np.zeros((3, truth.num_clips, truth.num_classes))
    for c, each in enumerate(segments_of_classes(scores, truth, seconds)):
        detected, positive = each.score >= thresholds[c], each.positive
        for counts, which in (
            (found, detected & positive),
            (missed, positive & ~detected),
            (false, detected & ~positive),
        ):
            counts[:, c] = np.bincount(each.clip[which], minlength=truth.num_clips)
    return Counts(found, missed, false)


def segment_auc(scores: FrameScores, truth: EventTruth, weights: np.ndarray, seconds: float = 1.0) -> np.ndarray:
    """(R, C) ROC AUC over segments, with (R, N) weights of the clips. NaN without positives or without negatives."""
    found = []
    for each in segments_of_classes(scores, truth, seconds):
        own = np.unique(each.score[each.positive])
        # The next number above each tells what lies between two positives' scores from what ties with one.
        levels = np.concatenate([own, np.nextafter(own, np.inf, dtype=own.dtype), [-np.inf]])
        found.append(_ranked(each, -np.unique(-levels), weights, roc_auc))
    return np.stack(found, axis=1)


def segment_average_precision(
    scores: FrameScores, truth: EventTruth, weights: np.ndarray, seconds: float = 0.04
) -> np.ndarray:
    """(R, C) average precision over segments, with (R, N) weights of the clips. NaN without positives."""
    return np.stack(
        [
            _ranked(each, -np.unique(-each.score[each.positive]), weights, average_precision)
            for each in segments_of_classes(scores, truth, seconds)
        ],
        axis=1,
    )


def _ranked(
    segments: Segments,
    levels: np.ndarray,
    weights: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """(R,) scores of one class, of the weights of positive and of negative segments that reach each level."""
    if not segments.positive.any():
        return np.full(len(weights), np.nan)
    both = [
        Changes(segments.score[which], segments.clip[which], np.ones(which.sum())).matrix(levels, weights.shape[1])
        for which in (segments.positive, ~segments.positive)
    ]
    found = []
    for start in range(0, len(weights), RESAMPLES_AT_A_TIME):
        clips = np.ascontiguousarray(weights[start : start + RESAMPLES_AT_A_TIME].T)  # (N, r)
        found.append(score(*(np.cumsum(matrix @ clips, axis=0).T for matrix in both)))
    return np.concatenate(found)
