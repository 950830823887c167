"""Lightning's Trainer as every run uses it."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor, Timer
from pytorch_lightning.loggers import TensorBoardLogger

from src.config.sections import OptConfig
from src.data.datamodule import ClipDataModule
from src.runs.callbacks import EpochBar, MetricsCSV, WeightAverage
from src.runs.checkpoint_io import WholeFileIO
from src.runs.checkpointing import RunCheckpoints
from src.runs.devices import Devices
from src.runs.divergence import LossWatch
from src.runs.folder import RunFolder
from src.runs.interrupts import Interrupts
from src.utils.memory import keep_freed_memory

EARLY_STOPPING_PATIENCE = 10  # epochs


def run_callbacks(
    folder: RunFolder,
    data: ClipDataModule,
    opt: OptConfig,
    figures: Sequence[str],
    keep: str | int,
    every_n_steps: int,
    interrupts: Interrupts,
) -> list[Callback]:
    """Figures, progress, early stopping, checkpoints and signals of a run. See `RunCheckpoints` for the arguments.

    Of the validation figures, the first one counts.

    A schedule by the step is not stopped early: it would end before its learning rate has come down.
    """
    watch = LossWatch(data)
    return [
        *([] if opt.by_step else [EarlyStopping(figures[0], mode="max", patience=EARLY_STOPPING_PATIENCE)]),
        *([WeightAverage(opt.ema_decay)] if opt.ema_decay is not None else []),
        LearningRateMonitor(logging_interval="epoch"),
        MetricsCSV(folder, figures),
        watch,
        RunCheckpoints(folder, figures[0], keep, every_n_steps, data, watch, interrupts),
        EpochBar(),
        Timer(),
    ]


def seconds_of(trainer: pl.Trainer) -> float:
    """How long a run has trained and validated, over all of its starts, as far as its checkpoints say."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare it
    return next(callback for callback in callbacks if isinstance(callback, Timer)).time_elapsed("train")


def build_trainer(folder: RunFolder, devices: Devices, callbacks: Sequence[Callback], **more: Any) -> pl.Trainer:
    """A Trainer for these devices that writes into the run's folder.

    Args:
        more: arguments of Lightning's Trainer that differ from run to run.
    """
    if not devices.on_gpu:
        keep_freed_memory()
    return pl.Trainer(
        callbacks=list(callbacks),
        plugins=[WholeFileIO()],
        logger=TensorBoardLogger(folder.path, name=folder.logs.name, version=""),
        default_root_dir=folder.path,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        **devices.arguments(),
        **more,
    )
