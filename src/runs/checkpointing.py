"""When a run's checkpoints are written, which of them are kept, and where it ends if asked to."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks

from src.data.datamodule import ClipDataModule
from src.runs.checkpoint_io import tensors_in
from src.runs.divergence import LossWatch, require_finite
from src.runs.folder import RunFolder, epoch_of, validation_figure
from src.runs.interrupts import Interrupts
from src.runs.resuming import RANKS, RAW, resume_within_epoch

log = logging.getLogger(__name__)


class RunCheckpoints(callbacks.Checkpoint):
    """Writes one under its published name after every epoch, and `resume.ckpt` within an epoch.

    `resume.ckpt` is replaced every time, and deleted when the epoch's own checkpoint is on the disk. With
    `--keep`, an epoch that is not among the best is kept there alone, to resume from.

    Args:
        folder: of the run.
        monitor: the validation figure in the names, of which higher is better.
        keep: "all", "last" or the number of best epochs.
        every_n_steps: optimiser steps between two writings of `resume.ckpt`, or 0 for none.
        data: the run's, which starts within an epoch where the checkpoint does.
        watch: looks at the loss before anything is written.
        interrupts: end the run after the step under way, once it is written.
    """

    def __init__(
        self,
        folder: RunFolder,
        monitor: str,
        keep: str | int,
        every_n_steps: int,
        data: ClipDataModule,
        watch: LossWatch,
        interrupts: Interrupts,
    ):
        self.folder = folder
        self.monitor = monitor
        self.keep = keep
        self.every_n_steps = every_n_steps
        self.data = data
        self.watch = watch
        self.interrupts = interrupts

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[RANKS] = trainer.world_size
        weights = tensors_in([checkpoint["state_dict"], checkpoint.get(RAW)])
        require_finite(weights, f"epoch {trainer.current_epoch}, step {trainer.global_step}")

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        resume_within_epoch(checkpoint, trainer, self.data)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.interrupts.take_over()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.interrupts.wanted(trainer):
            raise self.interrupts.exception()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches and done < trainer.num_training_batches:
            return  # gradients that wait for their step are in no checkpoint
        wanted = self.interrupts.wanted(trainer)
        if wanted or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer, self.folder.resume_file)
        if wanted:
            raise self.interrupts.exception()

    def on_validation_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if trainer.world_size > 1:  # a rank may have a batch more than another: they meet after the validation
            return
        if self.interrupts.wanted(trainer):
            self._save(trainer, self.folder.resume_file)
            raise self.interrupts.exception()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        figures = trainer.callback_metrics
        name = (
            f"epoch={trainer.current_epoch:02d}_train_loss={figures['train_loss']:.3f}_"
            f"{self.monitor}={figures[self.monitor]:.3f}.ckpt"
        )
        path = self.folder.checkpoints / name
        files = [file for file in self.folder.checkpoint_files() if file != path] + [path]
        stay = chosen(files, self.keep)
        self._save(trainer, path if path in stay else self.folder.resume_file)
        if trainer.is_global_zero:
            remove(set(files) - stay)
            if path in stay:
                remove([self.folder.resume_file])

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            log.error(
                "%s: interrupted in epoch %d, after step %d. The same command resumes from the last checkpoint",
                self.folder.path,
                trainer.current_epoch,
                trainer.global_step,
            )

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        self.watch.look(trainer)
        trainer.save_checkpoint(path, weights_only=False)


def chosen(files: Sequence[Path], keep: str | int) -> set[Path]:
    """Those of a run's checkpoints, by epoch, that are kept. Of equally good ones it is the earlier.

    Args:
        keep: "all", "last" or the number of best ones.
    """
    if keep == "all":
        return set(files)
    if keep == "last":
        return set(files[-1:])

    def rank(file: Path) -> tuple[float, int]:
        figure = validation_figure(file)
        return math.inf if math.isnan(figure) else -figure, epoch_of(file) or 0

    return set(sorted(files, key=rank)[: int(keep)])


def tidy(folder: RunFolder, keep: str | int, newest: Path | None) -> None:
    """Delete what a killed process left: half-written files, and what its newest checkpoint supersedes."""
    for place in (folder.path, folder.checkpoints, folder.logs):
        remove(place.glob(".*.partial"))
    if newest is None:
        return
    files = folder.checkpoint_files()
    remove(set(files) - chosen(files, keep) - {newest})
    if newest in files:
        remove([folder.resume_file])


def remove(files: Iterable[Path]) -> None:
    """Delete files, as far as they are there."""
    for file in files:
        file.unlink(missing_ok=True)
