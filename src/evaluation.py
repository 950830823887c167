"""Checkpoints -> scores on an LMDB, rows of results.csv, and exported weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from src.checkpoints import Checkpoint, read_checkpoint
from src.data.clip_dataset import ClipDataset
from src.data.labels import LabelMap
from src.data.lmdb_store import data_file
from src.data.loading import loader, open_dataset
from src.data.sampling import EpochSampler
from src.data.transforms import evaluation_chain
from src.devices import present_gpus
from src.files import whole_file
from src.metrics import RankingScores, ranking_scores
from src.progress import progress
from src.results import (
    ResultsTable,
    best_of_each_run,
    export_path,
    find_checkpoints,
    row_name,
)
from src.run_folder import epoch_of, validation_figure
from src.tasks import build_task

log = logging.getLogger(__name__)

SCORES = ["mAP", "mAUC", "dprime", "ckpt_path"]
DETAILS = ["epoch", "val_figure", "num_train_clips", "num_eval_clips", "num_timesteps", "protocol", "lmdb_path",
           "evaluated"]
KEY = ["ckpt_path", "lmdb_path", "num_timesteps"]
AT_ONCE = 8  # networks in memory that share one pass over the clips


@dataclass(frozen=True)
class EvaluationOptions:
    """The flags of an evaluation script."""

    lmdb_path: str
    lbl_map: str
    ckpt_path: str | None = None  # one checkpoint, or …
    exp_dir: str | None = None  # … all of the runs below this folder
    levels: int = 2  # folders between exp_dir and a run's ckpts/
    results_csv: str = "results.csv"
    num_timesteps: int = 501  # frames
    export_dir: str | None = None  # where weights are exported to, if they are
    overlap_analysis: bool = False
    best_only: bool = False
    untrained: bool = False
    overwrite: bool = False
    batch_size: int = 32
    num_workers: int = 4
    gpus: tuple[int, ...] = (0,)  # the first that is there is used


@dataclass(frozen=True)
class Entry:
    """One network to score: a checkpoint's, or the one that its run began with."""

    path: Path  # of the checkpoint
    untrained: bool = False

    @property
    def name(self) -> str:
        """The `ckpt_path` of its row."""
        return str(self.path.parent / "untrained") if self.untrained else str(self.path)


def evaluate(options: EvaluationOptions) -> None:
    """Score checkpoints and write a row for each into `options.results_csv`, as soon as it is known.

    What the table already holds is not scored again, unless the checkpoint or the LMDB is newer.

    Raises:
        UserError: a file is missing or does not fit; rows written before stay.
    """
    if options.ckpt_path:
        checkpoints = [Path(options.ckpt_path)]
    else:
        checkpoints = find_checkpoints(options.exp_dir, options.levels)
        if options.best_only:
            checkpoints = best_of_each_run(checkpoints)
    label_map = LabelMap.load(options.lbl_map)
    columns = list(row_name(checkpoints[0], options.levels)) + SCORES + DETAILS
    table = ResultsTable(options.results_csv, columns, KEY)
    entries = [Entry(path) for path in checkpoints]
    if options.untrained:
        firsts = {path.parent: path for path in reversed(checkpoints)}
        entries = [Entry(path, untrained=True) for path in sorted(firsts.values())] + entries
    todo = [entry for entry in entries if options.overwrite or not is_scored(entry, table, options)]
    if len(todo) < len(entries):
        log.info("%s already holds %d of %d rows (--overwrite scores them again)", options.results_csv,
                 len(entries) - len(todo), len(entries))
    score_all(todo, label_map, table, options)
    for entry in entries:
        row = table.get(**key_of(entry, options))
        log.info("%s  mAP %.4f  mAUC %.4f  d′ %.4f  %s", row["Model"], float(row["mAP"]), float(row["mAUC"]),
                 float(row["dprime"]), Path(entry.name).name)
    log.info("results: %s", options.results_csv)


