"""Slices of the events by SNR, overlap and length: which event is in which, and what scores of them add up to."""

import numpy as np
import pytest
from direct_event_scores import clips, inputs
from golden.events_input import CLASSES, FRAME, make
from hypothesis import given, settings
from hypothesis import strategies as st

from src.learning.events import EventTruth, FrameScores
from src.learning.events.collars import collar_curve
from src.learning.events.f_scores import event_counts
from src.learning.metrics import ranking_scores
from src.scoring.events import event_scores
from src.scoring.events.slices import clip_scores_of_slice, most_at_once, slices

# Clip 0: "a" and "b" overlap from 1 to 2 s, and "c" begins as "b" ends. Clip 1: three at once from 0.4 to 0.5 s, of
# which one lasts on, beside the fourth. Clip 2 is silent.
EVENTS = [
    [(0.0, 2.0, "a"), (1.0, 3.0, "b"), (3.0, 3.2, "c")],
    [(0.0, 0.5, "a"), (0.3, 5.0, "a"), (0.4, 0.65, "b"), (4.0, 4.99, "c")],
    [],
]
SNR = np.array([9.99, 10, 60, 20, 19.9, np.nan, -3])


def truth():
    return EventTruth.of(EVENTS, [5.0, 5.0, 5.0], "abc")


def members(found, by):
    return {each.range: np.flatnonzero(each.scored).tolist() for each in found if each.by == by}


def test_slices_by_hand():
    """Lengths are 2, 2, 0.2, 0.5, 4.7, 0.25 and 0.99 s. A limit belongs to the range above it."""
    found = slices(truth(), SNR)
    assert members(found, "snr") == {
        "below 0 dB": [6],
        "0 to 10 dB": [0],
        "10 to 20 dB": [1, 4],
        "20 to 30 dB": [3],
        "50 dB or more": [2],
    }
    assert members(found, "overlap") == {"1 event": [2], "2 events": [0, 1, 6], "3 events": [3, 4, 5]}
    assert members(found, "length") == {
        "below 0.25 s": [2],
        "0.25 to 0.5 s": [5],
        "0.5 to 1 s": [3, 6],
        "2 to 4 s": [0, 1],
        "4 s or more": [4],
    }
    names = list(dict.fromkeys((each.by, each.range) for each in found))
    assert len(names) == len(found) and [by for by, _ in names] == ["snr"] * 5 + ["overlap"] * 3 + ["length"] * 5


def test_slices_without_snr_or_events():
    assert {each.by for each in slices(truth())} == {"overlap", "length"}
    assert members(slices(truth(), np.full(7, np.nan)), "snr") == {}
    assert slices(EventTruth.of([[], []], [1, 2], "ab"), np.empty(0)) == []
    with pytest.raises(ValueError, match=r"\(7,\) events have \(6,\) SNRs"):
        slices(truth(), SNR[1:])


def test_events_that_are_not_to_be_found_are_in_no_slice_and_still_overlap():
    found = slices(truth().only(np.array([1, 0, 0, 0, 1, 0, 0], dtype=bool)), SNR)
    assert members(found, "overlap") == {"2 events": [0], "3 events": [4]}
    assert members(found, "snr") == {"0 to 10 dB": [0], "10 to 20 dB": [4]}


def test_rounding_moves_no_event_over_a_limit():
    """0.7 - 0.2 is a little less than 0.5 in floating point. The second event begins 5e-17 s before the first ends."""
    events = [[(0.2, 0.7, "a"), (0.1 + 0.6 - 1e-16, 1.2, "a")]]
    assert events[0][0][1] - events[0][0][0] < 0.5 and events[0][1][0] < 0.7
    found = slices(EventTruth.of(events, [2.0], "a"))
    assert members(found, "length") == {"0.5 to 1 s": [0, 1]} and members(found, "overlap") == {"1 event": [0, 1]}


