"""Padding and cropping against the golden values, and what the random transforms may do."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import GOLDEN
from scipy.stats import chisquare, kstest

from src.config.sections import AugmentConfig
from src.data.transforms import (
    Bands,
    CenterCrop,
    PadToSize,
    RandomCrop,
    SpecAugment,
    UseWithProb,
    View,
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


# ---- what the section augment of a cfg adds ----


def views(num_frames, size, count=2000, unit=1.0, **augment):
    """What the training chain shows of clips of 64 rows."""
    chain = training_chain(size, AugmentConfig(**augment), unit)
    return [chain.view(View.whole(64, num_frames), rng(seed)) for seed in range(count)]


def test_a_view_by_hand():
    x = np.arange(12.0).reshape(3, 4)  # rows 0 to 3, 4 to 7, 8 to 11
    whole = View.whole(3, 4)
    rolled = np.array([[3, 0, 1, 2], [7, 4, 5, 6], [11, 8, 9, 10]])
    assert np.array_equal(replace(whole, roll=3).of(x), rolled)
    assert np.array_equal(replace(whole, roll=3, first=1, size=2).of(x), rolled[:, 1:3])
    wrapped = replace(whole, roll=3, first=-1, size=6)
    assert np.array_equal(wrapped.of(x), rolled[:, [3, 0, 1, 2, 3, 0]])
    assert np.array_equal(replace(wrapped, wrap=False).of(x), np.pad(rolled, ((0, 0), (1, 1))))
    x += 5
    cut = replace(whole, first=1, size=2)  # its minimum, 6, is not the clip's
    assert np.array_equal(replace(cut, shift=1).of(x), [[6, 6], [6, 7], [10, 11]])
    assert np.array_equal(replace(cut, shift=-2).of(x), [[14, 15], [6, 6], [6, 6]])
    assert np.array_equal(replace(cut, shift=3, gain=0.5).of(x), np.full((3, 2), 6.5))
    everything = replace(cut, shift=-1, gain=-2.0, bands=(Bands(0, 1, 0, 0),))
    assert np.array_equal(everything.of(x), [[4, 4], [12, 13], [4, 4]])
    assert np.array_equal(x, np.arange(5.0, 17).reshape(3, 4))  # the clip itself is left alone


def test_what_is_added_leaves_the_other_draws_as_they_were():
    more = {"roll": True, "freq_shift": 3, "gain": 6.0}
    for plain, changed in zip(views(90, 70, 50), views(90, 70, 50, **more), strict=True):
        assert plain != changed and replace(changed, roll=0, shift=0, gain=0.0) == plain


def test_a_clip_is_rolled_by_any_number_of_frames():
    rolls = [view.roll for view in views(20, 30, roll=True)]
    assert chisquare(np.bincount(rolls, minlength=20)).pvalue > 0.001 and max(rolls) == 19


def test_a_clip_is_shifted_by_any_number_of_rows_up_to_the_limit():
    shifts = np.array([view.shift for view in views(20, 30, freq_shift=3)])
    counts = np.bincount(shifts + 3)
    assert len(counts) == 7 and chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("unit", [1.0, 12.5])
def test_gain_is_uniform_in_decibels(unit):
    """A spectrogram that was divided by its deviation has that many dB as its unit."""
    gains = np.array([view.gain for view in views(20, 30, gain=6.0, unit=unit)])
    assert kstest(gains * unit, "uniform", (-6, 12)).pvalue > 0.001


@pytest.mark.parametrize("prob", [0.0, 0.3, 0.5, 1.0])
def test_masks_come_as_often_as_the_cfg_says(prob):
    share = np.mean([len(view.bands) > 0 for view in views(300, 200, mask_prob=prob)])
    assert abs(share - prob) <= 3 * np.sqrt(prob * (1 - prob) / 2000)


@pytest.mark.parametrize("freq_mask, time_mask", [(0.15, 0.2), (0.5, 0.0), (0.0, 0.5), (0.3, 0.1), (1.0, 1.0)])
def test_masks_are_as_wide_as_the_cfg_says(freq_mask, time_mask):
    """Widths are uniform from 0 to the limit, of the rows and of the columns that are seen."""
    bands = [
        band for view in views(300, 200, mask_prob=1, freq_mask=freq_mask, time_mask=time_mask) for band in view.bands
    ]
    for widths, starts, limit, whole in (
        (np.array([band.rows for band in bands]), np.array([band.row for band in bands]), freq_mask, 64),
        (np.array([band.columns for band in bands]), np.array([band.column for band in bands]), time_mask, 200),
    ):
        assert (starts + widths <= whole).all() and widths.max() <= limit * whole
        assert abs(widths.mean() - limit * whole / 2) < 0.03 * limit * whole + 0.5  # less than one is cut off


def test_nothing_is_added_in_evaluation():
    whole = View.whole(64, 90)
    for chain in (evaluation_chain(70), evaluation_chain(120), evaluation_chain(70, crop=False)):
        view = chain.view(whole, rng())
        assert (view.roll, view.shift, view.gain, view.bands) == (0, 0, 0.0, ())
