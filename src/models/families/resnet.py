"""ResNet (He et al., 2016, arXiv 1512.03385) through timm, with a 7×7 stride-2 stem of one channel."""

import timm
from torch import nn

DEPTHS = (18, 34, 50, 101, 152)


def build(depth: int, num_classes: int, im_size: int) -> nn.Module:
    """torchvision's ResNet in keys and shapes, with the published initialisation."""
    network = timm.create_model(f"resnet{depth}", in_chans=1, num_classes=num_classes, zero_init_last=False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    return network
