"""State dicts -> networks, strictly, with every key that does not fit named.

What other programs put around them is taken off, and said: a dict such as a checkpoint's, and prefixes of all names.
"""

import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from src.errors import UserError, listed
from src.models.bundle import is_bundle, read_tensors
from src.models.safe_loading import read_torch_file

log = logging.getLogger(__name__)

NAMED = 3  # keys of each kind that a message names
CONTAINERS = "state_dict model_state_dict model weights net network module".split()  # keys of what is around
NESTED = 3  # of them at most
WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # PyTorch's, within names
NETWORK = "net."  # what a LightningModule's state dict calls its network's tensors. Others are such as a criterion's
COUNTER = "num_batches_tracked"  # of batch norm, which not all programs keep


def load_weights(network: nn.Module, path: str | Path, fresh: Collection[str] = (), new: str | None = None) -> None:
    """Load a `.pth`, a state dict under the released names, the one within a checkpoint, or a file of safetensors.

    Args:
        fresh, new: as of `load_state`.

    Raises:
        UserError: no such file, not a state dict, or keys or shapes that differ.
    """
    what = "a file of weights for model.pretrained"
    state: Any = read_tensors(path)[0] if is_bundle(path) else read_torch_file(path, what)
    for _ in range(NESTED):
        inner = next(
            (name for name in CONTAINERS if isinstance(state, dict) and isinstance(state.get(name), dict)), None
        )
        if inner is None:
            break
        state = state[inner]
        log.info("%s: the weights are taken from '%s' in it", path, inner)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f"{path}: is no state dict of tensors, alone or under one of the keys {', '.join(CONTAINERS)}. "
            "eval_gise_mixtures.py --export_weights writes one"
        )
    load_state(network, state, str(path), fresh, new)


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's state dict on the CPU, laid out as PyTorch does by default."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def load_state(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    where: str,
    fresh: Collection[str] = (),
    new: str | None = None,
) -> None:
    """Load a state dict that must fit exactly, but for what `adapted` mends. Messages name `where` it is from.

    Args:
        fresh: names of tensors, those of the last layer. The network keeps its own where the state dict's have
            another shape.
        new: how names of tensors begin that the state dict may lack all of. The network keeps its own of these too.
    """
    state, changes = adapted(network, state)
    own = network.state_dict()
    kept = {name: own[name] for name in fresh if name in state and state[name].shape != own[name].shape}
    if kept:
        changes.append(f"of another number of classes, so the last layer starts fresh ({', '.join(kept)})")
    added = {name: own[name] for name in own if new and name.startswith(new)}
    if added and added.keys().isdisjoint(state):
        changes.append(f"without {new}*, which starts fresh")
        kept |= added
    state |= kept
    require_fit(network, state, where)
    if changes:
        log.info("%s: %s", where, ". ".join(changes))
    for name, value in state.items():
        if not is_usable(value):
            problem = f"'{name}' is no plain tensor of finite numbers. Is it of a run that diverged, or damaged?"
            raise UserError(f"{where}: does not fit the network: {problem}")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # tensors of a kind that cannot be copied, such as sparse ones
        raise UserError(f"{where}: does not fit the network: {' '.join(str(error).split())}") from None


def require_fit(network: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse a state dict with other keys or shapes than the network's, but for what `adapted` mends."""
    problem = misfit(network, adapted(network, state)[0])
    if problem:
        raise UserError(f"{where}: does not fit the network: {problem}")


def adapted(network: nn.Module, state: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """A state dict's network, without prefixes of all names, and with batch norm's counters, 0 where they are missing.

    Returns:
        The state dict, and what was changed, in words.
    """
    own, found, changes = network.state_dict(), dict(state), []
    if own.keys() != found.keys() and all(isinstance(name, str) for name in found):
        part = network_part(found)
        if len(part) < len(found) and own.keys().isdisjoint(found):
            changes.append(
                f"{len(part)} of its {len(found)} tensors are its network's, those that begin with {NETWORK}"
            )
            found = part
        plain = {WRAPPERS.sub("", name): value for name, value in found.items()}
        prefix, due = _prefix(plain), _prefix(own)
        renamed = {due + name.removeprefix(prefix): value for name, value in plain.items()}
        if len(renamed) == len(found) and renamed.keys() != found.keys() and not own.keys().isdisjoint(renamed):
            changes.append(f"prefixes are taken off, such as that of '{next(iter(found))}'")
            found = renamed
    missing = own.keys() - found.keys()
    if missing and all(name.endswith(COUNTER) for name in missing):
        found |= {name: torch.zeros_like(own[name], device="cpu") for name in missing}
        changes.append(f"{len(missing)} {COUNTER} are missing, and are 0")
    return found, changes


def network_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """The network's tensors of a LightningModule's state dict, under their own names. All tensors where it has none."""
    part = {name.removeprefix(NETWORK): state[name] for name in state if name.startswith(NETWORK)}
    return part or dict(state)


def _prefix(names: Iterable[str]) -> str:
    """What all names begin with, up to a dot."""
    head, dot, _ = os.path.commonprefix(list(names)).rpartition(".")
    return head + dot


def is_plain(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether something is a tensor of real numbers, one by one."""
    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not (value.is_quantized or value.is_complex() or value.is_meta)


def is_usable(value: Any) -> bool:
    """Whether something is a tensor of real and finite numbers, one by one."""
    return is_plain(value) and bool(torch.isfinite(value).all())


def misfit(network: nn.Module, state: Mapping[str, Any]) -> str:
    """Missing, unexpected and misshapen keys in words. Empty if the state dict fits."""
    own = network.state_dict()
    shapes = {key: (list(state[key].shape), list(own[key].shape)) for key in own if key in state}
    kinds = {
        "missing": [key for key in own if key not in state],
        "unexpected": [str(key) for key in state if key not in own],
        "of another shape": [f"{key} {here} instead of {due}" for key, (here, due) in shapes.items() if here != due],
    }
    return "; ".join(f"{len(keys)} {kind}: {listed(keys, NAMED)}" for kind, keys in kinds.items() if keys)
