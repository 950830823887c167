"""State dicts -> networks, strictly, with every key that does not fit named."""

from __future__ import annotations

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
    if isinstance(state, dict) and "state_dict" in state:
        raise UserError(
            f"{path}: is a checkpoint, and a .pth of weights was expected; "
            "make one with eval_gise_mixtures.py --export_weights"
        )
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: is not a plain state dict; export one with --export_weights")
    load_state(network, state, str(path))


def load_state(network: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Load a state dict that must fit exactly; `where` is named in messages."""
    require_fit(network, state, where)
    unusable = [name for name, value in state.items() if not is_usable(value)]
    if unusable:
        raise UserError(
            f"{where}: does not fit the network: '{unusable[0]}' is no plain tensor of finite numbers; is "
            "it of a run that diverged, or damaged?"
        )
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
    """Missing, unexpected and misshapen keys in words; nothing if the state dict fits."""
    own = network.state_dict()
    misshapen = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    kinds = (
        ("missing", [key for key in own if key not in state]),
        ("unexpected", [key for key in state if key not in own]),
        ("of another shape", misshapen),
    )
    return "; ".join(
        f"{len(keys)} {kind}: {', '.join(map(str, keys[:NAMED]))}{', …' if len(keys) > NAMED else ''}"
        for kind, keys in kinds
        if keys
    )
