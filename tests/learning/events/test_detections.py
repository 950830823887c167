"""Detections at all thresholds, and what comes of clips and events."""

import numpy as np
import pytest
from direct_event_scores import FRAME, clips, inputs, runs, thresholds
from hypothesis import given, settings
from hypothesis import strategies as st

from src.learning.events import EventTruth, FrameScores
from src.learning.events.detections import all_detections, pairs_in_time


def existing(detections, threshold):
    """Sorted (clip, onset ms, offset ms) of those that exist at a threshold."""
    there = (detections.above < threshold) & (threshold <= detections.upto)
    rows = zip(detections.clip, np.rint(detections.onset * 1000), np.rint(detections.offset * 1000), there)
    return sorted((clip, onset, offset) for clip, onset, offset, exists in rows if exists)


@settings(deadline=None)
@given(clips())
def test_every_threshold_has_the_detections_of_a_threshold(found):
    scores, _ = inputs(found)
    for c in range(3):
        for threshold in (*thresholds(found, c), 0.2, 0.95):
            due = sorted((n, *run) for n, (each, _) in enumerate(found) for run in runs(each[:, c], threshold))
            assert existing(all_detections(scores, c), threshold) == due
            assert existing(all_detections(scores, c, threshold, threshold), threshold) == due
            for lower in (0.2, 0.5):
                assert lower > threshold or existing(all_detections(scores, c, lower), threshold) == due


def test_each_detection_is_there_once():
    """Scores 1 3 3 2 3 1: frames 2 3 and frame 5 down to 2, where they become frames 2 to 5, and all six at 1."""
    scores = FrameScores.of([np.array([1, 3, 3, 2, 3, 1.0])[:, None]], 1.0)
    found = all_detections(scores, 0)
    rows = sorted(zip(found.onset, found.offset, found.upto, found.above))
    assert rows == [(0, 6, 1, -np.inf), (1, 3, 3, 2), (1, 5, 2, 1), (4, 5, 3, 2)]
    assert len(all_detections(scores, 0, floor=2).clip) == 3
    assert len(all_detections(scores, 0, floor=4).clip) == 0 == len(all_detections(scores, 0, np.nan, np.nan).clip)


@settings(deadline=None)
@given(clips(classes=1), st.sampled_from([0.0, 0.2]))
def test_pairs_are_all_that_are_near_in_time(found, margin):
    scores, truth = inputs(found, 1)
    detections = all_detections(scores, 0)
    pairs = set(zip(*(each.tolist() for each in pairs_in_time(detections, truth, truth.of_class(0), margin + 1e-6))))
    for d in range(len(detections.clip)):
        for e in range(len(truth.clip)):
            same = detections.clip[d] == truth.clip[e]
            apart = max(detections.onset[d] - truth.offset[e], truth.onset[e] - detections.offset[d])
            assert (d, e) in pairs or not same or apart > margin
            assert (d, e) not in pairs or same


def test_frames_may_have_any_boundaries():
    rng = np.random.default_rng(1)
    clips = [rng.random((count, 2)).astype(np.float32) for count in (3, 1, 4)]
    constant = FrameScores.of(clips, 0.25)
    given_ = FrameScores.of(clips, [np.arange(len(each) + 1) * 0.25 for each in clips])
    assert all(np.array_equal(one, other) for one, other in zip(vars(constant).values(), vars(given_).values()))
    assert constant.values.dtype == np.float32 and np.array_equal(constant.values[:, 3], clips[1][0])
    assert constant.clip.tolist() == [0, 0, 0, 1, 2, 2, 2, 2] and constant.onset[3:6].tolist() == [0, 0, 0.25]


@pytest.mark.parametrize(
    "scores, frames, message",
    [
        ([], 0.1, "no clips"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], 0.1, "clip 1"),
        ([np.zeros((2, 3)), np.zeros((2, 2))], 0.1, "clip 1"),
        ([np.zeros((2, 3))], [np.arange(2.0)], "clip 0"),
        ([np.zeros((2, 3))], [np.array([0, 1, 1.0])], "clip 0"),
        ([np.full((2, 3), np.nan)], 0.1, "not all finite"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(scores, frames, message):
    with pytest.raises(ValueError, match=message):
        FrameScores.of(scores, frames)


@pytest.mark.parametrize(
    "event, message",
    [
        ((0, 1, "cat"), "unknown classes: .'cat'"),
        ((1, 1, "dog"), r"clip 1, of 5 s, cannot have the event \(1, 1, 'dog'\)"),
        ((-0.1, 1, "dog"), "clip 1"),
        ((5, 6, "dog"), "clip 1"),
        ((float("nan"), 6, "dog"), "clip 1"),
    ],
)
def test_events_that_cannot_be_are_refused(event, message):
    assert len(EventTruth.of([[], [(4, 6, "dog")]], [5, 5], ["dog"]).clip) == 1
    with pytest.raises(ValueError, match=message):
        EventTruth.of([[(0, 1, "dog")], [event]], [5, 5], ["dog"])


def test_clips_without_a_duration_are_refused():
    with pytest.raises(ValueError, match="2 clips have events and 1 have durations"):
        EventTruth.of([[], []], [FRAME], ["dog"])
