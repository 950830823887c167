"""Scores as columns of results.csv, and the tables of further figures beside it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from src.learning.metrics import RankingScores, ranking_scores
from src.learning.thresholds import DECISION_SCORES, DecisionScores, decision_scores
from src.scoring.bootstrap import interval
from src.scoring.events.scores import EVENT_SCORES, EVENT_SCORES_PER_CLASS
from src.scoring.predictions import Prediction
from src.scoring.results_table import KEY, SOURCES, ResultsTable

log = logging.getLogger(__name__)

SCORES = ("mAP", "mAUC", "dprime")
BESIDE = {
    "overlap": ("events", ("clips", "classes", *SCORES)),
    "per_class": ("class", ("clips", "AP", "AUC", "accuracy", "threshold", *DECISION_SCORES)),
    "events": ("class", ("events", "median", "threshold", *EVENT_SCORES_PER_CLASS)),
    "slices": ("slice", ("events", *EVENT_SCORES, *SCORES)),
}
INTERVALS = [
    *("bootstrap", "bootstrap_seed"),
    *(f"{name}_{end}" for name in (*SCORES, "accuracy") for end in ("low", "high")),
]


def as_columns(scores: RankingScores) -> dict[str, float]:
    """mAP, mAUC and d′ as columns of a row."""
    return {name: getattr(scores, name) for name in SCORES}


def intervals(prediction: Prediction, resamples: int, seed: int) -> dict[str, float]:
    """95 % intervals as the INTERVALS columns of a row. Accuracy has one where clips have one class each."""
    bootstrapped = prediction.bootstrap(resamples, seed)
    values = [getattr(bootstrapped, name) for name in (*SCORES, "accuracy")]
    ends = [end for each in values if each is not None for end in interval(each)]
    return dict(zip(INTERVALS, [resamples, seed, *ends]))


def decision_columns(prediction: Prediction) -> dict[str, Any]:
    """Macro precision, recall and F1 at the checkpoint's thresholds as columns of a row, empty without any."""
    scores = at_thresholds(prediction)
    return scores.macro() if scores else dict.fromkeys(DECISION_SCORES, "")


def at_thresholds(prediction: Prediction) -> DecisionScores | None:
    """Scores of the decisions by the checkpoint's thresholds, if it has any."""
    if prediction.decisions is None:
        return None
    return decision_scores(prediction.decisions, prediction.probabilities, prediction.multi_hot)


def beside(results_csv: str | Path, what: str) -> Path:
    """Where the table of further figures beside a results table is."""
    return Path(results_csv).with_name(f"{Path(results_csv).stem}_{what}.csv")


def table_beside(results_csv: str | Path, what: str) -> ResultsTable:
    """The table of further figures, one of `BESIDE`."""
    part, columns = BESIDE[what]
    return ResultsTable(beside(results_csv, what), ["Model", part, *columns, *KEY, *SOURCES], KEY, part)


def write_overlap_analysis(row: dict[str, Any], prediction: Prediction, results_csv: str) -> None:
    """Score clips of one, two, three … labelled events apart, into `<results_csv>_overlap.csv`.

    `classes` is the number of classes with a positive clip among them, over which mAP is the mean. Negative clips, of
    no event, have no such class, and no row.
    """
    table = table_beside(results_csv, "overlap")
    events = np.array([len(prediction.dataset.class_indices(index)) for index in range(len(prediction.dataset))])
    rows = []
    for number in np.unique(events[events > 0]):
        chosen = events == number  # (N,)
        scores = ranking_scores(prediction.probabilities[chosen], prediction.multi_hot[chosen])
        counts = {"events": int(number), "clips": int(chosen.sum()), "classes": int(np.isfinite(scores.ap).sum())}
        rows.append(row | as_columns(scores) | counts)
    table.put(rows)
    log.info("by number of events: %s", table.path)


def write_per_class(row: dict[str, Any], scores: RankingScores, prediction: Prediction, results_csv: str) -> None:
    """Write a row for each class with clips, into `<results_csv>_per_class.csv`."""
    table = table_beside(results_csv, "per_class")
    decided = at_thresholds(prediction)
    recalls = prediction.task.class_accuracy(prediction.probabilities, prediction.targets)
    clips = prediction.multi_hot.sum(axis=0)  # (C,)
    rows = []
    for c in map(int, np.flatnonzero(clips)):
        own = {"class": prediction.dataset.label_map.names[c], "clips": int(clips[c])}
        figures = {"AP": scores.ap[c], "AUC": scores.auc[c], "accuracy": "" if recalls is None else recalls[c]}
        at_threshold = decided.of_class(c) if decided else dict.fromkeys(("threshold", *DECISION_SCORES))
        figures |= {name: "" if value is None else value for name, value in at_threshold.items()}
        rows.append(row | own | figures)
    table.put(rows)
    log.info("by class: %s", table.path)
