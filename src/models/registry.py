"""(arch, depth) -> network, warm-started where the configuration says so.

A family is a module beside this one with a table `DEPTHS` and a function `build(depth,
num_classes)`; every network takes (B, 1, F, T) spectrograms, gives (B, C) logits and has
`reset_classifier(num_classes)` for a fresh last layer, as timm's networks do.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from src.config import ModelConfig
from src.errors import UserError
from src.models import cifar_resnet, resnet
from src.torch_files import read_torch_file

FAMILIES = {"resnet": resnet, "cifar_resnet": cifar_resnet}


def build_network(model: ModelConfig) -> nn.Module:
    """The network that a configuration asks for, freshly initialised or from its `pretrained` file.

    With `pretrained`, the network is built with `pretrained_fc` classes, loaded strictly, and its
    last layer replaced by a fresh one of `num_classes`.

    Raises:
        UserError: an unknown arch or depth, or a `pretrained` file that is missing or does not fit.
    """
    if model.pretrained is None:
        return create(model.arch, model.model_depth, model.num_classes)
    network = create(model.arch, model.model_depth, model.pretrained_fc or model.num_classes)
    load_weights(network, model.pretrained)
    network.reset_classifier(model.num_classes)
    return network


def create(arch: str, depth: int | str, num_classes: int) -> nn.Module:
    """A freshly initialised network, its tensors laid out channels last: the faster layout on CPUs and GPUs.

    Raises:
        UserError: `arch` or `depth` is not in the registry.
    """
    if arch not in FAMILIES:
        raise UserError(f"model.arch is '{arch}'; known: {', '.join(FAMILIES)}")
    family = FAMILIES[arch]
    if depth not in family.DEPTHS:
        known = ", ".join(map(str, family.DEPTHS))
        raise UserError(f"model.model_depth is {depth!r}; {arch} has {known}")
    return family.build(depth, num_classes).to(memory_format=torch.channels_last)


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a `.pth`, a plain state dict, strictly.

    Raises:
        UserError: no such file, not a state dict, or keys or shapes that differ.
    """
    state = read_torch_file(path, "a .pth of weights (model.pretrained)")
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: is not a plain state dict; export one with --export_weights")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: does not fit the network: {' '.join(str(error).split())}") from None
