"""Two checkpoints on the same clips."""

import numpy as np

from src.errors import UserError
from src.learning.metrics import ranking_scores
from src.runs.folder import checkpoint_at
from src.scoring.differences import Comparison
from src.scoring.events.scores import compare_event_scores
from src.scoring.predictions import Candidate, InferenceOptions, predictions, with_events
from src.scoring.score_tables import SCORES, as_columns

NEAR = 0.05  # s that the parts of clips that two networks see may be apart


def compare(first: str, second: str, options: InferenceOptions, resamples: int, seed: int) -> list[Comparison]:
    """Score two checkpoints on the clips of `options.source` and on the same resamples of them.

    Two networks of events are also compared by when they hear what, if the clips have events.

    Raises:
        UserError: a checkpoint cannot be read, a file is replaced meanwhile, or the two were validated on other folds.
    """
    candidates = [Candidate(checkpoint_at(first)), Candidate(checkpoint_at(second))]
    one, other = predictions(candidates, with_events(options, [candidate.path for candidate in candidates]))
    if not np.array_equal(one.dataset.records, other.dataset.records):
        folds = " and ".join(str(each.checkpoint.record.get("fold_index")) for each in (one, other))
        where = f"on other clips of {options.source}"
        raise UserError(f"{first} and {second} would be scored {where}: their folds are {folds}")
    scores = [
        as_columns(ranking_scores(each.probabilities, each.multi_hot))
        | each.task.more_scores(each.probabilities, each.targets)
        for each in (one, other)
    ]
    bootstrapped = [each.bootstrap(resamples, seed) for each in (one, other)]
    found = [
        Comparison.of(name, [each[name] for each in scores], [getattr(each, name) for each in bootstrapped])
        for name in (*SCORES, "accuracy")
        if all(name in each for each in scores)
    ]
    if one.frames is None:
        return found
    (first_scores, truth), (second_scores, other_truth) = one.smoothed, other.smoothed
    apart = np.abs(truth.durations - other_truth.durations).max()
    if len(truth.clip) != len(other_truth.clip) or max(apart, np.abs(truth.onset - other_truth.onset).max()) > NEAR:
        raise UserError(f"{first} and {second} would be scored on other parts of the clips. Give --num_timesteps")
    limits = one.event_decisions.limits, other.event_decisions.limits
    return found + compare_event_scores((first_scores, second_scores), truth, resamples, seed, limits)
