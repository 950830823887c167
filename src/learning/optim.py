"""Optimiser and learning-rate schedule."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from src.config.sections import OptConfig

Schedule = ReduceLROnPlateau | StepLR | LambdaLR
LOWEST_FIRST = 25  # part of the highest rate that a schedule by the step begins with …
LOWEST_LAST = 1e4  # … and part of that first rate that one_cycle ends with. Both are PyTorch's


def build_optimizer(opt: OptConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, AdamW, or SGD with Nesterov momentum 0.9, with PyTorch's fused kernels where all parameters are on GPUs.

    AdamW's weight decay leaves out biases and the parameters of norms, those of one dimension, as timm does.
    """
    parameters = list(parameters)
    # Lightning clips no gradients that fused kernels unscale in a step of mixed precision.
    fused = (opt.clip_norm is None and all(parameter.is_cuda for parameter in parameters)) or None
    optimizer: torch.optim.Optimizer
    if opt.optimizer == "SGD":
        optimizer = torch.optim.SGD(
            parameters, lr=opt.lr, momentum=0.9, nesterov=True, weight_decay=opt.weight_decay, fused=fused
        )
    elif opt.optimizer == "AdamW":
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=opt.lr, weight_decay=opt.weight_decay, fused=fused)
    else:
        optimizer = torch.optim.Adam(parameters, lr=opt.lr, weight_decay=opt.weight_decay, fused=fused)
    optimizer.register_load_state_dict_pre_hook(_keep_kernels)
    return optimizer


def _keep_kernels(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's optimiser state with this device's kernels in place of those that it was written with."""
    groups = [saved | {"fused": own["fused"]} for saved, own in zip(state["param_groups"], optimizer.param_groups)]
    return state | {"param_groups": groups}


def rate_at(opt: OptConfig, step: int, steps: int) -> float:
    """Learning rate of a schedule by the step, as a share of `opt.lr`. It depends on the place in the run alone.

    one_cycle (Smith and Topin, 2019, arXiv 1708.07120) rises from a 25th to 1 and falls to a 250,000th, both by a
    cosine, as PyTorch's `OneCycleLR` does. cosine (Loshchilov and Hutter, 2017, arXiv 1608.03983) rises from a 25th in
    a line, then falls towards 0 as `CosineAnnealingLR` does.

    Args:
        step: from 0, of the run.
        steps: of all epochs.
    """
    first = 1 / LOWEST_FIRST
    if opt.scheduler == "one_cycle":
        top = max(opt.warmup * steps - 1, 0)
        if step < top:
            return _between(first, 1, step / top)
        return _between(1, first / LOWEST_LAST, (step - top) / max(steps - 1 - top, 1))
    top = round(opt.warmup * steps)
    if step < top:
        return first + (1 - first) * step / top
    return _between(1, 0, (step - top) / (steps - top))


def _between(start: float, end: float, share: float) -> float:
    """By a cosine from `start` to `end`."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def build_schedule(opt: OptConfig, optimizer: torch.optim.Optimizer, place: Callable[[], tuple[int, int]]) -> Schedule:
    """A tenth of the learning rate where the validation figure stands still for 5 epochs, or every 10 epochs.

    Or by the step, as `rate_at` says.

    Args:
        place: step of the run, and steps of all epochs. The schedule keeps none of them, so that it is exact wherever
            a run is resumed, and on however many devices.
    """
    if opt.by_step:
        return LambdaLR(optimizer, lambda _: rate_at(opt, *place()))
    if opt.scheduler == "step":
        return StepLR(optimizer, step_size=10, gamma=0.1)
    return ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=5)


def step_schedule(schedule: Schedule, figure: float) -> None:
    """End an epoch with this validation figure."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(figure)
    elif isinstance(schedule, StepLR):
        schedule.step()
