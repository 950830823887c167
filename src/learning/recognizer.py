"""The one LightningModule: a network, its task, and the training and validation steps of every experiment."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from src.config.sections import PUBLISHED_AUGMENT, AugmentConfig, OptConfig
from src.data.batching import Batch
from src.data.labels import LabelMap
from src.data.mixup import mixup
from src.data.sampling import network_seed
from src.errors import UserError
from src.learning.batch_norm import RunningStatistics
from src.learning.optim import Schedule, build_optimizer, build_schedule, step_schedule
from src.learning.tasks import Task
from src.learning.thresholds import report_missing
from src.models.decisions import DECISIONS, EVENT_DECISIONS
from src.runs.distributed import gather_objects, gather_over_ranks


class Recognizer(pl.LightningModule):
    """Sound event recogniser over (B, 1, F, T) spectrograms.

    Args:
        network: gives (B, C) logits. Its parameters are stored under `net.`.
        task: loss, probabilities and scores.
        label_map: the classes.
        opt: optimiser and schedule. One by the step asks the fit's data module for its batches.
        protocol: of mixup, as src/data/mixup.py explains.
        seed: of mixup's and dropout's draws.
        use_mixup: mix the training batches.
        augment: how they are mixed.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        label_map: LabelMap,
        opt: OptConfig,
        protocol: str,
        seed: int = 0,
        use_mixup: bool = False,
        augment: AugmentConfig = PUBLISHED_AUGMENT,
    ):
        super().__init__()
        self.net = network
        self.task = task
        self.label_map = label_map
        self.opt = opt
        self.protocol = protocol
        self.seed = seed
        self.use_mixup = use_mixup
        self.augment = augment
        self._validated: list[list[torch.Tensor | None]] = []  # of each batch, its outputs, targets, frames and spans
        self._reported_undefined = False
        self._batch = 0  # of the epoch
        self._origin: tuple[int, int] | None = None  # of the batch: rank and number when the run began
        self._statistics = RunningStatistics(network)
        self._step_losses: list[torch.Tensor] = []  # (2,) of the step's batches: loss, and 1 where it counts
        self._decisions: dict[str, Any] = {DECISIONS: None}  # by the last validation, under a checkpoint's keys
        self._loss_sum, self._loss_count = torch.zeros(()), 0  # over the clips of the epoch so far

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) -> (B, C) logits."""
        return self.net(inputs)

    def on_train_epoch_start(self) -> None:
        self._loss_sum, self._loss_count = torch.zeros((), device=self.device), 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make dropout depend on the place in the run alone, so that a resumed run needs no generator's state."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self._batch, self._origin = batch_idx, data.origin(batch_idx, self.global_rank)
        rank, number = self._origin or (0, 0)
        torch.manual_seed(network_seed(self.seed, self.current_epoch, number, rank))
        if not data.dealing.is_as_begun:
            if data.dealing.processes > data.dealing.ranks and batch_idx % data.dealing.share == 0:
                self._statistics.begin_step()
            self._statistics.track(self._origin is not None and rank == 0)
        schedule = self._schedule()
        # Before the first step it is where it starts, and PyTorch warns of a schedule ahead of its optimiser.
        if isinstance(schedule, LambdaLR) and self.global_step:
            schedule.step()

    def _place(self) -> tuple[int, int]:
        """The step of the run that the batch under way belongs to, and the steps of all epochs."""
        trainer, accumulate = self.trainer, self.trainer.accumulate_grad_batches
        batches = trainer.datamodule.num_batches()  # type: ignore[attr-defined]
        each = -(-batches // accumulate)
        assert trainer.max_epochs is not None
        return trainer.current_epoch * each + self._batch // accumulate, trainer.max_epochs * each

    def _schedule(self) -> Schedule:
        schedule = self.lr_schedulers()
        assert isinstance(schedule, Schedule)
        return schedule

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        inputs = batch.inputs
        assert isinstance(inputs, torch.Tensor), "the data module makes features of samples"
        rank, number = self._origin or (0, 0)
        place = self.current_epoch, number, rank
        mixed = mixup(inputs, self.protocol, self.seed, *place, self.augment) if self.use_mixup else None
        loss = self.task.training_loss(self.net, batch, mixed)
        counts = self._origin is not None
        if not counts:
            loss = loss * 0
        self._loss_sum = self._loss_sum.to(loss.device) + loss.detach().float() * len(inputs)
        self._loss_count += counts * len(inputs)
        self._step_losses.append(torch.stack([loss.detach(), torch.full_like(loss.detach(), counts)]))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the step's loss, the mean over its batches in all processes."""
        own = torch.stack(self._step_losses).sum(dim=0)
        self._step_losses.clear()
        total, batches = self.trainer.strategy.reduce(own, reduce_op="sum")
        self.log("train_loss_step", total / batches, on_step=True, on_epoch=False, prog_bar=True)
        dealing = self.trainer.datamodule.dealing  # type: ignore[attr-defined]
        if dealing.processes > dealing.ranks:
            self._statistics.join(self.all_gather)

    # Batch norm's statistics are rank 0's here, as in the checkpoint: DDP shares them before a rank's first batch.
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert isinstance(batch.inputs, torch.Tensor)
        outputs = self.task.outputs(self.net, batch.inputs).float()
        kept = outputs, batch.targets, batch.frames, batch.spans
        self._validated.append([None if part is None else part.cpu() for part in kept])

    def on_validation_epoch_end(self) -> None:
        outputs, targets, frames, spans = map(_of_all_clips, zip(*self._validated))
        self._validated.clear()
        batch = Batch(torch.empty(0), targets, None, frames, spans)
        logits = self.task.clip_logits(outputs)
        if not torch.isfinite(logits).all():
            raise UserError(
                f"epoch {self.current_epoch}: the network's outputs are not finite, training has diverged. "
                f"opt.lr is {self.opt.lr:g}, try a smaller one"
            )
        val_set = self.trainer.datamodule.val_set  # type: ignore[attr-defined]
        decisions = self.task.decisions(outputs, batch, val_set)
        self._decisions = {key: each.as_dict() for key, each in decisions.items()}
        if not self._reported_undefined:
            self.task.report_undefined(targets.numpy(), self.label_map, "validation set")
            report_missing(decisions[DECISIONS].thresholds, self.label_map.names, "validation set")
            self._reported_undefined = True
        figures = self.task.figures(outputs, batch, val_set)
        clips = sum(gather_objects(self._loss_count)) / self.trainer.world_size  # a process may have fewer
        self.log("train_loss", self._loss_sum / clips, prog_bar=True, sync_dist=True)
        # Every rank has the whole set and the same figures: nothing to average over ranks.
        self.log("val_loss", self.task.validation_loss(outputs, batch), rank_zero_only=False)
        for name, figure in figures.items():
            self.log(name, torch.tensor(figure, dtype=torch.float64), prog_bar=True, rank_zero_only=False)
        step_schedule(self._schedule(), figures[self.task.monitor])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = build_optimizer(self.opt, self.net.parameters())
        schedule: LRSchedulerConfigType = {
            "scheduler": build_schedule(self.opt, optimizer, self._place),
            "interval": "epoch",
            "monitor": self.task.monitor,
        }
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: the schedule moves on with batches or the validation figure, so that a checkpoint holds its state.

        Lightning would step it after the checkpoint was written, and a resumed run would miss that step.
        """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_loss"] = gather_objects((self._loss_sum.item(), self._loss_count))
        checkpoint.update(self._decisions)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        shares = checkpoint.get("train_loss", [(0.0, 0)])
        if len(shares) != self.trainer.world_size:  # on other ranks: the same mean
            shares = [tuple(sum(values) / self.trainer.world_size for values in zip(*shares))] * self.trainer.world_size
        loss_sum, self._loss_count = shares[self.trainer.global_rank]
        self._decisions = {key: checkpoint.get(key) for key in (DECISIONS, EVENT_DECISIONS) if key in checkpoint}
        self._loss_sum = torch.tensor(loss_sum)


def _of_all_clips(parts: Sequence[Any]) -> Any:
    """One tensor of what batches and ranks have, or None where they have none."""
    return None if parts[0] is None else gather_over_ranks(torch.cat(list(parts)))
