"""Thresholds against every possible one, and what is decided at them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from released import CKPT
from sklearn.metrics import precision_recall_fscore_support

from src.errors import UserError
from src.learning.thresholds import choose, decision_scores
from src.models.checkpoint import keep_decisions, read_checkpoint
from src.models.decisions import EVENT_DECISIONS, Decisions, EventDecisions, read_decisions
from src.models.safe_loading import read_torch_file
from src.models.torch_files import write_torch_file


@st.composite
def scored(draw):
    """(N, C) float32 scores, with ties and neighbouring numbers among them, and targets."""
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    few = st.sampled_from([0.0, 1e-45, 0.1, 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 0.75, 1.0])
    any_score = st.floats(0, 1, width=32)
    size = shape[0] * shape[1]
    scores = draw(st.lists(few | any_score, min_size=size, max_size=size))
    targets = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    return np.array(scores, np.float32).reshape(shape), np.array(targets, np.float32).reshape(shape)


def counts(scores, positive, threshold):
    present = scores >= np.float32(threshold)
    return int((present & positive).sum()), int(present.sum())


@settings(max_examples=300, deadline=None)
@given(scored())
def test_no_threshold_has_a_better_f1_and_no_lower_one_as_good_a_one(data):
    scores, targets = data
    for c, threshold in enumerate(choose(scores, targets).thresholds):
        own, positive = scores[:, c], targets[:, c] == 1
        if not positive.any():
            assert threshold is None
            continue
        cuts = {float(cut): counts(own, positive, cut) for cut in own}
        f1 = {cut: 2 * right / (decided + positive.sum()) for cut, (right, decided) in cuts.items()}
        lowest = min(cut for cut, value in f1.items() if value == max(f1.values()))
        assert counts(own, positive, threshold) == cuts[lowest] and threshold <= lowest


@settings(max_examples=300, deadline=None)
@given(scored(), st.floats(0.01, 1))
def test_a_precision_is_reached_with_the_highest_recall_or_the_best_one_is_taken(data, wanted):
    scores, targets = data
    for c, threshold in enumerate(choose(scores, targets, wanted).thresholds):
        own, positive = scores[:, c], targets[:, c] == 1
        if not positive.any():
            assert threshold is None
            continue
        cuts = [counts(own, positive, cut) for cut in own]
        reached = [cut for cut in cuts if cut[0] / cut[1] >= wanted]
        best = max(right / decided for right, decided in cuts)
        candidates = reached or [cut for cut in cuts if cut[0] / cut[1] == best]
        assert counts(own, positive, threshold) == max(candidates, key=lambda cut: cut[1])


@settings(max_examples=300, deadline=None)
@given(scored())
def test_a_stored_threshold_decides_the_same_everywhere(data):
    scores, targets = data
    decisions = choose(scores, targets)
    stored = read_decisions(Decisions, json.loads(json.dumps(decisions.as_dict())), scores.shape[1], "a.ckpt")
    present = decisions.present(scores)
    assert np.array_equal(stored.present(scores), present)
    for c, threshold in enumerate(stored.thresholds):
        if threshold is None:
            assert not present[:, c].any()
            continue
        assert np.array_equal(scores[:, c] >= threshold, present[:, c])
        assert np.array_equal(scores[:, c].astype(np.float64) >= threshold, present[:, c])
        assert np.array_equal((torch.from_numpy(scores)[:, c] >= threshold).numpy(), present[:, c])
        as_text = [float(str(score)) >= float(str(np.float32(threshold))) for score in scores[:, c]]
        assert np.array_equal(as_text, present[:, c])


@settings(max_examples=200, deadline=None)
@given(scored())
def test_scores_at_thresholds_are_those_of_scikit_learn(data):
    scores, targets = data
    decisions = choose(scores, targets)
    found = decision_scores(decisions, scores, targets)
    for c in range(targets.shape[1]):
        if not targets[:, c].any():
            assert np.isnan([found.precision[c], found.recall[c], found.F1[c], found.threshold[c]]).all()
            continue
        words = {"average": "binary", "zero_division": 0}
        theirs = precision_recall_fscore_support(targets[:, c], decisions.present(scores)[:, c], **words)
        assert [found.precision[c], found.recall[c], found.F1[c]] == pytest.approx(theirs[:3])


def test_means_leave_out_what_is_not_defined():
    decisions = Decisions("F1", [0.5, None, 0.5, 0.5])
    scores = np.array([[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.9, 0.1]], np.float32)
    found = decision_scores(decisions, scores, np.array([[1, 1, 0, 0], [0, 0, 0, 1]], np.float32))
    assert found.macro() == {"precision": 0.5, "recall": 0.5, "F1": 0.5}  # of the first class and the last
    assert found.of_class(1) == {"threshold": None, "precision": None, "recall": None, "F1": None}
    assert found.of_class(2)["threshold"] == 0.5 and found.of_class(2)["recall"] is None
    assert found.of_class(3) == {"threshold": 0.5, "precision": 0, "recall": 0, "F1": 0}  # nothing was decided


GOOD = {"by": "F1", "thresholds": [0.5, None], "temperature": 1.5}


@pytest.mark.parametrize(
    "content, fault",
    [
        ([0.5, 0.5], "thresholds cannot be used"),
        (GOOD | {"temperature": 1e-300}, "temperature: Input should be greater"),
        (GOOD | {"temperature": 1e300}, "temperature: Input should be less"),
        ({"by": "F1"}, "thresholds: Field required"),
        (GOOD | {"thresholds": 0.5}, "thresholds"),
        (GOOD | {"thresholds": [0.5, 1.5]}, "thresholds.1"),
        (GOOD | {"thresholds": [0.5, float("nan")]}, "thresholds.1"),
        (GOOD | {"thresholds": [0.5, "high"]}, "thresholds.1"),
        (GOOD | {"thresholds": [0.5]}, "1 thresholds and 2 classes"),
        (GOOD | {"temperature": 0.0}, "temperature"),
        (GOOD | {"temperature": float("inf")}, "temperature"),
        (GOOD | {"temperature": None}, "temperature"),
        (GOOD | {"by": 7}, "by"),
    ],
)
def test_damaged_thresholds_are_refused_by_the_files_name(content, fault):
    with pytest.raises(UserError, match=f"a.ckpt: .*{fault}.*Is it damaged"):
        read_decisions(Decisions, content, 2, "a.ckpt")
    assert read_decisions(Decisions, GOOD, 2, "a.ckpt").present(np.float32([[0.5, 1.0]])).tolist() == [[True, False]]
    assert read_decisions(Decisions, None, 2, "a.ckpt") is None


# ---- of events ----


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A copy of a released checkpoint with thresholds of clips and events, 18 of them."""
    path, decisions = tmp_path_factory.mktemp("events") / "a.ckpt", Decisions("F1", [0.5] * 18)
    keep_decisions(read_checkpoint(CKPT), decisions, EventDecisions([7] * 18, [None, *[0.25] * 17]), path)
    return path


