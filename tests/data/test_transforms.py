"""Padding and cropping against the golden values, and what the random transforms may do."""

import json

import numpy as np
import pytest
from conftest import GOLDEN

from src.data.transforms import (
    CenterCrop,
    PadToSize,
    RandomCrop,
    SpecAugment,
    UseWithProb,
    evaluation_chain,
    training_chain,
)

CASES = json.loads((GOLDEN / "transforms.json").read_text())
TRANSFORMS = {
    "pad_wrap_12": PadToSize(12, "wrap"),
    "pad_constant_12": PadToSize(12, "constant"),
    "pad_wrap_20": PadToSize(20, "wrap"),
    "center_crop_4": CenterCrop(4),
    "center_crop_5": CenterCrop(5),
    "eval_multilabel_5": evaluation_chain(5),
    "eval_multilabel_12": evaluation_chain(12),
    "eval_classifier_5_no_crop": evaluation_chain(5, crop=False),
    "eval_classifier_5_center_crop": evaluation_chain(5),
}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", [name for name in CASES if name != "input"])
def test_golden(name):
    assert np.array_equal(TRANSFORMS[name](np.asarray(CASES["input"]), rng()), np.asarray(CASES[name]))


def test_random_crops_start_anywhere_with_equal_probability():
    x = np.arange(10.0)[None]
    starts = [int(RandomCrop(4)(x, rng(seed))[0, 0]) for seed in range(7000)]
    counts = np.bincount(starts, minlength=7)
    assert len(counts) == 7 and np.abs(counts - 1000).max() < 150


def test_spec_augment_sets_bands_to_the_minimum_and_nothing_else():
    x = rng(1).standard_normal((221, 500))
    shares, bands = [], set()
    for seed in range(300):
        masked = SpecAugment()(x, rng(seed))
        hidden = masked != x
        assert (masked[hidden] == x.min()).all()
        # The entry that is the minimum already looks unmasked: allow for it.
        rows = hidden.sum(axis=1) >= 499
        columns = hidden.sum(axis=0) >= 220
        assert (hidden <= (rows[:, None] | columns[None])).all()
        assert rows.sum() <= 2 * int(0.15 * 221) and columns.sum() <= 2 * int(0.20 * 500)
        shares.append((rows.mean(), columns.mean()))
        bands.add(int((np.diff(np.r_[0, rows.astype(int)]) == 1).sum()))
    assert bands >= {1, 2}
    # On average 1.5 bands of 7.5 % of the rows and of 10 % of the columns, less what overlaps.
    assert 0.08 < np.mean([s[0] for s in shares]) < 0.12
    assert 0.11 < np.mean([s[1] for s in shares]) < 0.16


def test_half_of_the_training_clips_are_augmented_and_padded_either_way():
    x = rng(2).standard_normal((221, 40))
    wrapped = PadToSize(64, "wrap")(x, rng())
    constant = PadToSize(64, "constant")(x, rng())
    outcomes = [training_chain(64)(x, rng(seed)) for seed in range(400)]
    untouched_wrap = sum(np.array_equal(y, wrapped) for y in outcomes)
    untouched_constant = sum(np.array_equal(y, constant) for y in outcomes)
    assert all(y.shape == (221, 64) for y in outcomes)
    assert 70 <= untouched_wrap <= 130 and 70 <= untouched_constant <= 130


def test_use_with_prob_is_a_coin():
    seen = [UseWithProb(CenterCrop(1), 0.5)(np.ones((1, 2)), rng(seed)).shape[1] for seed in range(1000)]
    assert 430 < seen.count(1) < 570


def test_draws_are_those_of_the_generator_alone():
    x = rng(3).standard_normal((221, 700))
    assert np.array_equal(training_chain(500)(x, rng(5)), training_chain(500)(x, rng(5)))
    assert not np.array_equal(training_chain(500)(x, rng(5)), training_chain(500)(x, rng(6)))
