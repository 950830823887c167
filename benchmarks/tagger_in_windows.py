"""What networks of events find, beside taggers that are used in short windows.

    python benchmarks/tagger_in_windows.py --taggers RUN … --networks RUN … --val_lmdb val.lmdb --lmdb_path eval.lmdb

A tagger scores windows of 1 s, one every 0.2 s. A score stands for the time around its window's centre, halfway to the
neighbours. The first and the last one stand for all up to the clip's ends. Then comes a median filter of 5. Each class
has the threshold of its best collar-based F-score on the validation clips. A network of events has the filters and
thresholds of its checkpoint, which were chosen on validation clips for the same.

Scores are those of `event_scores`, without class penalty where it says PSDS. Each is the mean over the runs, with each
run's in brackets.
"""

import argparse

import numpy as np

import _repository

from benchmarks.measuring import print_table
from src import cli
from src.data.loading import open_dataset
from src.data.transforms import Compose
from src.learning.events import EventTruth, FrameScores
from src.learning.events.choosing import choose_events, smoothed
from src.learning.events.seen import cut
from src.models.checkpoint import read_checkpoint
from src.runs.folder import checkpoint_at
from src.scoring.events import event_scores
from src.scoring.predictions import Candidate, InferenceOptions, predictions
from src.tagging import Tagger
from src.utils.progress import progress

WINDOW, HOP, MEDIAN = 1.0, 0.2, 5  # s, s, scores
SCORES = {
    "PSDS1": "psds1_without_class_penalty",
    "PSDS2": "psds2_without_class_penalty",
    "segment F": "segment_f_macro",
    "collar F": "collar_f_macro",
    "intersection F": "intersection_f_macro",
    "frame mAP": "frame_average_precision",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--taggers", nargs="+", required=True, metavar="RUN", help="checkpoints or run folders of taggers")
    add("--networks", nargs="+", required=True, metavar="RUN", help="the same of networks of events")
    add("--val_lmdb", required=True, help="clips with events to choose the taggers' thresholds on")
    add("--lmdb_path", required=True, help="clips with events to score on")
    arguments = parser.parse_args()
    found = {
        f"tagger in windows of {WINDOW:g} s": [
            of_windows(run, arguments.val_lmdb, arguments.lmdb_path) for run in arguments.taggers
        ],
        "network of events": [of_network(run, arguments.lmdb_path) for run in arguments.networks],
    }
    rows, means = [], []
    for name, runs in found.items():
        means.append([float(np.mean([run[score] for run in runs])) for score in SCORES.values()])
        of_runs = [", ".join(f"{run[score]:.3f}" for run in runs) for score in SCORES.values()]
        rows.append((name, *(f"{mean:.3f} ({each})" for mean, each in zip(means[-1], of_runs))))
    rows.append(("times", *(f"{after / before:.2f}" for before, after in zip(*means))))
    print_table(("", *SCORES), rows)


def of_windows(run: str, val_lmdb: str, lmdb_path: str) -> dict[str, float]:
    """Scores of a tagger in windows."""
    chosen = choose_events(*heard_in_windows(run, val_lmdb), [MEDIAN])
    scores, truth = heard_in_windows(run, lmdb_path)
    return event_scores(smoothed(scores, chosen.medians), truth, chosen.limits)


def heard_in_windows(run: str, lmdb_path: str) -> tuple[FrameScores, EventTruth]:
    """What a tagger says of each window, and the true events."""
    tagger, checkpoint = Tagger(run, window=WINDOW, hop=HOP, batch_size=32), read_checkpoint(checkpoint_at(run))
    clips = open_dataset(checkpoint.config, lmdb_path, tagger.label_map, Compose(()))
    scores, borders, events = [], [], []
    with progress(len(clips), "clips in windows", "clip") as bar:
        for index in range(len(clips)):
            samples = clips.waveform(index)
            starts, ends = tagger.window_times(len(samples), tagger.sample_rate)
            centres, end = (starts + ends) / 2, len(samples) / tagger.sample_rate
            scores.append(tagger.scores(samples, tagger.sample_rate))
            borders.append(np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [end]]))
            events.append(cut(clips.events(0, index), 0.0, end))
            bar.update()
    truth = EventTruth.of(events, [each[-1] for each in borders], tagger.classes)
    return FrameScores.of(scores, borders), truth


def of_network(run: str, lmdb_path: str) -> dict[str, float]:
    """Scores of a network of events."""
    (found,) = predictions([Candidate(checkpoint_at(run))], InferenceOptions(lmdb_path, events=True, num_workers=0))
    scores, truth = found.smoothed
    return event_scores(scores, truth, found.event_decisions.limits)


if __name__ == "__main__":
    cli.run(main)
