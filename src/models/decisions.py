"""From which score on a class is decided to be present, as a checkpoint keeps it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from src.errors import UserError

DECISIONS = "decisions"  # key of a checkpoint

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Decisions:
    """Thresholds of a network's probabilities, chosen on validation clips."""

    by: str  # what they were chosen for: "F1" or "precision 0.9"
    thresholds: Sequence[Probability | None]  # (C,) float32 numbers. A class with None is never present
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0  # divides the logits

    def present(self, scores: np.ndarray) -> np.ndarray:
        """(…, C) float32 probabilities -> (…, C) of bool, true where a score reaches its threshold."""
        limits = [np.inf if threshold is None else threshold for threshold in self.thresholds]
        return scores >= np.array(limits, dtype=np.float32)

    def in_words(self, c: int, score: float) -> str:
        """What is decided of class c, and its threshold."""
        threshold = self.thresholds[c]
        if threshold is None:
            return "absent, without a threshold"
        return f"{'present' if score >= threshold else 'absent'}, threshold {threshold:.3g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as stored under DECISIONS."""
        return asdict(self)


VALIDATOR = TypeAdapter(Decisions)


def read_decisions(content: Any, num_classes: int, path: Path) -> Decisions | None:
    """What a checkpoint holds under DECISIONS. Without it, as before there were thresholds, None.

    Raises:
        UserError: it is something else, or of another number of classes.
    """
    if content is None:
        return None
    try:
        decisions = VALIDATOR.validate_python(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise UserError(f"{path}: its thresholds cannot be used ({where}: {fault['msg']}). Is it damaged?") from None
    if len(decisions.thresholds) != num_classes:
        numbers = f"{len(decisions.thresholds)} thresholds and {num_classes} classes"
        raise UserError(f"{path}: has {numbers}. Is it damaged?")
    return decisions