def test_decisions_of_events_are_kept_and_read(checkpoint):
    found = read_checkpoint(checkpoint)
    assert found.event_decisions == EventDecisions([7] * 18, [None, *[0.25] * 17])
    assert found.event_decisions.limits.tolist() == [np.inf, *[0.25] * 17]
    assert found.decisions == Decisions("F1", [0.5] * 18)
    assert read_checkpoint(CKPT).event_decisions is None  # of before there were any


@pytest.mark.parametrize(
    "content, fault",
    [
        ([0.5] * 18, "thresholds cannot be used"),
        ("none", "thresholds cannot be used"),
        ({"medians": [1] * 18}, "thresholds: Field required"),
        ({"thresholds": [0.5] * 18}, "medians: Field required"),
        ({"medians": [1] * 17}, "17 medians and 18 classes"),
        ({"thresholds": [0.5] * 19}, "19 thresholds and 18 classes"),
        ({"medians": [1] * 17 + [4]}, "a median filter of 4 frames, which must be odd"),
        ({"medians": [0] * 18}, "medians.0: Input should be greater than or equal to 1"),
        ({"medians": [-3] * 18}, "medians.0"),
        ({"medians": [10**9 + 1] * 18}, "medians.0: Input should be less than or equal to 9999"),
        ({"medians": ["long"] * 18}, "medians.0: Input should be a valid integer"),
        ({"medians": [1.5] * 18}, "medians.0"),
        ({"medians": 7}, "medians"),
        ({"thresholds": [2] * 18}, "thresholds.0: Input should be less than or equal to 1"),
        ({"thresholds": [float("nan")] * 18}, "thresholds.0"),
        ({"thresholds": [-0.1] * 18}, "thresholds.0"),
    ],
)
def test_damaged_decisions_of_events_are_refused_by_the_files_name(checkpoint, tmp_path, content, fault):
    stored = read_torch_file(checkpoint, "a checkpoint")
    if isinstance(content, dict) and "Field required" not in fault:
        content = stored[EVENT_DECISIONS] | content
    write_torch_file(tmp_path / "b.ckpt", stored | {EVENT_DECISIONS: content})
    with pytest.raises(UserError, match=f"b.ckpt: .*{fault}.*Is it damaged") as caught:
        read_checkpoint(tmp_path / "b.ckpt")
    assert "\n" not in str(caught.value)
