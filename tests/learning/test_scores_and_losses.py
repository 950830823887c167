"""Metrics, losses and mixup against golden values and mathematics."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from scipy.stats import beta, kstest
from torch.nn import functional

from src.config.loading import load_config
from src.config.sections import AugmentConfig
from src.data.batching import Batch
from src.data.mixup import mixing_weights, mixup
from src.learning.losses import multiclass_loss, multilabel_loss
from src.learning.metrics import accuracy, dprime, ranking_scores
from src.learning.tasks import build_task

METRICS = json.loads((GOLDEN / "metrics.json").read_text())
LOSSES = json.loads((GOLDEN / "losses.json").read_text())


def test_metrics_are_the_golden_ones():
    predictions = np.random.RandomState(0).rand(200, 18)
    targets = (np.random.RandomState(1).rand(200, 18) > 0.85).astype(np.float32)
    scores = ranking_scores(predictions, targets)
    assert np.abs(scores.ap - METRICS["AP"]).max() < 1e-9
    assert np.abs(scores.auc - METRICS["AUC"]).max() < 1e-9
    assert abs(scores.mAP - METRICS["mAP"]) < 1e-9
    assert abs(scores.mAUC - METRICS["mAUC"]) < 1e-9
    assert abs(scores.dprime - METRICS["dprime"]) < 1e-9


def test_classes_without_positives_are_left_out_of_the_means():
    predictions = np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3]])
    targets = np.array([[1, 0, 1], [0, 0, 1]])
    scores = ranking_scores(predictions, targets)
    assert np.isnan(scores.ap[1]) and np.isnan(scores.auc[1:]).all()
    assert scores.mAP == 1.0 and scores.mAUC == 1.0
    assert np.isnan(ranking_scores(predictions, np.zeros((2, 3))).mAP)


@pytest.mark.parametrize(
    "predictions, targets, cause",
    [
        (np.zeros((3, 2)), np.zeros((3, 3)), "class indices"),
        (np.zeros((3,)), np.zeros((3,)), "class indices"),
        (np.full((2, 2), np.nan), np.zeros((2, 2)), "diverge"),
        (np.zeros((2, 2)), np.full((2, 2), 0.5), "mixed"),
    ],
)
def test_metrics_refuse_what_they_cannot_score(predictions, targets, cause):
    with pytest.raises(ValueError, match=cause):
        ranking_scores(predictions, targets)


def test_dprime_is_the_distance_of_two_normals():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(1.5, 1, 4000), rng.normal(0, 1, 4000)
    scores = ranking_scores(np.r_[positives, negatives][:, None], np.r_[np.ones(4000), np.zeros(4000)][:, None])
    assert abs(scores.dprime - 1.5) < 0.06
    assert dprime(0.5) == 0


def test_accuracy_counts_the_largest_score():
    assert accuracy(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 0, 0])) == pytest.approx(2 / 3)


def loss_input():
    return torch.linspace(-3, 3, 32).reshape(8, 4), (torch.arange(32).reshape(8, 4) % 3 == 0).float()


def test_losses_are_the_golden_ones():
    logits, targets = loss_input()
    assert abs(multilabel_loss(False)(logits, targets).item() - LOSSES["bce"]) < 1e-6
    assert abs(multilabel_loss(True)(logits, targets).item() - LOSSES["focal_loss"]) < 1e-6


def test_class_weights_weigh_positives_or_classes():
    logits, targets = loss_input()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    by_hand = -(weights * targets * logits.sigmoid().log() + (1 - targets) * (1 - logits.sigmoid()).log()).mean()
    assert torch.isclose(multilabel_loss(False, weights)(logits, targets), by_hand, atol=1e-6)
    indices = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    by_hand = -(weights[indices] * logits.log_softmax(1)[range(8), indices]).sum() / weights[indices].sum()
    assert torch.isclose(multiclass_loss(logits, indices, weights), by_hand, atol=1e-6)


def test_paper_protocol_draws_the_published_lambdas_for_every_batch():
    for seed in range(3):
        weights = mixing_weights(8, "paper", np.random.default_rng(seed))
        assert np.abs(weights - LOSSES["lam_batch_8"]).max() < 1e-12
    corrected = [mixing_weights(8, "corrected", np.random.default_rng(seed)) for seed in range(500)]
    assert len({tuple(w) for w in corrected}) == 500
    assert abs(np.mean(corrected) - 0.5) < 0.02 and abs(np.var(corrected) - 1 / 12) < 0.01  # Beta(1, 1) is uniform


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("protocol", ["paper", "corrected"])
def test_lambdas_have_the_beta_distribution_that_the_cfg_asks_for(protocol, alpha):
    """And max(λ, 1 - λ) of the same draws if it says so."""
    plain, largest = (
        mixing_weights(5000, protocol, np.random.default_rng(3), AugmentConfig(mixup_alpha=alpha, mixup_max=maximum))
        for maximum in (False, True)
    )
    assert kstest(plain, beta(alpha, alpha).cdf).pvalue > 0.001
    assert np.array_equal(largest, np.maximum(plain, 1 - plain)) and largest.min() >= 0.5 > plain.min()
    mixed = mixup(torch.randn(8, 1, 5, 6), protocol, 1, 2, 3, augment=AugmentConfig(mixup_alpha=alpha, mixup_max=True))
    assert mixed.weights.min() >= 0.5


@pytest.mark.parametrize("protocol", ["paper", "corrected"])
def test_mixup_blends_each_clip_with_its_partner(protocol):
    inputs = torch.randn(8, 1, 5, 6)
    targets = torch.eye(8)
    mixed = mixup(inputs, protocol, seed=1, epoch=2, batch=3)
    assert sorted(mixed.partners.tolist()) == list(range(8))
    blended = mixed.mix(targets)
    for k in range(8):
        weight, partner = mixed.weights[k], mixed.partners[k]
        assert torch.allclose(mixed.inputs[k], weight * inputs[k] + (1 - weight) * inputs[partner])
        assert torch.allclose(blended[k], weight * targets[k] + (1 - weight) * targets[partner])
    again = mixup(inputs, protocol, seed=1, epoch=2, batch=3)
    assert torch.equal(again.inputs, mixed.inputs)
    for other_key in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 2, 3, 1)):
        assert mixup(inputs, protocol, *other_key).partners.tolist() != mixed.partners.tolist()


@pytest.mark.parametrize("protocol, sees_mixed", [("paper", False), ("corrected", True)])
def test_multiclass_mixup_loss_by_hand(corpus, protocol, sees_mixed):
    config = load_config(corpus / "tiny.cfg", ["model.type=multiclass", f"protocol={protocol}"])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    inputs, targets = torch.randn(8, 1, 3, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    mixed = mixup(inputs, protocol, 0, 0, 0)
    logits = network(mixed.inputs if sees_mixed else inputs)
    each = [functional.cross_entropy(logits, t, reduction="none") for t in (targets, targets[mixed.partners])]
    by_hand = (mixed.weights * each[0] + (1 - mixed.weights) * each[1]).mean()
    assert torch.isclose(build_task(config).training_loss(network, Batch(inputs, targets), mixed), by_hand)


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_smoothed_targets_and_a_teacher_by_hand(corpus, kind, mixing):
    """Mixup mixes both. The validation's loss knows neither."""
    keys = ["opt.label_smoothing=0.2", "opt.teacher=t.pt", "opt.teacher_weight=0.3", "protocol=corrected"]
    task = build_task(load_config(corpus / "tiny.cfg", [f"model.type={kind}", *keys]))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    inputs, indices, taught = torch.randn(8, 1, 3, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), torch.randn(8, 3)
    mixed = mixup(inputs, "corrected", 0, 0, 0) if mixing else None
    logits = network(mixed.inputs if mixed else inputs)
    hard = torch.eye(3)[indices]
    if kind == "multilabel":
        targets, smooth, soft = hard, hard * 0.8 + 0.1, taught.sigmoid()
        logs = logits.sigmoid().log(), (1 - logits.sigmoid()).log()

        def loss(due):
            return -(due * logs[0] + (1 - due) * logs[1]).mean()
    else:
        targets, smooth, soft = indices, hard * 0.8 + 0.2 / 3, taught.softmax(1)

        def loss(due):
            return -(due * logits.log_softmax(1)).sum(1).mean()

    if mixed:
        smooth, soft = mixed.mix(smooth), mixed.mix(soft)
    found = [task.training_loss(network, Batch(inputs, targets, teacher), mixed) for teacher in (None, taught)]
    assert torch.isclose(found[0], loss(smooth))
    assert torch.isclose(found[1], 0.7 * loss(smooth) + 0.3 * loss(soft))
    assert torch.isclose(task.validation_loss(logits, Batch(inputs, targets)), loss(hard))


