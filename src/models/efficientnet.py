"""EfficientNet (Tan and Le, 2019, arXiv 1905.11946) through timm, under the released names.

The published networks padded their stride-2 convolutions as TensorFlow's SAME does for an input of
221×221, whatever the real width; batch-norm has TensorFlow's constants, and everything PyTorch's
default initialisation.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional

DEPTHS = tuple(f"b{n}" for n in range(8))
DROPOUT = {"b0": 0.2, "b1": 0.2, "b2": 0.3, "b3": 0.3, "b4": 0.4, "b5": 0.4, "b6": 0.5, "b7": 0.5}
DROP_CONNECT = 0.2  # of the last block, growing linearly with depth

OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
SEPARABLE = {
    "conv_dw": "_depthwise_conv",
    "bn1": "_bn1",
    "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand",
    "conv_pw": "_project_conv",
    "bn2": "_bn2",
}
INVERTED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}


def build(depth: str, num_classes: int, im_size: int) -> nn.Module:
    """A network whose padding is frozen for im_size × im_size inputs."""
    return EfficientNet(depth, num_classes, im_size)


class FrozenSameConv2d(nn.Conv2d):
    """A stride-2 convolution whose padding was worked out once, for one input size."""

    def __init__(self, like: nn.Conv2d, size: int):
        super().__init__(
            like.in_channels,
            like.out_channels,
            like.kernel_size,
            like.stride,
            0,
            groups=like.groups,
            bias=like.bias is not None,
        )
        total = max((-(-size // 2) - 1) * 2 + like.kernel_size[0] - size, 0)
        self.before, self.after = total // 2, total - total // 2  # top and left, bottom and right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, (self.before, self.after, self.before, self.after)))


class EfficientNet(nn.Module):
    """(B, 1, F, T) -> (B, C) logits; its state dict has the released names."""

    def __init__(self, depth: str, num_classes: int, im_size: int):
        super().__init__()
        self.network = timm.create_model(
            f"tf_efficientnet_{depth}",
            in_chans=1,
            num_classes=num_classes,
            drop_rate=DROPOUT[depth],
            drop_path_rate=DROP_CONNECT,
        )
        self._freeze_padding(im_size)
        for module in self.network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                module.reset_parameters()
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 1 - 0.99
        self.register_load_state_dict_pre_hook(self._take_released_names)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last layer; none with 0 classes."""
        self.network.reset_classifier(num_classes)

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """As `nn.Module.state_dict`, under the released names."""
        destination = OrderedDict() if destination is None else destination
        names = self._released_names()
        for name, tensor in self.network.state_dict(keep_vars=keep_vars).items():
            destination[prefix + names[name]] = tensor
        return destination

    @staticmethod
    def _take_released_names(module: EfficientNet, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, released in module._released_names().items():
            if prefix + released in state:
                state[f"{prefix}network.{name}"] = state.pop(prefix + released)

    def _released_names(self) -> dict[str, str]:
        """timm's name of every tensor → the released one."""
        prefixes = dict(OUTSIDE)
        number = 0
        for s, stage in enumerate(self.network.blocks):
            for b, block in enumerate(stage):
                inside = INVERTED if hasattr(block, "conv_pwl") else SEPARABLE
                prefixes |= {f"blocks.{s}.{b}.{ours}": f"_blocks.{number}.{theirs}" for ours, theirs in inside.items()}
                number += 1
        names = {}
        for name in self.network.state_dict():
            module, _, tensor = name.rpartition(".")
            names[name] = f"{prefixes[module]}.{tensor}"
        return names

    def _freeze_padding(self, size: int) -> None:
        """Replace the stride-2 convolutions, in the order in which an input of size × size meets them."""
        for name, module in list(self.network.named_modules()):
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                parent, _, own = name.rpartition(".")
                setattr(self.network.get_submodule(parent), own, FrozenSameConv2d(module, size))
                size = -(-size // 2)