def is_scored(entry: Entry, table: ResultsTable, options: EvaluationOptions) -> bool:
    """Whether the table holds the entry's row, newer than the files, and what else is asked for is there."""
    row = table.get(**key_of(entry, options))
    if row is None or options.overlap_analysis:
        return False
    changed = max(os.path.getmtime(path) for path in (entry.path, data_file(options.lmdb_path)) if path.exists())
    if datetime.fromisoformat(row["evaluated"]).timestamp() < changed:
        return False
    return options.export_dir is None or entry.untrained or bool(
        list(export_path(options.export_dir, entry.path, 0, 0, 0).parent.glob(
            f"mAP={float(row['mAP']):.4f}_dprime={float(row['dprime']):.4f}_num_classes=*.pth"))
    )


def key_of(entry: Entry, options: EvaluationOptions) -> dict[str, Any]:
    """What tells the entry's row apart."""
    return {"ckpt_path": entry.name, "lmdb_path": options.lmdb_path, "num_timesteps": options.num_timesteps}


def score_all(entries: Sequence[Entry], label_map: LabelMap, table: ResultsTable, options: EvaluationOptions) -> None:
    """Score entries in groups that share one pass over the clips."""
    gpus = present_gpus(options.gpus) if entries else []
    device = torch.device("cuda", gpus[0]) if gpus else torch.device("cpu")
    dataset: ClipDataset | None = None
    for start in range(0, len(entries), AT_ONCE):
        group = [(entry, fitting_checkpoint(entry.path, label_map)) for entry in entries[start : start + AT_ONCE]]
        for checkpoints in by_data(group):
            dataset = open_for(checkpoints[0][1], label_map, options, dataset)
            networks = {network_key(*pair): pair for pair in checkpoints}  # runs of one seed begin with one network
            logits, targets = predict([built(*pair) for pair in networks.values()], dataset, options, device,
                                      f"clips × {len(networks)} networks")
            of_key = dict(zip(networks, logits))
            if start == 0:
                build_task(checkpoints[0][1].config).report_undefined(targets, label_map, options.lmdb_path)
            for entry, checkpoint in checkpoints:
                write_up(entry, checkpoint, of_key[network_key(entry, checkpoint)], targets, dataset, table, options)


def built(entry: Entry, checkpoint: Checkpoint) -> nn.Module:
    """The entry's network."""
    return checkpoint.untrained_network() if entry.untrained else checkpoint.network()


def network_key(entry: Entry, checkpoint: Checkpoint) -> Any:
    """Equal for entries whose networks are the same."""
    return (checkpoint.config.model, checkpoint.record.get("seed")) if entry.untrained else entry.path


def fitting_checkpoint(path: Path, label_map: LabelMap) -> Checkpoint:
    """Read a checkpoint and see that the label map is the one it was trained with."""
    checkpoint = read_checkpoint(path)
    checkpoint.require_label_map(label_map)
    return checkpoint


def by_data(group: Sequence[tuple[Entry, Checkpoint]]) -> Iterator[list[tuple[Entry, Checkpoint]]]:
    """Split a group by what its networks read: features and kind of target."""
    kinds: dict[Any, list[tuple[Entry, Checkpoint]]] = {}
    for entry, checkpoint in group:
        kinds.setdefault((checkpoint.config.audio_config, checkpoint.config.model.type), []).append((entry, checkpoint))
    yield from kinds.values()


def open_for(checkpoint: Checkpoint, label_map: LabelMap, options: EvaluationOptions,
             already_open: ClipDataset | None) -> ClipDataset:
    """The evaluation clips as the checkpoint's configuration reads them."""
    audio, target_type = checkpoint.config.audio_config, checkpoint.config.model.type
    if already_open is not None and (already_open.audio, already_open.target_type) == (audio, target_type):
        return already_open
    data = replace(checkpoint.config.data, is_lmdb=True)
    transform = evaluation_chain(options.num_timesteps)
    return open_dataset(data, options.lmdb_path, audio, label_map, target_type, transform)


