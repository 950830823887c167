"""What a training run is to do, settled before it begins: flags, cfg and run folder -> one frozen plan."""

import functools
import logging
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from src.config.loading import load_config, parse_config
from src.config.sections import PUBLISHED_AUGMENT, Config
from src.data.audio.spectrogram import FeatureExtractor
from src.data.checks.check import check
from src.data.checks.record import Limits
from src.data.datamodule import ClipDataModule
from src.data.device_features import Features
from src.data.labels import LabelMap
from src.data.lmdb.device_cache import DEVICE
from src.data.loading import known_data, open_training_set
from src.data.sampling import Dealing
from src.data.transforms import Compose
from src.errors import UserError
from src.learning.batch_norm import over_all_processes
from src.learning.normalisation import normalised, normalised_by
from src.learning.tasks import Task, build_task
from src.learning.teachers import TEACHER, teach
from src.models.checkpoint import architecture, initial_network, load_class_weights, outline
from src.models.cost import forward_gmac
from src.models.frames import FrameNetwork
from src.models.safe_loading import require_plain_file
from src.models.torch_files import torch_file_digest
from src.runs.devices import Devices
from src.runs.distributed import from_rank_zero
from src.runs.folder import RunFolder, checkpoint_at, require_same_run
from src.runs.provenance import provenance
from src.runs.record import RunRecord
from src.runs.resuming import ResumePoint, last_resume_point, read_resume_point
from src.scoring.frames import report_frames
from src.utils.files import require_writable
from src.utils.text import is_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOptions:
    """The flags of a training script, under their own names."""

    cfg_file: str
    expdir: str
    devices: Devices = field(default_factory=Devices)
    epochs: int = 100
    num_workers: int = 4
    prefetch_factor: int = 4
    cw: str | None = None  # file with a (C,) tensor of class weights
    resume_from: str | None = None
    random_clip_size: int = 500  # frames
    val_clip_size: int = 1000  # frames
    use_mixup: bool = False
    seed: int | None = None  # drawn at random if None
    overrides: tuple[str, ...] = ()  # SECTION.KEY=VALUE for the cfg
    pretrained: str | None = None  # in place of the cfg's
    train_lmdb: str | None = None  # in place of the cfg's
    data_root: str | None = None  # folder that the cfg's relative paths start from
    accumulate_grad_batches: int | None = None  # batches whose gradients make one step, 1 or a resumed run's if None
    fold_index: int | None = None  # of an LMDB with folds, the one to score, and to validate on as published
    validation: Literal["published", "held_out"] = "published"  # on data.val_lmdb, or on a part of the training clips
    crop_validation: bool = True  # validate on the centre of a longer clip, or on all of it
    check_data: bool = False  # read and decode all records first
    features: Features = "auto"  # where spectrograms are made
    skip_bad_records: bool = False  # leave them out instead of stopping
    cache_samples: str | None = None  # folder for decoded clips, which all loader workers share, or "device"
    checkpoint_every_n_steps: int = 0  # the state within an epoch, or 0 only when interrupted
    keep: str | int = "all"  # checkpoints that are kept: "all", "last" or the number of best epochs

    def config(self) -> Config:
        """The cfg, with what flags put in its place before it is checked: without them it may not be valid.

        Where a part of the training clips is held out, they are what is validated on too.

        Raises:
            UserError: from `load_config`, or `model.pretrained` is a folder without checkpoints.
        """
        given = {"model.pretrained": self.pretrained, "data.train_lmdb": self.train_lmdb}
        values = {name: value for name, value in given.items() if value}
        config = load_config(self.cfg_file, self.overrides, self.data_root, values)
        if config.model.pretrained and os.path.isdir(config.model.pretrained):
            checkpoint = str(checkpoint_at(config.model.pretrained))
            config = replace(config, model=replace(config.model, pretrained=checkpoint))
        if self.validation == "held_out":
            config = replace(config, data=replace(config.data, val_lmdb=config.data.train_lmdb))
        return config


