"""Checkpoints -> scores on an LMDB, rows of results.csv, and exported weights."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from src.data.labels import LabelMap
from src.data.lmdb.store import data_file
from src.learning.metrics import ranking_scores
from src.runs.folder import epoch_of, validation_figure
from src.scoring.predictions import Entry, InferenceOptions, Prediction, predictions
from src.scoring.results_table import ResultsTable, best_of_each_run, export_path, find_checkpoints, row_name
from src.scoring.score_tables import (
    INTERVALS,
    KEY,
    as_columns,
    beside,
    intervals,
    write_overlap_analysis,
    write_per_class,
)
from src.utils.files import whole_file

log = logging.getLogger(__name__)

SCORES = ["mAP", "mAUC", "dprime", "ckpt_path"]
DETAILS = [
    "accuracy",
    "top5",
    "epoch",
    "val_figure",
    "num_train_clips",
    "num_eval_clips",
    "num_timesteps",
    "protocol",
    "fold",
    "cfg_file",
    "arch",
    "model_depth",
    "num_classes",
    "pretrained",
    "train_set_path",
    "train_data",
    "lmdb_path",
    "eval_data",
    "evaluated",
]


@dataclass(frozen=True)
class EvaluationOptions(InferenceOptions):
    """The flags of an evaluation script."""

    ckpt_path: str | None = None  # one checkpoint, or …
    exp_dir: str | None = None  # … all of the runs below this folder
    levels: int = 2  # folders between exp_dir and a run's ckpts/
    results_csv: str = "results.csv"
    export_dir: str | None = None  # where weights are exported to, if they are
    overlap_analysis: bool = False
    best_only: bool = False
    untrained: bool = False
    overwrite: bool = False
    per_class: bool = False
    bootstrap: int = 0  # resamples of the clips for 95 % intervals; none with 0
    seed: int = 0  # of the resamples


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
        log.info(
            "%s already holds %d of %d rows (--overwrite scores them again)",
            options.results_csv,
            len(entries) - len(todo),
            len(entries),
        )
    for prediction in predictions(todo, label_map, options):
        write_up(prediction, table, options)
    for entry in entries:
        row = table.get(**key_of(entry, options))
        figures = {"mAP": row["mAP"], "mAUC": row["mAUC"], "d′": row["dprime"], "accuracy": row.get("accuracy")}
        log.info(
            "%s  %s  %s",
            row["Model"],
            "  ".join(f"{name} {float(value):.4f}" for name, value in figures.items() if value),
            Path(entry.name).name,
        )
    log.info("results: %s", options.results_csv)


def is_scored(entry: Entry, table: ResultsTable, options: EvaluationOptions) -> bool:
    """Whether the table holds the entry's row, newer than the files, and what else is asked for is there."""
    row = table.get(**key_of(entry, options))
    if row is None:
        return False
    if options.bootstrap and (row.get("bootstrap"), row.get("bootstrap_seed")) != (
        str(options.bootstrap),
        str(options.seed),
    ):
        return False
    for asked, what in ((options.overlap_analysis, "overlap"), (options.per_class, "per_class")):
        if asked and not ResultsTable(beside(options.results_csv, what), [], KEY).get(**key_of(entry, options)):
            return False
    changed = max(os.path.getmtime(path) for path in (entry.path, data_file(options.lmdb_path)) if path.exists())
    if datetime.fromisoformat(row["evaluated"]).timestamp() < changed:
        return False
    return (
        options.export_dir is None
        or entry.untrained
        or bool(
            list(
                export_path(options.export_dir, entry.path, 0, 0, 0).parent.glob(
                    f"mAP={float(row['mAP']):.4f}_dprime={float(row['dprime']):.4f}_num_classes=*.pth"
                )
            )
        )
    )


def key_of(entry: Entry, options: EvaluationOptions) -> dict[str, Any]:
    """What tells the entry's row apart."""
    return {"ckpt_path": entry.name, "lmdb_path": options.lmdb_path, "num_timesteps": options.num_timesteps}


def write_up(prediction: Prediction, table: ResultsTable, options: EvaluationOptions) -> None:
    """Score one network's predictions; write its row, and what else was asked for."""
    entry, checkpoint, probabilities = prediction.entry, prediction.checkpoint, prediction.probabilities
    config, record, multi_hot = checkpoint.config, checkpoint.record, prediction.multi_hot
    scores = ranking_scores(probabilities, multi_hot)
    row = (
        row_name(entry.path, options.levels)
        | as_columns(scores)
        | key_of(entry, options)
        | {
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
        }
        | prediction.task.more_scores(probabilities, prediction.targets)
    )
    row |= dict.fromkeys(INTERVALS, "")  # not those of earlier scores
    if options.bootstrap:
        row |= intervals(probabilities, multi_hot, options.bootstrap, options.seed)
    if options.export_dir and not entry.untrained:
        target = export_path(options.export_dir, entry.path, scores.mAP, scores.dprime, config.model.num_classes)
        with whole_file(target) as temporary:
            torch.save({name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}, temporary)
        log.info("weights: %s", target)
    if options.overlap_analysis:
        write_overlap_analysis(row, prediction, options.results_csv)
    if options.per_class:
        write_per_class(row, scores, prediction, options.results_csv)
    table.put([row])
