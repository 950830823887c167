"""The official CSV files of ESC-50, AudioSet and VGGSound -> their clips and classes."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import splitext
from pathlib import Path

from src.data.audio.files import AUDIO_SUFFIXES
from src.data.labels import LabelMap, nfc
from src.errors import UserError
from src.utils.text import read_text

DELIMITER = ";"  # between the labels of a record: AudioSet's and VGGSound's names contain commas
YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]+")
VGGSOUND_SECONDS = 10.0  # of every clip
VGGSOUND_SPLITS = ("train", "test")
ESC50_SECONDS = 5.0  # of every clip

ESC50_CLASSES = tuple(  # in the order of the official target numbers: ten of each major category
    """
    dog rooster pig cow frog cat hen insects sheep crow
    rain sea_waves crackling_fire crickets chirping_birds water_drops wind pouring_water toilet_flush thunderstorm
    crying_baby sneezing clapping breathing coughing footsteps laughing brushing_teeth snoring drinking_sipping
    door_wood_knock mouse_click keyboard_typing door_wood_creaks can_opening washing_machine vacuum_cleaner
    clock_alarm clock_tick glass_breaking
    helicopter chainsaw siren car_horn engine train church_bells airplane fireworks hand_saw
    """.split()
)
ESC50_FOLDS = range(1, 6)


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip as a catalogue lists it."""

    id: str  # names its FLAC file
    names: tuple[str, ...]  # what its source file may be called, without the extension. The surest is first
    label: str | int  # of its record: class names joined by DELIMITER, or ESC-50's target
    seconds: float  # its length
    fold: int | None = None  # ESC-50's
    group: str | None = None  # the video that it is of


@dataclass(frozen=True)
class Catalogue:
    """The clips of a data set, by the LMDB that they go into."""

    path: str  # the CSV, for messages
    classes: LabelMap
    sets: Mapping[str, Sequence[Clip]]  # name of the LMDB -> its clips, in the CSV's order


def read_esc50(src_dir: str | Path) -> Catalogue:
    """ESC-50's clips, by `meta/esc50.csv` (filename, fold, target, category, …), as one set "esc50".

    Raises:
        UserError: the file is missing or of another kind, or a line contradicts the official classes.
    """
    path = Path(src_dir) / "meta" / "esc50.csv"
    clips: dict[str, Clip] = {}
    for where, row in _records(path, ("filename", "fold", "target", "category"), "ESC-50's meta/esc50.csv"):
        name, category = row["filename"], row["category"]
        target = _whole_number(row["target"], range(len(ESC50_CLASSES)), f"{where}: target")
        fold = _whole_number(row["fold"], ESC50_FOLDS, f"{where}: fold")
        if category != ESC50_CLASSES[target]:
            official = f"but officially target {target} is '{ESC50_CLASSES[target]}'"
            raise UserError(f"{where}: category '{category}' has target {target}, {official}")
        if not name or name != Path(name).name or name.startswith("."):
            raise UserError(f"{where}: '{name}' is no plain file name")
        stem = Path(name).stem
        _add(clips, Clip(stem, (stem,), target, ESC50_SECONDS, fold), where)
    return Catalogue(str(path), LabelMap(ESC50_CLASSES, "ESC-50"), {"esc50": _not_empty(clips, path)})


def read_audioset(
    segments_csv: str | Path, class_labels: str | Path, name: str | None = None, ids: str | Path | None = None
) -> Catalogue:
    """The clips of one of AudioSet's segment files, as one set.

    Args:
        class_labels: `class_labels_indices.csv`. The label map has all of its classes.
        name: of the set. By default it is `eval` for `eval_segments.csv` and so on.
        ids: a file of clips to choose, one a line: ids, `<YouTube id>_<start second>`, or other names of `Clip.names`,
            with a suffix of audio files or without.

    Raises:
        UserError: a file is missing or of another kind, or a class id is not in `class_labels`.
            An id is not in `segments_csv`, or the name is no plain one.
    """
    name = set_name(segments_csv) if name is None else name
    if not name or name != Path(name).name or name.startswith("."):
        raise UserError(f"--name '{name}': is no plain name such as balanced_train or eval")
    display_names = read_class_labels(class_labels)
    clips = read_segments(segments_csv, display_names)
    if ids is not None:
        clips = _chosen(clips, ids, segments_csv)
    classes = LabelMap(tuple(sorted(display_names.values())), str(class_labels))
    return Catalogue(str(segments_csv), classes, {name: tuple(clips)})


