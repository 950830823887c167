"""One training run: its folder, loggers and callbacks, and the fit."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from src.callbacks import MetricsCSV, StopOnInterrupt
from src.checkpoints import WEIGHTS_PREFIX, initial_network, load_class_weights
from src.config import Config, load_config
from src.data.datamodule import ClipDataModule
from src.data.device_features import Features
from src.data.labels import LabelMap
from src.data.lmdb_store import LMDBReader
from src.data_identity import DataIdentity
from src.devices import Devices
from src.errors import UserError
from src.models.weights import misfit
from src.preparation.checking import check
from src.preparation.examination import Limits
from src.provenance import command_line, git_commit, versions
from src.ranks import from_rank_zero, sharing_errors
from src.recognizer import Recognizer
from src.run_folder import RunFolder, is_finished, last_checkpoint, require_same_run
from src.tasks import build_task
from src.torch_files import read_torch_file

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
    class_weights = load_class_weights(options.class_weights, len(label_map))
    task = build_task(config, class_weights)
    use_mixup = task.wants_mixup(options.use_mixup)
    folder = RunFolder(Path(options.expdir))
    earlier = folder.record()
    seed = choose_seed(options.seed, earlier)
    settings = {
        "cfg": config.as_dict(), "seed": seed, "mixup": use_mixup, "random_clip_size": options.random_clip_size,
        "val_clip_size": options.val_clip_size, "precision": options.devices.precision,
        "class_weights": None if class_weights is None else class_weights.tolist(),
        "fold_index": options.fold_index, "lbl_map": label_map.mapping,
    }
    require_same_run(folder, earlier, settings)
    resume_from = Path(options.resume_from) if options.resume_from else last_checkpoint(folder)
    finished = bool(earlier) and is_finished(earlier, resume_from, options.epochs)
    earlier, seed, resume_from, finished = from_rank_zero(options.devices, (earlier, seed, resume_from, finished))
    if finished:
        log.info("%s: finished (%s); skipped", folder.path, (earlier["finished"] or {}).get("reason", "all epochs"))
        return

    network = initial_network(config, seed)
    if resume_from:
        require_resumable(resume_from, network)
    if options.devices.compile:
        network.compile()  # in place: the state dict keeps its keys
    data = ClipDataModule(config, label_map, options.random_clip_size, options.val_clip_size, options.num_workers,
                          options.prefetch_factor, seed, options.fold_index, options.crop_validation, options.features,
                          skip_bad_records=options.skip_bad_records, cache_samples=options.cache_samples)
    origin = {"command": command_line(), "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
              "versions": versions(), "git_commit": git_commit(), "devices": asdict(options.devices),
              "accumulate": options.accumulate}
    record = origin | settings | {
        "protocol": config.protocol, "cfg_file": options.cfg_file,
        "finished": None, "resumed": [],
    }
    if earlier:
        record = earlier | {"finished": None, "resumed": [*earlier.get("resumed", []), origin]}
    record |= {"num_train_clips": len(data.train_set),
               "skipped": {"train": data.train_set.skipped, "val": data.val_set.skipped}}
    stop = StopOnInterrupt(folder.path)
    trainer = build_trainer(options, folder, task.monitor, stop)
    data.require_enough(trainer.world_size)
    if trainer.is_global_zero:
        if options.check_data:
            check_data(config, label_map, max(1, options.num_workers))
        trainer.callbacks.insert(0, DataIdentity(folder, earlier, record, data))
        folder.write_record(record)
    if trainer.local_rank == 0:
        for dataset in (data.train_set, data.val_set):
            dataset.read_ahead()
    recognizer = Recognizer(network, task, label_map, seed, use_mixup, record)
    announce(config, options, seed, use_mixup, data, recognizer, resume_from)
    with stop.listening():
        fit(trainer, recognizer, data, resume_from)
        if trainer.is_global_zero:
            folder.write_record(record | {"finished": how_it_ended(trainer)})


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


def fit(trainer: pl.Trainer, recognizer: Recognizer, data: ClipDataModule, resume_from: Path | None) -> None:
    """Lightning's fit, in which an interrupt is an interrupt."""
    try:
        trainer.fit(recognizer, datamodule=data, ckpt_path=resume_from, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def require_resumable(path: Path, network: torch.nn.Module) -> None:
    """Refuse a checkpoint that cannot be gone on from, before anything is written."""
    content = read_torch_file(path, "a checkpoint to resume from")
    if not isinstance(content, dict) or "optimizer_states" not in content or not isinstance(
            content.get("state_dict"), dict):
        raise UserError(f"{path}: cannot be resumed from: it is no training checkpoint (is it a .pth of weights?)")
    if "loops" not in content:
        raise UserError(f"{path}: is of an early Lightning, {content.get('pytorch-lightning_version')}, and cannot be "
                        "resumed; export its weights with --export_weights and start from them with model.pretrained")
    state = {str(name).removeprefix(WEIGHTS_PREFIX): value for name, value in content["state_dict"].items()}
    problem = misfit(network, state)
    if problem:
        raise UserError(f"{path}: is of another network than the cfg's: {problem}")


def choose_seed(given: int | None, earlier: dict[str, Any] | None) -> int:
    """The flag's seed, else that of the run to go on with, else one drawn for this command."""
    if given is not None:
        return given
    return earlier["seed"] if earlier else drawn_seed()


@functools.cache
def drawn_seed() -> int:
    """One seed for all runs of this command."""
    return secrets.randbelow(2**31)


def how_it_ended(trainer: pl.Trainer) -> dict[str, Any]:
    """For `run.json`."""
    early = bool(trainer.early_stopping_callback.stopped_epoch)
    epochs = trainer.current_epoch
    reason = f"early stopping after {epochs} epochs" if early else f"{epochs} epochs"
    return {"epochs": epochs, "early": early, "reason": reason}


def build_trainer(options: TrainingOptions, folder: RunFolder, monitor: str, stop: StopOnInterrupt) -> pl.Trainer:
    """Lightning's Trainer for the options' devices and this run folder."""
    checkpoints = ModelCheckpoint(
        dirpath=folder.checkpoints, filename=f"{{epoch:02d}}_{{train_loss:.3f}}_{{{monitor}:.3f}}", monitor=monitor,
        mode="max", save_top_k=-1, save_on_train_epoch_end=True,
    )
    callbacks = [
        checkpoints,
        EarlyStopping(monitor, mode="max", patience=EARLY_STOPPING_PATIENCE),
        LearningRateMonitor(logging_interval="epoch"),
        MetricsCSV(folder, monitor),
        stop,
        TQDMProgressBar(refresh_rate=1 if sys.stderr.isatty() else 10),
    ]
    return pl.Trainer(
        **options.devices.arguments(), max_epochs=options.epochs, callbacks=callbacks,
        accumulate_grad_batches=options.accumulate,
        logger=TensorBoardLogger(folder.path, name=folder.logs.name, version=""), default_root_dir=folder.path,
        num_sanity_val_steps=0, use_distributed_sampler=False, enable_model_summary=False, log_every_n_steps=10,
        deterministic="warn" if options.seed is not None else None,
    )


def announce(config: Config, options: TrainingOptions, seed: int, use_mixup: bool, data: ClipDataModule,
             recognizer: Recognizer, resume_from: Path | None) -> None:
    """A few lines on what is about to run."""
    parameters = sum(parameter.numel() for parameter in recognizer.net.parameters())
    log.info("%s: %s %s, %.1f M parameters, %d classes; protocol %s, mixup %s, seed %d", options.expdir,
             config.model.arch, config.model.model_depth, parameters / 1e6, config.model.num_classes, config.protocol,
             "on" if use_mixup else "off", seed)
    log.info("%d training clips (%s), %d validation clips (%s)%s, batches of %d%s%s", len(data.train_set),
             config.data.source("train"), len(data.val_set), config.data.source("val"),
             "" if options.fold_index is None else f" of fold {options.fold_index}", config.opt.batch_size,
             "" if options.accumulate == 1 else f", {options.accumulate} of them a step",
             "" if options.devices.num_processes == 1 else f", in each of {options.devices.num_processes} processes")
    if config.model.pretrained and not resume_from:
        log.info("starting from the weights in %s", config.model.pretrained)
    if resume_from:
        log.info("going on from %s", resume_from)
