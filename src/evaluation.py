"""Checkpoints -> scores on an LMDB or a manifest, rows of results.csv, and exported weights."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from src.config.sections import AudioConfig
from src.data.soundscapes.jams import jams_files
from src.learning.metrics import ranking_scores
from src.models.checkpoint import read_checkpoint
from src.models.torch_files import digest_of, torch_file_digest, write_torch_file
from src.models.weights import weights_of
from src.runs.folder import checkpoint_at, epoch_of, validation_figure
from src.scoring import score_tables
from src.scoring.event_tables import EVENT_INTERVALS, event_intervals, write_event_scores, write_slices
from src.scoring.events.scores import EVENT_SCORES
from src.scoring.predictions import Candidate, InferenceOptions, Prediction, frames_of_clips, predictions
from src.scoring.results_table import (
    ResultsTable,
    best_of_each_run,
    export_folder,
    export_path,
    find_checkpoints,
    row_name,
    validated_on,
)
from src.scoring.score_tables import INTERVALS, SCORES
from src.utils.files import require_writable

log = logging.getLogger(__name__)

COLUMNS = (  # behind those that say which run it is
    "mAP mAUC dprime ckpt_path accuracy top5 precision recall F1 epoch val_figure num_train_clips num_eval_clips "
    "num_timesteps protocol fold validated_on cfg_file arch model_depth num_classes pretrained train_set_path "
    "train_data lmdb_path eval_data evaluated"
).split()
DIGESTS = ["weights_digest", "labels_digest", "ckpt_digest"]  # the last columns: a cut is seen in them


@dataclass(frozen=True)
class EvaluationOptions(InferenceOptions):
    """The flags of an evaluation script."""

    ckpt_path: str | None = None  # one checkpoint, or …
    exp_dir: str | None = None  # … all of the runs below this folder
    levels: int = 2  # folders above ckpts/ that name a row, see `row_name`
    results_csv: str = "results.csv"
    export_dir: str | None = None  # where weights are exported to, if they are
    overlap_analysis: bool = False
    best_only: bool = False
    untrained: bool = False
    overwrite: bool = False
    per_class: bool = False
    bootstrap: int = 0  # resamples of the clips for 95 % intervals, or 0 for none
    seed: int = 0  # of the resamples
    calibration: bool = False  # also the expected calibration error, and a picture of it
    slices: str | Literal[False] | None = None  # a folder of JAMS, or False: scores of parts of the events too


def evaluate(options: EvaluationOptions) -> None:
    """Score checkpoints and write a row for each into `options.results_csv`, as soon as it is known.

    What the table already holds is not scored again, unless the checkpoint or the clips are others. Without clips to
    score on, weights are exported, and nothing else is done.

    Raises:
        UserError: a file is missing, does not fit or cannot be written. Rows written before stay.
    """
    if options.exp_dir is None:
        checkpoints = [checkpoint_at(options.ckpt_path or "")]
    else:
        checkpoints = find_checkpoints(options.exp_dir)
        if options.best_only:
            checkpoints = best_of_each_run(checkpoints)
    if not options.source:
        export_alone(checkpoints, options)
    elif options.num_timesteps:
        score(checkpoints, options)
    else:
        for num_timesteps, alike in by_frames(checkpoints, options).items():
            score(alike, replace(options, num_timesteps=num_timesteps))


def by_frames(checkpoints: Sequence[Path], options: EvaluationOptions) -> dict[int, list[Path]]:
    """Checkpoints by the number of frames that are scored by default. One of each run is read for it."""
    frames: dict[AudioConfig, int] = {}
    found: dict[int, list[Path]] = {}
    for _, of_run in itertools.groupby(checkpoints, key=lambda path: path.parent):
        paths = list(of_run)
        checkpoint = read_checkpoint(paths[0])
        audio = checkpoint.config.audio_config
        if audio not in frames:
            frames[audio] = frames_of_clips(checkpoint, options)
        found.setdefault(frames[audio], []).extend(paths)
    return found


def score(checkpoints: Sequence[Path], options: EvaluationOptions) -> None:
    """Score checkpoints on as many frames, as `evaluate` does."""
    asked_for = INTERVALS * bool(options.bootstrap) + ["ece"] * options.calibration
    asked_for += (list(EVENT_SCORES) + EVENT_INTERVALS * bool(options.bootstrap)) * options.events
    columns = list(row_name(checkpoints[0], options.levels)) + COLUMNS + asked_for + DIGESTS
    table = ResultsTable(options.results_csv, columns, needed=("Model", *SCORES))
    candidates = [Candidate(path) for path in checkpoints]
    if options.untrained:
        firsts = {path.parent: path for path in reversed(checkpoints)}
        candidates = [Candidate(path, untrained=True) for path in sorted(firsts.values())] + candidates
    todo = candidates
    if table.rows and not options.overwrite:
        eval_data = options.fingerprint()
        todo = [candidate for candidate in candidates if not is_scored(candidate, table, eval_data, options)]
    if len(todo) < len(candidates):
        held = f"{len(candidates) - len(todo)} of {len(candidates)} rows"
        log.info("%s already holds %s (--overwrite scores them again)", options.results_csv, held)
    if options.slices:  # what is wrong with files is told now, and not after a pass over the clips
        jams_files(Path(options.slices))
    for what in further_tables(options):
        score_tables.table_beside(options.results_csv, what)
    if todo:
        paths = {candidate.path.parent: candidate.path for candidate in todo}.values()  # one of each run
        require_writable(
            options.results_csv,
            *(score_tables.beside(options.results_csv, what) for what in further_tables(options)),
            *(export_path(options.export_dir, path, 0, 0, 0) for path in paths if options.export_dir),
        )
    for prediction in predictions(todo, options):
        write_up(prediction, table, options)
    for candidate in candidates:
        row = table.get(**key_of(candidate, options)) or {}
        figures = {"mAP": row["mAP"], "mAUC": row["mAUC"], "d′": row["dprime"], "accuracy": row.get("accuracy")}
        if options.events:
            figures |= {name: row[name] for name in ("psds1", "psds2", "segment_f_macro")}
        shown = "  ".join(f"{name} {float(value):.4f}" for name, value in figures.items() if value)
        log.info("%s  %s  %s", row["Model"], shown, Path(candidate.name).name)
    log.info("results: %s", options.results_csv)


def export_alone(checkpoints: Sequence[Path], options: EvaluationOptions) -> None:
    """Write the weights of checkpoints that are not scored, under the checkpoints' own names.

    Raises:
        UserError: a checkpoint cannot be read or does not fit, or a file cannot be written.
    """
    assert options.export_dir is not None
    folders = [export_folder(options.export_dir, path) for path in checkpoints]
    require_writable(*(folder / "weights.pth" for folder in dict.fromkeys(folders)))
    log.info("no --lmdb_path or --manifest: weights are exported, and nothing is scored")
    for path, folder in zip(checkpoints, folders):
        checkpoint = read_checkpoint(path)
        target = folder / f"{path.stem}_num_classes={checkpoint.config.model.num_classes}.pth"
        write_torch_file(target, weights_of(checkpoint.network()))
        log.info("weights: %s", target)


def is_scored(candidate: Candidate, table: ResultsTable, eval_data: str, options: EvaluationOptions) -> bool:
    """Whether the table holds the candidate's row, of these very files, and what else is asked for is there.

    The files' own contents decide. A row of an earlier version has no digest, and is made anew.

    Args:
        eval_data: fingerprint of the clips.
    """
    key = key_of(candidate, options)
    row = table.get(**key)
    if row is None or not candidate.path.is_file():
        return False
    classes = read_checkpoint(candidate.path).classes(options.lbl_map)
    sources = {"eval_data": eval_data, "labels_digest": digest_of(classes.names), "ckpt_digest": candidate.digest()}
    if not sources.items() <= row.items():
        return False
    bootstrapped = row.get("bootstrap"), row.get("bootstrap_seed")
    if options.bootstrap and bootstrapped != (str(options.bootstrap), str(options.seed)):
        return False
    if options.bootstrap and row.get("accuracy") and not row.get("accuracy_low"):  # of an earlier version
        return False
    if options.events and not (row.get(EVENT_SCORES[0]) and (not options.bootstrap or row.get(EVENT_INTERVALS[0]))):
        return False
    if options.calibration and not (row.get("ece") and picture_of(key, options).is_file()):
        return False
    for what in further_tables(options):
        further = score_tables.table_beside(options.results_csv, what)
        beside = further.get(**key)
        if beside is None or not sources.items() <= beside.items():
            return False
        if what == "slices" and options.slices:  # an earlier table may have none by SNR
            own = [row for row in further.rows if all(row[name] == str(value) for name, value in key.items())]
            if not any(row["slice"].startswith("snr") for row in own):
                return False
    return options.export_dir is None or candidate.untrained or is_exported(row, table, options.export_dir)


def further_tables(options: EvaluationOptions) -> list[str]:
    """The tables beside `results_csv` that are asked for."""
    found = ["overlap"] * options.overlap_analysis + ["per_class"] * options.per_class
    return found + ["events"] * (options.per_class and options.events) + ["slices"] * (options.slices is not None)


def picture_of(key: dict[str, Any], options: EvaluationOptions) -> Path:
    """Where the reliability of the checkpoint with this key is drawn."""
    table = Path(options.results_csv)
    return table.with_name(f"{table.stem}_reliability_{digest_of(sorted(key.items()))}.png")


def is_exported(row: dict[str, str], table: ResultsTable, export_dir: str) -> bool:
    """Whether the weights under a row's name are its own. Rows of one run with equal scores share the name."""
    target = export_target(row, export_dir)
    exported = [other for other in table.rows if other.get("weights_digest")]
    same = (other["weights_digest"] for other in exported if export_target(other, export_dir) == target)
    return target.is_file() and torch_file_digest(target) in same