def set_name(segments_csv: str | Path) -> str:
    """`eval` of `eval_segments.csv`, and so on."""
    return Path(segments_csv).stem.removesuffix("_segments")


def read_segments(path: str | Path, display_names: Mapping[str, str] | None = None) -> list[Clip]:
    """The clips of one of AudioSet's segment files.

    Lines are YTID, start_seconds, end_seconds, "positive_labels", after comments that begin with `#`.

    Args:
        display_names: class id → name in the clips' labels. Without it, labels are the class ids.

    Raises:
        UserError: the file is missing, is not such a file, or has a class id that is not in `display_names`.
    """
    clips: dict[str, Clip] = {}
    for where, fields in _rows(path, "an official AudioSet segment CSV"):
        try:
            video, from_second, to_second, labels = fields
            start, end = float(from_second), float(to_second)
        except ValueError:
            expected = 'YTID, start_seconds, end_seconds, "positive_labels"'
            raise UserError(f"{where}: is not {expected}. Is it an official AudioSet segment CSV?") from None
        _require_youtube_id(video, where)
        if not 0 <= start < end < float("inf"):
            raise UserError(f"{where}: the clip begins at {from_second} s and ends at {to_second} s")
        class_ids = labels.split(",")
        if not all(class_ids):
            raise UserError(f"{where}: '{labels}' is not a list of class ids, separated by commas")
        if display_names is not None:
            unknown = [class_id for class_id in class_ids if class_id not in display_names]
            if unknown:
                raise UserError(f"{where}: class id '{unknown[0]}' is not in --class_labels. Is that another release?")
            class_ids = [display_names[class_id] for class_id in class_ids]
        second = f"{video}_{int(start)}"
        milliseconds = f"{video}_{round(1000 * start)}_{round(1000 * end)}"
        names = (second, milliseconds, video, f"Y{video}")
        _add(clips, Clip(second, names, DELIMITER.join(class_ids), end - start, group=video), where)
    segments = Counter(clip.names[2] for clip in _not_empty(clips, path))
    return [  # where a video has several clips, its bare name does not say which of them a file is
        clip if segments[clip.names[2]] == 1 else replace(clip, names=clip.names[:2]) for clip in clips.values()
    ]


def read_class_labels(path: str | Path) -> dict[str, str]:
    """Class id → display name, of AudioSet's `class_labels_indices.csv` (index, mid, display_name).

    Raises:
        UserError: the file is missing or of another kind, or names a class twice.
    """
    names: dict[str, str] = {}
    for where, row in _records(path, ("index", "mid", "display_name"), "AudioSet's class_labels_indices.csv"):
        mid, name = row["mid"], row["display_name"]
        if mid in names or name in names.values():
            raise UserError(f"{where}: class '{name}' ({mid}) is listed twice")
        _require_label(name, where)
        names[mid] = name
    if not names:
        raise UserError(f"{path}: lists no classes")
    return names


def read_vggsound(path: str | Path, splits: Sequence[str] = VGGSOUND_SPLITS) -> Catalogue:
    """VGGSound's clips by `vggsound.csv`, without a header: YTID, start second, "label", train or test.

    Args:
        splits: sets wanted. The label map has the labels of all.

    Raises:
        UserError: the file is missing or of another kind, or lists a clip in two ways.
    """
    clips: dict[str, Clip] = {}
    split_of: dict[str, str] = {}
    labels: set[str] = set()
    for where, fields in _rows(path, "VGGSound's vggsound.csv"):
        if len(fields) != 4 or not fields[1].isdecimal() or fields[3] not in VGGSOUND_SPLITS:
            raise UserError(f'{where}: is not YTID, start second, "label", train or test. Is it vggsound.csv?')
        video, start, label, split = fields
        _require_youtube_id(video, where)
        _require_label(label, where)
        six_digits = f"{video}_{int(start):06d}"
        names = (six_digits, f"{video}_{int(start)}")
        _add(clips, Clip(six_digits, names, label, VGGSOUND_SECONDS, group=video), where)
        if split_of.setdefault(six_digits, split) != split:
            raise UserError(f"{where}: clip {six_digits} is in both splits")
        labels.add(label)
    _not_empty(clips, path)
    sets = {split: tuple(clip for clip in clips.values() if split_of[clip.id] == split) for split in splits}
    return Catalogue(str(path), LabelMap(tuple(sorted(labels)), str(path)), sets)


