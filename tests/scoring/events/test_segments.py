"""Scores of segments of one length."""

import numpy as np
import pytest
from direct_event_scores import FRAME, clips, inputs, of, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from src.learning.events import EventTruth, FrameScores
from src.scoring.events.segments import (
    segment_auc,
    segment_average_precision,
    segment_counts,
    segments_of_classes,
)


def test_segments_by_hand():
    """2.5 s are three segments of 1 s. Frames last 0.5 s, and the event, 0.9 to 2 s, is in the first two.

    Scores of segments are 0.2, 0.6 and 0.5. At 0.5, one is found, one missed and one false. Of the two pairs of a
    positive and a negative segment, the AUC has one right. The average precision is (1 / 1 + 2 / 3) / 2.
    """
    scores = FrameScores.of([np.array([0.1, 0.2, 0.3, 0.6, 0.5])[:, None]], 0.5)
    truth = EventTruth.of([[(0.9, 2.0, 0)]], [2.5], [0])
    (each,) = segments_of_classes(scores, truth, 1.0)
    assert each.score.tolist() == [0.2, 0.6, 0.5] and each.positive.tolist() == [True, True, False]
    counts = segment_counts(scores, truth, np.array([0.5]))
    assert (counts.found, counts.missed, counts.false) == ([[1]], [[1]], [[1]])
    assert segment_auc(scores, truth, truth.each_clip_once) == [[0.5]]
    assert segment_average_precision(scores, truth, truth.each_clip_once, 1.0) == [[pytest.approx(5 / 6)]]


def test_frames_need_not_end_where_segments_or_clips_do():
    """Frames of 0.4 s: the third, 0.8 to 1.2 s, is in two segments. None is in the last one, of a clip of 2.1 s."""
    scores = FrameScores.of([np.array([[1], [2], [9], [3], [4.0]])], 0.4)
    truth = EventTruth.of([[]], [2.1], [0])
    (each,) = segments_of_classes(scores, truth, 1.0)
    assert each.score.tolist() == [9, 9, -np.inf] and not each.positive.any()
    (each,) = segments_of_classes(scores, truth, 0.3)
    assert each.score.tolist() == [1, 2, 9, 9, 3, 4, 4]


@settings(deadline=None)
@given(clips(classes=2, frames=(1, 9)), st.sampled_from([40, 100, 150, 250, 1000]))
def test_segments_hold_what_shares_time_with_them(found, length):
    scores, truth = inputs(found, 2)
    for c, each in enumerate(segments_of_classes(scores, truth, length / 1000)):
        due = []
        for number, (values, events) in enumerate(found):
            for begin in range(0, len(values) * FRAME, length):
                span = (begin, begin + length)
                inside = [v for t, v in enumerate(values[:, c]) if shared(span, (t * FRAME, (t + 1) * FRAME))]
                due.append((number, max(inside), any(shared(span, event) for event in of(events, c))))
        assert list(zip(each.clip.tolist(), each.score.tolist(), each.positive.tolist())) == due


@settings(deadline=None, max_examples=30)
@given(clips(classes=1, frames=(1, 30)), st.integers(0, 2**32 - 1))
def test_rankings_are_scikit_learns_with_the_clips_as_weights(found, seed):
    scores, truth = inputs(found, 1)
    weights = np.random.default_rng(seed).integers(0, 3, size=(17, len(found))).astype(float)
    for seconds in (0.1, 1.0):
        (each,) = segments_of_classes(scores, truth, seconds)
        auc, ap = (
            segment_auc(scores, truth, weights, seconds),
            segment_average_precision(scores, truth, weights, seconds),
        )
        for row, of_clips in list(enumerate(weights))[::4]:
            of_segments = of_clips[each.clip]
            positive, negative = (of_segments[which].sum() > 0 for which in (each.positive, ~each.positive))
            assert np.isnan(ap[row, 0]) == (not positive) and np.isnan(auc[row, 0]) == (not positive or not negative)
            if positive:
                due = average_precision_score(each.positive, each.score, sample_weight=of_segments)
                assert ap[row, 0] == pytest.approx(due, abs=1e-12)
            if positive and negative:
                due = roc_auc_score(each.positive, each.score, sample_weight=of_segments)
                assert auc[row, 0] == pytest.approx(due, abs=1e-12)


def test_segments_of_events_that_are_not_to_be_found_are_left_out():
    scores = FrameScores.of([np.arange(4.0)[:, None]], 1.0)
    truth = EventTruth.of([[(0, 1.5, 0), (1.2, 3, 0)]], [4], [0])
    (each,) = segments_of_classes(scores, truth.only(np.array([True, False])), 1.0)
    assert each.score.tolist() == [0, 1, 3] and each.positive.tolist() == [True, True, False]


def test_what_lies_behind_a_clips_end_is_in_no_other_clip():
    """The first event ends a second late. The second one begins less than a microsecond before its clip's end."""
    scores = FrameScores.of([np.zeros((2, 1))] * 3, 1.0)
    truth = EventTruth.of([[(1.5, 3, 0)], [(2 - 1e-7, 2.5, 0)], []], [2, 2, 2], [0])
    (each,) = segments_of_classes(scores, truth, 1.0)
    assert each.positive.tolist() == [False, True, False, False, False, False]
