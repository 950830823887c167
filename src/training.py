"""One training run: its folder, loggers and callbacks, and the fit."""

from __future__ import annotations

import json
import logging
import pickle
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from src.callbacks import InterruptMessage, MetricsCSV
from src.checkpoints import initial_network, load_class_weights
from src.config import Config, load_config
from src.data.datamodule import ClipDataModule
from src.data.labels import LabelMap
from src.data.lmdb_store import LMDBReader
from src.errors import UserError
from src.provenance import command_line, git_commit, versions
from src.recognizer import Recognizer
from src.run_folder import RunFolder, is_finished, last_checkpoint, require_same_run
from src.tasks import build_task

log = logging.getLogger(__name__)

EARLY_STOPPING_PATIENCE = 10  # epochs


@dataclass(frozen=True)
class TrainingOptions:
    """The flags of a training script."""

    cfg_file: str
    expdir: str
    epochs: int = 100
    num_workers: int = 4
    prefetch_factor: int = 4
    class_weights: str | None = None  # file with a (C,) tensor
    resume_from: str | None = None
    fp16: bool = False
    gpus: tuple[int, ...] = (0,)
    random_clip_size: int = 500  # frames
    val_clip_size: int = 1000  # frames
    use_mixup: bool = False
    seed: int | None = None  # drawn at random if None
    overrides: tuple[str, ...] = ()  # SECTION.KEY=VALUE for the cfg


def train(options: TrainingOptions) -> None:
    """Train as the options say, into `options.expdir`.

    An unfinished run in that folder goes on from its last checkpoint, a finished one is left alone.

    Raises:
        UserError: the configuration, the data or the folder do not fit; nothing was written then.
    """
    config = load_config(options.cfg_file, options.overrides)
    label_map = LabelMap.load(config.data.label_map_path())
    label_map.require_size(config.model.num_classes, config.path)
    task = build_task(config, load_class_weights(options.class_weights, len(label_map)))
    use_mixup = task.wants_mixup(options.use_mixup)
    folder = RunFolder(Path(options.expdir))
    earlier = folder.record()
    seed = choose_seed(options.seed, earlier)
    require_same_run(folder, earlier, {"cfg": config.as_dict(), "seed": seed, "mixup": use_mixup,
                                       "random_clip_size": options.random_clip_size})
    if earlier and is_finished(earlier, options.epochs):
        log.info("%s: finished (%s); skipped", folder.path, earlier["finished"]["reason"])
        return

    data = ClipDataModule(config, label_map, options.random_clip_size, options.val_clip_size, options.num_workers,
                          options.prefetch_factor, seed)
    record = describe_run(config, label_map, options, seed, use_mixup, len(data.train_set))
    recognizer = Recognizer(initial_network(config, seed), task, label_map, seed, use_mixup, record)
    trainer = build_trainer(options, folder, task.monitor)
    resume_from = options.resume_from or last_checkpoint(folder)
    if options.resume_from and not Path(options.resume_from).is_file():
        raise UserError(f"--resume_from {options.resume_from}: no such checkpoint")
    if trainer.is_global_zero:
        folder.write_record(earlier | {"finished": None} if earlier else record)
    announce(config, options, seed, use_mixup, data, recognizer, resume_from)
    fit(trainer, recognizer, data, resume_from)
    if trainer.is_global_zero:
        folder.write_record(folder.record() | {"finished": how_it_ended(trainer)})


def train_on_each(options: TrainingOptions, lmdbs: Sequence[str]) -> None:
    """One run an LMDB, in natural order, into `<expdir>/<LMDB name>/`.

    Raises:
        UserError: an LMDB is missing or two share a name, before anything is trained; or from a run.
    """
    lmdbs = sorted(lmdbs, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)])
    names = [Path(lmdb).stem for lmdb in lmdbs]
    for lmdb, name in zip(lmdbs, names):
        LMDBReader(lmdb)
        if names.count(name) > 1:
            raise UserError(f"--lmdbs_list: two LMDBs are called {name}; their runs would share one folder")
    for number, (lmdb, name) in enumerate(zip(lmdbs, names), 1):
        log.info("run %d of %d: %s", number, len(lmdbs), lmdb)
        overrides = (*options.overrides, f"data.train_lmdb={json.dumps(lmdb)}")
        train(replace(options, expdir=str(Path(options.expdir) / name), overrides=overrides))


