"""Mixup of a batch (Zhang et al., 2018, arXiv 1710.09412), in the published protocol and a corrected one.

Under the published figures ("paper") the generator of λ was seeded anew in every call. So all batches of a size share
one λ vector. Multiclass training also fed the network the unmixed input. "corrected" draws λ afresh for every batch and
feeds the mixed input.
"""

from dataclasses import dataclass

import numpy as np
import torch

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


def mixup(inputs: torch.Tensor, protocol: str, seed: int, epoch: int, batch: int, rank: int = 0) -> Mixed:
    """Mix each clip of (B, 1, F, T) inputs with a random partner of the batch.

    One λ a clip from Beta(1, 1). The draws depend on seed, epoch, batch and rank alone.
    """
    rng = np.random.default_rng((seed, MIXUP, epoch, batch, rank))
    size = len(inputs)
    partners = torch.from_numpy(rng.permutation(size)).to(inputs.device)
    weights = torch.from_numpy(mixing_weights(size, protocol, rng)).to(inputs.device, inputs.dtype)
    return Mixed(blend(inputs, weights, partners), weights, partners)


def mixing_weights(size: int, protocol: str, rng: np.random.Generator) -> np.ndarray:
    """(size,) λ from Beta(1, 1): the same for every batch of a size under "paper", else from `rng`."""
    if protocol == "paper":
        return np.random.RandomState(PAPER_SEED).beta(1, 1, size)
    return rng.beta(1, 1, size)


def blend(values: torch.Tensor, weights: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """λ v + (1 - λ) v[partners], of (B, …) values, (B,) weights and partners."""
    weights = weights.view(-1, *[1] * (values.dim() - 1)).to(values.dtype)  # (B, 1, …)
    return weights * values + (1 - weights) * values[partners]
