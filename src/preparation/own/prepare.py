"""The whole way of somebody's own recordings: listed, read, cut, split, converted, packed, checked and reported."""

import dataclasses
import functools
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.data.audio.files import HIGHEST_RATE
from src.data.checks.check import check
from src.data.checks.record import Limits
from src.data.labels import LabelMap
from src.errors import UserError
from src.preparation.own.clips import Cutting, write_clips
from src.preparation.own.listing import PARTS, Listing, Recording, Side, read_folder
from src.preparation.own.next_steps import HOP, NextSteps, quoted
from src.preparation.own.report import Report
from src.preparation.own.sides import sides_of
from src.preparation.own.sources import Source, kind_of, labelled, read_sources
from src.preparation.own.table import read_table
from src.preparation.packing import pack_mixtures
from src.utils.files import claim_folder, require_writable, write_json, write_whole
from src.utils.parallel import make_all
from src.utils.text import NAMES

log = logging.getLogger(__name__)

DELIMITERS = (",", ";", "|")
COMMANDS = "commands.sh"
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

    @property
    def is_folder(self) -> bool:
        """Whether `src` is one, or nothing that could be a table."""
        is_table = os.path.splitext(self.src)[1].lower() in TABLES
        return os.path.isdir(self.src) or not (is_table or os.path.exists(self.src))


def prepare(options: OwnOptions) -> str:
    """Make a data set of a folder or a table of recordings, and say what became of it.

    Writes below `out_dir` the clips as `flac/<part>/<name>.flac` with `.txt`, and an LMDB for each part, or with folds
    one for all. Beside them lie `lbl_map.json`, `mine.cfg`, `commands.sh`, `report.json` and `report.txt`. FLAC files
    that are there and whole are kept.

    Returns:
        The report, and the commands that train, score and tag.

    Raises:
        UserError: something in the source or the options does not fit, nothing can be read, or there are too few
            recordings to split.
    """
    out = Path(options.out_dir)
    _require_possible(options)
    require_writable(*(out / name for name in ("report.json", "report.txt", "mine.cfg", "lbl_map.json", COMMANDS)))
    listing = _listing(options)
    claim_folder(out / "flac", options.recipe(), "clips", "--out_dir")
    report = Report(listing.notes, listing.left_out, options.sample_rate, options.clip_seconds)
    sources, kind = _sources(listing, options, report)
    names = sorted({label for source in sources for label in source.classes})
    if not names:
        unheard = any(each.events for each in listing.recordings)
        cause = ". Its events lie behind the recordings' ends. Are their times in seconds?" if unheard else ""
        raise UserError(f"{options.src}: no clip has a class{cause}")
    delimiter = next((sign for sign in DELIMITERS if not any(sign in name for name in names)), None)
    if delimiter is None:
        raise UserError(f"{options.src}: its classes' names hold all of {' '.join(DELIMITERS)}. Rename one of them")
    sides = sides_of(sources, dict(zip(PARTS, options.split)), options.folds, options.seed, report)
    report.count(sources, sides, {event.label for each in listing.recordings for event in each.events})

    side_of_clip = {clip.name: sides[source.recording] for source in sources for clip in source.clips}
    folds = {name: side for name, side in side_of_clip.items() if isinstance(side, int)} or None
    parts = ("all",) if folds else PARTS
    groups = {clip.name: source.recording.group for source in sources for clip in source.clips}
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
            groups=groups,
            keep_events=_have_times(listing),
        )
    label_map = LabelMap(tuple(names), str(out / "lbl_map.json"))
    label_map.save(label_map.path)
    sizes = Counter(side_of_clip.values())
    num_train = sizes.total() - max(sizes.values()) if folds else sizes["train"]
    numbers = sorted(set(folds.values())) if folds else []
    steps = NextSteps(options.out_dir, kind, numbers, options.clip_seconds, options.sample_rate)
    _write_cfg(out / "mine.cfg", steps.cfg(len(names), num_train, delimiter).encode(errors=NAMES))
    limits = Limits(label_map, delimiter, options.sample_rate)
    found = check([out / f"{part}.lmdb" for part in parts], limits, options.num_workers)
    text = report.as_text(found, label_map)
    write_whole(out / COMMANDS, steps.script(options.epochs))
    write_json(out / "report.json", report.as_json(found, label_map))
    write_whole(out / "report.txt", text + "\n")
    title = f"# To train, score and tag, as bash {quoted(options.out_dir, COMMANDS)} does:"
    return f"{text}\n\n{title}\n{steps.commands(options.epochs)}"


def _write_cfg(file: Path, content: bytes) -> None:
    """Write the cfg. One that is there and differs, be it by the user's hand, is kept as `.old`."""
    if file.is_file() and file.read_bytes() != content:
        old = file.with_name(f"{file.name}.old")
        write_whole(old, file.read_bytes())
        log.warning("%s: is written anew. What was there is kept as %s", file, old)
    write_whole(file, content)


def _require_possible(options: OwnOptions) -> None:
    """Refuse flags that do not fit each other or the source."""
    if not 0 <= options.overlap < options.clip_seconds:
        limit = f"should be 0 or more, and below --clip_seconds {options.clip_seconds:g}"
        raise UserError(f"--overlap {options.overlap:g}: {limit}")
    if options.sample_rate > HIGHEST_RATE:
        raise UserError(f"--sample_rate {options.sample_rate}: FLAC files have {HIGHEST_RATE} Hz at most")
    if options.clip_seconds * options.sample_rate < HOP:
        frame = f"{HOP} samples or {HOP / options.sample_rate:.3g} s"
        raise UserError(f"--clip_seconds {options.clip_seconds:g}: is shorter than a frame of {frame}")
    if options.folds == 1:
        raise UserError("--folds 1: there should be two at least, to train on one and validate on the other")
    if os.path.realpath(options.src) == os.path.realpath(options.out_dir):
        raise UserError(f"--out_dir {options.out_dir}: is --src itself. Choose another folder")
    kind, unused = ("folder", ("audio_dir", "split_by")) if options.is_folder else ("table", ("class_level",))
    for name in unused:
        if getattr(options, name) is not None:
            raise UserError(f"--{name}: is of no use, for --src {options.src} is a {kind}")


def _listing(options: OwnOptions) -> Listing:
    """What the source lists."""
    if options.is_folder:
        return read_folder(options.src, options.class_level, options.group_by)
    return read_table(options.src, options.audio_dir, options.label_separator, options.group_by, options.split_by)


def _have_times(listing: Listing) -> bool:
    """Whether its labels are events with onset and offset, and not of whole recordings."""
    return all(math.isfinite(event.offset) for each in listing.recordings for event in each.events)


def _sources(listing: Listing, options: OwnOptions, report: Report) -> tuple[list[Source], str]:
    """What can be read of a listing, and the kind of labels that its clips have."""
    cutting = Cutting(options.sample_rate, options.clip_seconds, options.overlap, options.min_overlap)
    sources, broken = read_sources(listing.recordings, cutting, options.num_workers)
    report.left_out |= broken
    report.recordings = len(sources)
    kind, why = kind_of(sources, options.type)
    report.kind = f"{kind}, {why}"
    if kind == "multiclass":
        report.unlabelled = sum(not clip.classes for source in sources for clip in source.clips)
        sources = labelled(sources)
    return sources, kind


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