def export_target(row: dict[str, Any], export_dir: str) -> Path:
    """Where the weights of a row's checkpoint are exported to."""
    scores = float(row["mAP"]), float(row["dprime"])
    return export_path(export_dir, Path(row["ckpt_path"]), *scores, int(row["num_classes"] or 0))


def key_of(candidate: Candidate, options: EvaluationOptions) -> dict[str, Any]:
    """What tells the candidate's row apart."""
    return {"ckpt_path": candidate.name, "lmdb_path": options.source, "num_timesteps": options.num_timesteps}


def write_up(prediction: Prediction, table: ResultsTable, options: EvaluationOptions) -> None:
    """Score one network's predictions. Write its row, and what else was asked for."""
    candidate, checkpoint, probabilities = prediction.candidate, prediction.checkpoint, prediction.probabilities
    config, record, multi_hot = checkpoint.config, checkpoint.record, prediction.multi_hot
    trained_on = (record.get("data") or {}).get("train")
    if prediction.eval_data == trained_on and record.get("fold_index") is None and not candidate.untrained:
        log.warning("%s: %s was trained on these clips. It may know them", options.source, candidate.path)
    scores = ranking_scores(probabilities, multi_hot)
    row = (
        row_name(candidate.path, options.levels)
        | score_tables.as_columns(scores)
        | key_of(candidate, options)
        | {
            "epoch": "" if candidate.untrained else epoch_of(candidate.path),
            "val_figure": "" if candidate.untrained else validation_figure(candidate.path),
            "num_train_clips": 0 if candidate.untrained else record.get("num_train_clips", ""),
            "num_eval_clips": len(prediction.dataset),
            "protocol": config.protocol,
            "fold": "" if record.get("fold_index") is None else record["fold_index"],
            "validated_on": "" if candidate.untrained else validated_on(record, prediction.eval_data),
            "cfg_file": record.get("cfg_file", ""),
            "arch": config.model.arch,
            "model_depth": config.model.model_depth,
            "num_classes": config.model.num_classes,
            "pretrained": config.model.pretrained or "",
            "train_set_path": config.data.source("train") or "",
            "train_data": (record.get("data") or {}).get("train") or "",
            "eval_data": prediction.eval_data,
            "evaluated": datetime.now(timezone.utc).isoformat(),
            "weights_digest": "",
            "labels_digest": digest_of(prediction.dataset.label_map.names),
            "ckpt_digest": checkpoint.untrained_digest if candidate.untrained else checkpoint.digest,
        }
        | prediction.task.more_scores(probabilities, prediction.targets)
        | score_tables.decision_columns(prediction)
    )
    row |= dict.fromkeys([*INTERVALS, "ece", *EVENT_SCORES, *EVENT_INTERVALS], "")  # not those of earlier scores
    if options.calibration:
        from src.scoring.calibration import draw_reliability, reliability

        curve = reliability(*prediction.task.confidences(probabilities, prediction.targets))
        row["ece"], picture = curve.ece, picture_of(key_of(candidate, options), options)
        draw_reliability(picture, {Path(candidate.name).name: curve}, row["Model"])
        log.info("reliability: %s", picture)
    if options.bootstrap:
        row |= score_tables.intervals(prediction, options.bootstrap, options.seed)
        row |= event_intervals(prediction, options.bootstrap, options.seed) if options.events else {}
    if options.export_dir and not candidate.untrained:
        target = export_target(row, options.export_dir)
        write_torch_file(target, prediction.weights())
        row["weights_digest"] = torch_file_digest(target)
        log.info("weights: %s", target)
    if options.overlap_analysis:
        score_tables.write_overlap_analysis(row, prediction, options.results_csv)
    if options.per_class:
        score_tables.write_per_class(row, scores, prediction, options.results_csv)
    if options.events:
        row |= write_event_scores(row, prediction, options.results_csv, options.per_class)
    table.put([row])
    if options.slices is not None:
        write_slices(row, prediction, options.results_csv, options.slices)
