"""Batch norm over several processes: one running statistic of a run that changes their number, or all in step."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """Running means and variances as they were where the run began: updated by rank 0's batches alone, in their order.

    Each batch is normalised by its own statistics, whoever computes it. Processes that share rank 0's batches of a
    step begin it with the same running statistics r. A process turns r into (1 - m)^k r + d with its k batches, m being
    the momentum. So the processes' updates follow each other, exactly up to rounding.

    Args:
        network: whose layers are looked after.
    """

    def __init__(self, network: nn.Module):
        norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
        self._layers = norms
        self._updates = 0  # of this process in the step
        self._before = torch.empty(0)  # (S,) all running statistics at the step's beginning

    def begin_step(self) -> None:
        self._updates, self._before = 0, self._values()

    def track(self, tracking: bool) -> None:
        """Whether the batch that follows updates them."""
        self._updates += tracking
        for layer in self._layers:
            layer.track_running_stats = tracking

    def join(self, gather: Callable[[torch.Tensor], Any]) -> None:
        """Let the updates of the processes follow each other, at the step's end.

        Args:
            gather: gives (processes, …) of each process's tensor.
        """
        if not self._layers:
            return
        kept = torch.cat([1 - torch.full_like(each, momentum) for each, momentum in self._buffers()])  # (S,)
        values = self._before
        updates = gather(torch.tensor(self._updates, device=values.device)).tolist()
        for count, own in zip(updates, gather(self._values())):
            values = own + kept**count * (values - self._before)
        sizes = [each.numel() for each, _ in self._buffers()]
        for (each, _), value in zip(self._buffers(), values.split(sizes)):
            each.copy_(value)
        for layer in self._layers:
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked += sum(updates) - self._updates

    def _buffers(self) -> Iterator[tuple[torch.Tensor, float]]:
        """All running statistics, each with its momentum."""
        for layer in self._layers:
            assert layer.running_mean is not None and layer.running_var is not None and layer.momentum is not None
            yield layer.running_mean, layer.momentum
            yield layer.running_var, layer.momentum

    def _values(self) -> torch.Tensor:
        """(S,) a copy of all running statistics."""
        found = [each for each, _ in self._buffers()]
        return torch.cat(found) if found else torch.empty(0)


def over_all_processes(network: nn.Module) -> nn.Module:
    """The network with layers of batch norm that take each batch's statistics over all processes, under the same keys.

    PyTorch's own conversion would lose the activations that timm's layers contain.
    """
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(network)
