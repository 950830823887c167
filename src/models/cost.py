"""What a network costs: multiply-accumulates of a forward pass."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from src.errors import UserError


def forward_gmac(network: nn.Module, num_bins: int, num_frames: int) -> float:
    """10⁹ multiply-accumulates that a (1, 1, F, T) input takes in convolutions and matrix products.

    A training step takes about three times as many, since gradients go through all weights and activations.

    Args:
        network: on the meta device, where nothing is computed, or on another.
        num_bins: F.
        num_frames: T.

    Raises:
        UserError: the network takes no input of that size, which may be too small for its poolings.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()  # batch norm refuses a single value a channel in training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            network(torch.zeros(1, 1, num_bins, num_frames, device=device))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"the network takes no input of {num_bins} bins or bands and {num_frames} frames ({reason}). Choose "
                "more of them (--random_clip_size, --val_clip_size, audio_config), or another network"
            ) from None
    network.train(was_training)
    return counter.get_total_flops() / 2e9
