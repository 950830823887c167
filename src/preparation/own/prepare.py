"""The whole way of somebody's own recordings: listed, read, cut, split, converted, packed, checked and reported."""

import dataclasses
import functools
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.data.checks.check import check
from src.data.checks.record import Limits
from src.data.labels import LabelMap
from src.errors import UserError
from src.preparation.own.clips import Cutting, write_clips
from src.preparation.own.listing import PARTS, Listing, Recording, Side, read_folder
from src.preparation.own.next_steps import NextSteps
from src.preparation.own.report import Report
from src.preparation.own.sources import Source, kind_of, labelled, read_sources
from src.preparation.own.splitting import connected, stratified
from src.preparation.own.table import read_table
from src.preparation.packing import pack_mixtures
from src.utils.files import claim_folder, require_writable, write_whole
from src.utils.parallel import make_all

log = logging.getLogger(__name__)

DELIMITERS = (",", ";", "|")
SUFFIXES = (".flac", ".txt")  # of a clip
TABLES = (".csv", ".tsv", ".txt")  # suffixes of what is a table though it is missing


@dataclass(frozen=True)
class OwnOptions:
    """What scripts/prepare_own.py is asked for, by its flags."""

    src: str
    out_dir: str
    audio_dir: str | None
    class_level: int | None
    label_separator: str
    type: str  # auto, multiclass or multilabel
    split: Sequence[float]  # shares of train, val and eval
    split_by: str | None
    group_by: str | None
    folds: int | None
    seed: int
    clip_seconds: float
    overlap: float  # s
    min_overlap: float  # s
    sample_rate: int  # Hz
    epochs: int
    num_workers: int
    map_size: float

    def recipe(self) -> dict[str, Any]:
        """What decides what the clips are, and which part each is in."""
        recipe = dataclasses.asdict(self) | {"src": os.path.realpath(self.src), "split": list(self.split)}
        return {name: recipe[name] for name in recipe if name not in ("out_dir", "epochs", "num_workers", "map_size")}


def prepare(options: OwnOptions) -> str:
    """Make a data set of a folder or a table of recordings, and say what became of it.

    Writes below `out_dir` the clips as `flac/<part>/<name>.flac` with `.txt`, an LMDB for each part, or with folds one
    for all, `lbl_map.json`, `mine.cfg`, `report.json` and `report.txt`. FLAC files that are there and whole are kept.

    Returns:
        The report, and the commands that train, score and tag.

    Raises:
        UserError: something in the source or the options does not fit, nothing can be read, or there are too few
            recordings to split.
    """
    out = Path(options.out_dir)
    if not 0 <= options.overlap < options.clip_seconds:
        limit = f"should be 0 or more, and below --clip_seconds {options.clip_seconds:g}"
        raise UserError(f"--overlap {options.overlap:g}: {limit}")
    if options.folds == 1:
        raise UserError("--folds 1: there should be two at least, to train on one and validate on the other")
    require_writable(*(out / name for name in ("report.json", "report.txt", "mine.cfg", "lbl_map.json")))
    listing = _listing(options)
    claim_folder(out / "flac", options.recipe(), "clips", "--out_dir")
    cutting = Cutting(options.sample_rate, options.clip_seconds, options.overlap, options.min_overlap)
    sources, broken = read_sources(listing.recordings, cutting, options.num_workers)
    left_out = listing.left_out | broken
    report = Report(listing.notes, left_out, len(listing.left_out) + len(listing.recordings), options.sample_rate)

    kind, why = kind_of(sources, options.type)
    report.kind = f"{kind}, for {why}" if options.type == "auto" else f"{kind}, {why}"
    if kind == "multiclass":
        all_clips = sum(len(source.clips) for source in sources)
        sources = labelled(sources)
        report.unlabelled = all_clips - sum(len(source.clips) for source in sources)
    names = sorted({label for source in sources for label in source.classes})
    if not names:
        raise UserError(f"{options.src}: no clip has a class")
    delimiter = next((sign for sign in DELIMITERS if not any(sign in name for name in names)), None)
    if delimiter is None:
        raise UserError(f"{options.src}: its classes' names hold all of {' '.join(DELIMITERS)}. Rename one of them")
    sides = _sides(sources, options, report)
    report.count(sources, sides, {event.label for each in listing.recordings for event in each.events})

    sides_of_clips = {clip.name: sides[source.recording] for source in sources for clip in source.clips}
    folds = {name: side for name, side in sides_of_clips.items() if isinstance(side, int)} or None
    parts = ("all",) if folds else PARTS
    _write(sources, {} if folds else sides, out / "flac", parts, options)
    for part in parts:
        pack_mixtures(
            [str(out / "flac" / part)],
            str(out / f"{part}.lmdb"),
            map_size=options.map_size,
            min_duration=options.clip_seconds,
            sample_rate=options.sample_rate,
            delimiter=delimiter,
            num_workers=options.num_workers,
            allow_empty=kind == "multilabel",
            folds=folds,
        )
    label_map = LabelMap(tuple(names), str(out / "lbl_map.json"))
    label_map.save(label_map.path)
    sizes = Counter(sides_of_clips.values())
    num_train = sizes.total() - max(sizes.values()) if folds else sizes["train"]
    numbers = sorted(set(folds.values())) if folds else []
    steps = NextSteps(options.out_dir, kind, numbers, options.clip_seconds, options.sample_rate)
    write_whole(out / "mine.cfg", steps.cfg(len(names), num_train, delimiter))
    limits = Limits(label_map, delimiter, options.sample_rate)
    found = check([out / f"{part}.lmdb" for part in parts], limits, options.num_workers)
    text = report.as_text(found, label_map)
    write_whole(out / "report.json", json.dumps(report.as_json(found, label_map), indent=2) + "\n")
    write_whole(out / "report.txt", text + "\n")
    return f"{text}\n\n{steps.commands(options.epochs)}"


