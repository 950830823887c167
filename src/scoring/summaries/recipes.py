"""Recipes compared by what they score and what that takes: multiply-accumulates and time.

A recipe is a setting of src/scoring/summaries/summary.py with its runs, one a seed. Its figures can be stored, and set
beside those of runs on another day.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from scipy import stats

from src.errors import UserError
from src.runs.folder import RunFolder
from src.scoring.summaries.summary import Run, Summary
from src.utils.files import write_json
from src.utils.pictures import blank_figure
from src.utils.text import markdown_table, read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = 3  # a training step takes so many forward passes: gradients go through activations and weights
CONFIDENCE = 0.95
STRICT = ConfigDict(extra="forbid")
Score = Annotated[float, Field(ge=0, le=1)]


@checked_dataclass(frozen=True, config=STRICT)
class TrainedRun:
    """One run of a recipe."""

    seed: int
    forward_gmac: Annotated[
        float, Field(gt=0, allow_inf_nan=False)
    ]  # 10⁹ multiply-accumulates of the network for a training clip
    clips: Annotated[int, Field(ge=1, lt=2**63)]  # that the network has been trained on, each as often as it was shown
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None  # of training and validation
    val: Annotated[tuple[Score, ...], Field(min_length=1)]  # the validation figure after each epoch
    score: Score  # eval mAP of the best epoch

    @property
    def gmac(self) -> float:
        """Of the whole training."""
        return PASSES * self.forward_gmac * self.clips

    def gmac_until(self, target: float) -> float:
        """Of the epochs until the validation figure was first as high as that, or NaN."""
        reached = np.flatnonzero(np.array(self.val) >= target)
        return self.gmac * (reached[0] + 1) / len(self.val) if len(reached) else math.nan


@checked_dataclass(frozen=True, config=STRICT)
class Recipe:
    """Runs of one cfg on the same clips."""

    name: str
    note: str | None  # such as the machine and the precision
    runs: Annotated[tuple[TrainedRun, ...], Field(min_length=1)]

    @property
    def title(self) -> str:
        """Name and note."""
        return f"{self.name} ({self.note})" if self.note else self.name

    @cached_property
    def scores(self) -> np.ndarray:
        """(runs,) eval mAP."""
        return np.array([run.score for run in self.runs])

    @property
    def margin(self) -> float:
        """Half of the 95 % interval of the mean score, by Student's t. NaN for one run."""
        count = len(self.runs)
        if count < 2:
            return math.nan
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * self.scores.std(ddof=1) / math.sqrt(count))

    def mean(self, name: str) -> float:
        """The runs' mean of a figure, NaN where one does not have it."""
        return float(np.mean([math.nan if getattr(run, name) is None else getattr(run, name) for run in self.runs]))

    @property
    def target(self) -> float:
        """The mean of the runs' best validation figures."""
        return float(np.mean([max(run.val) for run in self.runs]))


def recipe_of(summary: Summary, note: str | None = None) -> Recipe:
    """The recipe whose evaluated runs a summary is of.

    Raises:
        UserError: a run's folder does not say what it took, or the run has not ended.
    """
    setting = summary.setting
    return Recipe(f"{setting.experiment} · {setting.network}", note, tuple(map(trained_run, summary.runs)))


def trained_run(run: Run) -> TrainedRun:
    """What a run's folder and its evaluation say."""
    folder = RunFolder(run.folder)
    if not folder.path.is_dir():
        raise UserError(f"{folder.path}: no such run folder. Was it moved or deleted after its evaluation?")
    record, epochs = folder.record(), folder.epochs()
    if record is None or "forward_gmac" not in record or not epochs:
        raise UserError(f"{folder.path}: does not say what its run took. Was it made by an earlier version?")
    if not run.finished or "mAP" not in run.scores:
        raise UserError(f"{folder.path}: its run has not ended, or has no eval mAP")
    devices = record["devices"]
    ranks = devices["num_nodes"] * devices["per_node"]
    clips = int(epochs[-1]["step"]) * record["accumulate"] * record["cfg"]["opt"]["batch_size"] * ranks
    val = tuple(float(row["val_mAP"]) for row in epochs)
    seconds = (record["finished"] or {}).get("seconds")
    try:
        return TrainedRun(record["seed"], record["forward_gmac"], clips, seconds, val, run.scores["mAP"])
    except ValidationError as error:
        raise UserError(f"{folder.path}: has a figure that no run can have ({_reason(error)})") from None


STORED = TypeAdapter(Annotated[list[Recipe], Field(min_length=1)])


def store(recipes: Sequence[Recipe], path: str | Path) -> None:
    """Write recipes' figures as JSON."""
    write_json(path, [dataclasses.asdict(recipe) for recipe in recipes])


def stored(path: str | Path) -> list[Recipe]:
    """Read what `store` wrote.

    Raises:
        UserError: the file is missing, or is something else.
    """
    try:
        return STORED.validate_python(read_json(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of stored figures") from None
    except ValueError as error:
        raise UserError(f"{path}: holds no figures of recipes ({_reason(error)})") from None


def _reason(error: ValueError) -> str:
    return " ".join(str(error).split())[:120]


def as_markdown(recipes: Sequence[Recipe]) -> str:
    """A row for each recipe. Compute and time are also told as shares of the first one's."""
    header = ["recipe", "runs", "forward GMAC a clip", "GMAC in all", "minutes", "eval mAP of each seed", "mean"]
    first = recipes[0]
    header += [f"GMAC until val mAP {first.target:.3f}"]
    rows = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for each in recipes:
        until = float(np.mean([run.gmac_until(first.target) for run in each.runs]))
        rows.append(
            [
                each.title,
                str(len(each.runs)),
                f"{each.runs[0].forward_gmac:.3g}",
                share(each.mean("gmac"), first.mean("gmac")),
                share(each.mean("seconds") / 60, first.mean("seconds") / 60),
                ", ".join(f"{score:.3f}" for score in each.scores),
                f"{each.scores.mean():.3f}" + (f" ± {each.margin:.3f}" if math.isfinite(each.margin) else ""),
                f"{until:,.0f}" if math.isfinite(until) else "not by all",
            ]
        )
    return markdown_table(rows)


def share(value: float, of: float) -> str:
    """A figure, and which part it is of another, if it is not the same one."""
    if not math.isfinite(value):
        return ""
    told = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    return told if value in (0, of) or not math.isfinite(of) else f"{told} (1/{of / value:.1f})"


def draw(recipes: Sequence[Recipe]) -> "Figure":
    """Validation mAP over multiply-accumulates, a line for each run."""
    from matplotlib.ticker import LogFormatter

    figure = blank_figure(7, 4.5)
    axes = figure.subplots()
    for number, recipe in enumerate(recipes):
        for run in recipe.runs:
            spent = run.gmac * np.arange(1, len(run.val) + 1) / len(run.val)
            axes.plot(spent, run.val, color=f"C{number}", label=recipe.title if run is recipe.runs[0] else None)
    axes.axhline(recipes[0].target, color="grey", linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")  # pictures take text as it is, and by default these are in TeX
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axes.set_xlabel("GMAC of training")
    axes.set_ylabel("validation mAP")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
