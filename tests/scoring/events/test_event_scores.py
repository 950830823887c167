"""All scores by name: against the field's reference packages, under what must not change them, and resampled."""

import json
import re

import numpy as np
import pytest
from conftest import GOLDEN, ROOT
from direct_event_scores import clips, inputs
from golden.events_input import CLASSES, FRAME, make
from hypothesis import given, settings
from hypothesis import strategies as st

from src.learning.events import EventTruth, FrameScores
from src.scoring.bootstrap import draw_counts, interval
from src.scoring.events import bootstrap_event_scores, compare_event_scores, event_scores

REFERENCE = json.loads((GOLDEN / "events.json").read_text())


@pytest.fixture(scope="module")
def golden():
    """The scores and events of 40 clips, as lists, and their durations."""
    scores, events, durations = make()
    return [scores[name] for name in scores], [events[name] for name in scores], [durations[name] for name in scores]


def scored(scores, events, durations, thresholds=0.5):
    return event_scores(FrameScores.of(scores, FRAME), EventTruth.of(events, durations, CLASSES), thresholds)


@pytest.fixture(scope="module", params=[0.3, 0.5])
def at(request, golden):
    """A threshold, and the scores at it."""
    return request.param, scored(*golden, request.param)


def per_class(reference):
    return [reference[name] for name in CLASSES]


def test_psds_is_the_references(at):
    for name in ("psds1", "psds1_without_class_penalty", "psds2"):
        assert at[1][name] == pytest.approx(REFERENCE[name]["psds"], abs=1e-9)
        alone = at[1][name.removesuffix("_without_class_penalty") + "_per_class"]
        assert alone == pytest.approx(per_class(REFERENCE[name]["per_class"]), abs=1e-9)
    assert at[1]["psds2_without_class_penalty"] == pytest.approx(np.mean(at[1]["psds2_per_class"]), abs=1e-12)


@pytest.mark.parametrize("name", ["collar_f", "segment_f", "intersection_f", "best_collar_f"])
def test_f_scores_are_the_references(at, name):
    threshold, found = at
    reference = REFERENCE[name]["f"] if name == "best_collar_f" else REFERENCE[f"{name}_{threshold}"]
    assert found[f"{name}_per_class"] == pytest.approx(per_class(reference), abs=1e-9)
    for kind in ("macro", "micro"):
        assert found[f"{name}_{kind}"] == pytest.approx(reference[f"{kind}_average"], abs=1e-9)


def test_the_rest_is_the_references(at):
    best = at[1]["best_collar_threshold_per_class"]
    assert best == pytest.approx(per_class(REFERENCE["best_collar_f"]["threshold"]), abs=1e-9)
    for name in ("segment_auroc", "frame_average_precision"):
        assert at[1][f"{name}_per_class"] == pytest.approx(per_class(REFERENCE[name]), abs=1e-9)
        assert at[1][name] == pytest.approx(REFERENCE[name]["mean"], abs=1e-9)
    used = {
        "psds1",
        "psds2",
        "psds1_without_class_penalty",
        "best_collar_f",
        "segment_auroc",
        "frame_average_precision",
    }
    assert set(REFERENCE) - used == {
        f"{kind}_f_{t}" for kind in ("collar", "segment", "intersection") for t in (0.3, 0.5)
    }


def same(found, due):
    assert found.keys() == due.keys()
    for name in found:
        assert found[name] == pytest.approx(due[name], abs=1e-9, nan_ok=True), name


def all_of(found, classes=3, **changed):
    """Scores by name of (scores, events in ms) of clips, in frames of 100 ms."""
    return event_scores(*inputs(found, classes), **changed)


@settings(deadline=None, max_examples=25)
@given(clips(), st.permutations(range(3)), st.randoms(use_true_random=False))
def test_the_order_of_clips_and_classes_changes_nothing(found, order, random):
    due = all_of(found)
    shuffled = random.sample(found, len(found))
    same(all_of(shuffled), due)
    place = {c: number for number, c in enumerate(order)}
    renamed = [(scores[:, order], [(on, off, place[c]) for on, off, c in events]) for scores, events in found]
    same(all_of(renamed), {name: v[list(order)] if name.endswith("_per_class") else v for name, v in due.items()})


@settings(deadline=None, max_examples=25)
@given(clips(), st.integers(0, 3))
def test_a_shift_of_all_times_changes_nothing(found, seconds):
    """Within clips that are longer by three seconds of low scores, by whole frames and segments."""
    shifted = [
        [
            (
                np.pad(scores, ((10 * late, 10 * (3 - late)), (0, 0)), constant_values=0.01),
                [(on + 1000 * late, off + 1000 * late, c) for on, off, c in events],
            )
            for scores, events in found
        ]
        for late in (0, seconds)
    ]
    same(all_of(shifted[1]), all_of(shifted[0]))


