"""From which score on a class is decided to be present, or to sound, as a checkpoint keeps it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from src.errors import UserError

DECISIONS = "decisions"  # keys of a checkpoint
EVENT_DECISIONS = "event_decisions"

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Decisions:
    """Thresholds of a network's probabilities, chosen on validation clips."""

    by: str  # what they were chosen for: "F1" or "precision 0.9"
    thresholds: Sequence[Probability | None]  # (C,) float32 numbers. A class with None is never present
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0  # divides the logits

    def present(self, scores: np.ndarray) -> np.ndarray:
        """(…, C) float32 probabilities -> (…, C) of bool, true where a score reaches its threshold."""
        return scores >= _limits(self.thresholds).astype(np.float32)

    def in_words(self, c: int, score: float) -> str:
        """What is decided of class c, and its threshold."""
        threshold = self.thresholds[c]
        if threshold is None:
            return "absent, without a threshold"
        return f"{'present' if score >= threshold else 'absent'}, threshold {threshold:.3g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as stored under DECISIONS."""
        return asdict(self)


@dataclass(frozen=True)
class EventDecisions:
    """What makes events of a network's frame probabilities, chosen on validation clips for the collar-based F-score."""

    medians: Sequence[Annotated[int, Field(ge=1, le=9999)]]  # (C,) frames of each class's median filter, odd
    thresholds: Sequence[Probability | None]  # (C,) of filtered probabilities. A class with None never sounds

    @classmethod
    def plain(cls, num_classes: int) -> "EventDecisions":
        """No filters, and thresholds of 0.5."""
        return cls([1] * num_classes, [0.5] * num_classes)

    @property
    def limits(self) -> np.ndarray:
        """(C,) float64 thresholds, infinite where there is none."""
        return _limits(self.thresholds)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as stored under EVENT_DECISIONS."""
        return asdict(self)


def _limits(thresholds: Sequence[float | None]) -> np.ndarray:
    return np.array([np.inf if threshold is None else threshold for threshold in thresholds])


Kind = TypeVar("Kind", Decisions, EventDecisions)


def read_decisions(kind: type[Kind], content: Any, num_classes: int, path: Path) -> Kind | None:
    """What a checkpoint holds under a key of decisions. Without it, as before there were any, None.

    Raises:
        UserError: it is something else, or of another number of classes.
    """
    if content is None:
        return None
    try:
        decisions = TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise UserError(f"{path}: its thresholds cannot be used ({where}: {fault['msg']}). Is it damaged?") from None
    for name, values in vars(decisions).items():
        if name in ("thresholds", "medians") and len(values) != num_classes:
            raise UserError(f"{path}: has {len(values)} {name} and {num_classes} classes. Is it damaged?")
    if isinstance(decisions, EventDecisions) and (even := [length for length in decisions.medians if length % 2 == 0]):
        raise UserError(f"{path}: has a median filter of {even[0]} frames, which must be odd. Is it damaged?")
    return decisions