@pytest.mark.parametrize("mixing", [False, True])
def test_the_loss_of_events_by_hand(corpus, mixing):
    """Cross-entropy of frames, and of clips, which have what their frames have. Mixup mixes both."""
    keys = ["opt.label_smoothing=0.2", "opt.frame_weight=0.7", "opt.clip_weight=0.4", "protocol=corrected"]
    task = build_task(load_config(corpus / "tiny.cfg", ["model.type=events", *keys]))
    inputs = torch.randn(8, 1, 64, 64)
    frames = (torch.rand(8, 17, 3) > 0.9) * torch.rand(8, 17, 3)
    mixed = mixup(inputs, "corrected", 0, 0, 0) if mixing else None
    outputs = torch.randn(8, 16, 3)  # of a network that leaves out the last frame
    clips = (outputs.sigmoid() ** 2).sum(1) / outputs.sigmoid().sum(1)
    due = frames[:, :16], (frames[:, :16] > 0).any(1).float()

    def loss(found, targets):
        return -(targets * found.log() + (1 - targets) * (1 - found).log()).mean()

    def both(change):
        return 0.7 * loss(outputs.sigmoid(), change(due[0])) + 0.4 * loss(clips, change(due[1]))

    batch = Batch(inputs, torch.zeros(8, 3), frames=frames)
    seen = []

    def network(inputs, of_frames):
        assert of_frames
        seen.append(inputs)
        return outputs

    found = task.training_loss(network, batch, mixed)
    assert torch.isclose(found, both(lambda t: (mixed.mix(t) if mixed else t) * 0.8 + 0.1))
    assert torch.equal(seen[0], mixed.inputs if mixed else inputs)
    assert torch.isclose(task.validation_loss(outputs, batch), both(lambda t: t))
