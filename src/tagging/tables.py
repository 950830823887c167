"""Files of what was found: tables of windows, decisions or recordings, and embeddings, as arrays."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import UserError
from src.models.decisions import Decisions, EventDecisions
from src.tagging.found import found_events
from src.tagging.tagger import Tagged
from src.utils.files import whole_file
from src.utils.text import NAMES

SCORES = ("file", "start", "end", "class", "score")  # columns of each table
DECISIONS = ("file", "class", "score", "threshold", "decision")
EVENTS = ("filename", "onset", "offset", "event_label", "confidence")  # as DESED has them, tab-separated
FRAMES = EVENTS[:3]  # and each class

Rows = Callable[[Tagged], Iterable[Sequence[Any]]]


@contextmanager
def table(
    path: str | Path, columns: Sequence[str], rows: Rows, delimiter: str = ","
) -> Iterator[Callable[[Tagged], None]]:
    """Yield what adds a recording's rows. The file at `path` is replaced when the block ends."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=NAMES) as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n" if delimiter == "\t" else "\r\n")
        writer.writerow(columns)
        yield lambda tagged: writer.writerows(rows(tagged))


def score_rows(names: Sequence[str], threshold: float) -> Rows:
    """A row for every window and class whose score reaches the threshold."""

    def rows(tagged: Tagged) -> Iterator[Sequence[str]]:
        for start, end, scores in zip(tagged.starts, tagged.ends, tagged.scores):
            window = (str(tagged.path), f"{start:.3f}", f"{end:.3f}")
            yield from ((*window, name, f"{score:.6f}") for name, score in zip(names, scores) if not score < threshold)

    return rows


def decision_rows(names: Sequence[str], decisions: Decisions) -> Rows:
    """A row for every class: its score in its strongest window, and whether that reaches the class's threshold.

    Both are written with all digits, so that whoever compares them decides the same.
    """
    thresholds = ["" if each is None else np.float32(each) for each in decisions.thresholds]

    def rows(tagged: Tagged) -> Iterator[Sequence[Any]]:
        words = np.where(decisions.present(tagged.strongest_scores), "present", "absent")
        for row in zip(names, tagged.strongest_scores, thresholds, words):
            yield (str(tagged.path), *row)

    return rows


def event_rows(names: Sequence[str], decisions: EventDecisions) -> Rows:
    """A row for every event, with times to the millisecond."""

    def rows(tagged: Tagged) -> Iterator[Sequence[str]]:
        assert tagged.frames is not None
        for event in found_events(tagged.frames, decisions):
            times = f"{event.onset:.3f}", f"{event.offset:.3f}"
            yield str(tagged.path), *times, names[event.label], f"{event.confidence:.6f}"

    return rows


def frame_rows(tagged: Tagged) -> Iterator[Sequence[str]]:
    """A row for every frame, with every class's score."""
    assert tagged.frames is not None
    for onset, offset, scores in zip(tagged.frames.onset, tagged.frames.offset, tagged.frames.values.T):
        yield str(tagged.path), f"{onset:.3f}", f"{offset:.3f}", *(f"{score:.6f}" for score in scores)


def columns_of_classes(flag: str, columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """A table's own columns, and one for each class.

    Raises:
        UserError: a class has the name of one of the others.
    """
    for name in columns:
        if name in names:
            raise UserError(f"{flag}: a class is called '{name}', as a column of the table is. Use another flag")
    return [*columns, *names]


def summary_rows(tagged: Tagged) -> Iterable[Sequence[str]]:
    """One row: every class's score in its strongest window."""
    yield str(tagged.path), *(f"{score:.6f}" for score in tagged.strongest_scores)


@contextmanager
def embedding_file(path: str | Path, size: int, of_windows: bool) -> Iterator[Callable[[Tagged], None]]:
    """Yield what adds a recording's embeddings. The `.npz` at `path` is replaced when the block ends.

    It holds `embeddings`, (N, D) float32, and of each row its file, start and end, in s: `files`, `starts` and `ends`.
    `numpy.load` reads it as it stands.

    Args:
        size: D.
        of_windows: a row is a window. Otherwise it is a recording, the mean over its windows.
    """
    rows: dict[str, list[np.ndarray]] = {"embeddings": [np.empty((0, size), np.float32)]}
    rows |= {"files": [np.empty(0, str)], "starts": [np.empty(0)], "ends": [np.empty(0)]}

    def add(tagged: Tagged) -> None:
        found, starts, ends = tagged.embeddings, tagged.starts, tagged.ends
        if not of_windows:
            found, starts, ends = found.mean(axis=0, keepdims=True), starts[:1], ends[-1:]
        for name, values in zip(rows, (found, np.full(len(found), str(tagged.path)), starts, ends)):
            rows[name].append(values)

    with whole_file(path) as temporary:
        yield add
        with open(temporary, "wb") as stream:
            arrays: Any = {name: np.concatenate(values) for name, values in rows.items()}
            np.savez(stream, **arrays)
