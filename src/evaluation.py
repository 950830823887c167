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
from src.data.lmdb_store import LMDBReader, data_file
from src.data.loading import loader, open_dataset
from src.data.sampling import EpochSampler
from src.data.transforms import evaluation_chain
from src.devices import present_gpus
from src.errors import UserError
from src.files import whole_file
from src.metrics import RankingScores, ranking_scores
from src.progress import progress
from src.resampling import bootstrap, interval
from src.results import ResultsTable, best_of_each_run, export_path, find_checkpoints, row_name
from src.run_folder import epoch_of, validation_figure
from src.tasks import Task, build_task

log = logging.getLogger(__name__)

SCORES = ["mAP", "mAUC", "dprime", "ckpt_path"]
DETAILS = ["accuracy", "top5", "epoch", "val_figure", "num_train_clips", "num_eval_clips", "num_timesteps", "protocol",
           "fold", "cfg_file", "arch", "model_depth", "num_classes", "pretrained", "train_set_path", "train_data",
           "lmdb_path", "eval_data", "evaluated"]
INTERVALS = ["bootstrap", "bootstrap_seed",
             *(f"{name}_{end}" for name in ("mAP", "mAUC", "dprime") for end in ("low", "high"))]
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
    per_class: bool = False
    bootstrap: int = 0  # resamples of the clips for 95 % intervals; none with 0
    seed: int = 0  # of the resamples
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
    columns = list(row_name(checkpoints[0], options.levels)) + SCORES + DETAILS + INTERVALS * bool(options.bootstrap)
    table = ResultsTable(options.results_csv, columns, KEY)
    entries = [Entry(path) for path in checkpoints]
    if options.untrained:
        firsts = {path.parent: path for path in reversed(checkpoints)}
        entries = [Entry(path, untrained=True) for path in sorted(firsts.values())] + entries
    todo = [entry for entry in entries if options.overwrite or not is_scored(entry, table, options)]
    if len(todo) < len(entries):
        log.info("%s already holds %d of %d rows (--overwrite scores them again)", options.results_csv,
                 len(entries) - len(todo), len(entries))
    for prediction in predictions(todo, label_map, options):
        write_up(prediction, table, options)
    for entry in entries:
        row = table.get(**key_of(entry, options))
        figures = {"mAP": row["mAP"], "mAUC": row["mAUC"], "d′": row["dprime"], "accuracy": row.get("accuracy")}
        log.info("%s  %s  %s", row["Model"], "  ".join(f"{name} {float(value):.4f}" for name, value in figures.items()
                                                       if value), Path(entry.name).name)
    log.info("results: %s", options.results_csv)


def is_scored(entry: Entry, table: ResultsTable, options: EvaluationOptions) -> bool:
    """Whether the table holds the entry's row, newer than the files, and what else is asked for is there."""
    row = table.get(**key_of(entry, options))
    if row is None:
        return False
    if options.bootstrap and (row.get("bootstrap"), row.get("bootstrap_seed")) != (str(options.bootstrap),
                                                                                   str(options.seed)):
        return False
    for asked, what in ((options.overlap_analysis, "overlap"), (options.per_class, "per_class")):
        if asked and not ResultsTable(beside(options.results_csv, what), [], KEY).get(**key_of(entry, options)):
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


def predictions(entries: Sequence[Entry], label_map: LabelMap, options: EvaluationOptions) -> Iterator[Prediction]:
    """Predictions of all entries, in groups that share one pass over the clips."""
    gpus = present_gpus(options.gpus) if entries else []
    device = torch.device("cuda", gpus[0]) if gpus else torch.device("cpu")
    datasets: dict[Any, ClipDataset] = {}
    for start in range(0, len(entries), AT_ONCE):
        group = [(entry, fitting_checkpoint(entry.path, label_map)) for entry in entries[start : start + AT_ONCE]]
        for kind, members in by_data(group).items():
            if kind not in datasets:
                datasets = {kind: open_for(members[0][1], label_map, options)}  # the last one is let go
            dataset = datasets[kind]
            networks = {network_key(*pair): pair for pair in members}  # runs of one seed begin with one network
            logits, targets = predict([built(*pair) for pair in networks.values()], dataset, options, device,
                                      f"clips × {len(networks)} networks")
            of_key = dict(zip(networks, logits))
            task = build_task(members[0][1].config)
            if start == 0:
                task.report_undefined(targets, label_map, options.lmdb_path)
            for entry, checkpoint in members:
                probabilities = task.probabilities(of_key[network_key(entry, checkpoint)]).numpy()
                if not np.isfinite(probabilities).all():
                    raise UserError(f"{entry.path}: its network's outputs are not finite; is it of a run that "
                                    "diverged, or damaged?")
                yield Prediction(entry, checkpoint, dataset, probabilities, targets)


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


def by_data(group: Sequence[tuple[Entry, Checkpoint]]) -> dict[Any, list[tuple[Entry, Checkpoint]]]:
    """Split a group by what its networks read: features, kind of target, and fold."""
    kinds: dict[Any, list[tuple[Entry, Checkpoint]]] = {}
    for entry, checkpoint in group:
        kind = (checkpoint.config.audio_config, checkpoint.config.model.type, checkpoint.record.get("fold_index"))
        kinds.setdefault(kind, []).append((entry, checkpoint))
    return kinds


