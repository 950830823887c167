"""Median filters against SciPy's, and the filters and thresholds that are chosen against every other choice."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
from direct_event_scores import clips, collars, inputs, of, thresholds
from hypothesis import given, settings
from hypothesis import strategies as st

from src.learning.events import EventTruth, FrameScores
from src.learning.events.choosing import MEDIANS, choose_events, smoothed

ODD = st.integers(0, 18).map(lambda half: 2 * half + 1)  # 1 to 37


def filtered(scores, length):
    """(T, C) scores of one clip, each class through SciPy's filter."""
    columns = [scipy.ndimage.median_filter(column, size=length, mode="nearest") for column in scores.T]
    return np.stack(columns, axis=1)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.lists(ODD, min_size=3, max_size=3), st.integers(0, 99))
def test_every_clip_is_filtered_alone_and_every_class_by_its_own_length(lengths, medians, seed):
    rng = np.random.default_rng(seed)
    values = [rng.random((length, 3)).astype(np.float32) for length in lengths]
    before = FrameScores.of(values, 0.04)
    found = smoothed(before, medians)
    due = [
        np.stack([filtered(each, length)[:, c] for c, length in enumerate(medians)], axis=1).astype(np.float32)
        for each in values
    ]
    assert found.values.dtype == np.float32 and np.array_equal(found.values, np.concatenate(due).T)
    assert np.array_equal(before.values, np.concatenate(values).T)  # they stay as they are
    assert np.array_equal(found.onset, before.onset) and np.array_equal(found.starts, before.starts)


def flickering():
    """Frames of 0.1 s. Each class has one event, from 1 to 3 s or from 2 to 2.1 s, and the third one none.

    The first one's score is 0.9 in its event and 0.1 elsewhere. Every fifth frame is the other way round: 0.2 in the
    event, and 0.3 elsewhere. The second one's is 0.8 in its one frame, and 0 elsewhere.
    """
    scores = np.zeros((50, 3))
    scores[:, 0], scores[2::5, 0] = 0.1, 0.3
    scores[10:30, 0], scores[12:30:5, 0] = 0.9, 0.2
    scores[20, 1] = 0.8
    return scores, [(1.0, 3.0, "long"), (2.0, 2.1, "short")]


def decided(scores, events, durations, edges=0.1):
    truth = EventTruth.of(events, durations, ["long", "short", "absent"])
    return choose_events(FrameScores.of(scores, edges), truth)


def test_a_class_that_flickers_gets_the_shortest_filter_that_helps():
    """Without a filter, the long event is in parts above 0.2, and the others' 0.3 are heard below. Through three frames
    no frame is left of either: 0.9 within the event, 0.1 elsewhere, and 0.5 is in the middle. Longer filters do the
    same, and the shortest is taken.

    Three frames leave nothing of the short event. Without a filter, 0.4 is in the middle of 0.8 and 0.
    """
    scores, events = flickering()
    found = decided([scores], [events], [5.0])
    assert found.medians == [3, 1, 1]
    assert found.thresholds[:2] == pytest.approx([0.5, 0.4]) and found.thresholds[2] is None
    assert found.limits[2] == np.inf


def test_neither_the_clips_order_nor_their_place_in_time_matters():
    scores, events = flickering()
    silent, quiet = np.full((7, 3), 0.05), np.where(scores > 0, scores - 0.02, 0.0)
    clips_of = [(scores, events, 5.0), (silent, [], 0.7), (quiet, events, 5.0)]
    due = decided(*map(list, zip(*clips_of)))
    assert decided(*map(list, zip(*clips_of[::-1]))) == due and due.medians == [3, 1, 1]
    later = [[(onset + 7, offset + 7, label) for onset, offset, label in inside] for _, inside, _ in clips_of]
    edges = [7 + np.arange(len(each) + 1) * 0.1 for each, _, _ in clips_of]
    assert decided([each for each, _, _ in clips_of], later, [99, 99, 99], edges) == due


@settings(deadline=None, max_examples=60)
@given(clips(classes=2, frames=(1, 12)))
def test_no_filter_and_no_threshold_has_a_better_f_score(found):
    scores, truth = inputs(found, 2)
    decisions = choose_events(scores, truth)
    for c, (median, threshold) in enumerate(zip(decisions.medians, decisions.thresholds)):
        own = sum(len(of(events, c)) for _, events in found)
        if not own:
            assert (median, threshold) == (1, None)
            continue
        best = {}
        for length in MEDIANS:
            through = [(filtered(each, length), events) for each, events in found]
            every = [collars(through, c, level) for level in thresholds(through, c)]
            best[length] = max(Fraction(2 * hits, count + own) for hits, count in every)
            if length == median:
                hits, count = collars(through, c, threshold)
                reached = Fraction(2 * hits, count + own)
        assert reached == max(best.values())
        assert median == min(length for length in MEDIANS if best[length] == reached)
