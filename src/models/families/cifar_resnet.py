"""The CIFAR-style three-stage ResNet (He et al., 2016, arXiv 1512.03385, section 4.2), widened to 32, 64, 128."""

import torch
from torch import nn
from torch.nn import functional

DEPTHS = (20, 32, 44, 56, 110)
WIDTHS = (32, 64, 128)


def build(depth: int, num_classes: int, im_size: int) -> nn.Module:
    """A network of (depth - 2) / 6 blocks a stage."""
    return CifarResNet((depth - 2) // 6, num_classes)


class Block(nn.Module):
    """Two 3×3 convolutions around an identity, or around an option-A shortcut where the shape changes."""

    def __init__(self, in_planes: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        rows, columns = self.conv1.stride
        if rows != 1:  # option A: every second row and column, and zero channels on either side
            extra = self.bn2.num_features // 4
            x = functional.pad(x[:, :, ::rows, ::columns], (0, 0, 0, 0, extra, extra))
        return functional.relu(out + x)


class CifarResNet(nn.Module):
    """(B, 1, F, T) -> (B, C) logits."""

    def __init__(self, blocks: int, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(WIDTHS[0], WIDTHS[0], blocks, stride=1)
        self.layer2 = self._stage(WIDTHS[0], WIDTHS[1], blocks, stride=2)
        self.layer3 = self._stage(WIDTHS[1], WIDTHS[2], blocks, stride=2)
        self.linear: nn.Linear | nn.Identity = nn.Linear(WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(in_planes, planes, stride)
        return nn.Sequential(first, *(Block(planes, planes, 1) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) -> (B, 128, F / 16, T / 16)."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))  # (B, 32, F / 4, T / 4)
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 128, rows, columns) -> (B, C) logits."""
        return self.linear(x.mean(dim=(2, 3)))

    def reset_classifier(self, num_classes: int) -> None:
        """Make a fresh last layer, or none with 0 classes."""
        self.linear = nn.Linear(WIDTHS[2], num_classes) if num_classes else nn.Identity()
        if isinstance(self.linear, nn.Linear):
            nn.init.kaiming_normal_(self.linear.weight)
