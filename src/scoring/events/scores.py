"""All sound event scores of a network by name, their values for resampled clips, and two networks beside each other."""

from functools import partial

import numpy as np

from src.learning.events.clips import EventTruth, FrameScores, require_same_clips
from src.learning.events.collars import collar_curve
from src.learning.events.f_scores import best_thresholds, event_counts, f_scores
from src.learning.events.intersections import intersection_curve
from src.learning.events.psds import PSDS1, PSDS2, psds, psds_curves
from src.learning.metrics import mean_over_classes
from src.scoring.bootstrap import draw_counts
from src.scoring.differences import Comparison
from src.scoring.events.segments import segment_auc, segment_average_precision, segment_counts

PER_CLASS = "_per_class"  # ends the names of scores that have a value for each class
EVENT_SCORES = (  # all others, in the order of tables
    *("psds1", "psds1_without_class_penalty", "psds2", "psds2_without_class_penalty"),
    *(f"{f}_f_{mean}" for f in ("collar", "intersection", "segment", "best_collar") for mean in ("macro", "micro")),
    *("segment_auroc", "frame_average_precision"),
)
EVENT_SCORES_PER_CLASS = (
    *("psds1", "psds2", "collar_f", "intersection_f", "segment_f", "best_collar_f", "best_collar_threshold"),
    *("segment_auroc", "frame_average_precision"),
)
Thresholds = float | np.ndarray  # one for all classes, or (C,). A frame whose score reaches it is detected


def event_scores(scores: FrameScores, truth: EventTruth, thresholds: Thresholds = 0.5) -> dict[str, float | np.ndarray]:
    """Every score by name. Those whose names end in `PER_CLASS` are (C,) arrays.

    A class without an event to be found has none, and one with them in all segments has no ROC AUC. Those are NaN and
    left out of means.

    - psds1, psds2: PSDS with the settings of the DCASE challenges, up to 100 effective false positives an hour.
      Each also as _without_class_penalty, which is the mean over classes
    - collar_f, intersection_f, segment_f, each as _macro and _micro: F-scores at the thresholds. Segments last 1 s
    - best_collar_f, the same at the best threshold of each class for these clips: best_collar_threshold
    - segment_auroc: ROC AUC over segments of 1 s
    - frame_average_precision: average precision over frames of 40 ms

    Raises:
        ValueError: scores and events are of other numbers of clips or classes.
    """
    found = _weighted(scores, truth, thresholds, truth.each_clip_once)
    return {name: values[0] if name.endswith(PER_CLASS) else float(values[0]) for name, values in found.items()}


def bootstrap_event_scores(
    scores: FrameScores, truth: EventTruth, resamples: int, seed: int, thresholds: Thresholds = 0.5
) -> dict[str, np.ndarray]:
    """The same scores of resampled clips, (R,) and (R, C) arrays, of which `src.scoring.bootstrap.interval` makes one.

    The resamples are those of `src.scoring.bootstrap.bootstrap`. The best thresholds stay those of all clips.
    """
    return _weighted(scores, truth, thresholds, _resamples(truth, resamples, seed))


def compare_event_scores(
    networks: tuple[FrameScores, FrameScores],
    truth: EventTruth,
    resamples: int,
    seed: int,
    thresholds: tuple[Thresholds, Thresholds] = (0.5, 0.5),
) -> list[Comparison]:
    """Each score of two networks, but those of single classes, and their difference over the same resamples."""
    weights = np.concatenate([truth.each_clip_once, _resamples(truth, resamples, seed)])
    both = [_weighted(each, truth, limits, weights) for each, limits in zip(networks, thresholds)]
    return [
        Comparison.of(name, [float(each[name][0]) for each in both], [each[name][1:] for each in both])
        for name in both[0]
        if not name.endswith(PER_CLASS)
    ]


def _resamples(truth: EventTruth, resamples: int, seed: int) -> np.ndarray:
    """(R, N) how often each clip is in each."""
    return np.stack([draw_counts(truth.num_clips, seed, number) for number in range(resamples)])


def _weighted(
    scores: FrameScores, truth: EventTruth, thresholds: Thresholds, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """(R,) and (R, C) scores with (R, N) weights of the clips."""
    require_same_clips(scores, truth)
    found: dict[str, np.ndarray] = {}
    for name, criteria in (("psds1", PSDS1), ("psds2", PSDS2)):
        each = psds(psds_curves(scores, truth, criteria, weights), truth, weights, criteria.alpha_ct)
        found |= {name: each.value, f"{name}_without_class_penalty": mean_over_classes(each.per_class)}
        found[name + PER_CLASS] = each.per_class
    given = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), truth.num_classes)
    best, _ = best_thresholds(scores, truth, collar_curve)
    for name, counts in (
        ("collar_f", event_counts(scores, truth, given, collar_curve)),
        ("intersection_f", event_counts(scores, truth, given, partial(intersection_curve, dtc=0.5, gtc=0.5))),
        ("segment_f", segment_counts(scores, truth, given)),
        ("best_collar_f", event_counts(scores, truth, best, collar_curve)),
    ):
        f = f_scores(counts, weights)
        found |= {f"{name}_macro": f.macro, f"{name}_micro": f.micro, name + PER_CLASS: f.per_class}
    found["best_collar_threshold" + PER_CLASS] = np.broadcast_to(best, (len(weights), len(best)))
    for name, per_class in (
        ("segment_auroc", segment_auc(scores, truth, weights)),
        ("frame_average_precision", segment_average_precision(scores, truth, weights)),
    ):
        found |= {name: mean_over_classes(per_class), name + PER_CLASS: per_class}
    return found
