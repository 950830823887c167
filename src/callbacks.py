"""What happens beside the fit: the table of figures, and interrupts."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from src.files import write_csv
from src.run_folder import RunFolder

log = logging.getLogger(__name__)


class MetricsCSV(Callback):
    """`metrics.csv`: a row an epoch, the whole file rewritten each time, earlier rows kept on resume."""

    def __init__(self, folder: RunFolder, monitor: str):
        self.folder = folder
        self.columns = ["epoch", "step", "lr", "train_loss", "val_loss", monitor]

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        figures = trainer.callback_metrics
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": self._lr}
        row |= {name: float(figures[name]) for name in self.columns[3:] if name in figures}
        rows = [old for old in self.folder.epochs() if int(old["epoch"]) < trainer.current_epoch] + [row]
        write_csv(self.folder.metrics_file, self.columns, rows)


class StopOnInterrupt(Callback):
    """Ctrl-C ends the run after the step that it is in; a second one ends it at once.

    An exception out of the blue may reach code that swallows it, or a file that is being written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note interrupts instead of raising them, and raise the one that came too late for any step."""
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or another's to handle
            yield
            return
        signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._stop_if_requested(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.world_size == 1:  # ranks need not have as many validation batches: they stop after a training step
            self._stop_if_requested(trainer)

    def _stop_if_requested(self, trainer: pl.Trainer) -> None:
        """Raise on all ranks or on none: one alone would leave the others waiting for it."""
        if trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            raise KeyboardInterrupt

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt):
            log.info("%s: interrupted in epoch %d; the same command goes on from the last checkpoint",
                     self.folder, trainer.current_epoch)
