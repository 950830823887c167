"""Resuming a run: from which checkpoint, and from where within an epoch.

Within an epoch, a checkpoint says how many batches of it each rank has done, and the loader starts with the next one.
The order, every clip's draws, mixup's and dropout's follow from seed, epoch, record and batch alone. After an epoch's
last batch its validation is repeated from the start. Another number of processes shares the batches of every step that
the run began with, as `src.data.sampling.Dealing` says.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from src.config.sections import OptConfig
from src.data.sampling import Dealing
from src.errors import UserError, listed
from src.models.safe_loading import read_torch_file
from src.models.weights import NETWORK, is_usable, misfit
from src.runs.checkpoint_io import tensors_in
from src.runs.folder import RunFolder, epoch_of

RANKS = "ranks"  # key of a checkpoint: how many processes wrote it
MOST = 1_000_000  # processes, or batches of a step: more are no run's
RAW = "current_model_state"  # key of a checkpoint whose state_dict is an average: the weights of the last step


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to resume from, and how far its run had come."""

    path: Path
    epochs: int  # completed
    batches: int  # done of the next one
    early: bool  # early stopping has ended the run
    seconds: float | None  # that the run has trained and validated for, where it says so
    shapes: Mapping[str, torch.Tensor]  # of the weights: tensors on the meta device
    planned: int | None  # epochs of the run, where its learning rate falls towards their end
    optimizer: str | None  # opt.optimizer of the run, where the checkpoint says
    scheduler: str | None  # opt.scheduler, likewise
    begun: Dealing | None  # how its run shared its batches when it began, where it says so
    averaged: bool  # whether the weights are an average, with those of the last step beside them

    def dealing(self, processes: int, accumulate: int | None) -> Dealing:
        """How so many processes share the batches of each of the run's steps.

        Args:
            accumulate: of --accumulate_grad_batches, if given.

        Raises:
            UserError: they cannot share them equally, or not with this --accumulate_grad_batches.
        """
        if self.begun is None:
            return Dealing(processes, accumulate or 1, processes)
        batches = self.begun.batches_a_step
        if batches % processes:
            fitting = listed([number for number in range(1, batches + 1) if batches % number == 0], 20)
            raise UserError(
                f"{self.path}: each step of its run is of {batches} batches, and {processes} processes cannot share "
                f"them equally. Resume it with another number (--devices, --gpus, --num_nodes), of {fitting}"
            )
        dealing = replace(self.begun, processes=processes)
        if accumulate not in (None, dealing.share):
            raise UserError(
                f"--accumulate_grad_batches {accumulate}: each step of the run of {self.path} is of {batches} batches, "
                f"{dealing.share} for each of {processes} processes. Give {dealing.share}, or leave the flag out"
            )
        return dealing

    def require_trainable(self, network: torch.nn.Module, opt: OptConfig, epochs: int) -> None:
        """Refuse a checkpoint of another network, of a longer run, or of another optimiser or schedule.

        Args:
            network: of the configuration, on the meta device or not.
            opt: of the configuration.
            epochs: of --epochs.
        """
        problem = misfit(network, self.shapes)
        if problem:
            raise UserError(f"{self.path}: is of another network than the cfg's: {problem}")
        if self.epochs >= epochs:
            raise UserError(f"{self.path}: has completed {self.epochs} epochs, and --epochs is {epochs}")
        by_step = opt.by_step or self.planned is not None  # of the others, one goes on where another one was
        for key, then, now in (
            ("optimizer", self.optimizer or opt.optimizer, opt.optimizer),
            ("scheduler", by_step and self.scheduler or opt.scheduler, opt.scheduler),
            ("ema_decay", self.averaged, opt.ema_decay is not None),
        ):
            if then != now:
                raise UserError(
                    f"{self.path}: is of a run with another opt.{key} than the cfg's {getattr(opt, key)}, and is not "
                    "resumed with it. Start from its weights with --pretrained"
                )
        if self.planned not in (None, epochs):
            raise UserError(
                f"{self.path}: is of a run of {self.planned} epochs, towards whose end its learning rate falls, "
                f"and --epochs is {epochs}. Give --epochs {self.planned}"
            )


