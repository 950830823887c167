"""F-scores of matched ends and of shared time, and best thresholds."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from direct_event_scores import clips, collars, inputs, intersections, of, thresholds
from hypothesis import given, settings
from hypothesis import strategies as st

from src.learning.events import EventTruth, FrameScores
from src.learning.events.collars import collar_curve
from src.learning.events.detections import all_detections
from src.learning.events.f_scores import Counts, best_thresholds, event_counts, f_scores
from src.learning.events.intersections import intersection_curve

by_intersection = partial(intersection_curve, dtc=0.5, gtc=0.5)


def one_class(scores, events, frame=0.1):
    """Scores and truth of one clip."""
    truth = EventTruth.of([[(*event, "a") for event in events]], [len(scores) * frame], ["a"])
    return FrameScores.of([np.array(scores, dtype=float)[:, None]], frame), truth


def sums(counts):
    """(found, missed, false) of all clips and classes."""
    return tuple(int(each.sum()) for each in (counts.found, counts.missed, counts.false))


def detected(*spans, length=20):
    """(length,) scores, 1 in the spans and 0 elsewhere, of frames of 0.1 s."""
    return [float(any(first <= frame < behind for first, behind in spans)) for frame in range(length)]


@pytest.mark.parametrize(
    "spans, event, found",
    [
        ([(4, 10)], (0.2, 1.0), 1),  # the onset 0.2 s late, the offset exact
        ([(4, 10)], (0.19, 1.0), 0),
        ([(2, 12)], (0.2, 1.0), 1),
        ([(2, 12)], (0.2, 0.99), 0),
        ([(0, 17)], (0.0, 2.0), 1),  # 20 % of two seconds are 0.4 s
        ([(0, 16)], (0.0, 2.0), 1),
        ([(0, 15)], (0.0, 2.0), 0),
        ([(0, 20)], (0.0, 2.0), 1),  # the whole clip
        ([(0, 4), (5, 20)], (0.0, 2.0), 0),
    ],
)
def test_what_lies_within_the_collar_matches(spans, event, found):
    counts = event_counts(*one_class(detected(*spans), [event]), np.array([0.5]), collar_curve)
    assert sums(counts) == (found, 1 - found, len(spans) - found)


def test_one_event_is_matched_once():
    """An event of 0.4 s is near both detections, of 0.1 s each. One of them is false: F = 2 / (2 + 1)."""
    scores, truth = one_class(detected((2, 3), (4, 5)), [(0.2, 0.5)])
    counts = event_counts(scores, truth, np.array([0.5]), collar_curve)
    assert sums(counts) == (1, 0, 1) and f_scores(counts, truth.each_clip_once).macro[0] == pytest.approx(2 / 3)


def test_as_many_as_possible_are_matched():
    """The first detection is near both events, the second near the first event only. Two matches are possible."""
    scores, truth = one_class(detected((3, 5), (6, 7)), [(0.4, 0.6), (0.1, 0.4)])
    near = [(abs(d[0] - e[0]) <= 0.2 + 1e-6 and abs(d[1] - e[1]) <= 0.2 + 1e-6) for e in ((0.4, 0.6), (0.1, 0.4))
            for d in ((0.3, 0.5), (0.6, 0.7))]  # fmt: skip
    assert near == [True, True, True, False]
    assert sums(event_counts(scores, truth, np.array([0.5]), collar_curve)) == (2, 0, 0)


def test_shared_time_by_hand():
    """Events of 1 s. The first is covered half by a detection of which half is in it. The second by 0.4 s only.

    The detection of 0.4 s is all within the second event, so it is relevant, and no false positive. One more is false.
    F = 2 · 1 / (2 · 1 + 1 + 1).
    """
    scores, truth = one_class(detected((5, 15), (22, 26), (40, 41), length=50), [(0, 1), (2, 3)])
    counts = event_counts(scores, truth, np.array([0.5]), by_intersection)
    assert sums(counts) == (1, 1, 1) and f_scores(counts, truth.each_clip_once).macro[0] == 0.5


def test_a_score_that_reaches_the_threshold_is_detected():
    scores, truth = one_class(np.array(detected((5, 15))) * 0.5, [(0.5, 1.5)])
    for threshold, due in ((0.5, (1, 0, 0)), (np.nextafter(0.5, 1), (0, 1, 0)), (np.nan, (0, 1, 0))):
        assert sums(event_counts(scores, truth, np.array([threshold]), collar_curve)) == due


def test_classes_without_events_are_left_out_of_the_macro_score_only():
    """Class 0: F 2/3. Class 1 has no event, and two false positives: micro 2 / (2 + 1 + 2)."""
    counts = Counts(np.array([[1, 0], [0, 0.0]]), np.array([[0, 0], [1, 0.0]]), np.array([[0, 2], [0, 0.0]]))
    found = f_scores(counts, np.array([[1, 1], [0, 1], [1, 0], [0, 0.0]]))
    assert found.per_class[:, 0] == pytest.approx([2 / 3, 0, 1, np.nan], nan_ok=True)
    assert np.isnan(found.per_class[:, 1]).all()
    assert found.macro == pytest.approx([2 / 3, 0, 1, np.nan], nan_ok=True)
    assert found.micro == pytest.approx([2 / 5, 0, 1 / 2, np.nan], nan_ok=True)


def test_events_that_are_not_to_be_found_are_neither_missed_nor_false():
    """Both are detected, and so is silence. The found one of those to be found counts, and the false positive."""
    scores, truth = one_class(detected((0, 5), (10, 15), (18, 19)), [(0, 0.5), (1, 1.5), (1.6, 1.7)])
    for curve_of in (collar_curve, by_intersection):
        found = [
            sums(event_counts(scores, truth.only(np.array(scored)), np.array([0.5]), curve_of))
            for scored in ([True, True, True], [True, False, False], [False, False, True])
        ]
        assert found[0] in ((2, 1, 1), (3, 0, 0)) and found[1:] == [
            (1, 0, found[0][2]),
            (found[0][0] - 2, found[0][1], found[0][2]),
        ]


@settings(deadline=None, max_examples=100)
@given(clips(classes=2, frames=(1, 12)))
def test_counts_at_every_threshold_are_those_of_the_best_matching(found):
    scores, truth = inputs(found, 2)
    for c in range(2):
        curve = collar_curve(all_detections(scores, c), truth, c)
        for threshold in thresholds(found, c):
            hits, count = collars(found, c, threshold)
            total = [(each.change * (each.level >= threshold)).sum() for each in (curve.hits, curve.false)]
            assert total == [hits, count - hits]
            counts = event_counts(scores, truth, np.array([threshold, np.nan][:: 1 - 2 * c]), collar_curve)
            others = sum(len(of(events, 1 - c)) for _, events in found)
            own = sum(len(of(events, c)) for _, events in found)
            assert sums(counts) == (hits, own - hits + others, count - hits)


@settings(deadline=None)
@given(clips(classes=2), st.sampled_from([0.3, 0.5, 0.9]))
def test_intersections_at_one_threshold_are_those_of_the_definition(found, threshold):
    scores, truth = inputs(found, 2)
    counts = event_counts(scores, truth, np.full(2, threshold), by_intersection)
    for c in range(2):
        hits, false, _ = intersections(found, c, threshold, 0.5, 0.5, 1, 2)
        assert (counts.found[:, c].sum(), counts.false[:, c].sum()) == (hits, false)


@settings(deadline=None)
@given(clips(classes=2))
def test_the_best_threshold_is_in_the_middle_of_the_best_range(found):
    scores, truth = inputs(found, 2)
    best, _ = best_thresholds(scores, truth, collar_curve)
    for c in range(2):
        own = sum(len(of(events, c)) for _, events in found)
        if not own:
            assert np.isnan(best[c])
            continue
        levels = thresholds(found, c)
        quality = [Fraction(2 * hits, count + own) for hits, count in (collars(found, c, each) for each in levels)]
        first = quality.index(max(quality))
        lower = [level for level, each in zip(levels[first:], quality[first:]) if each != max(quality)]
        assert best[c] == pytest.approx((levels[first] + lower[0]) / 2 if lower else levels[first], abs=1e-12)


def test_a_search_that_begins_too_high_goes_on():
    """One event in 40 clips is heard less than 20 false alarms: the best F-score is 2 / (1 + 21), at the 21st score."""
    values = np.zeros((40, 5, 1), dtype=np.float32)
    values[:30, 2, 0] = np.arange(30, 0, -1)
    truth = EventTruth.of([[(0.2, 0.3, 0)] if number == 20 else [] for number in range(40)], [0.5] * 40, [0])
    assert best_thresholds(FrameScores.of(list(values), 0.1), truth, collar_curve)[0] == [9.5]


def test_neighbouring_numbers_have_nothing_between_them():
    lower, higher = np.nextafter(0.5, 0), 0.5
    scores, truth = one_class(np.where(detected((5, 15)), higher, lower), [(0.5, 1.5)])
    best, _ = best_thresholds(scores, truth, collar_curve)
    assert best == [0.5] and sums(event_counts(scores, truth, best, collar_curve)) == (1, 0, 0)
