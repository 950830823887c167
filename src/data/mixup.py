"""Mixup of a batch (Zhang et al., 2018, arXiv 1710.09412), in the published protocol and a corrected one.

Under the published figures ("paper") the generator of λ was seeded anew in every call. So all batches of a size share
one λ vector. Multiclass training also fed the network the unmixed input. "corrected" draws λ afresh for every batch and
feeds the mixed input.
"""

from dataclasses import dataclass

import numpy as np
import torch

from src.config.sections import PUBLISHED_AUGMENT, AugmentConfig
from src.data.sampling import MIXUP

PAPER_SEED = 1233


@dataclass(frozen=True)
class Mixed:
    """A batch mixed with its own permutation."""

    inputs: torch.Tensor  # (B, 1, F, T): λ x + (1 - λ) x[partners]
    weights: torch.Tensor  # (B,) λ
    partners: torch.Tensor  # (B,) int64

    def mix(self, values: torch.Tensor) -> torch.Tensor:
        """λ v + (1 - λ) v[partners] for (B, …) values."""
        return blend(values, self.weights, self.partners)


def mixup(
    inputs: torch.Tensor,
    protocol: str,
    seed: int,
    epoch: int,
    batch: int,
    rank: int = 0,
    augment: AugmentConfig = PUBLISHED_AUGMENT,
) -> Mixed:
    """Mix each clip of (B, 1, F, T) inputs with a random partner of the batch.

    One λ a clip, as of `mixing_weights`. The draws depend on seed, epoch, batch and rank alone.
    """
    rng = np.random.default_rng((seed, MIXUP, epoch, batch, rank))
    size = len(inputs)
    partners = torch.from_numpy(rng.permutation(size)).to(inputs.device)
    weights = torch.from_numpy(mixing_weights(size, protocol, rng, augment)).to(inputs.device, inputs.dtype)
    return Mixed(blend(inputs, weights, partners), weights, partners)


def mixing_weights(
    size: int, protocol: str, rng: np.random.Generator, augment: AugmentConfig = PUBLISHED_AUGMENT
) -> np.ndarray:
    """(size,) λ from Beta(α, α), or max(λ, 1 - λ): the same for every batch of a size under "paper", else from `rng`.

    α is `augment.mixup_alpha`, and `augment.mixup_max` says which.
    """
    source = np.random.RandomState(PAPER_SEED) if protocol == "paper" else rng
    weights = source.beta(augment.mixup_alpha, augment.mixup_alpha, size)
    return np.maximum(weights, 1 - weights) if augment.mixup_max else weights


def blend(values: torch.Tensor, weights: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """λ v + (1 - λ) v[partners], of (B, …) values, (B,) weights and partners."""
    weights = weights.view(-1, *[1] * (values.dim() - 1)).to(values.dtype)  # (B, 1, …)
    return weights * values + (1 - weights) * values[partners]
