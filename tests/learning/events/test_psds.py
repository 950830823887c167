"""PSDS: worked examples, and every operating point against the definition."""

import dataclasses

import numpy as np
import pytest
from direct_event_scores import clips, inputs, intersections, psds, thresholds
from hypothesis import given, settings
from hypothesis import strategies as st

from src.learning.events import EventTruth, FrameScores
from src.learning.events import psds as exact
from src.learning.events.detections import all_detections
from src.learning.events.intersections import intersection_curve
from src.learning.events.psds import PSDS1, PSDS2, Criteria, psds_curves


def psds_of(scores, truth, criteria=PSDS1, alpha_st=1.0, max_efpr=100.0, weights=None):
    weights = truth.each_clip_once if weights is None else weights
    curves = psds_curves(scores, truth, criteria, weights, max_efpr)
    return exact.psds(curves, truth, weights, criteria.alpha_ct, alpha_st, max_efpr)


def clips_of_an_hour(*rows):
    """One clip of an hour, in six frames of ten minutes: a row of scores for each class."""
    return FrameScores.of([np.array(rows, dtype=float).T], 600.0)


def test_a_class_by_hand():
    """Two events, six frames of 10 min in the only hour: one from 0 to 10 min, one from 20 to 40 min.

    At 0.9 frame 0 is found, TPR 1/2 without a false positive. At 0.8 frame 5 is the first false one. At 0.6 frame 2
    covers half of the second event, less than gtc. At 0.5 frames 2 and 3 find it, TPR 1. Up to 4 an hour the area is
    1/2 of the first false positive and 1 of three more: (0.5 + 3) / 4.
    """
    scores = clips_of_an_hour([0.9, 0.1, 0.6, 0.5, 0.1, 0.8])
    truth = EventTruth.of([[(0, 600, "a"), (1200, 2400, "a")]], [3600], ["a"])
    assert psds_of(scores, truth, max_efpr=4).value == pytest.approx([3.5 / 4], abs=1e-12)


def test_a_false_positive_that_disappears_at_a_lower_threshold_counts_no_longer():
    """An event of the first 45 minutes. At 0.9 the last frame is detected, which is false.

    At 0.4 the whole clip is one detection, of which the event is 3/4: more than dtc, and the event is found.
    """
    truth = EventTruth.of([[(0, 2700, "a")]], [3600], ["a"])
    assert psds_of(clips_of_an_hour([0.4, 0.4, 0.4, 0.4, 0.4, 0.9]), truth, max_efpr=4).value == [1]


def test_differences_between_classes_cost():
    """One class has TPR 1 and the other 0 from the start: their mean is 1/2 and their standard deviation 1/2."""
    scores = clips_of_an_hour([0.9, 0.1, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.1, 0.9])
    truth = EventTruth.of([[(0, 600, "a"), (0, 600, "b")]], [3600], ["a", "b"])
    for alpha_st, due in ((0, 0.5), (0.5, 0.25), (1, 0), (2, 0)):
        found = psds_of(scores, truth, alpha_st=alpha_st, max_efpr=1)
        assert found.value == pytest.approx([due]) and found.per_class.tolist() == [[1, 0]]


def test_a_cross_trigger_by_hand():
    """Class a hears frame 5, in an event of b that lasts 1/6 h, then frame 0, its own event.

    TPR 1 comes with one false positive, which is a cross trigger: 1 / h + 0.5 · (6 / h + 0 / h) / 2 = 2.5 / h. Of up
    to 10 / h that leaves 3/4. Class b hears its own event. The means are 1/2 up to 2.5 / h and 1 from there on, and c
    hears its own only.
    """
    low = [0.1] * 4
    scores = clips_of_an_hour([0.8, *low, 0.9], [0.1, *low, 0.9], [0.9, *low, 0.1])
    truth = EventTruth.of([[(0, 600, "a"), (3000, 3600, "b"), (0, 600, "c")]], [3600], "abc")
    criteria = Criteria(0.5, 0.5, 0.5, 0.5)
    found = psds_of(scores, truth, criteria, alpha_st=0, max_efpr=10)
    assert found.per_class == pytest.approx(np.array([[0.75, 1, 1]]), abs=1e-12)
    assert found.value == pytest.approx([2.75 / 3], abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(clips(), st.sampled_from([0.1, 0.5, 0.7, 1.0]), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.3, 0.5]))
