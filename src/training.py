"""One training run: its folder, loggers and callbacks, and the fit."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger

from src.config import Config, load_config
from src.data.checks.check import check
from src.data.checks.record import Limits
from src.data.datamodule import ClipDataModule
from src.data.device_features import Features
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.learning.recognizer import Recognizer
from src.learning.tasks import Task, build_task
from src.models.checkpoint import initial_network, load_class_weights
from src.runs.callbacks import EpochBar, MetricsCSV
from src.runs.checkpoint_io import WholeFileIO
from src.runs.checkpointing import Checkpoints, tidy
from src.runs.data_identity import DataIdentity
from src.runs.determinism import Unrepeatable, changes
from src.runs.devices import Devices
from src.runs.distributed import from_rank_zero, sharing_errors
from src.runs.divergence import LossWatch
from src.runs.folder import RunFolder, require_same_run
from src.runs.interrupts import Interrupts
from src.runs.lock import sole_process
from src.runs.record import origin
from src.runs.resuming import ResumePoint, last_checkpoint, resume_point
from src.utils.memory import keep_freed_memory
from src.utils.processes import is_first

log = logging.getLogger(__name__)

EARLY_STOPPING_PATIENCE = 10  # epochs


@dataclass(frozen=True)
class TrainingOptions:
    """The flags of a training script."""

    cfg_file: str
    expdir: str
    devices: Devices = field(default_factory=Devices)
    epochs: int = 100
    num_workers: int = 4
    prefetch_factor: int = 4
    class_weights: str | None = None  # file with a (C,) tensor
    resume_from: str | None = None
    random_clip_size: int = 500  # frames
    val_clip_size: int = 1000  # frames
    use_mixup: bool = False
    seed: int | None = None  # drawn at random if None
    overrides: tuple[str, ...] = ()  # SECTION.KEY=VALUE for the cfg
    data_root: str | None = None  # folder that the cfg's relative paths start from
    accumulate: int = 1  # batches whose gradients make one step
    fold_index: int | None = None  # of an LMDB with folds, the one to validate on
    crop_validation: bool = True  # validate on the centre of a longer clip, or on all of it
    check_data: bool = False  # read and decode all records first
    features: Features = "auto"  # where spectrograms are made
    skip_bad_records: bool = False  # leave them out instead of stopping
    cache_samples: str | None = None  # folder for decoded clips, which all loader workers share
    checkpoint_every_n_steps: int = 0  # the state within an epoch; 0 only when interrupted
    keep: str | int = "all"  # checkpoints that stay: "all", "last" or the number of best epochs


@sharing_errors
def train(options: TrainingOptions) -> None:
    """Train as the options say, into `options.expdir`.

    An unfinished run in that folder goes on from its last checkpoint, a finished one is left alone.

    Raises:
        UserError: the configuration, the data or the folder do not fit; nothing was written then.
    """
    config = load_config(options.cfg_file, options.overrides, options.data_root)
    label_map = LabelMap.load(config.data.label_map_path())
    label_map.require_size(config.model.num_classes, config.path)
    task = build_task(config, load_class_weights(options.class_weights, len(label_map)))
    folder = RunFolder(Path(options.expdir))
    with sole_process(folder.path) if is_first() else nullcontext():
        train_in(folder, options, config, label_map, task)


def train_in(folder: RunFolder, options: TrainingOptions, config: Config, label_map: LabelMap, task: Task) -> None:
    """The run in a folder that no other run uses."""
    standing = where_it_stands(folder, options, config, label_map, task) if is_first() else None
    earlier, settings, resume_from = from_rank_zero(options.devices, standing)
    if settings is None:
        return
    point = resume_point(resume_from) if resume_from else None
    network = initial_network(config, settings["seed"])
    if point:
        point.require_trainable(network, options.epochs)
    if options.devices.compile:
        network.compile()  # in place: the state dict keeps its keys
    data = ClipDataModule(
        config,
        label_map,
        options.random_clip_size,
        options.val_clip_size,
        options.num_workers,
        options.prefetch_factor,
        settings["seed"],
        options.fold_index,
        options.crop_validation,
        options.features,
        skip_bad_records=options.skip_bad_records,
        cache_samples=options.cache_samples,
    )
    interrupts = Interrupts()
    trainer = build_trainer(options, folder, task.monitor, interrupts)
    data.require_enough(trainer.world_size)
    if not options.devices.on_gpu:
        keep_freed_memory()
    unrepeatable = Unrepeatable()
    record = record_of(options, settings, config, data, earlier, unrepeatable)
    if options.seed is None and trainer.strategy.root_device.type != "cpu":
        unrepeatable.note("without --seed, no deterministic kernels were asked for")
    if trainer.is_global_zero:
        if options.check_data:
            check_data(config, label_map, max(1, options.num_workers))
        trainer.callbacks.insert(0, DataIdentity(folder, earlier, record, data))
    if trainer.local_rank == 0:
        data.read_ahead()
    recognizer = Recognizer(network, task, label_map, settings["seed"], settings["mixup"], record)
    announce(config, options, recognizer, data, point)

    def write(finished: dict[str, Any] | None) -> None:
        if trainer.is_global_zero:
            folder.write_record(record | {"finished": finished, "nondeterministic": unrepeatable.notes})

    write(None)
    with interrupts.listening(), unrepeatable.listening():
        try:
            fit(trainer, recognizer, data, resume_from, interrupts)
        except KeyboardInterrupt:
            write(None)
            raise
        write(ended(trainer.current_epoch, bool(trainer.early_stopping_callback.stopped_epoch)))


def where_it_stands(
    folder: RunFolder, options: TrainingOptions, config: Config, label_map: LabelMap, task: Task
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, Path | None]:
    """The record of the run to go on with, this run's settings, and the checkpoint to go on from.

    There are no settings where the run is finished. Asked on one rank for all: a folder may change between two looks.

    Raises:
        UserError: the folder belongs to another run, or the checkpoint cannot be gone on from.
    """
    earlier = folder.record()
    settings = {
        "cfg": config.as_dict(),
        "seed": choose_seed(options.seed, earlier),
        "mixup": task.wants_mixup(options.use_mixup),
        "random_clip_size": options.random_clip_size,
        "val_clip_size": options.val_clip_size,
        "precision": options.devices.precision,
        "class_weights": None if task.class_weights is None else task.class_weights.tolist(),
        "fold_index": options.fold_index,
        "lbl_map": label_map.mapping,
    }
    require_same_run(folder, earlier, settings)
    resume_from = Path(options.resume_from) if options.resume_from else last_checkpoint(folder)
    point = resume_point(resume_from) if resume_from else None
    if earlier:
        tidy(folder, options.keep, None if options.resume_from else resume_from)
    if earlier and is_finished(earlier, point, options.epochs):
        close_record(folder, earlier, point)
        return earlier, None, None
    return earlier, settings, resume_from


def record_of(
    options: TrainingOptions,
    settings: dict[str, Any],
    config: Config,
    data: ClipDataModule,
    earlier: dict[str, Any] | None,
    unrepeatable: Unrepeatable,
) -> dict[str, Any]:
    """The run's record for `run.json` and checkpoints: of a run that goes on, the earlier one with this start added."""
    start = origin() | {
        "devices": asdict(options.devices) | {"gpus": list(options.devices.gpus)},
        "accumulate": options.accumulate,
    }
    record = start | settings | {"protocol": config.protocol, "cfg_file": options.cfg_file, "resumed": []}
    if earlier:
        record = earlier | {"resumed": [*earlier.get("resumed", []), start]}
        unrepeatable.note(*earlier.get("nondeterministic", []), *changes([earlier, *record["resumed"]]))
    return record | {
        "finished": None,
        "nondeterministic": unrepeatable.notes,
        "num_train_clips": len(data.train_set),
        "skipped": {"train": data.train_set.skipped, "val": data.val_set.skipped},
    }


