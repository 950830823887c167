"""Which part or fold each recording is in: as given, or made here by class and group."""

from collections.abc import Mapping, Sequence

import numpy as np

from src.data.lmdb.splitting import connected, stratified
from src.errors import UserError
from src.preparation.own.listing import PARTS, Recording, Side
from src.preparation.own.report import Report
from src.preparation.own.sources import Source


def sides_of(
    sources: Sequence[Source], shares: Mapping[Side, float], folds: int | None, seed: int, report: Report
) -> dict[Recording, Side]:
    """The side of every source's recording. What is decided is noted in the report.

    Args:
        shares: of PARTS, where the split is made here.
        folds: how many to make instead, whatever is given.

    Raises:
        UserError: there are too few recordings or groups, or none is given to train on.
    """
    given = {each.recording: each.recording.side for each in sources if each.recording.side is not None}
    if folds:
        if folds > len(sources):  # said before so many folds are laid out
            few = f"there are {len(sources)} recordings"
            raise UserError(f"--folds {folds}: no clip is left for fold {len(sources) + 1}: {few}")
        shares = dict.fromkeys(range(1, folds + 1), 1.0)
        report.notes += [f"the given split is not used, for --folds {folds}"] * bool(given)
        given = {}
    elif given:
        parts = {str(side) for side in given.values()}
        missing = [part for part in PARTS if part not in parts]
        report.split = "as given"
        if not missing or not parts.issubset(PARTS):  # folds
            return given
        if "train" in missing:
            raise UserError(f"no recordings are given to train on, only for {' and '.join(sorted(parts))}")
        report.notes.append(f"no recordings of {' and '.join(missing)} are given: some of train's are taken")
        shares = {part: shares[part] for part in ("train", *missing)}
    report.split = f"made by class, with seed {seed}"
    dealt = [source for source in sources if given.get(source.recording, "train") == "train"]
    sides = given | _dealt(dealt, shares, seed, report)
    for side in (side for side in shares if side not in sides.values()):
        flag, name = (f"--folds {folds}", f"fold {side}") if folds else ("--split", side)
        few = f"{report.units} recordings or groups are too few for {len(shares)} sides, or have classes of their own"
        raise UserError(f"{flag}: no clip is left for {name}: {few}")
    return sides


def _dealt(sources: Sequence[Source], shares: Mapping[Side, float], seed: int, report: Report) -> dict[Recording, Side]:
    """A stratified split of sources. Those of one group, or of equal audio, are on one side."""
    sources = sorted(sources, key=lambda source: source.recording.name)
    unit = connected([each.recording.group for each in sources], [each.facts.sound.hex() for each in sources])
    labels = sorted({label for source in sources for label in source.classes})
    column = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((unit.max() + 1, len(labels)), np.int32)  # clips of a class in a unit
    sizes = np.zeros(unit.max() + 1, np.int32)
    for source, number in zip(sources, unit):
        sizes[number] += len(source.clips)
        for clip in source.clips:
            counts[number, [column[label] for label in clip.classes]] += 1
    exact = np.array(list(shares.values()))
    side = stratified(counts, sizes, exact / exact.sum(), seed)
    report.units = len(sizes)
    units_of_class = (counts > 0).sum(axis=0)
    report.too_small = {label: int(few) for label, few in zip(labels, units_of_class) if few < len(shares)}
    return {source.recording: list(shares)[side[number]] for source, number in zip(sources, unit)}
