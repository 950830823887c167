"""Networks of timm (Wightman, 2019) by their own names, with one input channel.

A cfg says `arch: timm` and `model_depth: <timm's name>`. timm cites each network's paper.
"""

import difflib
from typing import Any

import timm
import torch
from timm.layers import DropPath, SelectAdaptivePool2d
from torch import nn

from src.errors import UserError

TRIED = (221, 128)  # bins and frames


class _Names:
    """timm's model names, as the depths of this family."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and timm.is_model(name)

    @staticmethod
    def like(name: object) -> str:
        """A few names close to a wrong one, for messages."""
        close = difflib.get_close_matches(str(name), timm.list_models(), n=5, cutoff=0.4)
        return f"timm's model names, such as {', '.join(close or ['resnet18', 'convnext_nano'])}"


DEPTHS = _Names()


def build(
    depth: str,
    num_classes: int,
    im_size: int,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    pool: str = "avgpool",
) -> nn.Module:
    """timm's network with timm's own initialisation and keys, whatever is dropped and however it is pooled.

    Raises:
        UserError: it takes no spectrograms, as transformers are often made for one input size, or has no drop path or
            pooling to use.
    """
    # timm leaves out what is None.
    rates: dict[str, Any] = {"drop_rate": dropout or None, "drop_path_rate": drop_path or None}
    no_drop_path = f"model.drop_path is {drop_path:g}, and timm's {depth} has no drop path. Set it to 0"
    no_max_pool = f"model.pool is maxpool, and timm's {depth} has no pooling to change. Set it to avgpool"
    if pool == "maxpool":
        rates["global_pool"] = "max"
    try:
        network = timm.create_model(depth, in_chans=1, num_classes=num_classes, **rates).eval()
    except (TypeError, AssertionError) as error:
        if "drop_path_rate" in str(error):
            raise UserError(no_drop_path) from None
        if pool == "maxpool" and "pool" in str(error):
            raise UserError(no_max_pool) from None
        raise
    if drop_path and not _leaves_out_branches(network):
        raise UserError(no_drop_path)
    if pool == "maxpool" and not any(isinstance(one, SelectAdaptivePool2d) for one in network.modules()):
        raise UserError(no_max_pool)
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 1, *TRIED))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        size = f"{TRIED[0]}×{TRIED[1]} ({reason}). Choose one without a fixed input size"
        raise UserError(f"model.model_depth is '{depth}': timm's network takes no input of {size}") from None
    return network.train()


def _leaves_out_branches(network: nn.Module) -> bool:
    """Whether a network has residual branches that drop path acts on. Blocks without a shortcut never use theirs."""
    return any(
        isinstance(layer, DropPath) and layer.drop_prob > 0 and getattr(block, "has_skip", True)
        for block in network.modules()
        for layer in block.children()
    )
