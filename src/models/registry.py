"""(arch, depth) -> network, warm-started where the configuration says so.

A family is a module of src/models/families/ with a collection `DEPTHS` and a function `build(depth, num_classes,
im_size)`. timm's takes `pool`, `dropout` and `drop_path` too. Every network takes (B, 1, F, T) spectrograms and gives
(B, C) logits. As timm's networks do, it has `reset_classifier(num_classes)`, which makes a fresh last layer, or none
with 0.
"""

from typing import Any

import torch
from torch import nn

from src.config.sections import ModelConfig
from src.errors import UserError
from src.models.families import cifar_resnet, densenet, efficientnet, resnet, timm_models
from src.models.frames import GRU, FrameNetwork
from src.models.weights import load_weights

FAMILIES = {
    "resnet": resnet,
    "cifar_resnet": cifar_resnet,
    "densenet": densenet,
    "efficientnet": efficientnet,
    "timm": timm_models,
}


def build_network(model: ModelConfig, frame_stride: int | None = None) -> nn.Module:
    """The network that a configuration asks for, freshly initialised or from its `pretrained` file.

    With `pretrained`, the network is loaded strictly, and its last layer replaced by a fresh one of `num_classes`.
    The file may have any number of classes, but where `pretrained_fc` says how many, it must have those.

    Args:
        frame_stride: of `ModelConfig.frame_stride`.

    Raises:
        UserError: an unknown arch or depth, or a `pretrained` file that is missing or does not fit.
    """
    rates: dict[str, Any] = {"dropout": model.dropout, "drop_path": model.drop_path}
    rates = {name: rate for name, rate in rates.items() if rate}
    classes = model.num_classes if model.pretrained is None else model.pretrained_fc or model.num_classes
    of_frames = frame_stride, model.head
    network = create(model.arch, model.model_depth, classes, model.im_size, model.pool, *of_frames, **rates)
    if model.pretrained is None:
        return network
    try:
        fresh = () if model.pretrained_fc else last_layer(model)
        load_weights(network, model.pretrained, fresh, new=GRU)
    except UserError as error:
        hint = (
            f". model.pretrained_fc is {model.pretrained_fc}. With --set model.pretrained_fc=None, any number will do"
        )
        wanted = model.pretrained_fc is not None and "of another shape" in str(error)
        raise UserError(f"{error}{hint * wanted}") from None
    reset: Any = network.reset_classifier  # torch types all of a module's attributes as tensors and modules
    reset(model.num_classes)
    return network


def last_layer(model: ModelConfig) -> list[str]:
    """The names of the tensors whose shapes depend on the number of classes."""
    with torch.device("meta"):
        one, two = (create(model.arch, model.model_depth, classes, model.im_size).state_dict() for classes in (1, 2))
    return [name for name in one if one[name].shape != two[name].shape]


def create(
    arch: str,
    depth: int | str,
    num_classes: int,
    im_size: int = 221,
    pool: str = "avgpool",
    frame_stride: int | None = None,
    head: str = "linear",
    **rates: float,
) -> nn.Module:
    """A freshly initialised network, its tensors laid out channels last: the faster layout on CPUs and GPUs.

    Args:
        pool: avgpool, or maxpool of timm's networks.
        frame_stride: make it one of src/models/frames.py, with so many spectrogram frames at most in one of its own.
        head: linear, or gru with a frame stride.
        rates: dropout and drop_path, of timm's networks alone. Weights and keys are those without them.

    Raises:
        UserError: `arch` or `depth` is not in the registry, or the network has no drop path or pooling to use.
    """
    if arch not in FAMILIES:
        raise UserError(f"model.arch is '{arch}', and must be one of {', '.join(FAMILIES)}")
    family = FAMILIES[arch]
    if depth not in family.DEPTHS:
        known = family.DEPTHS.like(depth) if family is timm_models else ", ".join(map(str, family.DEPTHS))
        raise UserError(f"model.model_depth is {depth!r}. {arch} has {known}")
    further = rates if pool == "avgpool" else rates | {"pool": pool}
    network = family.build(depth, num_classes, im_size, **further)
    if frame_stride is not None:
        network = FrameNetwork(network, frame_stride, head == "gru")
    return network.to(memory_format=torch.channels_last)


def count_parameters(arch: str, depth: str, num_classes: int) -> int | None:
    """Count a network's parameters without making its tensors. None where there is none of that name.

    Args:
        depth: as text, such as "18" or "b1".
    """
    try:
        with torch.device("meta"):
            network = create(arch, int(depth) if depth.isdigit() else depth, num_classes)
    except UserError:
        return None
    return sum(parameter.numel() for parameter in network.parameters())