@dataclass(frozen=True)
class RunPlan:
    """One training run before it begins."""

    options: TrainingOptions
    config: Config
    label_map: LabelMap
    class_weights: torch.Tensor | None  # (C,)
    use_mixup: bool  # as flag and cfg together say
    seed: int
    earlier: dict[str, Any] | None  # the folder's record, where the run is resumed
    resume: ResumePoint | None  # where it is resumed from
    dealing: Dealing = Dealing()  # which process computes which batches

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.options.expdir))

    @property
    def of_lmdbs(self) -> dict[str, Any]:
        """Which records of LMDBs are used, and how, as `open_dataset` takes it."""
        options = self.options
        return {
            "fold": options.fold_index,
            "held_out": options.validation == "held_out",
            "skip_bad_records": options.skip_bad_records,
            "cache_samples": options.cache_samples,
        }

    @property
    def is_finished(self) -> bool:
        """Whether an earlier start has stopped early, or has done all epochs."""
        if self.earlier is None:
            return False
        stopped_early = self.earlier["finished"] and self.earlier["finished"]["early"]
        return stopped_early or bool(self.resume and (self.resume.early or self.resume.epochs >= self.options.epochs))

    @cached_property
    def forward_gmac(self) -> float:
        """10⁹ multiply-accumulates of the network for one training clip.

        Raises:
            UserError: the network takes no training or no validation clips of that size.
        """
        bins = FeatureExtractor.of(self.config.audio_config).num_bins
        network = outline(*architecture(self.config))
        sizes = self.options.random_clip_size, self.options.val_clip_size
        training, _ = (forward_gmac(network, bins, frames) for frames in sizes)
        return training

    def task(self) -> Task:
        """Loss, probabilities and scores."""
        return build_task(self.config, self.class_weights)

    def network(self) -> nn.Module:
        """The network that the run begins with."""
        network = initial_network(self.config, self.seed)
        return over_all_processes(network) if self.options.devices.sync_batchnorm else network

    def data(self) -> ClipDataModule:
        """The clips, enough of them for all processes. It is said what of each is validated on."""
        options, network = self.options, outline(*architecture(self.config))
        data = ClipDataModule(
            self.config,
            self.label_map,
            options.random_clip_size,
            options.val_clip_size,
            options.num_workers,
            options.prefetch_factor,
            self.seed,
            options.crop_validation,
            options.features,
            network.stride if isinstance(network, FrameNetwork) else None,
            **self.of_lmdbs,
        )
        data.deal(self.dealing)
        if self.config.opt.teacher:
            teach(data.train_set, self.config.opt.teacher, data.train_source)
        report_frames(data.val_set, options.val_clip_size, "--val_clip_size", options.crop_validation)
        return data

    def settings(self) -> dict[str, Any]:
        """What must be the same in every start of the run."""
        options, opt = self.options, self.config.opt
        return {
            "cfg": self.config.as_dict(),
            "seed": self.seed,
            "mixup": self.use_mixup,
            "random_clip_size": options.random_clip_size,
            "val_clip_size": options.val_clip_size,
            "precision": options.devices.precision,
            "sync_batchnorm": options.devices.sync_batchnorm,
            "class_weights": None if self.class_weights is None else self.class_weights.tolist(),
            "fold_index": options.fold_index,
            "validation": options.validation,
            "lbl_map": self.label_map.mapping,
            **({"epochs": options.epochs} if opt.by_step else {}),
            **({"teacher": torch_file_digest(opt.teacher)} if opt.teacher else {}),
        }

    def record(self) -> RunRecord:
        """The run's record, with this start in it."""
        devices = asdict(self.options.devices) | {"gpus": list(self.options.devices.gpus)}
        begun = {"processes": self.dealing.ranks, "accumulate": self.dealing.accumulate}
        start = provenance() | {"devices": devices, "accumulate": self.dealing.share, "begun": begun}
        named = {
            "protocol": self.config.protocol,
            "cfg_file": self.options.cfg_file,
            "forward_gmac": round(self.forward_gmac, 6),
        }
        record = RunRecord(self.folder, self.earlier, self.settings() | named, start)
        if self.options.seed is None and self.options.devices.on_gpu:
            record.note_nondeterminism("without --seed, no deterministic kernels were asked for")
        return record