def open_for(checkpoint: Checkpoint, label_map: LabelMap, options: EvaluationOptions) -> ClipDataset:
    """The evaluation clips as the checkpoint's configuration reads them; of ESC-50, those of its validation fold."""
    config = checkpoint.config
    fold = checkpoint.record.get("fold_index")
    if fold is not None and not any(found is not None for _, found in LMDBReader(options.lmdb_path).annotations()):
        fold = None  # another data set, all of which is new to it
    return open_dataset(replace(config.data, is_lmdb=True), options.lmdb_path, config.audio_config, label_map,
                        config.model.type, evaluation_chain(options.num_timesteps), fold=fold)


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


def write_up(prediction: Prediction, table: ResultsTable, options: EvaluationOptions) -> None:
    """Score one network's predictions; write its row, and what else was asked for."""
    entry, checkpoint, probabilities = prediction.entry, prediction.checkpoint, prediction.probabilities
    config, record, multi_hot = checkpoint.config, checkpoint.record, prediction.multi_hot
    scores = ranking_scores(probabilities, multi_hot)
    row = row_name(entry.path, options.levels) | as_columns(scores) | key_of(entry, options) | {
        "epoch": "" if entry.untrained else epoch_of(entry.path),
        "val_figure": "" if entry.untrained else validation_figure(entry.path),
        "num_train_clips": 0 if entry.untrained else record.get("num_train_clips", ""),
        "num_eval_clips": len(prediction.dataset),
        "protocol": config.protocol,
        "fold": "" if record.get("fold_index") is None else record["fold_index"],
        "cfg_file": record.get("cfg_file", ""),
        "arch": config.model.arch,
        "model_depth": config.model.model_depth,
        "num_classes": config.model.num_classes,
        "pretrained": config.model.pretrained or "",
        "train_set_path": config.data.source("train") or "",
        "train_data": (record.get("data") or {}).get("train") or "",
        "eval_data": prediction.dataset.fingerprint() or "",
        "evaluated": datetime.now(timezone.utc).isoformat(),
    } | prediction.task.more_scores(probabilities, prediction.targets)
    row |= dict.fromkeys(INTERVALS, "")  # not those of earlier scores
    if options.bootstrap:
        row |= intervals(probabilities, multi_hot, options.bootstrap, options.seed)
    if options.export_dir and not entry.untrained:
        target = export_path(options.export_dir, entry.path, scores.mAP, scores.dprime, config.model.num_classes)
        with whole_file(target) as temporary:
            torch.save({name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}, temporary)
        log.info("weights: %s", target)
    if options.overlap_analysis:
        write_overlap_analysis(row, multi_hot, probabilities, prediction.dataset, options.results_csv)
    if options.per_class:
        write_per_class(row, scores, prediction, options.results_csv)
    table.put([row])


def intervals(probabilities: np.ndarray, multi_hot: np.ndarray, resamples: int, seed: int) -> dict[str, float]:
    """95 % intervals as columns of a row."""
    resampled = bootstrap(probabilities, multi_hot, resamples, seed)
    columns: dict[str, float] = {"bootstrap": resamples, "bootstrap_seed": seed}
    for name, values in (("mAP", resampled.mAP), ("mAUC", resampled.mAUC), ("dprime", resampled.dprime)):
        columns[f"{name}_low"], columns[f"{name}_high"] = interval(values)
    return columns


def as_columns(scores: RankingScores) -> dict[str, float]:
    """mAP, mAUC and d′ as columns of a row."""
    return {"mAP": scores.mAP, "mAUC": scores.mAUC, "dprime": scores.dprime}


def beside(results_csv: str | Path, what: str) -> Path:
    """The table of further figures beside a results table."""
    return Path(results_csv).with_name(f"{Path(results_csv).stem}_{what}.csv")


def write_overlap_analysis(row: dict[str, Any], targets: np.ndarray, probabilities: np.ndarray, dataset: ClipDataset,
                           results_csv: str) -> None:
    """Score clips of one, two, three … labelled events apart, into `<results_csv>_overlap.csv`.

    `classes` is the number of classes with a positive clip among them, over which mAP is the mean.
    """
    path = beside(results_csv, "overlap")
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


def write_per_class(row: dict[str, Any], scores: RankingScores, prediction: Prediction, results_csv: str) -> None:
    """A row for each class with clips, into `<results_csv>_per_class.csv`."""
    path = beside(results_csv, "per_class")
    table = ResultsTable(path, ["Model", "class", "clips", "AP", "AUC", "accuracy", *KEY], [*KEY, "class"])
    recalls = prediction.task.class_accuracy(prediction.probabilities, prediction.targets)
    clips = prediction.multi_hot.sum(axis=0)
    names = prediction.dataset.label_map.names
    table.put([
        row | {"class": names[c], "clips": int(clips[c]), "AP": scores.ap[c], "AUC": scores.auc[c],
               "accuracy": "" if recalls is None else recalls[c]}
        for c in np.flatnonzero(clips)
    ])
    log.info("by class: %s", path)
