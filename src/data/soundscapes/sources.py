"""The sound files that soundscapes are made of: isolated events by class, backgrounds by kind."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.data.audio.opening import opened
from src.data.labels import LabelMap, nfc
from src.data.soundscapes.distribution import FADE
from src.errors import UserError
from src.utils.folders import files_in, subfolders
from src.utils.text import is_text

log = logging.getLogger(__name__)


def event_files(fg_path: str | Path, label_map: LabelMap) -> dict[str, list[str]]:
    """Class → its sorted WAV files, for every class of the map."""
    folder, what = Path(fg_path), "isolated events (<class>/*.wav)"
    files: dict[str, list[str]] = {name: [] for name in label_map.names}
    for name in subfolders(folder, what):
        if nfc(name) not in files:
            raise UserError(f"{folder}: class '{name}' is not in the label map {label_map.path}")
    for file in files_in(folder, {".wav"}, what, levels=range(1, 2)):
        files[nfc(os.path.dirname(file))].append(str(folder / file))
    empty = [name for name, found in files.items() if not found]
    if empty:
        none, place = f"no WAV files of class '{empty[0]}', which the label map {label_map.path} has", folder / empty[0]
        if os.path.lexists(place):  # it may be empty, a link to nothing, or not be readable
            files_in(place, {".wav"}, f"WAV files of class '{empty[0]}'", levels=range(1), none=none)
        raise UserError(f"{folder}: {none}")
    return files


def background_files(bg_path: str | Path) -> tuple[str, dict[str, list[str]]]:
    """(root, kind → sorted WAV files), whether they lie in subfolders of `bg_path` or in itself, the only kind then."""
    folder = Path(os.path.abspath(bg_path))
    none = "no background WAV files in it, nor in its subfolders"
    found = [folder / file for file in files_in(folder, {".wav"}, "backgrounds", levels=range(2), none=none)]
    files = [file for file in found if file.parent != folder] or found
    if len(files) < len(found):
        log.info("%s: left out %d WAV files that are in no subfolder", folder, len(found) - len(files))
    kinds: dict[str, list[str]] = {}
    for file in files:
        kinds.setdefault(file.parent.name, []).append(str(file))
    return str(files[0].parent.parent), kinds


def file_weights(files: dict[str, list[str]], label_map: LabelMap, class_weights: Sequence[float] | None) -> np.ndarray:
    """Probability of each file, in the order of `files`."""
    largest = max(len(group) for group in files.values())
    weights = class_weights or [largest / len(files[name]) for name in label_map.names]
    each = np.concatenate([np.full(len(files[name]), weight) for name, weight in zip(label_map.names, weights)])
    return each / each.sum()


def require_source(file: str | Path) -> float:
    """The duration of a sound file in seconds, if it can be mixed.

    Raises:
        UserError: it is not audio, or too short.
    """
    if not is_text(str(file)):
        raise UserError(f"{file}: its name is not UTF-8, and Scaper opens no such file. Rename it")
    with opened(file) as recording:
        seconds = recording.frames / recording.samplerate
    if seconds < FADE:
        raise UserError(f"{file}: lasts {1000 * seconds:.1f} ms, less than its fade-in of {1000 * FADE:g} ms")
    return seconds
