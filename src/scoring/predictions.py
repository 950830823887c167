"""Checkpoints -> their networks' probabilities for the clips of an LMDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.data.clip_dataset import ClipDataset
from src.data.device_features import Features
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.data.loading import open_dataset
from src.data.transforms import evaluation_chain
from src.errors import UserError
from src.learning.tasks import Task, build_task
from src.models.checkpoint import Checkpoint, read_checkpoint
from src.runs.devices import present_gpus
from src.scoring.forward_pass import batches_of, most_to_keep, outputs_of
from src.utils.memory import keep_freed_memory
from src.utils.progress import progress


@dataclass(frozen=True)
class InferenceOptions:
    """Which clips, and how networks run over them."""

    lmdb_path: str
    lbl_map: str
    num_timesteps: int = 501  # frames
    batch_size: int = 32
    num_workers: int = 4
    gpus: tuple[int, ...] = (0,)  # the first that is there is used
    features: Features = "auto"  # where spectrograms are made
    skip_bad_records: bool = False  # leave them out instead of stopping


@dataclass(frozen=True)
class Entry:
    """One network to score: a checkpoint's, or the one that its run began with."""

    path: Path  # of the checkpoint
    untrained: bool = False

    @property
    def name(self) -> str:
        """The `ckpt_path` of its row."""
        return str(self.path.parent / "untrained") if self.untrained else str(self.path)


@dataclass(frozen=True)
class Prediction:
    """One network's scores of all clips."""

    entry: Entry
    checkpoint: Checkpoint
    dataset: ClipDataset
    probabilities: np.ndarray  # (N, C) float32
    targets: np.ndarray  # (N, C) of 0 and 1, or (N,) class indices

    @property
    def task(self) -> Task:
        return build_task(self.checkpoint.config)

    @property
    def multi_hot(self) -> np.ndarray:
        """(N, C) targets of 0 and 1."""
        return self.task.multi_hot(self.targets)


def predictions(entries: Sequence[Entry], label_map: LabelMap, options: InferenceOptions) -> Iterator[Prediction]:
    """Predictions of all entries, each as soon as it is known, in one pass over the clips for each kind of data.

    Raises:
        UserError: before anything else is done, for a checkpoint that does not fit.
    """
    kinds = by_data(entries, label_map)
    gpus = present_gpus(options.gpus) if entries else []
    device = torch.device("cuda", gpus[0]) if gpus else torch.device("cpu")
    if not gpus:
        keep_freed_memory()
    one_network = OneNetwork(device)
    for networks in kinds:
        first = read_checkpoint(networks[0][0].path)
        task = build_task(first.config)
        dataset = open_for(first, label_map, options)
        batches = batches_of(dataset, options.batch_size, options.num_workers, device, options.features)
        outputs = outputs_of(
            [partial(one_network.of, alike[0]) for alike in networks], batches, len(dataset), most_to_keep(device)
        )
        with closing(outputs):  # its progress bar goes before an error is told
            for number, (output, alike) in enumerate(zip(outputs, networks)):
                if number == 0:
                    task.report_undefined(output.targets, label_map, options.lmdb_path)
                probabilities = task.probabilities(output.logits).numpy()
                if not np.isfinite(probabilities).all():
                    raise UserError(
                        f"{alike[0].path}: its network's outputs are not finite; is it of a run that "
                        "diverged, or damaged?"
                    )
                for entry in alike:
                    yield Prediction(entry, read_checkpoint(entry.path), dataset, probabilities, output.targets)


def by_data(entries: Sequence[Entry], label_map: LabelMap) -> list[list[list[Entry]]]:
    """Entries that share a network, of all that read the same: features, kind of target, and fold.

    Every checkpoint is read once here, and none is kept: there may be thousands.

    Raises:
        UserError: a checkpoint cannot be read, or does not fit the label map or its own configuration.
    """
    kinds: dict[Any, dict[Any, list[Entry]]] = {}
    with progress(len(entries), "checkpoints", "file", leave=False) as bar:
        for entry in entries:
            checkpoint = read_checkpoint(entry.path)
            checkpoint.require_label_map(label_map)
            checkpoint.require_fit()
            config = checkpoint.config
            kind = (config.audio_config, config.model.type, checkpoint.record.get("fold_index"))
            network = (config.model, checkpoint.seed) if entry.untrained else entry.path
            kinds.setdefault(kind, {}).setdefault(network, []).append(entry)
            bar.update()
    return [list(networks.values()) for networks in kinds.values()]


class OneNetwork:
    """The network in memory: the next one of the same architecture takes its place by its weights alone."""

    def __init__(self, device: torch.device):
        self._device = device
        self._network: nn.Module | None = None
        self._architecture: Any = None

    def of(self, entry: Entry) -> nn.Module:
        """The entry's network, ready to run."""
        checkpoint = read_checkpoint(entry.path)
        reusable = None if entry.untrained or checkpoint.architecture != self._architecture else self._network
        self._network = None  # one that is not reused is gone before another is made
        network = checkpoint.untrained_network() if entry.untrained else checkpoint.network(reusable)
        self._network, self._architecture = network.to(self._device).eval(), checkpoint.architecture
        return self._network


def open_for(checkpoint: Checkpoint, label_map: LabelMap, options: InferenceOptions) -> ClipDataset:
    """The evaluation clips as the checkpoint's configuration reads them; of ESC-50, those of its validation fold."""
    config = checkpoint.config
    fold = checkpoint.record.get("fold_index")
    if fold is not None and not any(found is not None for _, found in LMDBReader(options.lmdb_path).annotations()):
        fold = None  # another data set, all of which is new to it
    return open_dataset(
        replace(config.data, is_lmdb=True),
        options.lmdb_path,
        config.audio_config,
        label_map,
        config.model.type,
        evaluation_chain(options.num_timesteps),
        fold=fold,
        skip_bad_records=options.skip_bad_records,
        num_workers=options.num_workers,
    )