def test_counts_are_those_of_a_direct_evaluation_at_every_threshold(found, dtc, gtc, cttc):
    scores, truth = inputs(found)
    for c in range(3):
        curve = intersection_curve(all_detections(scores, c), truth, c, dtc, gtc, cttc)
        for threshold in thresholds(found, c):
            sums = [
                np.bincount(each.of, each.change * (each.level >= threshold), 4 * 9).astype(int)
                for each in (curve.hits, curve.false, curve.cross)
            ]
            cross = sums[2].reshape(-1, 3).sum(axis=0).tolist()
            assert (sums[0].sum(), sums[1].sum(), cross) == intersections(found, c, threshold, dtc, gtc, cttc)


@settings(deadline=None, max_examples=40)
@given(
    clips(frames=(1, 6)),
    st.sampled_from([(0.7, 0.7, 0.3, 0.0), (0.1, 0.1, 0.3, 0.5)]),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([1000.0, 5000.0, 1e5]),
    st.sampled_from([0, 150]),
)
def test_psds_is_that_of_all_operating_points(found, criteria, alpha_st, max_efpr, shortest):
    """Of all events, and of those that are longer than 150 ms."""
    due, alone = psds(found, *criteria, alpha_st, max_efpr, lambda event: event[1] - event[0] > shortest)
    scores, truth = inputs(found)
    value = psds_of(scores, truth.only(truth.length > shortest / 1000 + 1e-6), Criteria(*criteria), alpha_st, max_efpr)
    assert value.value[0] == pytest.approx(due, abs=1e-9) if due is not None else np.isnan(value.value[0])
    assert value.per_class[0][~np.isnan(value.per_class[0])] == pytest.approx(alone, abs=1e-9)


def noise(num_clips=60, seed=3):
    """Scores of noise in which events are heard, and the events: one class a clip, of four."""
    rng = np.random.default_rng(seed)
    logits, events = rng.standard_normal((num_clips, 40, 4)), []
    for number in range(num_clips):
        first = rng.integers(20)
        logits[number, first : first + 15, number % 4] += rng.uniform(0, 5)
        events.append([(first * 0.1, first * 0.1 + 1.5, number % 4)])
    return FrameScores.of(list(np.round(logits, 1)), 0.1), EventTruth.of(events, [4.0] * num_clips, range(4))


def test_nothing_below_the_floor_would_have_counted():
    scores, truth = noise()
    weights = np.random.default_rng(0).integers(0, 3, size=(20, 60)).astype(float)
    for criteria in (PSDS1, PSDS2):
        whole = psds_curves(scores, truth, criteria, weights, 1e6)
        cut = psds_curves(scores, truth, criteria, weights)
        assert all(each.whole for each in whole) and not any(each.whole for each in cut)
        sizes = [sum(len(each.curve.levels) for each in curves) for curves in (cut, whole)]
        assert sizes[0] < sizes[1]
        found = [exact.psds(curves, truth, weights, criteria.alpha_ct) for curves in (cut, whole)]
        assert found[0].value == pytest.approx(found[1].value, abs=1e-12) and found[0].value.min() > 0
        assert found[0].per_class == pytest.approx(found[1].per_class, abs=1e-12)


def test_resamples_are_taken_in_parts(monkeypatch):
    scores, truth = noise(12)
    weights = np.random.default_rng(0).integers(0, 3, size=(5, 12)).astype(float)
    at_once = psds_of(scores, truth, PSDS2, weights=weights)
    monkeypatch.setattr(exact, "CHUNK", 1)
    assert np.array_equal(psds_of(scores, truth, PSDS2, weights=weights).value, at_once.value)


def test_curves_for_other_weights_are_refused():
    """A resample that has one clip only, 60 times, has no false positive in the others."""
    scores, truth = noise()
    curves = psds_curves(scores, truth, PSDS1, truth.each_clip_once)
    for weights, max_efpr in ((60 * np.eye(60), 100.0), (truth.each_clip_once, 300.0)):
        with pytest.raises(ValueError, match="end too early"):
            exact.psds(curves, truth, weights, max_efpr=max_efpr)


def test_criteria_out_of_their_range_are_refused():
    assert dataclasses.astuple(PSDS2) == (0.1, 0.1, 0.3, 0.5)
    for criteria in ((0, 0.5), (0.5, 1.5), (0.5, 0.5, 0), (0.5, 0.5, None, 0.5)):
        with pytest.raises(ValueError, match="must lie in"):
            Criteria(*criteria)