@settings(deadline=None, max_examples=25)
@given(clips(), st.integers(0, 1000))
def test_a_resample_has_the_scores_of_the_clips_drawn(found, seed):
    """All but those at the best thresholds, which the resample keeps."""
    drawn = bootstrap_event_scores(*inputs(found), 3, seed)
    for number in range(3):
        counts = draw_counts(len(found), seed, number).astype(int)
        due = all_of([found[clip] for clip in np.repeat(np.arange(len(found)), counts)])
        for name in due:
            if not name.startswith("best"):
                assert drawn[name][number] == pytest.approx(due[name], abs=1e-9, nan_ok=True), name


def test_a_class_and_a_clip_without_events_are_left_out():
    """Class 1 has no event, and no score but that of its errors in micro averages. Without any event there is none."""
    scores = np.full((20, 2), 0.1)
    scores[5:15] = 0.9
    found = all_of([(scores, [(500, 1500, 0)]), (np.full((20, 2), 0.1), [])], 2)
    for name, value in found.items():
        if name.endswith("per_class"):
            assert np.isnan(value[1]) and not np.isnan(value[0]), name
        elif name.endswith("_f_micro"):
            # One or two segments of class 1 are false. At the best threshold, which it lacks, nothing is.
            assert value == pytest.approx({"segment": 2 / 3, "best_co": 1}.get(name[:7], 2 / 3)), name
        else:
            assert value == pytest.approx(1), name
    for name, value in all_of([(scores, [])], 2).items():
        assert np.isnan(value).all() or name.endswith("_f_micro") and value in (0, np.nan), name


def test_scores_of_some_events(golden):
    """Without those of a class, the others' scores are the same. Short ones have scores of their own."""
    scores, truth = FrameScores.of(golden[0], FRAME), EventTruth.of(*golden[1:], CLASSES)
    whole = event_scores(scores, truth)
    same(event_scores(scores, truth.only(truth.length > 0)), whole)
    some = event_scores(scores, truth.only(truth.label > 0))
    for name in whole:
        if name.endswith("per_class"):
            assert some[name][1:] == pytest.approx(whole[name][1:], abs=1e-12), name
            assert np.isnan(some[name][0]) or name.startswith("best_collar_threshold")
    short = event_scores(scores, truth.only(truth.length <= 1))
    assert all(np.isfinite(value).all() for value in short.values()) and short["psds1"] != whole["psds1"]


def test_intervals_and_comparisons(golden):
    scores, truth = FrameScores.of(golden[0], FRAME), EventTruth.of(*golden[1:], CLASSES)
    worse = FrameScores.of([each[::-1] for each in golden[0]], FRAME)
    exact, drawn = event_scores(scores, truth), bootstrap_event_scores(scores, truth, 100, 1)
    assert exact.keys() == drawn.keys()
    for name in exact:
        assert drawn[name].shape == (100, *np.shape(exact[name]))
        if not name.endswith("per_class"):
            low, high = interval(drawn[name])
            assert low <= exact[name] <= high and low < high, name
    for row in compare_event_scores((scores, worse), truth, 100, 1):
        assert (
            row.first == pytest.approx(exact[row.name], abs=1e-12)
            and row.first > row.second
            and row.p == pytest.approx(2 / 101)
        )
        assert row.low <= row.difference <= row.high < 0
    for row in compare_event_scores((scores, scores), truth, 20, 1, (0.5, np.full(4, 0.5))):
        assert row.low == row.high == row.difference == 0 and row.p == 1


def test_other_clips_or_classes_are_refused(golden):
    scores, truth = FrameScores.of(golden[0][1:], FRAME), EventTruth.of(*golden[1:], CLASSES)
    with pytest.raises(ValueError, match=r"scores are of \(39, 4\) clips and classes, events of \(40, 4\)"):
        event_scores(scores, truth)


def test_the_code_on_the_page_of_events_runs_as_it_stands():
    """One detection from 0.48 to 1.52 s, of an event from 0.5 to 1.5 s: found by every criterion."""
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(code, names)
    found = names["found"]
    for name in ("psds1", "psds2", "collar_f_macro", "segment_f_macro", "intersection_f_macro", "segment_auroc"):
        assert found[name] == pytest.approx(1)
