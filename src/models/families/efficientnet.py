"""EfficientNet (Tan and Le, 2019, arXiv 1905.11946) through timm, under the released names.

The published networks padded their stride-2 convolutions as TensorFlow's SAME does for an input of
221×221, whatever the real width. Their batch-norm has TensorFlow's constants, and all layers have
PyTorch's default initialisation.
"""

from functools import partial
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional

DEPTHS = tuple(f"b{n}" for n in range(8))
DROPOUT = {"b0": 0.2, "b1": 0.2, "b2": 0.3, "b3": 0.3, "b4": 0.4, "b5": 0.4, "b6": 0.5, "b7": 0.5}
DROP_CONNECT = 0.2  # of the last block, growing linearly with depth

# timm's names of layers -> the released ones: outside the blocks, in every block, and in those of either kind.
OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
BLOCK = {"conv_dw": "_depthwise_conv", "se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
SEPARABLE = BLOCK | {"bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
INVERTED = BLOCK | {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}


def build(depth: str, num_classes: int, im_size: int) -> nn.Module:
    """A network whose padding is frozen for im_size × im_size inputs, and whose state dict has the released names."""
    rates: dict[str, Any] = {"drop_rate": DROPOUT[depth], "drop_path_rate": DROP_CONNECT}
    network = timm.create_model(f"tf_efficientnet_{depth}", in_chans=1, num_classes=num_classes, **rates)
    size = im_size
    for name, module in list(network.named_modules()):  # in the order in which an input meets them
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            network.set_submodule(name, FrozenSameConv2d(module, size))
            size = -(-size // 2)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.reset_parameters()
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 1 - 0.99
    names = _released_names(network)
    network.register_state_dict_post_hook(partial(_rename_layers, names))
    network.register_load_state_dict_pre_hook(partial(_rename_layers, {new: old for old, new in names.items()}))
    return network


class FrozenSameConv2d(nn.Conv2d):
    """A stride-2 convolution whose padding was worked out once, for one input size."""

    def __init__(self, like: nn.Conv2d, size: int):
        kernel = like.kernel_size[0]
        super().__init__(like.in_channels, like.out_channels, kernel, stride=2, groups=like.groups, bias=False)
        total = max((-(-size // 2) - 1) * 2 + kernel - size, 0)
        self.frozen = total // 2, total - total // 2  # top and left, bottom and right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Without a stride in time, padding keeps the number of frames and shifts none.
        columns = self.frozen if self.stride[1] == 2 else 2 * (self.kernel_size[1] // 2,)
        return super().forward(functional.pad(x, (*columns, *self.frozen)))


def _rename_layers(names: dict[str, str], network: nn.Module, state: dict[str, Any], prefix: str, *more: Any) -> None:
    """Rename tensors below `prefix` whose layer is in `names`. Their order stays."""
    for key in [key for key in state if key.startswith(prefix)]:
        layer, _, tensor = key.removeprefix(prefix).rpartition(".")
        if layer in names:
            state[f"{prefix}{names[layer]}.{tensor}"] = state.pop(key)


def _released_names(network: nn.Module) -> dict[str, str]:
    """timm's name of every layer → the released one."""
    names = dict(OUTSIDE)
    number = 0  # released blocks are counted through all stages
    for s, stage in enumerate(network.get_submodule("blocks").children()):
        for b, block in enumerate(stage.children()):
            inside = INVERTED if hasattr(block, "conv_pwl") else SEPARABLE
            names |= {f"blocks.{s}.{b}.{own}": f"_blocks.{number}.{released}" for own, released in inside.items()}
            number += 1
    return names
