"""How long the scores of sound event detection take, beside a grid of thresholds.

    python benchmarks/event_scores.py

Seeded clips of 5 s in frames of 40 ms, 1 to 5 events each. Scores are noise in which most events are heard. Once each:

- frames laid out, which is what a network's output needs first
- all scores of `event_scores`
- the same of resampled clips, for intervals

Then PSDS in turns with what a grid of 50 thresholds takes for the same: at each of them detections are looked for in
every clip and class, and their intersections with events are counted. It gives another number, for it sees no
operating point between its thresholds. Seconds are those of the clock, and of this process on all processors.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

import _repository

from benchmarks.measuring import in_turns, machine, print_table
from src import cli
from src.learning.events import EventTruth, FrameScores
from src.learning.events.psds import PSDS1, psds, psds_curves
from src.scoring.events import bootstrap_event_scores, event_scores

FRAMES, FRAME, DURATION = 125, 0.04, 5.0  # of a clip, s, s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clips", type=cli.positive(int), default=20_000, help="to score (20000)")
    add("--classes", type=cli.positive(int), default=51, help="of each (51)")
    add("--resamples", type=cli.positive(int), default=100, help="for intervals (100)")
    add("--grid_clips", type=cli.positive(int), default=200, help="to score with a grid of thresholds as well (200)")
    add("--thresholds", type=cli.positive(int), default=50, help="of the grid (50)")
    add(
        "--runs",
        type=cli.positive(int),
        default=3,
        help="of the grid and of PSDS in turns, of which medians are taken (3)",
    )
    arguments = parser.parse_args()
    print(f"{machine()}\n{arguments.clips} clips of {DURATION:g} s, {FRAMES} frames and {arguments.classes} classes")
    clips, truth = make_clips(arguments.clips, arguments.classes)
    print_table(("step", "seconds", "CPU seconds"), whole(clips, truth, arguments.resamples))
    few, truth = make_clips(min(arguments.grid_clips, arguments.clips), arguments.classes)
    print_table(
        (f"PSDS of {len(few)} clips", "seconds (range)", "ratio", "PSDS"),
        beside_a_grid(FrameScores.of(few, FRAME), truth, arguments.thresholds, arguments.runs),
    )


def make_clips(count: int, classes: int) -> tuple[list[np.ndarray], EventTruth]:
    """(T, C) float32 scores of each clip, and the events."""
    rng = np.random.default_rng(0)
    scores, events = [], []
    for _ in range(count):
        noise = rng.standard_normal((FRAMES + 4, classes), dtype=np.float32)
        logits = sum(noise[first : first + FRAMES] for first in range(5)) * 0.45 - 5  # like a network's, smooth in time
        logits += rng.standard_normal(classes, dtype=np.float32)
        inside = []
        for _ in range(rng.integers(1, 6)):
            onset, c = rng.uniform(0, 4.5), int(rng.integers(classes))
            offset = min(DURATION, onset + rng.uniform(0.25, 2.5))
            inside.append((onset, offset, c))
            if rng.random() < 0.85:
                first, behind = (max(0, round((end + rng.normal() * 0.1) / FRAME)) for end in (onset, offset))
                logits[first:behind, c] += rng.uniform(2, 9)
        scores.append(1 / (1 + np.exp(-logits)))
        events.append(inside)
    return scores, EventTruth.of(events, [DURATION] * count, range(classes))


def whole(clips: list[np.ndarray], truth: EventTruth, resamples: int) -> Iterator[tuple[str, ...]]:
    """Rows of what all scores take."""
    begun = time.perf_counter(), time.process_time()
    scores = FrameScores.of(clips, FRAME)
    yield "frames laid out", *since(*begun)
    begun = time.perf_counter(), time.process_time()
    event_scores(scores, truth)
    yield "all scores", *since(*begun)
    begun = time.perf_counter(), time.process_time()
    bootstrap_event_scores(scores, truth, resamples, seed=0)
    yield f"all scores of {resamples} resamples", *since(*begun)


def since(wall: float, process: float) -> tuple[str, str]:
    """Seconds by the clock and on processors."""
    return f"{time.perf_counter() - wall:.2f}", f"{time.process_time() - process:.2f}"


def beside_a_grid(scores: FrameScores, truth: EventTruth, thresholds: int, runs: int) -> Iterator[tuple[str, ...]]:
    """Rows of PSDS at all thresholds and of PSDS on a grid."""
    names = {
        "all thresholds": lambda: exact(scores, truth),
        f"{thresholds} thresholds": lambda: grid(scores, truth, thresholds),
    }
    found = in_turns({name: lambda work=work: timed(work) for name, work in names.items()}, runs)
    least = statistics.median(seconds for seconds, _ in found["all thresholds"])
    for name, each in found.items():
        taken = [seconds for seconds, _ in each]
        middle = statistics.median(taken)
        yield name, f"{middle:.3f} ({min(taken):.3f} … {max(taken):.3f})", f"{middle / least:.1f}", f"{each[0][1]:.4f}"


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds, and what the work gives."""
    begun = time.perf_counter()
    value = work()
    return time.perf_counter() - begun, value


