"""State dicts -> networks, strictly, with every key that does not fit named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.errors import UserError
from src.models.safe_loading import read_torch_file

NAMED = 3  # keys of each kind that a message names


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a `.pth`, a plain state dict under the released names.

    Raises:
        UserError: no such file, not a state dict, or keys or shapes that differ.
    """
    state = read_torch_file(path, "a .pth of weights")
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        problem = "is no plain state dict"
        if isinstance(state, dict) and "state_dict" in state:
            problem = "is a checkpoint, and a .pth of weights was expected"
        raise UserError(f"{path}: {problem}. Make one with eval_gise_mixtures.py --export_weights")
    load_state(network, state, str(path))


def load_state(network: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Load a state dict that must fit exactly. Messages name `where` it is from."""
    require_fit(network, state, where)
    for name, value in state.items():
        if not is_usable(value):
            problem = f"'{name}' is no plain tensor of finite numbers. Is it of a run that diverged, or damaged?"
            raise UserError(f"{where}: does not fit the network: {problem}")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # tensors of a kind that cannot be copied, such as sparse ones
        raise UserError(f"{where}: does not fit the network: {' '.join(str(error).split())}") from None


def require_fit(network: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse a state dict with other keys or shapes than the network's."""
    problem = misfit(network, state)
    if problem:
        raise UserError(f"{where}: does not fit the network: {problem}")


def is_usable(value: Any) -> bool:
    """Whether something is a tensor of real and finite numbers, one by one."""
    if not isinstance(value, torch.Tensor):
        return False
    plain = value.layout == torch.strided and not (value.is_quantized or value.is_complex() or value.is_meta)
    return plain and bool(torch.isfinite(value).all())


def misfit(network: nn.Module, state: Mapping[str, Any]) -> str:
    """Missing, unexpected and misshapen keys in words. Empty if the state dict fits."""
    own = network.state_dict()
    shapes = {key: (list(state[key].shape), list(own[key].shape)) for key in own if key in state}
    kinds = {
        "missing": [key for key in own if key not in state],
        "unexpected": [str(key) for key in state if key not in own],
        "of another shape": [f"{key} {here} instead of {due}" for key, (here, due) in shapes.items() if here != due],
    }
    named = {kind: ", ".join(keys[:NAMED]) + ", …" * (len(keys) > NAMED) for kind, keys in kinds.items() if keys}
    return "; ".join(f"{len(kinds[kind])} {kind}: {keys}" for kind, keys in named.items())
