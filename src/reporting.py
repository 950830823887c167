"""results.csv -> a table and the curve "soundscapes v. mAP"."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.errors import UserError
from src.files import whole_file
from src.results import read_table

NEEDED = ("Model", "run", "mAP", "mAUC", "dprime", "ckpt_path", "val_figure", "num_train_clips", "lmdb_path",
          "num_timesteps")
UNTRAINED = "untrained"  # the last part of an untrained network's ckpt_path


@dataclass(frozen=True)
class Point:
    """The runs of one training-set size, each by its checkpoint with the best validation figure."""

    soundscapes: int  # 0: the untrained network
    val: np.ndarray  # (runs,) validation mAP
    mAP: np.ndarray  # noqa: N815  (runs,)
    mAUC: np.ndarray  # noqa: N815  (runs,)
    dprime: np.ndarray  # (runs,)


def figure_of(row: dict[str, str]) -> float:
    """A row's validation figure; lowest where there is none."""
    figure = float(row["val_figure"] or "nan")
    return -math.inf if math.isnan(figure) else figure


def points(results: Iterable[str | Path]) -> list[Point]:
    """Results tables as points, by training-set size; the untrained network first, if it was scored.

    Raises:
        UserError: a file is not a results table, or holds no rows.
    """
    rows = [row for path in results for row in read_table(path, NEEDED)]
    where = ", ".join(map(str, results))
    if not rows:
        raise UserError(f"{where}: no results yet; score some checkpoints first")
    for what, values in (("networks", {"/".join(row["Model"].split("/")[1:-1]) for row in rows}),
                         ("evaluation sets", {row["lmdb_path"] for row in rows}),
                         ("clip sizes", {row["num_timesteps"] for row in rows})):
        if len(values) > 1:
            raise UserError(f"{where}: scores of several {what} ({', '.join(sorted(values))}) make no one curve")
    best: dict[tuple[int, str], dict[str, str]] = {}
    for row in rows:
        untrained = Path(row["ckpt_path"]).name == UNTRAINED
        size = 0 if untrained else int(row["num_train_clips"] or 0)
        # Runs of one seed begin with one untrained network, scored once for each: it counts once.
        run = row["mAP"] if untrained else os.path.abspath(Path(row["ckpt_path"]).parent)
        rival = best.get((size, run))
        if rival is None or figure_of(row) > figure_of(rival):
            best[size, run] = row
    groups = defaultdict(list)
    for (size, _), row in sorted(best.items()):
        groups[size].append(row)

    def column(group: list[dict[str, str]], name: str) -> np.ndarray:
        return np.array([float(row[name] or "nan") for row in group])

    return [
        Point(size, *(column(group, name) for name in ("val_figure", "mAP", "mAUC", "dprime")))
        for size, group in sorted(groups.items())
    ]


def as_markdown(found: Sequence[Point]) -> str:
    """The points as a Markdown table: means over runs, ± standard deviation where there are several."""

    def cell(values: np.ndarray) -> str:
        if not np.isfinite(values).any():
            return ""
        spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        return f"{values.mean():.3f}{spread}"

    lines = ["| soundscapes | runs | val mAP | eval mAP | eval mAUC | eval d′ |", "|" + " ---: |" * 6]
    for point in found:
        name = str(point.soundscapes) if point.soundscapes else "untrained"
        cells = [cell(values) for values in (point.val, point.mAP, point.mAUC, point.dprime)]
        lines.append(f"| {name} | {len(point.mAP)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_curve(found: Sequence[Point], path: str | Path) -> None:
    """Evaluation mAP over the number of training soundscapes, to an image file."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    trained = [point for point in found if point.soundscapes]
    sizes = [point.soundscapes for point in trained]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    spread = [point.mAP.std(ddof=1) if len(point.mAP) > 1 else 0 for point in trained]
    axes.errorbar(sizes, [point.mAP.mean() for point in trained], yerr=spread if any(spread) else None, marker="o",
                  capsize=3, label="best validation checkpoint")
    for point in found:
        if not point.soundscapes:
            axes.axhline(point.mAP.mean(), color="grey", linestyle="--", label="untrained network")
    axes.set(xscale="log", xticks=sizes, xlabel="training soundscapes", ylabel="evaluation mAP", ylim=(0, None))
    axes.set_xticklabels(map(str, sizes))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format=Path(path).suffix.lstrip(".") or "png")
    plt.close(figure)
