"""Checkpoints read back: configuration, label map and weights, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.config import Config, parse_config
from src.data.labels import LabelMap
from src.errors import UserError
from src.models.registry import build_network, create
from src.torch_files import read_torch_file

WEIGHTS_PREFIX = "net."  # of the network's tensors in a checkpoint's state_dict


@dataclass(frozen=True)
class Checkpoint:
    """What a `.ckpt` holds."""

    path: Path
    config: Config
    label_map: LabelMap
    record: dict[str, Any]  # `hyper_parameters`: seed, protocol, command, versions, …
    weights: dict[str, torch.Tensor]  # the network's state dict

    def network(self) -> nn.Module:
        """The trained network.

        Raises:
            UserError: the weights do not fit the configuration.
        """
        model = self.config.model
        network = create(model.arch, model.model_depth, model.num_classes)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            raise UserError(f"{self.path}: weights do not fit the network: {' '.join(str(error).split())}") from None
        return network

    def untrained_network(self) -> nn.Module:
        """The network as it was when the run began."""
        return initial_network(self.config, self.record["seed"])


def initial_network(config: Config, seed: int) -> nn.Module:
    """The network that a run with this seed begins with."""
    torch.manual_seed(seed)
    return build_network(config.model)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint onto the CPU with PyTorch's weights-only unpickler: nothing in it is run.

    Raises:
        UserError: no such file, not a checkpoint, or one without what is needed.
    """
    path = Path(path)
    content = read_torch_file(path, "a checkpoint")
    try:
        record = content["hyper_parameters"]
        config = parse_config(record["cfg"], str(path))
        label_map = LabelMap.from_mapping(record["lbl_map"], f"in {path}")
        state = content["state_dict"]
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{path}: is not a checkpoint of this project (is it a .pth of weights alone?)") from None
    weights = {name.removeprefix(WEIGHTS_PREFIX): state[name] for name in state if name.startswith(WEIGHTS_PREFIX)}
    return Checkpoint(path, config, label_map, record, weights)


def load_class_weights(path: str | None, num_classes: int) -> torch.Tensor | None:
    """The (C,) tensor of --cw.

    Raises:
        UserError: no such file, or not one weight a class.
    """
    if path is None:
        return None
    weights = read_torch_file(path, "a tensor of class weights (--cw)")
    if not isinstance(weights, torch.Tensor) or weights.shape != (num_classes,):
        shape = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise UserError(f"--cw {path}: holds {shape}; a tensor of {num_classes} class weights was expected")
    return weights.float()
