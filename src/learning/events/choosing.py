"""Median filters over frame scores, and each class's filter and threshold that find most events."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.ndimage

from src.learning.events.clips import EventTruth, FrameScores
from src.learning.events.collars import collar_curve
from src.learning.events.f_scores import best_thresholds
from src.models.decisions import EventDecisions

MEDIANS = 1, 3, 5, 7, 9, 13, 17, 25  # frames, of the filters to choose from
MOST = 4  # thresholds at which a class has a detection in more clips than so many times its events are not tried


def smoothed(scores: FrameScores, medians: Sequence[int]) -> FrameScores:
    """Each class's scores through a median filter over so many frames, (C,) odd numbers.

    Before a clip's first frame and behind its last one, these two are repeated.
    """
    values, lengths = scores.values.copy(), np.asarray(medians)
    clip = np.arange(len(scores.starts) - 1)
    for length in set(medians) - {1}:
        # All clips at once, each with so many frames more at both ends that none reaches the next one.
        half = length // 2
        wide = np.repeat(clip, np.diff(scores.starts) + 2 * half)  # of each frame, its clip
        frames = np.arange(len(wide)) - half * (2 * wide + 1)
        kept = np.clip(frames, scores.starts[wide], scores.starts[wide + 1] - 1)
        for c in np.flatnonzero(lengths == length):
            values[c] = scipy.ndimage.median_filter(scores.values[c, kept], size=length)[kept == frames]
    return replace(scores, values=values)


def choose_events(scores: FrameScores, truth: EventTruth, lengths: Sequence[int] = MEDIANS) -> EventDecisions:
    """Of each class the filter and the threshold of its best collar-based F-score, of equal ones the shortest filter.

    Args:
        scores: probabilities.
        lengths: frames, of the filters to choose from.
    """
    medians, thresholds = np.ones(truth.num_classes, dtype=int), np.full(truth.num_classes, np.nan)
    best = np.full(truth.num_classes, -1.0)
    for length in lengths:
        alike = smoothed(scores, [length] * truth.num_classes)
        found, quality = best_thresholds(alike, truth, collar_curve, MOST)
        better = quality > best
        medians[better], thresholds[better], best[better] = length, found[better], quality[better]
    return EventDecisions(medians.tolist(), [None if np.isnan(each) else float(each) for each in thresholds])