@settings(deadline=None)
@given(clips(most_events=7))
def test_overlaps_are_counted_at_every_moment(found):
    """Times are multiples of 50 ms, so that an event's moments are those 25 ms behind each."""
    _, truth = inputs(found)
    due = []
    for _, events in found:
        sounding = [sum(on <= time < off for on, off, _ in events) for time in range(25, 2000, 50)]
        due += [max(sounding[on // 50 : off // 50]) for on, off, _ in events]
    assert most_at_once(truth).tolist() == due


def golden():
    scores, events, durations = make()
    truth = EventTruth.of([events[name] for name in scores], [durations[name] for name in scores], CLASSES)
    return FrameScores.of(list(scores.values()), FRAME), truth


@pytest.mark.parametrize("by, least", [("snr", 4), ("overlap", 2), ("length", 3)])
def test_what_slices_find_and_miss_adds_up(by, least):
    """Every event is in one slice. What all slices find together is what is found, and false positives are all."""
    scores, truth = golden()
    snr = np.random.default_rng(5).uniform(10, 60, len(truth.clip))
    parts = [each.scored for each in slices(truth, snr) if each.by == by]
    assert len(parts) >= least and (np.sum(parts, axis=0) == 1).all()
    whole, *each = (
        event_counts(scores, truth.only(mask), np.full(len(CLASSES), 0.5), collar_curve)
        for mask in (truth.scored, *parts)
    )
    assert whole.found.sum() > 0 and whole.missed.sum() > 0
    assert np.array_equal(sum(part.found for part in each), whole.found)
    assert np.array_equal(sum(part.missed for part in each), whole.missed)
    assert all(np.array_equal(part.false, whole.false) for part in each)


@pytest.mark.parametrize("by", ["overlap", "length"])
def test_the_union_of_slices_has_the_scores_of_all_events(by):
    scores, truth = golden()
    union = np.any([each.scored for each in slices(truth) if each.by == by], axis=0)
    due, found = event_scores(scores, truth), event_scores(scores, truth.only(union))
    assert due.keys() == found.keys() and np.isfinite(due["psds1"])
    for name in due:
        assert np.array_equal(due[name], found[name], equal_nan=True), name


# ---- whole clips ----


def test_scores_of_clips_by_hand():
    """Class 0 is in clips 0, 1 and 3, and only those in 0 and 3 are of the slice. So clip 1 is left out.

    Ranked, clips are 1 (left out), 0 (positive), 2 (negative), 3 (positive) and 4 (negative): the average precision is
    (1 / 1 + 2 / 3) / 2, and three of the four pairs are in order. Class 1 has no event of the slice. Class 2 has one in
    clip 2 beside one that is not, and clips without any behind it.
    """
    events = [[(0, 1, 0), (1, 2, 1)], [(0, 1, 0)], [(0, 1, 2), (1, 2, 2)], [(0, 1, 0), (2, 3, 0)], []]
    truth = EventTruth.of(events, [5.0] * 5, range(3)).only(np.array([1, 0, 0, 1, 0, 1, 0], dtype=bool))
    probabilities = np.array([[0.8, 0.9, 0.95, 0.6, 0.1], [0.5] * 5, [0.1, 0.2, 0.9, 0.3, 0.4]]).T
    probabilities[2, 0] = 0.7
    found = clip_scores_of_slice(probabilities, truth)
    assert found.ap == pytest.approx([5 / 6, np.nan, 1], nan_ok=True)
    assert found.auc == pytest.approx([3 / 4, np.nan, 1], nan_ok=True)
    assert found.mAP == pytest.approx(11 / 12) and found.mAUC == pytest.approx(7 / 8)


def test_a_class_in_every_clip_has_an_average_precision_alone():
    """Clip 1 is left out, and no clip is negative. A class of which no clip is known has none at all."""
    truth = EventTruth.of([[(0, 1, 0)], [(0, 1, 0)]], [1, 1], [0])
    found = clip_scores_of_slice(np.array([[0.2], [0.7]]), truth.only(np.array([True, False])))
    assert found.ap == [1] and np.isnan(found.auc).all()
    found = clip_scores_of_slice(np.array([[0.2], [0.7]]), truth.only(np.array([False, False])))
    assert np.isnan(found.ap).all() and np.isnan(found.mAP)


@settings(deadline=None, max_examples=30)
@given(clips(), st.integers(0, 2**32 - 1))
def test_scores_of_clips_with_all_events_are_those_of_their_labels(found, seed):
    _, truth = inputs(found)
    probabilities = np.random.default_rng(seed).integers(0, 4, (truth.num_clips, 3)) / 4
    due = ranking_scores(probabilities, (truth.seconds > 0).astype(int))
    found = clip_scores_of_slice(probabilities, truth)
    assert np.array_equal(due.ap, found.ap, equal_nan=True) and np.array_equal(due.auc, found.auc, equal_nan=True)


def test_probabilities_of_other_clips_or_classes_are_refused():
    for shape in ((2, 3), (3, 4)):
        with pytest.raises(ValueError, match="must both be"):
            clip_scores_of_slice(np.zeros(shape), truth())
    with pytest.raises(ValueError, match="not all finite"):
        clip_scores_of_slice(np.full((3, 3), np.nan), truth())
