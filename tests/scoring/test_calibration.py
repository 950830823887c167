"""Calibration error and temperature against what is known of made-up networks."""

import numpy as np
import pytest
import torch

from src.config.loading import load_config
from src.config.sections import Config
from src.learning.tasks import Task, build_task
from src.scoring.calibration import BINS, fitted_temperature, reliability


def task(kind: str) -> Task:
    config: Config = load_config("cfgs_v2/demo/resnet_18_lmdb.cfg", [f"model.type={kind}", "model.num_classes=4"])
    return build_task(config)


def drawn(kind: str, temperature: float, clips: int = 20000):
    """Logits that are `temperature` times too large, and targets drawn with the true probabilities."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(clips, 4)).astype(np.float32) * 2)
    true = task(kind).probabilities(logits).numpy()
    if kind == "multilabel":
        targets = (rng.random(true.shape) < true).astype(np.float32)
    else:
        targets = (rng.random((clips, 1)) > np.cumsum(true, axis=1)[:, :-1]).sum(axis=1)
    return logits * temperature, targets


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_calibrates(kind, temperature):
    own = task(kind)
    logits, targets = drawn(kind, temperature)
    found = fitted_temperature(own, logits, targets)
    assert found == pytest.approx(temperature, rel=0.05)
    before, after = (
        reliability(*own.confidences(own.probabilities(logits, each).numpy(), targets)).ece for each in (1.0, found)
    )
    assert after < 0.01 and (temperature == 1.0 or before > 0.03)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_temperature_of_one_changes_no_bit(kind):
    logits = torch.randn(50, 4) * 30
    expected = logits.sigmoid() if kind == "multilabel" else logits.softmax(dim=1)
    assert torch.equal(task(kind).probabilities(logits), expected)
    assert torch.equal(task(kind).probabilities(logits, 2.0), task(kind).probabilities(logits / 2))


def test_the_error_is_that_of_a_small_example():
    """Of 0.9, half was so, of 0.1 none: 2 / 4 · 0.4 + 2 / 4 · 0.1."""
    found = reliability(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 0, 0, 0]))
    assert found.ece == pytest.approx(0.25)
    assert found.counts.sum() == 4 and (found.counts > 0).sum() == 2


def test_bins_have_their_upper_ends_and_reach_from_zero_to_one():
    ends = np.linspace(0, 1, BINS + 1)
    assert np.array_equal(reliability(ends[1:], np.ones(BINS)).counts, np.ones(BINS))
    assert reliability(np.zeros(1), np.zeros(1)).counts[0] == 1
    assert reliability(ends[1:], np.zeros(BINS)).ece == pytest.approx(ends[1:].mean())


def test_of_one_class_a_clip_the_top_class_counts_and_of_several_every_pair():
    probabilities = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.2, 0.4, 0.2]])
    confidences, right = task("multiclass").confidences(probabilities, np.array([0, 1]))
    assert confidences.tolist() == [0.7, 0.4] and right.tolist() == [True, False]
    confidences, right = task("multilabel").confidences(probabilities, np.eye(4)[:2])
    assert confidences.shape == (8,) and right.sum() == 2
