"""What happens beside the fit: the table of figures, the average of the weights, and the progress bar."""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar, WeightAveraging
from torch.optim.swa_utils import AveragedModel

from src.runs.folder import RunFolder
from src.runs.resuming import RAW
from src.utils.tables import write_csv


class MetricsCSV(Callback):
    """`metrics.csv`: a row an epoch, the whole file rewritten each time, earlier rows kept on resume."""

    def __init__(self, folder: RunFolder, figures: Sequence[str]):
        self.folder = folder
        self.columns = ["epoch", "step", "lr", "train_loss", "val_loss", *figures]

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # After the epoch's last step and before the schedule has moved on, in a resumed epoch too.
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        figures = trainer.callback_metrics
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": self._lr}
        row |= {name: float(figures[name]) for name in self.columns[3:] if name in figures}
        rows = [old for old in self.folder.epochs() if int(old["epoch"]) < trainer.current_epoch] + [row]
        write_csv(self.folder.metrics_file, self.columns, rows)


class WeightAverage(WeightAveraging):
    """An exponential moving average of the weights, batch norm's statistics included, after every step.

    It is what is validated, and what checkpoints hold as `state_dict`. The weights of the last step lie beside it,
    as `RAW`. The n-th update keeps min(decay, (1 + n) / (10 + n)) of the average, so that the beginning is
    soon forgotten.
    """

    def __init__(self, decay: float):
        super().__init__(multi_avg_fn=functools.partial(_update, decay))
        self._swapped = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the network is still on the CPU
        super().setup(trainer, pl_module, stage)

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:  # in a validation
            checkpoint["state_dict"], checkpoint[RAW] = checkpoint[RAW], checkpoint["state_dict"]


def moving_average(network: torch.nn.Module, decay: float) -> AveragedModel:
    """A network's average as `WeightAverage` keeps it, to be updated after every step."""
    return AveragedModel(network, use_buffers=True, multi_avg_fn=functools.partial(_update, decay))


def _update(decay: float, averages: list[torch.Tensor], weights: list[torch.Tensor], done: torch.Tensor | int) -> None:
    number = int(done)
    decay = min(decay, (1 + number) / (10 + number))
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, weights, 1 - decay)
    else:  # batch norm's counters
        torch._foreach_copy_(averages, weights)


class EpochBar(TQDMProgressBar):
    """Lightning's bar, which also knows the length of a resumed epoch. In a log it moves more slowly."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 10)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_train_start(trainer, module)
        self.on_train_epoch_start(trainer, module)