@torch.inference_mode()
def predict(networks: Sequence[nn.Module], dataset: ClipDataset, options: EvaluationOptions, device: torch.device,
            description: str) -> tuple[list[torch.Tensor], np.ndarray]:
    """Logits of several networks in one pass over the clips.

    Returns:
        an (N, C) float32 tensor of logits for each network, and the targets, (N, C) or (N,).
    """
    networks = [network.to(device).eval() for network in networks]
    batches: DataLoader = loader(dataset, EpochSampler(len(dataset), 0, training=False), options.batch_size,
                                 options.num_workers)
    logits: list[list[torch.Tensor]] = [[] for _ in networks]
    targets = []
    with progress(len(dataset), description, "clip") as bar:
        for inputs, batch_targets in batches:
            inputs = inputs.to(device, non_blocking=True)
            for collected, network in zip(logits, networks):
                collected.append(network(inputs).float().cpu())
            targets.append(batch_targets.numpy())
            bar.update(len(inputs))
    return [torch.cat(parts) for parts in logits], np.concatenate(targets)


def write_up(entry: Entry, checkpoint: Checkpoint, logits: torch.Tensor, targets: np.ndarray, dataset: ClipDataset,
             table: ResultsTable, options: EvaluationOptions) -> None:
    """Score one network's logits; write its row, and its weights and overlap analysis where asked for."""
    task = build_task(checkpoint.config)
    probabilities = task.probabilities(logits).numpy()
    scores = task.scores(probabilities, targets)
    row = row_name(entry.path, options.levels) | as_columns(scores) | key_of(entry, options) | {
        "epoch": "" if entry.untrained else epoch_of(entry.path),
        "val_figure": "" if entry.untrained else validation_figure(entry.path),
        "num_train_clips": 0 if entry.untrained else checkpoint.record.get("num_train_clips", ""),
        "num_eval_clips": len(dataset),
        "protocol": checkpoint.config.protocol,
        "evaluated": datetime.now(timezone.utc).isoformat(),
    }
    if options.export_dir and not entry.untrained:
        target = export_path(options.export_dir, entry.path, scores.mAP, scores.dprime,
                             checkpoint.config.model.num_classes)
        with whole_file(target) as temporary:
            torch.save({name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}, temporary)
        log.info("weights: %s", target)
    if options.overlap_analysis:
        write_overlap_analysis(row, task.multi_hot(targets), probabilities, dataset, options.results_csv)
    table.put([row])


def as_columns(scores: RankingScores) -> dict[str, float]:
    """mAP, mAUC and d′ as columns of a row."""
    return {"mAP": scores.mAP, "mAUC": scores.mAUC, "dprime": scores.dprime}


def write_overlap_analysis(row: dict[str, Any], targets: np.ndarray, probabilities: np.ndarray, dataset: ClipDataset,
                           results_csv: str) -> None:
    """Score clips of one, two, three … labelled events apart, into `<results_csv>_overlap.csv`.

    `classes` is the number of classes with a positive clip among them, over which mAP is the mean.
    """
    path = Path(results_csv).with_name(f"{Path(results_csv).stem}_overlap.csv")
    columns = ["Model", "events", "clips", "classes", "mAP", "mAUC", "dprime", *KEY]
    table = ResultsTable(path, columns, [*KEY, "events"])
    events = np.array([len(dataset.class_indices(index)) for index in range(len(dataset))])
    rows = []
    for number in np.unique(events):
        chosen = events == number
        scores = ranking_scores(probabilities[chosen], targets[chosen])
        rows.append(row | as_columns(scores) | {
            "events": int(number), "clips": int(chosen.sum()), "classes": int(np.isfinite(scores.ap).sum())})
    table.put(rows)
    log.info("by number of events: %s", path)
