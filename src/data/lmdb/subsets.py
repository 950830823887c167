"""Which records of an LMDB are trained on, and which of them choose the checkpoint."""

import logging
from collections.abc import Sequence

import numpy as np

from src.data.labels import split_labels
from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.splitting import connected, stratified
from src.data.lmdb.store import Annotation, LMDBReader
from src.errors import UserError

log = logging.getLogger(__name__)

SHARE = 0.1  # of the clips: enough to choose an epoch by (1,925 of AudioSet's 19,253), and little is lost for training
SEED = 0  # not the run's: runs of several seeds should differ in training, and not in what chooses among their epochs
NOTE = "held_out"


def chosen_records(
    reader: LMDBReader,
    annotations: Sequence[Annotation],
    delimiter: str,
    fold: int | None,
    held_out: bool,
    complement: bool,
) -> np.ndarray:
    """Indices of the records that are validated on, or of those that are trained on.

    Args:
        annotations: of all records.
        delimiter: between the names of a label.
        fold: the one that is scored, of an LMDB with folds.
        held_out: validate on the fold behind it, or without folds on a part of the clips that `held_out_records` gives.
            Otherwise on the scored fold itself, or on all clips.
        complement: those that are trained on. Neither the scored nor the validated ones are among them.

    Raises:
        UserError: there is no such fold, or too little to hold a part of it out.
    """
    everything = np.arange(len(annotations))
    if fold is not None:
        folds = np.array([found for _, found in annotations], dtype=object)
        chooses = validated_fold(fold, folds.tolist(), held_out, reader.path)
        is_kept = ~((folds == fold) | (folds == chooses)) if complement else folds == chooses
        return everything[is_kept.astype(bool)]
    if not held_out:
        return everything
    chosen = held_out_records(reader, annotations, delimiter)
    return np.setdiff1d(everything, chosen) if complement else chosen


def validated_fold(fold: int, folds: Sequence[int | None], held_out: bool, lmdb_path: str) -> int:
    """The fold that chooses the checkpoint of a run that is scored on `fold`: itself, or the next one, the first again
    after the last."""
    present = sorted({found for found in folds if found is not None})
    if not present:
        raise UserError(f"{lmdb_path}: its records have no folds. Only prepare_esc50.py and prepare_own.py give them")
    if fold not in present:
        raise UserError(f"fold {fold}: {lmdb_path} has the folds {', '.join(map(str, present))}")
    if held_out and len(present) < 3:
        needed = "--protocol held_out needs three at least: to train on, to validate on and to score"
        raise UserError(f"{lmdb_path}: has {len(present)} folds, and {needed}")
    return present[(present.index(fold) + held_out) % len(present)]


def held_out_records(reader: LMDBReader, annotations: Sequence[Annotation], delimiter: str) -> np.ndarray:
    """Indices of the `SHARE` of the records that is held out of training, with as much of each class.

    Records of one group are on one side. The LMDB alone decides, not the run. A note beside it keeps the choice, which
    takes a quarter of a minute for 180,000 clips.

    Raises:
        UserError: none can be held out, for there are too few.
    """
    state, rule = FileState.of(reader.file), {"share": SHARE, "seed": SEED, "delimiter": delimiter}
    known = recall(state, NOTE)
    if isinstance(known, dict) and rule.items() <= known.items() and _are_records(known.get("records"), len(reader)):
        return np.array(known["records"])
    unit = connected(reader.groups() or range(len(reader)))
    labels = [[label] if isinstance(label, int) else split_labels(label, delimiter) for label, _ in annotations]
    column = {label: index for index, label in enumerate(sorted({str(one) for names in labels for one in names}))}
    counts = np.zeros((unit.max(initial=-1) + 1, len(column)), np.int32)  # clips of a class in a unit
    for number, names in zip(unit, labels):
        counts[number, [column[name] for name in {str(one) for one in names}]] += 1
    side = stratified(counts, np.bincount(unit), (1 - SHARE, SHARE), SEED)
    records = np.flatnonzero(side[unit] == 1)
    if not len(records):
        few = f"its {len(annotations)} clips, in {len(counts)} groups, are too few to hold {SHARE:.0%} of them out"
        raise UserError(f"{reader.path}: {few} (--protocol held_out)")
    log.info("%s: %d of %d clips are held out of training", reader.path, len(records), len(annotations))
    remember(state, NOTE, rule | {"records": records.tolist()})
    return records


def _are_records(found: object, count: int) -> bool:
    """Whether that is what a note should hold: somebody else may have written it."""
    return isinstance(found, list) and bool(found) and all(type(one) is int and 0 <= one < count for one in found)