def is_finished(record: dict[str, Any], point: ResumePoint | None, epochs: int) -> bool:
    """Whether the run stopped early, or its last checkpoint is of the last epoch that is asked for."""
    if record["finished"] and record["finished"]["early"]:
        return True
    return point is not None and (point.early or point.epochs >= epochs)


def close_record(folder: RunFolder, record: dict[str, Any], point: ResumePoint | None) -> None:
    """Say that a run is finished, in its record too where it was killed before it could."""
    finished = record["finished"] or ended(point.epochs, point.early)
    log.info("%s: finished (%s); skipped", folder.path, finished["reason"])
    if not record["finished"]:
        folder.write_record(record | {"finished": finished})


def check_data(config: Config, label_map: LabelMap, num_workers: int) -> None:
    """Refuse LMDBs with broken records, unknown labels, or clips in common; see scripts/check_lmdb.py."""
    if not config.data.is_lmdb:
        raise UserError("--check_data: checks LMDBs, and the cfg reads manifests (data.is_lmdb: False)")
    paths = dict.fromkeys(os.path.realpath(config.data.source(split)) for split in ("train", "val"))
    limits = Limits(label_map, config.audio_config.delimiter, config.audio_config.sample_rate)
    found = check(list(paths), limits, num_workers)
    for warning in found.warnings:
        log.warning("%s", warning)
    found.require_sound()
    log.info("checked, without an error: %s", ", ".join(paths))