def _chosen(clips: Sequence[Clip], ids: str | Path, catalogue: str | Path) -> list[Clip]:
    """The clips that are listed in the file `ids`."""
    lines = [line.strip() for line in read_text(ids, "a list of clip ids, one a line").splitlines()]
    owners = owners_of(clips)
    names = [splitext(line)[0] if splitext(line)[1] in AUDIO_SUFFIXES else line for line in lines]
    unknown = [(number, line) for number, line in enumerate(lines, 1) if line and names[number - 1] not in owners]
    if unknown:
        number, line = unknown[0]
        such = f"({len(unknown)} such line{'s' * (len(unknown) > 1)})"
        raise UserError(f"{ids}, line {number}: '{line}' is not the id of a clip in {catalogue} {such}")
    wanted = {owners[name][0] for name in names if name}
    chosen = [clip for clip in clips if clip.id in wanted]
    if not chosen:
        raise UserError(f"{ids}: lists no clips")
    return chosen


def owners_of(clips: Iterable[Clip]) -> dict[str, tuple[str, int]]:
    """Name without extension → (id of the clip that it means, how unsure the name is)."""
    owners: dict[str, tuple[str, int]] = {}
    for clip in clips:
        for rank, name in enumerate(clip.names):
            if name not in owners or rank < owners[name][1]:  # a name of two clips is that of the surer one
                owners[name] = (clip.id, rank)
    return owners


def _rows(path: str | Path, what: str) -> Iterator[tuple[str, list[str]]]:
    """(file and line for messages, fields) of every line of a CSV that is neither empty nor a comment."""
    reader = csv.reader(io.StringIO(read_text(path, what)), skipinitialspace=True)
    try:
        for fields in reader:
            if fields and not fields[0].startswith("#"):
                yield f"{path}, line {reader.line_num}", [nfc(field.strip()) for field in fields]
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as {what} ({error})") from None


def _records(path: str | Path, columns: Sequence[str], what: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, column → field) of every line of a CSV whose first line names its columns."""
    rows = _rows(path, what)
    _, header = next(rows, ("", []))
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(f"{path}: has no column '{missing[0]}'. Is it {what}?")
    for where, fields in rows:
        if len(fields) != len(header):
            raise UserError(f"{where}: has {len(fields)} fields where the first line has {len(header)}")
        yield where, dict(zip(header, fields))


def _whole_number(text: str, allowed: range, what: str) -> int:
    if not text.isdecimal() or int(text) not in allowed:
        raise UserError(f"{what} '{text}' is not a whole number from {allowed[0]} to {allowed[-1]}")
    return int(text)


def _require_youtube_id(text: str, where: str) -> None:
    if not YOUTUBE_ID.fullmatch(text):
        raise UserError(f"{where}: '{text}' is not a YouTube id (letters, digits, - and _)")


def _require_label(label: str, where: str) -> None:
    if not label or DELIMITER in label:
        raise UserError(f"{where}: '{label}' is not a class name, without the delimiter '{DELIMITER}'")


def _add(clips: dict[str, Clip], clip: Clip, where: str) -> None:
    """Add a clip by its id. One that is listed again, just the same, counts once."""
    if clips.setdefault(clip.id, clip) != clip:
        raise UserError(f"{where}: clip {clip.id} is listed before, with another label or length")


def _not_empty(clips: Mapping[str, Clip], path: str | Path) -> tuple[Clip, ...]:
    if not clips:
        raise UserError(f"{path}: lists no clips")
    return tuple(clips.values())
