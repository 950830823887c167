"""Files of what was found: scores, a CSV row for every window and class, and embeddings, as arrays."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from src.tagging.tagger import Tagged
from src.utils.files import whole_file
from src.utils.text import NAMES


@contextmanager
def score_table(path: str | Path, names: Sequence[str]) -> Iterator[Callable[[Tagged], None]]:
    """Yield what adds a recording's rows. The file at `path` is replaced when the block ends.

    Args:
        names: of the classes.
    """
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=NAMES) as stream:
        table = csv.writer(stream)
        table.writerow(("file", "start", "end", "class", "score"))

        def add(tagged: Tagged) -> None:
            for start, end, scores in zip(tagged.starts, tagged.ends, tagged.scores):
                window = (str(tagged.path), f"{start:.3f}", f"{end:.3f}")
                table.writerows((*window, name, f"{score:.6f}") for name, score in zip(names, scores))

        yield add


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
