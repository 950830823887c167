"""Stratified and grouped splits: exact shares, groups on one side, and the seed alone deciding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.lmdb.splitting import connected, stratified

SHARES = st.one_of(
    st.lists(st.floats(0.05, 1), min_size=2, max_size=4).map(lambda found: [each / sum(found) for each in found]),
    st.integers(2, 10).map(lambda folds: [1 / folds] * folds),
)
SEEDS = st.integers(0, 2**64 - 1)


def one_hot(classes, count):
    return np.eye(count, dtype=int)[classes]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), SHARES, SEEDS)
def test_every_class_is_within_one_clip_of_its_exact_share(classes, shares, seed):
    counts = one_hot(classes, 6)
    side = stratified(counts, np.ones(len(classes), int), shares, seed)
    for number, share in enumerate(shares):
        found = counts[side == number].sum(axis=0)
        assert (np.abs(found - share * counts.sum(axis=0)) < 1 + 1e-6).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=40), SHARES, SEEDS)
def test_every_unit_gets_a_side_whatever_it_holds(rows, shares, seed):
    """Units without a class, of several and of several clips."""
    counts = np.array(rows)
    sizes = np.maximum(counts.sum(axis=1), 1)
    before = counts.copy()
    side = stratified(counts, sizes, shares, seed)
    assert ((0 <= side) & (side < len(shares))).all() and (counts == before).all()
    assert (side == stratified(counts, sizes, shares, seed)).all()


def test_another_seed_gives_another_split():
    counts = one_hot([0] * 20 + [1] * 20, 2)
    splits = {tuple(stratified(counts, np.ones(40, int), [0.6, 0.2, 0.2], seed)) for seed in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize("shares", [[0.6, 0.2, 0.2], [0.2] * 5])
def test_clips_of_several_classes_are_dealt_out_better_than_at_random(shares):
    rng = np.random.default_rng(0)
    errors = {"stratified": [], "random": []}
    for seed in range(10):
        counts = (rng.random((200, 12)) < np.linspace(0.03, 0.4, 12)).astype(int)
        exact = np.outer(shares, counts.sum(axis=0))
        for name, side in (
            ("stratified", stratified(counts, np.ones(200, int), shares, seed)),
            ("random", rng.choice(len(shares), 200, p=shares)),
        ):
            found = np.array([counts[side == number].sum(axis=0) for number in range(len(shares))])
            errors[name].append(np.abs(found - exact).mean())
    assert max(errors["stratified"]) < 0.5 * min(errors["random"])


def test_large_groups_are_dealt_out_first():
    counts = np.array([[1]] * 10 + [[10]])
    for seed in range(5):
        side = stratified(counts, counts[:, 0], [0.5, 0.5], seed)
        assert (side[:10] != side[10]).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_a_unit_is_what_chains_of_shared_keys_reach_and_nothing_else(items):
    unit = connected([group for group, _ in items], [f"sound {sound}" for _, sound in items])
    for one in range(len(items)):
        reached, before = {one}, set()
        while reached != before:
            before = reached
            groups, sounds = {items[each][0] for each in reached}, {items[each][1] for each in reached}
            reached = {k for k, (group, sound) in enumerate(items) if group in groups or sound in sounds}
        assert {k for k in range(len(items)) if unit[k] == unit[one]} == reached
    assert sorted(set(unit)) == list(range(unit.max() + 1))
