"""How far probabilities can be believed, and a checkpoint's thresholds and temperature chosen on validation clips."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.errors import UserError, listed
from src.learning.events.choosing import choose_events
from src.learning.tasks import Task
from src.learning.thresholds import DecisionScores, choose, decision_scores, report_missing
from src.models.checkpoint import keep_decisions, read_checkpoint
from src.models.decisions import Decisions
from src.scoring.predictions import Candidate, InferenceOptions, predictions, with_events
from src.utils.pictures import blank_figure, save_figure

log = logging.getLogger(__name__)

BINS = 15  # of equal width, as Guo et al. have them
FEW = 10  # clips of a class, below which its threshold depends on chance
EXTREME = 20.0  # temperatures from its reciprocal to this are tried


@dataclass(frozen=True)
class Reliability:
    """Probabilities in bins of equal width, and how often what they are of was so. Empty bins are NaN."""

    counts: np.ndarray  # (BINS,)
    confidence: np.ndarray  # (BINS,) mean probability
    frequency: np.ndarray  # (BINS,) observed share of what was so

    @property
    def ece(self) -> float:
        """Expected calibration error in [0, 1] (Guo et al., 2017, arXiv 1706.04599)."""
        return float(np.nansum(self.counts * np.abs(self.frequency - self.confidence)) / self.counts.sum())


def reliability(confidences: np.ndarray, outcomes: np.ndarray) -> Reliability:
    """Compare (M,) probabilities with (M,) outcomes of 0 and 1. A bin has its upper end and not its lower one."""
    bins = np.digitize(confidences, np.linspace(0, 1, BINS + 1)[1:-1], right=True)  # (M,)
    counts, *sums = (np.bincount(bins, values, BINS) for values in (None, confidences, outcomes))
    with np.errstate(invalid="ignore"):
        return Reliability(counts, *(each / counts for each in sums))


def fitted_temperature(task: Task, logits: torch.Tensor, targets: np.ndarray) -> float:
    """The number that (N, C) logits are to be divided by for the largest likelihood of the targets."""
    from scipy.optimize import minimize_scalar  # here, for it takes a while and evaluations can do without

    wide, truth = logits.double(), torch.from_numpy(targets)
    truth = truth.double() if truth.is_floating_point() else truth
    limit = math.log(EXTREME)
    # The likelihood is concave over 1 / T, and so has one maximum over log T.
    found = minimize_scalar(
        lambda exponent: task.likelihood_loss(wide / math.exp(exponent), truth).item(), bounds=(-limit, limit)
    )
    if abs(found.x) > 0.99 * limit:
        log.warning("the temperature is at its limit, %.3g. Are there too few clips to fit it?", math.exp(found.x))
    return math.exp(found.x)


@dataclass(frozen=True)
class Calibration:
    """What was chosen for a checkpoint, and how good it is on the clips that it was chosen on."""

    classes: Sequence[str]
    clips: np.ndarray  # (C,) positive ones
    decisions: Decisions
    scores: DecisionScores
    temperature: float  # before
    before: Reliability
    after: Reliability  # with the new temperature

    @property
    def curves(self) -> dict[str, Reliability]:
        """Temperature, in words -> reliability with it: of two temperatures if one was fitted."""
        each = (self.temperature, self.before), (self.decisions.temperature, self.after)
        return {f"temperature {temperature:.4g}": curve for temperature, curve in each}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row a class. None stands for what is not defined."""
        for c, name in enumerate(self.classes):
            yield {"class": name, "clips": int(self.clips[c])} | self.scores.of_class(c)


def calibrate(
    path: Path, options: InferenceOptions, precision: float | None, temperature: bool, output: str | None
) -> Calibration:
    """Choose a checkpoint's thresholds on clips, and put them into its file.

    Args:
        precision: to choose for, by default the best F1.
        temperature: fit it first. Otherwise it stays.
        output: write a copy there instead.

    Raises:
        UserError: something does not fit, or the checkpoint is one of 2021 and no `output` is given.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.label_map is None and output is None:
        raise UserError(f"{path}: was released in 2021, and is left as it is. Give --output FILE.ckpt for a copy")
    (found,) = predictions([Candidate(path)], with_events(options, [path]))
    if not found.multi_hot.any():
        raise UserError(f"{options.source}: has no clip of any class, and so nothing to choose thresholds by")
    task, names, kept = found.task, found.dataset.label_map.names, checkpoint.temperature
    divisor = fitted_temperature(task, found.logits, found.targets) if temperature else kept
    probabilities = task.probabilities(found.logits, divisor).numpy()
    decisions = choose(probabilities, found.multi_hot, precision, divisor)
    scores = decision_scores(decisions, probabilities, found.multi_hot)
    before, after = (
        reliability(*task.confidences(each, found.targets)) for each in (found.probabilities, probabilities)
    )
    report_missing(decisions.thresholds, names, options.source)
    clips = found.multi_hot.sum(axis=0)
    few = [f"{names[c]} ({clips[c]:.0f})" for c in np.flatnonzero((clips > 0) & (clips < FEW))]
    if few:
        log.warning("thresholds of classes with fewer than %d clips are uncertain: %s", FEW, listed(few, 20))
    short = [names[c] for c in np.flatnonzero(scores.precision < (precision or 0))]
    if short:
        log.warning("a precision of %g is not reached by %s. Taken: their best one", precision, listed(short, 60))
    keep_decisions(checkpoint, decisions, None if found.frames is None else choose_events(*found.seen()), output)
    return Calibration(names, clips, decisions, scores, kept, before, after)


def draw_reliability(path: str | Path, curves: Mapping[str, Reliability], title: str) -> None:
    """Draw observed frequencies over probabilities, a line for each curve, and how many probabilities a bin has."""
    figure = blank_figure(5, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect calibration")
    edges = np.linspace(0, 1, BINS + 1)
    for name, curve in curves.items():
        known = curve.counts > 0
        above.plot(curve.confidence[known], curve.frequency[known], marker="o", label=f"{name}, ECE {curve.ece:.4f}")
        below.stairs(curve.counts, edges)
    figure.suptitle(title, fontsize="small")
    above.set(ylabel="observed frequency", xlim=(0, 1), ylim=(0, 1))
    above.legend(fontsize="small")
    below.set(xlabel="predicted probability", ylabel="count", yscale="symlog")
    below.yaxis.set_major_formatter("{x:g}")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    save_figure(figure, path, dpi=110)
