"""A network, and what goes into its last layer: an embedding of its input."""

import torch
from torch import nn

from src.models.frames import FrameNetwork

LINEAR = (nn.Linear, nn.Conv2d)  # some of timm's networks end in a 1×1 convolution


class Embedder(nn.Module):
    """(B, 1, F, T) spectrograms -> (B, D) embeddings.

    Args:
        network: of any family, in evaluation mode.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self._sought = False
        self._embeddings: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.both(inputs)[1]

    def both(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C) logits and (B, D) embeddings, in one pass. D is 0 for a network without a last layer.

        A network of events gives (B, J, C) logits of its frames, and the mean of their embeddings.
        """
        if not self._sought and (last := last_layer(self.network, inputs[:1])) is not None:
            last.register_forward_pre_hook(self._keep)
        self._sought, self._embeddings = True, None
        logits = outputs(self.network, inputs)
        if self._embeddings is None:
            return logits, logits.flatten(1)[:, :0]
        # Into a convolution goes (B, D, 1, 1), and of events each frame goes by itself.
        return logits, self._embeddings.flatten(1).unflatten(0, (len(logits), -1)).mean(dim=1)

    def _keep(self, layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        self._embeddings = inputs[0]


def outputs(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(B, C) logits, or of a network of events (B, J, C)."""
    logits: torch.Tensor = network(inputs, of_frames=True) if isinstance(network, FrameNetwork) else network(inputs)
    return logits


def last_layer(network: nn.Module, inputs: torch.Tensor) -> nn.Module | None:
    """The linear layer whose output the logits of (B, 1, F, T) inputs are.

    There is none where the logits are a mean over time, say, or over two heads.
    """
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    layers = [module for module in network.modules() if isinstance(module, LINEAR)]
    hooks = [layer.register_forward_hook(lambda layer, _, output: seen.append((layer, output))) for layer in layers]
    try:
        logits = outputs(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return next((layer for layer, output in seen if same_values(output, logits)), None)


def same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same numbers in memory, under whatever shape."""
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()