def fit(trainer: pl.Trainer, recognizer: Recognizer, data: ClipDataModule, resume_from: str | Path | None) -> None:
    """Lightning's fit, with an unreadable checkpoint as an error of the user's."""
    if resume_from:
        try:
            torch.load(resume_from, map_location="cpu", weights_only=True)["optimizer_states"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{resume_from}: cannot be resumed from, it is not a whole checkpoint ({reason})") from None
    trainer.fit(recognizer, datamodule=data, ckpt_path=resume_from, weights_only=True)


def choose_seed(given: int | None, earlier: dict[str, Any] | None) -> int:
    """The flag's seed, else that of the run to go on with, else a fresh one."""
    if given is not None:
        return given
    return earlier["seed"] if earlier else secrets.randbelow(2**31)


def describe_run(config: Config, label_map: LabelMap, options: TrainingOptions, seed: int, use_mixup: bool,
                 num_train_clips: int) -> dict[str, Any]:
    """The run as plain data, for `run.json` and every checkpoint."""
    return {
        "command": command_line(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": seed,
        "protocol": config.protocol,
        "mixup": use_mixup,
        "random_clip_size": options.random_clip_size,
        "val_clip_size": options.val_clip_size,
        "num_train_clips": num_train_clips,
        "cfg_file": options.cfg_file,
        "cfg": config.as_dict(),
        "lbl_map": label_map.mapping,
        "versions": versions(),
        "git_commit": git_commit(),
        "finished": None,
    }


def how_it_ended(trainer: pl.Trainer) -> dict[str, Any]:
    """For `run.json`."""
    early = bool(trainer.early_stopping_callback.stopped_epoch)
    epochs = trainer.current_epoch
    reason = f"early stopping after {epochs} epochs" if early else f"{epochs} epochs"
    return {"epochs": epochs, "early": early, "reason": reason}


def build_trainer(options: TrainingOptions, folder: RunFolder, monitor: str) -> pl.Trainer:
    """Lightning's Trainer for these devices and this run folder."""
    accelerator, devices = choose_devices(options.gpus)
    precision = "16-mixed" if options.fp16 else "32-true"
    if options.fp16 and accelerator == "cpu":
        log.warning("--fp16: 16-bit mixed precision needs a GPU; training in 32 bits")
        precision = "32-true"
    checkpoints = ModelCheckpoint(
        dirpath=folder.checkpoints, filename=f"{{epoch:02d}}_{{train_loss:.3f}}_{{{monitor}:.3f}}", monitor=monitor,
        mode="max", save_top_k=-1, save_on_train_epoch_end=True,
    )
    callbacks = [
        checkpoints,
        EarlyStopping(monitor, mode="max", patience=EARLY_STOPPING_PATIENCE),
        LearningRateMonitor(logging_interval="epoch"),
        MetricsCSV(folder.logs / "metrics.csv", monitor),
        InterruptMessage(folder.path),
        TQDMProgressBar(refresh_rate=1 if sys.stderr.isatty() else 10),
    ]
    return pl.Trainer(
        accelerator=accelerator, devices=devices, strategy="ddp" if accelerator == "gpu" and len(devices) > 1 else
        "auto", precision=precision, max_epochs=options.epochs, callbacks=callbacks,
        logger=TensorBoardLogger(folder.path, name=folder.logs.name, version=""), default_root_dir=folder.path,
        num_sanity_val_steps=0, use_distributed_sampler=False, enable_model_summary=False, log_every_n_steps=10,
        deterministic="warn" if options.seed is not None else None,
    )


def choose_devices(gpus: tuple[int, ...]) -> tuple[str, list[int] | int]:
    """Lightning's accelerator and devices for --gpus: those that are there, else the CPU, and it says so."""
    present = [index for index in gpus if index < torch.cuda.device_count()]
    if not present:
        log.info("--gpus %s: no such GPU here; running on the CPU", ", ".join(map(str, gpus)))
        return "cpu", 1
    if len(present) < len(gpus):
        log.warning("--gpus %s: of these only %s are here; the batch over all devices shrinks with their number",
                    ", ".join(map(str, gpus)), ", ".join(map(str, present)))
    return "gpu", present


def announce(config: Config, options: TrainingOptions, seed: int, use_mixup: bool, data: ClipDataModule,
             recognizer: Recognizer, resume_from: str | Path | None) -> None:
    """A few lines on what is about to run."""
    parameters = sum(parameter.numel() for parameter in recognizer.net.parameters())
    log.info("%s: %s %s, %.1f M parameters, %d classes; protocol %s, mixup %s, seed %d", options.expdir,
             config.model.arch, config.model.model_depth, parameters / 1e6, config.model.num_classes, config.protocol,
             "on" if use_mixup else "off", seed)
    log.info("%d training clips (%s), %d validation clips (%s), batches of %d", len(data.train_set),
             config.data.source("train"), len(data.val_set), config.data.source("val"), config.opt.batch_size)
    if resume_from:
        log.info("going on from %s", resume_from)
