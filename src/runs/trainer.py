"""Lightning's Trainer as every run uses it."""

from collections.abc import Sequence

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger

from src.data.datamodule import ClipDataModule
from src.runs.callbacks import EpochBar, MetricsCSV
from src.runs.checkpoint_io import WholeFileIO
from src.runs.checkpointing import RunCheckpoints
from src.runs.devices import Devices
from src.runs.divergence import LossWatch
from src.runs.folder import RunFolder
from src.runs.interrupts import Interrupts
from src.utils.memory import keep_freed_memory

EARLY_STOPPING_PATIENCE = 10  # epochs


def build_trainer(
    folder: RunFolder,
    devices: Devices,
    data: ClipDataModule,
    monitor: str,
    interrupts: Interrupts,
    callbacks: Sequence[Callback],
    *,
    epochs: int,
    accumulate: int,
    keep: str | int,
    checkpoint_every_n_steps: int,
    deterministic: bool,
) -> pl.Trainer:
    """A Trainer with the run's logs, checkpoints, early stopping and signals.

    Args:
        monitor: the validation figure, of which higher is better.
        callbacks: further ones, called before these.
        accumulate: batches whose gradients make one step.
        keep: "all", "last" or the number of best epochs whose checkpoints are kept.
        checkpoint_every_n_steps: how often the state within an epoch is saved, or 0 for never.
        deterministic: use deterministic kernels where there are any, and warn where there are none.
    """
    if not devices.on_gpu:
        keep_freed_memory()
    watch = LossWatch(data)
    own = [
        EarlyStopping(monitor, mode="max", patience=EARLY_STOPPING_PATIENCE),
        LearningRateMonitor(logging_interval="epoch"),
        MetricsCSV(folder, monitor),
        watch,
        RunCheckpoints(folder, monitor, keep, checkpoint_every_n_steps, data, watch, interrupts),
        EpochBar(),
    ]
    return pl.Trainer(
        **devices.arguments(),
        max_epochs=epochs,
        callbacks=[*callbacks, *own],
        plugins=[WholeFileIO()],
        accumulate_grad_batches=accumulate,
        logger=TensorBoardLogger(folder.path, name=folder.logs.name, version=""),
        default_root_dir=folder.path,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        deterministic="warn" if deterministic else None,
    )