def read_resume_point(path: Path) -> ResumePoint:
    """What a checkpoint says of its run.

    Raises:
        UserError: no run can be resumed from it.
    """
    content = read_torch_file(path, "a checkpoint to resume from")
    if (
        not isinstance(content, dict)
        or "optimizer_states" not in content
        or not isinstance(content.get("state_dict"), dict)
    ):
        raise UserError(f"{path}: cannot be resumed from: it is no training checkpoint (is it a .pth of weights?)")
    if "loops" not in content:
        raise UserError(
            f"{path}: is of an early Lightning, {content.get('pytorch-lightning_version')}, and cannot be resumed. "
            "Export its weights with --export_weights and start from them with model.pretrained"
        )
    try:
        fit = content["loops"]["fit_loop"]
        epochs = fit["epoch_progress"]["current"]["processed"]
        batches = fit["epoch_loop.batch_progress"]["current"]["processed"] if is_within_epoch(fit) else 0
        early = any(state.get("stopped_epoch") for state in content["callbacks"].values())
        seconds = content["callbacks"].get("Timer", {}).get("time_elapsed", {}).get("train")
        record = content.get("hyper_parameters") or {}
        opt = record.get("cfg", {}).get("opt", {})
        optimizer, scheduler = opt.get("optimizer"), opt.get("scheduler")
        begun = _begun(record, content.get(RANKS))
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: does not say how far its run had come. The file is damaged") from None
    weights, further = content["state_dict"], (content["optimizer_states"], content.get(RAW))
    if not all(is_usable(value) for value in (*weights.values(), *tensors_in(further))):
        raise UserError(
            f"{path}: cannot be resumed from: it holds something else than tensors of finite numbers. Is it damaged?"
        )
    raw, average = content.get(RAW, weights), content.get("averaging_state", {"n_averaged": 0})
    fits = isinstance(raw, dict) and shapes_of(raw) == shapes_of(weights)
    if not fits or not isinstance(average, dict) or set(average) != {"n_averaged"}:
        raise UserError(
            f"{path}: cannot be resumed from: its average and the weights of its last step do not fit. Is it damaged?"
        )
    shapes = {str(name).removeprefix(NETWORK): value.to("meta") for name, value in weights.items()}
    return ResumePoint(
        path, epochs, batches, early, seconds, shapes, record.get("epochs"), optimizer, scheduler, begun, RAW in content
    )


def _begun(record: Mapping[str, Any], processes: Any) -> Dealing | None:
    """How the run of a checkpoint's record shared its batches when it began, and None where nothing says so.

    Earlier versions kept no steps: with them a run began anew with each start.

    Args:
        processes: that wrote the checkpoint.

    Raises:
        TypeError, KeyError: the record is damaged.
    """
    if processes is None:
        return None
    start = [record, *record.get("resumed", [])][-1]
    begun = start.get("begun") or {"processes": processes, "accumulate": start.get("accumulate", 1)}
    numbers = begun["processes"], begun["accumulate"], processes
    if not all(isinstance(number, int) and 0 < number < MOST for number in numbers):
        raise TypeError("no numbers of processes and batches")
    dealing = Dealing(begun["processes"], begun["accumulate"], begun["processes"])
    if dealing.batches_a_step % processes:
        raise TypeError("another number of processes than can share a step")
    return dealing


def shapes_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Name → shape of each tensor."""
    return {name: getattr(value, "shape", None) for name, value in state.items()}


def is_within_epoch(fit_loop: dict[str, Any]) -> bool:
    """Whether Lightning's state of the fit was saved before an epoch had ended, its validation included."""
    progress = fit_loop["epoch_progress"]["current"]
    return progress["ready"] != progress["processed"]


def last_resume_point(folder: RunFolder) -> ResumePoint | None:
    """The whole checkpoint of a run folder that came furthest."""
    whole = [file for file in folder.checkpoint_files() if zipfile.is_zipfile(file)]
    newest = whole[-1] if whole else None
    if folder.resume_file.is_file() and zipfile.is_zipfile(folder.resume_file):  # a FIFO would be waited for
        point = read_resume_point(folder.resume_file)
        if newest is None or (point.epochs, point.batches) > ((epoch_of(newest) or 0) + 1, 0):
            return point
    return read_resume_point(newest) if newest else None


def resume_within_epoch(checkpoint: dict[str, Any], trainer: pl.Trainer, data: Any) -> None:
    """Have Lightning and the loader start after the batches that a checkpoint has done.

    On another number of processes these are the batches of as many steps. Call it before Lightning takes its counters
    from `checkpoint`, for they are set here.

    Args:
        data: the run's `ClipDataModule`.
    """
    fit = checkpoint["loops"]["fit_loop"]
    if not is_within_epoch(fit):
        return
    progress = fit["epoch_loop.batch_progress"]
    done = whole = data.num_batches()
    if not progress["is_last_batch"]:
        share = data.dealing.share
        written = replace(data.dealing, processes=checkpoint.get(RANKS, trainer.world_size))
        steps = progress["current"]["processed"] // written.share
        done = min(steps, (whole - 1) // share) * share
    data.resume(fit["epoch_progress"]["current"]["processed"], done)
    progress["current"] = _counted(done)
    progress["total"] = _counted(progress["total"]["ready"])
    # A validation that is under way. Lightning would otherwise skip it after an epoch's last batch.
    fit["epoch_loop.val_loop.batch_progress"] = {
        "total": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
        "current": _counted(0),
        "is_last_batch": False,
    }
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]


def _counted(count: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), count)
