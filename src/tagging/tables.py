"""Tables of recordings as CSV files: scores of windows, decisions, and a summary with a row a recording."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import UserError
from src.models.decisions import Decisions
from src.tagging.tagger import Tagged
from src.utils.files import whole_file
from src.utils.text import NAMES

SCORES = ("file", "start", "end", "class", "score")  # columns of each table
DECISIONS = ("file", "class", "score", "threshold", "decision")

Rows = Callable[[Tagged], Iterable[Sequence[Any]]]


@contextmanager
def table(path: str | Path, columns: Sequence[str], rows: Rows) -> Iterator[Callable[[Tagged], None]]:
    """Yield what adds a recording's rows. The file at `path` is replaced when the block ends."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=NAMES) as stream:
        writer = csv.writer(stream)
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


def summary_columns(names: Sequence[str]) -> list[str]:
    """The recording's column and one for each class.

    Raises:
        UserError: a class has the name of the recording's column.
    """
    if "file" in names:
        raise UserError("--summary: a class is called 'file', as the column of the recordings is. Use --csv")
    return ["file", *names]


def summary_rows(tagged: Tagged) -> Iterable[Sequence[str]]:
    """One row: every class's score in its strongest window."""
    yield str(tagged.path), *(f"{score:.6f}" for score in tagged.strongest_scores)
