"""DenseNet (Huang et al., 2017, arXiv 1608.06993) through timm, with a stem of one channel."""

import timm
from torch import nn

DEPTHS = (121, 161, 169, 201)


def build(depth: int, num_classes: int, im_size: int) -> nn.Module:
    """torchvision's DenseNet in keys, shapes and initialisation."""
    network = timm.create_model(f"densenet{depth}", in_chans=1, num_classes=num_classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return network
