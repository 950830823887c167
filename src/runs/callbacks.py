"""What happens beside the fit: the table of figures, and the progress bar."""

import sys

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

from src.runs.folder import RunFolder
from src.utils.tables import write_csv


class MetricsCSV(Callback):
    """`metrics.csv`: a row an epoch, the whole file rewritten each time, earlier rows kept on resume."""

    def __init__(self, folder: RunFolder, monitor: str):
        self.folder = folder
        self.columns = ["epoch", "step", "lr", "train_loss", "val_loss", monitor]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._note_rate(trainer)  # a resumed epoch does not start again

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._note_rate(trainer)

    def _note_rate(self, trainer: pl.Trainer) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        figures = trainer.callback_metrics
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": self._lr}
        row |= {name: float(figures[name]) for name in self.columns[3:] if name in figures}
        rows = [old for old in self.folder.epochs() if int(old["epoch"]) < trainer.current_epoch] + [row]
        write_csv(self.folder.metrics_file, self.columns, rows)


class EpochBar(TQDMProgressBar):
    """Lightning's bar, which also knows the length of a resumed epoch. In a log it moves more slowly."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 10)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_train_start(trainer, module)
        self.on_train_epoch_start(trainer, module)
