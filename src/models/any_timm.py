"""Any network of timm by its own name, with one input channel: `arch: timm`, `model_depth: <timm's name>`."""

from __future__ import annotations

import difflib

import timm
from torch import nn


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


def build(depth: str, num_classes: int, im_size: int) -> nn.Module:
    """timm's network with timm's own initialisation and keys."""
    return timm.create_model(depth, in_chans=1, num_classes=num_classes)
