"""Losses on logits. Each gives one number for a whole batch, or one a clip where it is to be mixed."""

from collections.abc import Callable

import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from src.errors import UserError

MultilabelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def multilabel_loss(focal: bool, positive_weights: torch.Tensor | None = None) -> MultilabelLoss:
    """Mean over clips and classes of binary cross-entropy, or of the sigmoid focal loss.

    The focal loss is Lin et al.'s (2017, arXiv 1708.02002) with α 0.25 and γ 2.

    Args:
        focal: which of the two.
        positive_weights: (C,) factor of each class's positive term, for binary cross-entropy alone.
    """
    if focal and positive_weights is not None:
        raise UserError("--cw has no place in the focal loss. Leave it out, or set opt.focal_loss to False")
    if focal:
        return lambda logits, targets: sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="mean")

    def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weights = None if positive_weights is None else positive_weights.to(logits)
        return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)

    return cross_entropy


def multiclass_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    reduction: str = "mean",
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of (B, C) logits with (B,) class indices, classes weighted by (C,) `class_weights`.

    A weighted mean over classes of weight 0 alone is 0. Without weights, targets may be (B, C) probabilities.

    Args:
        smoothing: share of each target that is spread evenly over the classes.
    """
    weights = None if class_weights is None else class_weights.to(logits)
    if class_weights is not None and reduction == "mean" and not class_weights.all():
        reduction = "mean" if class_weights[targets.cpu()].any() else "sum"  # a mean would be 0 / 0
    return functional.cross_entropy(logits, targets, weights, reduction=reduction, label_smoothing=smoothing)
