"""Going on with a run: from which checkpoint, and from where within an epoch.

Within an epoch, a checkpoint says how many batches of it each rank has done: the loader goes on with
the next one, since the order, every clip's draws, mixup's and dropout's follow from seed, epoch, record
and batch alone. After an epoch's last batch its validation is repeated from the start.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from src.errors import UserError
from src.models.checkpoint import WEIGHTS_PREFIX
from src.models.safe_loading import read_torch_file
from src.models.weights import is_usable, misfit
from src.runs.folder import RunFolder, epoch_of

RANKS = "ranks"  # key of a checkpoint: how many processes wrote it


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to go on from, and how far its run had come."""

    path: Path
    epochs: int  # completed
    batches: int  # done of the next one
    early: bool  # early stopping has ended the run
    weights: dict[str, torch.Tensor]

    def require_trainable(self, network: torch.nn.Module, epochs: int) -> None:
        """Refuse a checkpoint of another network or of a longer run, before anything is written."""
        problem = misfit(network, self.weights)
        if problem:
            raise UserError(f"{self.path}: is of another network than the cfg's: {problem}")
        if self.epochs >= epochs:
            raise UserError(f"{self.path}: has {self.epochs} epochs behind it, and --epochs is {epochs}")


def resume_point(path: Path) -> ResumePoint:
    """What a checkpoint says of its run.

    Raises:
        UserError: it cannot be gone on from.
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
            f"{path}: is of an early Lightning, {content.get('pytorch-lightning_version')}, and cannot be "
            "resumed; export its weights with --export_weights and start from them with model.pretrained"
        )
    try:
        fit = content["loops"]["fit_loop"]
        epochs = fit["epoch_progress"]["current"]["processed"]
        batches = fit["epoch_loop.batch_progress"]["current"]["processed"] if is_within_epoch(fit) else 0
        early = any(state.get("stopped_epoch") for state in content["callbacks"].values())
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: does not say how far its run had come; the file is damaged") from None
    if not all(
        is_usable(value) for value in (*content["state_dict"].values(), *tensors_in(content["optimizer_states"]))
    ):
        raise UserError(
            f"{path}: cannot be resumed from: it holds something else than tensors of finite numbers; is it damaged?"
        )
    weights = {str(name).removeprefix(WEIGHTS_PREFIX): value for name, value in content["state_dict"].items()}
    return ResumePoint(path, epochs, batches, early, weights)


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested dicts and lists."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (dict, list, tuple)):
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(inner)


def is_within_epoch(fit_loop: dict[str, Any]) -> bool:
    """Whether Lightning's state of the fit was saved before an epoch had ended, its validation included."""
    progress = fit_loop["epoch_progress"]["current"]
    return progress["ready"] != progress["processed"]


def last_checkpoint(folder: RunFolder) -> Path | None:
    """The whole checkpoint of a run folder that came furthest."""
    whole = [file for file in folder.checkpoint_files() if zipfile.is_zipfile(file)]
    newest = whole[-1] if whole else None
    if not zipfile.is_zipfile(folder.resume_file):
        return newest
    point = resume_point(folder.resume_file)
    if newest is None or (point.epochs, point.batches) > (epoch_of(newest) + 1, 0):
        return folder.resume_file
    return newest


def go_on_within_epoch(checkpoint: dict[str, Any], trainer: pl.Trainer) -> None:
    """Have Lightning and the loader go on after the batches that a checkpoint has done.

    On another number of ranks these are as many batches as hold the same records, rounded down. Called
    before Lightning takes its counters from `checkpoint`, which are set here.
    """
    fit = checkpoint["loops"]["fit_loop"]
    if not is_within_epoch(fit):
        return
    progress = fit["epoch_loop.batch_progress"]
    whole = trainer.datamodule.num_batches(trainer.world_size)
    done = whole
    if not progress["is_last_batch"]:
        done = progress["current"]["processed"] * checkpoint.get(RANKS, trainer.world_size) // trainer.world_size
        done = min(done, whole - 1) // trainer.accumulate_grad_batches * trainer.accumulate_grad_batches
    trainer.datamodule.resume(fit["epoch_progress"]["current"]["processed"], done)
    progress["current"] = _counted(done)
    progress["total"] = _counted(progress["total"]["ready"])
    # A validation that is under way: Lightning would otherwise skip it after an epoch's last batch.
    fit["epoch_loop.val_loop.batch_progress"] = {
        "total": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
        "current": _counted(0),
        "is_last_batch": False,
    }
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]


def _counted(count: int) -> dict[str, int]:
    return {"ready": count, "started": count, "processed": count, "completed": count}