def _listing(options: OwnOptions) -> Listing:
    """What the source lists."""
    is_table = os.path.splitext(options.src)[1].lower() in TABLES
    is_folder = os.path.isdir(options.src) or not (is_table or os.path.exists(options.src))
    kind, unused = ("folder", ("audio_dir", "split_by")) if is_folder else ("table", ("class_level",))
    for name in unused:
        if getattr(options, name) is not None:
            raise UserError(f"--{name}: is of no use, for --src {options.src} is a {kind}")
    if os.path.realpath(options.src) == os.path.realpath(options.out_dir):
        raise UserError(f"--out_dir {options.out_dir}: is --src itself. Choose another folder")
    if is_folder:
        return read_folder(options.src, options.out_dir, options.class_level, options.group_by)
    return read_table(options.src, options.audio_dir, options.label_separator, options.group_by, options.split_by)


def _sides(sources: Sequence[Source], options: OwnOptions, report: Report) -> dict[Recording, Side]:
    """The part or fold of each recording: as given, or made here where it is not."""
    given = {each.recording: each.recording.side for each in sources if each.recording.side is not None}
    if given and options.folds:
        report.notes.append(f"the given split is not used, for --folds {options.folds}")
        given = {}
    shares: dict[Side, float] = dict(zip(PARTS, options.split))
    if options.folds:
        shares = dict.fromkeys(range(1, options.folds + 1), 1.0)
    elif given:
        parts = {str(side) for side in given.values()}
        missing = [part for part in PARTS if part not in parts]
        report.split = "as given"
        if not missing or not parts.issubset(PARTS):  # folds
            return given
        if "train" in missing:
            raise UserError(f"{options.src}: gives no recordings to train on, only for {' and '.join(sorted(parts))}")
        report.notes.append(f"no recordings of {' and '.join(missing)} are given: some of train's are taken")
        shares = {part: shares[part] for part in ("train", *missing)}
    report.split = f"made by class, with seed {options.seed}"
    dealt = [source for source in sources if given.get(source.recording, "train") == "train"]
    sides = given | _dealt(dealt, shares, options.seed, report)
    for side in (side for side in shares if side not in sides.values()):
        name = f"fold {side}" if isinstance(side, int) else side
        units = f"{report.units} recordings or groups"
        raise UserError(f"{options.src}: no clip is left for {name}: {units} are too few for {len(shares)} sides")
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


def _write(
    sources: Sequence[Source], sides: Mapping[Recording, Side], flac: Path, parts: Sequence[str], options: OwnOptions
) -> None:
    """Have all clips in the folders of their parts, and no others."""
    items = [(each.recording, flac / str(sides.get(each.recording, "all")), each.clips) for each in sources]
    wanted = {folder / f"{clip.name}{suffix}" for _, folder, clips in items for clip in clips for suffix in SUFFIXES}
    for part in parts:
        (flac / part).mkdir(exist_ok=True)
        for file in (flac / part).iterdir():
            if file.suffix in SUFFIXES and file not in wanted:
                log.info("%s: deleted, as no recording gives this clip any more", file)
                file.unlink()
    write = functools.partial(write_clips, options.sample_rate)
    failed = make_all(write, items, options.num_workers, flac.parent, "FLAC files")
    if failed:
        raise next(iter(failed.values()))