def exact(scores: FrameScores, truth: EventTruth) -> float:
    """PSDS1 of every operating point."""
    curves = psds_curves(scores, truth, PSDS1, truth.each_clip_once)
    return float(psds(curves, truth, truth.each_clip_once).value[0])


def grid(scores: FrameScores, truth: EventTruth, thresholds: int) -> float:
    """PSDS1 of so many thresholds, evenly spaced: a loop over clips and classes at each."""
    hours, max_efpr = truth.durations.sum() / 3600, 100.0
    points = np.zeros((truth.num_classes, thresholds, 2))  # false positives an hour, true positive rate
    events = [[[] for _ in range(truth.num_classes)] for _ in range(truth.num_clips)]
    for clip, onset, offset, label in zip(truth.clip, truth.onset, truth.offset, truth.label):
        events[clip][label].append((onset, offset))
    for number, threshold in enumerate(np.linspace(0, 1, thresholds + 2)[1:-1]):
        for clip in range(truth.num_clips):
            reached = scores.values[:, scores.starts[clip] : scores.starts[clip + 1]] >= threshold
            edges = np.diff(np.pad(reached, ((0, 0), (1, 1))).astype(np.int8), axis=1)
            for c in range(truth.num_classes):
                spans = np.flatnonzero(edges[c]).reshape(-1, 2) * FRAME
                points[c, number] += intersections(spans, np.array(events[clip][c]).reshape(-1, 2))
    events_of = np.bincount(truth.label, minlength=truth.num_classes)
    points = points[events_of > 0] / [hours, 1]
    points[:, :, 1] /= events_of[events_of > 0, None]
    rates = np.unique(points[:, :, 0])
    rates = np.concatenate([[0], rates[rates < max_efpr]])
    best = np.array([[each[each[:, 0] <= rate, 1].max(initial=0) for rate in rates] for each in points])  # (C, rates)
    together = np.maximum(best.mean(axis=0) - best.std(axis=0), 0)
    return float(together @ np.diff(np.append(rates, max_efpr)) / max_efpr)


def intersections(spans: np.ndarray, events: np.ndarray) -> tuple[int, int]:
    """False positives and found events of one class and clip, for (D, 2) detections and (E, 2) events."""
    shared = np.minimum(spans[:, None, 1], events[:, 1]) - np.maximum(spans[:, None, 0], events[:, 0])  # (D, E)
    shared = np.maximum(shared, 0)
    relevant = shared.sum(axis=1) >= PSDS1.dtc * (spans[:, 1] - spans[:, 0])
    found = shared[relevant].sum(axis=0) >= PSDS1.gtc * (events[:, 1] - events[:, 0])
    return int((~relevant).sum()), int(found.sum())


if __name__ == "__main__":
    cli.run(main)