@sharing_errors
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


def fit(
    trainer: pl.Trainer, recognizer: Recognizer, data: ClipDataModule, resume_from: Path | None, interrupts: Interrupts
) -> None:
    """Lightning's fit, in which an interrupt is an interrupt."""
    try:
        trainer.fit(recognizer, datamodule=data, ckpt_path=resume_from, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            raise interrupts.exception() from None
        raise


def choose_seed(given: int | None, earlier: dict[str, Any] | None) -> int:
    """The flag's seed, else that of the run to go on with, else one drawn for this command."""
    if given is not None:
        return given
    return earlier["seed"] if earlier else drawn_seed()


@functools.cache
def drawn_seed() -> int:
    """One seed for all runs of this command."""
    return secrets.randbelow(2**31)


def ended(epochs: int, early: bool) -> dict[str, Any]:
    """How a run ended, for `run.json`."""
    reason = f"early stopping after {epochs} epochs" if early else f"{epochs} epochs"
    return {"epochs": epochs, "early": early, "reason": reason}


def build_trainer(options: TrainingOptions, folder: RunFolder, monitor: str, interrupts: Interrupts) -> pl.Trainer:
    """Lightning's Trainer for the options' devices and this run folder."""
    watch = LossWatch()
    callbacks = [
        EarlyStopping(monitor, mode="max", patience=EARLY_STOPPING_PATIENCE),
        LearningRateMonitor(logging_interval="epoch"),
        MetricsCSV(folder, monitor),
        watch,
        Checkpoints(folder, monitor, options.keep, options.checkpoint_every_n_steps, watch, interrupts),
        EpochBar(),
    ]
    return pl.Trainer(
        **options.devices.arguments(),
        max_epochs=options.epochs,
        callbacks=callbacks,
        plugins=[WholeFileIO()],
        accumulate_grad_batches=options.accumulate,
        logger=TensorBoardLogger(folder.path, name=folder.logs.name, version=""),
        default_root_dir=folder.path,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        deterministic="warn" if options.seed is not None else None,
    )


def announce(
    config: Config, options: TrainingOptions, recognizer: Recognizer, data: ClipDataModule, point: ResumePoint | None
) -> None:
    """A few lines on what is about to run."""
    parameters = sum(parameter.numel() for parameter in recognizer.net.parameters())
    log.info(
        "%s: %s %s, %.1f M parameters, %d classes; protocol %s, mixup %s, seed %d",
        options.expdir,
        config.model.arch,
        config.model.model_depth,
        parameters / 1e6,
        config.model.num_classes,
        config.protocol,
        "on" if recognizer.use_mixup else "off",
        recognizer.seed,
    )
    log.info(
        "%d training clips (%s), %d validation clips (%s)%s, batches of %d%s%s",
        len(data.train_set),
        config.data.source("train"),
        len(data.val_set),
        config.data.source("val"),
        "" if options.fold_index is None else f" of fold {options.fold_index}",
        config.opt.batch_size,
        "" if options.accumulate == 1 else f", {options.accumulate} of them a step",
        "" if options.devices.num_processes == 1 else f", in each of {options.devices.num_processes} processes",
    )
    if config.model.pretrained and not point:
        log.info("starting from the weights in %s", config.model.pretrained)
    if point:
        log.info(
            "going on from %s, after %d epochs%s",
            point.path,
            point.epochs,
            f" and {point.batches} batches" if point.batches else "",
        )
