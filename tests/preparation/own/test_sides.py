"""Which part or fold recordings get: groups and equal audio together, classes in the wanted shares."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import UserError
from src.preparation.own.clips import Clip, Facts
from src.preparation.own.listing import Recording, whole
from src.preparation.own.report import Report
from src.preparation.own.sides import sides_of
from src.preparation.own.sources import Source

SHARES = {"train": 0.6, "val": 0.2, "eval": 0.2}


def source(number, label, group=None, sound=None, side=None, clips=1):
    name = f"{number:03d}.wav"
    events = tuple(map(whole, label))
    recording = Recording(name, Path("/x", name), events, group or name, side)
    facts = Facts(100, 22050, (sound or name).encode(), 0.0)
    return Source(recording, facts, tuple(Clip(f"{number}_{k}", 0, 100, events) for k in range(clips)), 100)


def split(sources, folds=None, seed=1):
    """Name → side, with the report."""
    report = Report([], {}, 22050, 5.0)
    return {each.name: side for each, side in sides_of(sources, SHARES, folds, seed, report).items()}, report


ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 30), st.integers(1, 4)), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.sampled_from([None, 2, 5]), st.integers(0, 2**64 - 1), st.randoms())
def test_no_group_and_no_equal_audio_is_on_two_sides_whatever_the_order(rows, folds, seed, random):
    sources = [
        source(k, label, f"g{group}", f"s{sound}", None, clips) for k, (label, group, sound, clips) in enumerate(rows)
    ]
    sources += [source(100 + k, "abc"[k % 3]) for k in range(30)]
    sides, _ = split(sources, folds, seed)
    for key in (lambda each: each.recording.group, lambda each: each.facts.sound):
        found = {}
        for each in sources:
            found.setdefault(key(each), set()).add(sides[each.recording.name])
        assert all(len(on) == 1 for on in found.values())
    shuffled = random.sample(sources, len(sources))
    assert split(shuffled, folds, seed)[0] == sides


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=15, max_size=60), st.sampled_from([None, 2, 3, 5]), st.integers(0, 99))
def test_every_class_is_within_one_clip_of_its_share(labels, folds, seed):
    labels = [*labels, *"abc" * 5]
    sides, _ = split([source(k, label) for k, label in enumerate(labels)], folds, seed)
    found = Counter((label, sides[f"{k:03d}.wav"]) for k, label in enumerate(labels))
    for side, share in (SHARES if folds is None else dict.fromkeys(range(1, folds + 1), 1 / folds)).items():
        for label in "abc":
            assert abs(found[label, side] - share * labels.count(label)) < 1 + 1e-6


def test_too_small_classes_are_noted():
    sources = [source(k, "a") for k in range(10)] + [
        source(20, "b", clips=9),
        source(21, "c", "g"),
        source(22, "c", "g"),
    ]
    _, report = split(sources)
    assert report.too_small == {"b": 1, "c": 1} and report.units == 12


def test_what_cannot_be_split_is_refused():
    with pytest.raises(
        UserError, match="--split: no clip is left for .*: 2 recordings or groups are too few for 3 sides"
    ):
        split([source(1, "a"), source(2, "b")])
    with pytest.raises(UserError, match="--folds 3: no clip is left for fold "):
        split([source(k, "a", "one group") for k in range(9)], folds=3)
    with pytest.raises(UserError, match="--folds 1000000000000: no clip is left for fold 10: there are 9 recordings"):
        split([source(k, "a") for k in range(9)], folds=10**12)
    with pytest.raises(UserError, match="no recordings are given to train on, only for eval and val"):
        split([source(1, "a", side="val"), source(2, "a", side="eval")])
