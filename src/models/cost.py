"""What a network costs: multiply-accumulates of a forward pass."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def forward_gmac(network: nn.Module, num_bins: int, num_frames: int) -> float:
    """10⁹ multiply-accumulates that a (1, 1, F, T) input takes in convolutions and matrix products.

    A training step takes about three times as many, since gradients go through all weights and activations.

    Args:
        network: on the meta device, where nothing is computed, or on another.
        num_bins: F.
        num_frames: T.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()  # batch norm refuses a single value a channel in training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, num_bins, num_frames, device=device))
    network.train(was_training)
    return counter.get_total_flops() / 2e9
