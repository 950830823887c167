"""Event scores of predictions, as columns of results.csv and as the tables of classes and slices beside it."""

import logging
from typing import Any, Literal

import numpy as np

from src.data.soundscapes.snr import snr_of_events
from src.learning.events.seen import heard
from src.scoring.bootstrap import interval
from src.scoring.events.scores import (
    EVENT_SCORES,
    EVENT_SCORES_PER_CLASS,
    PER_CLASS,
    bootstrap_event_scores,
    event_scores,
)
from src.scoring.events.slices import clip_scores_of_slice, slices
from src.scoring.predictions import Prediction
from src.scoring.score_tables import as_columns, table_beside

log = logging.getLogger(__name__)

EVENT_INTERVALS = [f"{name}_{end}" for name in EVENT_SCORES for end in ("low", "high")]


def event_intervals(prediction: Prediction, resamples: int, seed: int) -> dict[str, float]:
    """95 % intervals as the EVENT_INTERVALS columns of a row."""
    scores, truth = prediction.smoothed
    drawn = bootstrap_event_scores(scores, truth, resamples, seed, prediction.event_decisions.limits)
    return dict(zip(EVENT_INTERVALS, [end for name in EVENT_SCORES for end in interval(drawn[name])]))


def write_event_scores(
    row: dict[str, Any], prediction: Prediction, results_csv: str, per_class: bool
) -> dict[str, float]:
    """Every event score as a column of the row. With `per_class` those of classes are written too.

    Of a class without an event there is no row.
    """
    scores, truth = prediction.smoothed
    if prediction.checkpoint.event_decisions is None and not prediction.candidate.untrained:
        what = "has no thresholds of events. Taken: 0.5, without filters. scripts/calibrate.py chooses some"
        log.warning("%s: %s", prediction.candidate.path, what)
    decisions, names = prediction.event_decisions, prediction.dataset.label_map.names
    found: dict[str, Any] = event_scores(scores, truth, decisions.limits)
    if per_class:
        table, rows = table_beside(results_csv, "events"), []
        events = np.bincount(truth.label, minlength=truth.num_classes)
        for c in map(int, np.flatnonzero(events)):
            threshold = decisions.thresholds[c]
            own = {"class": names[c], "events": int(events[c]), "median": decisions.medians[c]}
            own |= {"threshold": "" if threshold is None else threshold}
            rows.append(row | own | {name: found[name + PER_CLASS][c] for name in EVENT_SCORES_PER_CLASS})
        table.put(rows)
        log.info("events by class: %s", table.path)
    return {name: found[name] for name in EVENT_SCORES}


def write_slices(row: dict[str, Any], prediction: Prediction, results_csv: str, folder: str | Literal[False]) -> None:
    """Write every score of each slice of the events, into `<results_csv>_slices.csv`.

    Args:
        folder: of the soundscapes' JAMS files, for slices by SNR, or False.

    Raises:
        UserError: a clip has no JAMS file in it.
    """
    scores, truth = prediction.smoothed
    dataset, snr = prediction.dataset, None
    if folder:
        assert prediction.spans is not None
        of_clips = snr_of_events(folder, [dataset.events(0, index) for index in range(len(dataset))])
        snr = np.concatenate([each[mask] for each, mask in zip(of_clips, heard(prediction.spans, dataset))])
    table, rows = table_beside(results_csv, "slices"), []
    for each in slices(truth, snr):
        part = truth.only(each.scored)
        found = event_scores(scores, part, prediction.event_decisions.limits)
        own = {"slice": f"{each.by}: {each.range}", "events": int(each.scored.sum())}
        own |= as_columns(clip_scores_of_slice(prediction.probabilities, part))
        rows.append(row | own | {name: found[name] for name in EVENT_SCORES})
    table.put(rows)
    log.info("by slices of the events: %s", table.path)
