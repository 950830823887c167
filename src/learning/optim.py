"""Optimiser and learning-rate schedule."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from src.config.sections import OptConfig


def build_optimizer(opt: OptConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, or SGD with Nesterov momentum 0.9, with PyTorch's fused kernels where all parameters are on GPUs."""
    parameters = list(parameters)
    fused = all(parameter.is_cuda for parameter in parameters) or None
    optimizer: torch.optim.Optimizer
    if opt.optimizer == "SGD":
        optimizer = torch.optim.SGD(
            parameters, lr=opt.lr, momentum=0.9, nesterov=True, weight_decay=opt.weight_decay, fused=fused
        )
    else:
        optimizer = torch.optim.Adam(parameters, lr=opt.lr, weight_decay=opt.weight_decay, fused=fused)
    optimizer.register_load_state_dict_pre_hook(_keep_kernels)
    return optimizer


def _keep_kernels(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's optimiser state with this device's kernels in place of those that it was written with."""
    groups = [saved | {"fused": own["fused"]} for saved, own in zip(state["param_groups"], optimizer.param_groups)]
    return state | {"param_groups": groups}


def build_schedule(opt: OptConfig, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau | StepLR:
    """A tenth of the learning rate where the validation figure stands still for 5 epochs, or every 10 epochs."""
    if opt.scheduler == "step":
        return StepLR(optimizer, step_size=10, gamma=0.1)
    return ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=5)


def step_schedule(schedule: ReduceLROnPlateau | StepLR, figure: float) -> None:
    """End an epoch with this validation figure."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(figure)
    else:
        schedule.step()