def plan_run(options: TrainingOptions) -> RunPlan:
    """The plan of a run. Nothing is deleted.

    Nothing is written but notes on LMDBs, the cache of their samples and packed sounds.

    The first process makes it for all: a folder may change between two looks.

    Raises:
        UserError: the configuration, the label map, the folder or the checkpoint do not fit.
    """
    return from_rank_zero(options.devices, lambda: _plan(options))


def _plan(options: TrainingOptions) -> RunPlan:
    config = options.config()
    label_map = LabelMap.load(config.data.label_map_path())
    label_map.require_size(config.model.num_classes, config.path)
    class_weights = load_class_weights(options.cw, len(label_map))
    if config.opt.teacher:
        require_plain_file(config.opt.teacher, TEACHER)
    use_mixup = build_task(config, class_weights).wants_mixup(options.use_mixup)
    for key in () if use_mixup else ("mixup_alpha", "mixup_max"):
        value = getattr(config.augment, key)
        if value != getattr(PUBLISHED_AUGMENT, key):
            raise UserError(
                f"{config.path}: augment.{key} is {value}, and nothing is mixed. Set audio_config.mixup=True, or leave "
                "it out"
            )
    if config.model.type == "events" and not options.crop_validation:
        whole = "and this script validates on whole clips, of any length. Train with train_gise_mixtures.py"
        raise UserError(f"{config.path}: model.type is events, {whole}")
    folder = RunFolder(Path(options.expdir))
    if not is_text(options.expdir):
        raise UserError(f"{folder.path}: its name is not UTF-8, and TensorBoard writes into no such folder. Rename it")
    earlier = folder.record()
    if earlier and config.audio_config.feature == "logmel" and config.audio_config.mean is None:
        measured = parse_config(earlier["cfg"], str(folder.record_file)).audio_config
        config = normalised_by(config, measured.mean, measured.std)
    seed = options.seed if options.seed is not None else earlier["seed"] if earlier else drawn_seed()
    plan = RunPlan(options, config, label_map, class_weights, use_mixup, seed, earlier, None)
    require_same_run(folder, earlier, plan.settings())
    point = read_resume_point(Path(options.resume_from)) if options.resume_from else last_resume_point(folder)
    plan = replace(plan, resume=point)
    if plan.is_finished:
        RunRecord(folder, earlier).identify(known_data(plan.config))
        return plan
    places = [folder.record_file, folder.metrics_file, folder.resume_file, folder.checkpoints / "a.ckpt"]
    cache = None if options.cache_samples == DEVICE else options.cache_samples
    require_writable(*places, cache and Path(cache) / "samples")
    processes, accumulate = options.devices.num_processes, options.accumulate_grad_batches
    if point:
        plan = replace(plan, dealing=point.dealing(processes, accumulate))
        point.require_trainable(outline(*architecture(config)), config.opt, options.epochs)
    else:
        plan = replace(plan, dealing=Dealing(processes, accumulate or 1, processes))
    if options.check_data:
        check_data(plan)
    if config.data.isolated_events:  # packed by one process, which says so
        open_training_set(config, label_map, Compose(()), seed, num_workers=options.num_workers, **plan.of_lmdbs)
    return replace(plan, config=normalised(plan.config, label_map, seed, options.num_workers, **plan.of_lmdbs))


@functools.cache
def drawn_seed() -> int:
    """One seed for all runs of this command."""
    return secrets.randbelow(2**31)


def check_data(plan: RunPlan) -> None:
    """Refuse LMDBs with broken records, unknown labels or clips in common, as scripts/check_lmdb.py does."""
    data, audio = plan.config.data, plan.config.audio_config
    if not data.is_lmdb:
        raise UserError("--check_data: checks LMDBs, and the cfg reads manifests (data.is_lmdb: False)")
    sources = (data.source("val"),) if data.isolated_events else (data.source("train"), data.source("val"))
    paths = dict.fromkeys(map(os.path.realpath, sources))  # isolated events are read whole as they are packed
    limits = Limits(plan.label_map, audio.delimiter, audio.sample_rate)
    found = check(list(paths), limits, max(1, plan.options.num_workers))
    for warning in found.warnings:
        log.warning("%s", warning)
    found.require_sound()
    log.info("checked, without an error: %s", ", ".join(paths))
