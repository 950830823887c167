"""Multiply-accumulates of networks, against what is worked out by hand."""

import pytest
import torch
from torch import nn

from src.models.cost import forward_gmac
from src.models.registry import create


def test_convolutions_and_matrix_products_are_counted():
    """3×3 convolution to 8 maps of 10×20, then 8 → 5: 8·9·200 + 8·5 = 14,440 multiply-accumulates."""
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert forward_gmac(network, 10, 20) == pytest.approx(14_440e-9)
    assert network.training


def test_nothing_is_computed_for_a_network_without_values():
    """ResNet-18 at 224×224 has 1.8 GMAC with three channels (He et al., 2016), 0.08 fewer with one."""
    with torch.device("meta"):
        network = create("resnet", 18, 1000)
    assert forward_gmac(network, 224, 224) == pytest.approx(1.735, abs=0.01)
