"""A loss or weights that are no longer finite numbers end a run, before they reach a checkpoint."""

import math
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from src.data.datamodule import ClipDataModule
from src.errors import UserError

INTERVAL = 10  # batches between two looks where each makes the device wait
NONE = 2**62


class LossWatch(Callback):
    """Looks at the loss of every batch: at once on the CPU, elsewhere in tens and before a checkpoint is written.

    Args:
        data: the run's, to name the records of a batch.
    """

    def __init__(self, data: ClipDataModule) -> None:
        self._data = data
        self._unseen: list[tuple[int, torch.Tensor]] = []  # batch index, loss

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._unseen.append((batch_idx, outputs["loss"]))
        last = batch_idx + 1 == trainer.num_training_batches
        if last or module.device.type == "cpu" or (batch_idx + 1) % INTERVAL == 0:
            self.look(trainer)

    def look(self, trainer: pl.Trainer) -> None:
        """Refuse a loss among those not looked at yet, on all ranks, whichever of them had it.

        Raises:
            UserError: with epoch, step, learning rate and the batch's records.
        """
        if not self._unseen:
            return
        batches, losses = zip(*self._unseen)
        self._unseen = []
        values = torch.stack(losses).tolist()
        bad = [(batch, value) for batch, value in zip(batches, values) if not math.isfinite(value)]
        ranks = trainer.world_size
        code = bad[0][0] * ranks + trainer.global_rank if bad else NONE
        first = int(trainer.strategy.reduce(torch.tensor(code, device=losses[0].device), reduce_op="min"))
        if first == NONE:
            return
        batch, rank = divmod(first, ranks)
        what = f"is {bad[0][1]}" if code == first else f"is not finite on rank {rank}"
        raise UserError(self._message(trainer, batch, rank, batches[-1], what))

    def _message(self, trainer: pl.Trainer, batch: int, rank: int, newest: int, what: str) -> str:
        accumulate, seen = trainer.accumulate_grad_batches, newest + 1
        steps = -(-seen // accumulate) if seen == trainer.num_training_batches else seen // accumulate  # of the epoch
        step = trainer.global_step - steps + batch // accumulate + 1
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        records = self._data.records_of_batch(trainer.current_epoch, batch, rank)
        return (
            f"epoch {trainer.current_epoch}, step {step}: the loss {what}, training has diverged. Learning rate "
            f"{rate:g}. Batch {batch} was of {records}. The last checkpoint from before is kept. Try a smaller opt.lr"
        )


def require_finite(weights: Iterable[torch.Tensor], where: str) -> None:
    """Refuse weights that are not finite.

    Args:
        where: when, for the message.
    """
    finite = [tensor.isfinite().all() for tensor in weights if tensor.is_floating_point()]
    if finite and not bool(torch.stack(finite).all()):
        raise UserError(
            f"{where}: weights are no longer finite numbers, training has diverged. The last checkpoint "
            "from before is kept. Try a smaller opt.lr"
        )
