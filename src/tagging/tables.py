"""Tables of scores: a CSV row for every window and class."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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
