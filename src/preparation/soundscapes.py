"""Isolated events and backgrounds -> soundscapes, by Scaper (Salamon et al., 2017, WASPAA).

A soundscape depends on the recipe, the seed and its own number alone: not on how many processes
make it, nor on which others are made.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from src.data.labels import LabelMap
from src.errors import UserError
from src.files import claim_folder, whole_file
from src.preparation.parallel import map_in_processes

log = logging.getLogger(__name__)

SAMPLE_RATE = 22050  # Hz
REF_DB = -60  # LUFS of the background
SOURCE_TIME = ("uniform", 0, 140)  # s; where in its file an event begins
EVENT_TIME = ("uniform", 0, 5)  # s; where in the soundscape
EVENT_DURATION = ("uniform", 1.5, 5)  # s
SNR = ("uniform", 10, 60)  # dB above the background
TIME_STRETCH = ("uniform", 0.95, 1.05)
BACKGROUND_TIME = ("uniform", 0, 600)  # s; where in its file the background begins


@dataclass(frozen=True)
class Recipe:
    """What soundscapes are made of."""

    fg_path: str  # <class>/*.wav
    bg_path: str  # <kind>/*.wav, or *.wav
    seed: int
    duration: float = 5.0  # s
    max_events: int = 3  # 1 to so many events a soundscape, each number as likely


def generate_soundscapes(recipe: Recipe, out_folder: str | Path, numbers: Sequence[int], label_map: LabelMap,
                         class_weights: Sequence[float] | None = None, num_workers: int = 1) -> None:
    """Make the soundscapes of these numbers as `soundscape_<number>.wav`, `.txt` and `.jams`.

    Those that are there already are left alone. The audio file is written last: where there is
    one, its annotation is there, and whole.

    Args:
        class_weights: weight of a class's files in the order of the label map; by default the
            largest class's number of files over the class's own, so that classes are as likely.

    Raises:
        UserError: classes on disk and in the map differ, or the folder holds soundscapes of
            another recipe.
    """
    out_folder = Path(out_folder)
    files = event_files(recipe.fg_path, label_map)
    background = background_folder(recipe.bg_path)
    claim_folder(out_folder, asdict(recipe) | {"classes": list(label_map.names), "class_weights": class_weights},
                 "soundscapes")
    missing = [number for number in numbers if not sound_file(out_folder, number).exists()]
    if len(missing) < len(numbers):
        log.info("%s: %d of %d soundscapes are there already", out_folder, len(numbers) - len(missing), len(numbers))
    weights = file_weights(files, label_map, class_weights)
    make = functools.partial(_make, recipe, out_folder, tuple(file for group in files.values() for file in group),
                             weights, background)
    for _ in map_in_processes(make, missing, num_workers, f"soundscapes for {out_folder.name}"):
        pass


def event_files(fg_path: str | Path, label_map: LabelMap) -> dict[str, list[str]]:
    """Class → its sorted WAV files, for every class of the map."""
    folder = Path(fg_path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of isolated events (<class>/*.wav)")
    on_disk = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    unknown = [name for name in on_disk if name not in label_map.mapping]
    if unknown:
        raise UserError(f"{folder}: class '{unknown[0]}' is not in the label map {label_map.path}")
    files = {name: sorted(map(str, (folder / name).glob("*.wav"))) for name in label_map.names}
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise UserError(f"{folder}: no WAV files of class '{empty[0]}', which the label map {label_map.path} has")
    return files


def background_folder(bg_path: str | Path) -> tuple[str, str]:
    """(folder, kind) as Scaper wants them, whether the WAV files lie in subfolders or not; kind "" is any."""
    folder = Path(bg_path)
    if any(folder.glob("*/*.wav")):
        return str(folder), ""
    if any(folder.glob("*.wav")):
        return str(folder.resolve().parent), folder.resolve().name
    raise UserError(f"{folder}: no background WAV files in it, nor in its subfolders")


def file_weights(files: dict[str, list[str]], label_map: LabelMap, class_weights: Sequence[float] | None) -> np.ndarray:
    """Probability of each file, in the order of `files`."""
    largest = max(len(group) for group in files.values())
    weights = class_weights or [largest / len(files[name]) for name in label_map.names]
    each = np.concatenate([np.full(len(files[name]), weight) for name, weight in zip(label_map.names, weights)])
    return each / each.sum()


def sound_file(folder: Path, number: int) -> Path:
    """Where a soundscape's audio is."""
    return folder / f"soundscape_{number:06d}.wav"


def _make(recipe: Recipe, out_folder: Path, files: tuple[str, ...], weights: np.ndarray,
          background: tuple[str, str], number: int) -> None:
    """Make one soundscape."""
    rng = np.random.default_rng((recipe.seed, number))
    scaper = _import_scaper()
    soundscape = scaper.Scaper(recipe.duration, recipe.fg_path, background[0], protected_labels=[],
                               random_state=int(rng.integers(2**32)))
    soundscape.sr = SAMPLE_RATE
    soundscape.ref_db = REF_DB
    label = ("const", background[1]) if background[1] else ("choose", [])
    soundscape.add_background(label, ("choose", []), BACKGROUND_TIME)
    for file in rng.choice(len(files), size=rng.integers(1, recipe.max_events + 1), p=weights):
        # Label and file are drawn together: Scaper would draw a label first, and so ignore the weights.
        soundscape.add_event(("const", Path(files[file]).parent.name), ("const", files[file]), SOURCE_TIME, EVENT_TIME,
                             EVENT_DURATION, SNR, pitch_shift=None, time_stretch=TIME_STRETCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a source shorter than the drawn duration is the rule, not the exception
        try:
            audio, jam, events, _ = soundscape.generate(
                fix_clipping=True, allow_repeated_label=True, allow_repeated_source=True, reverb=None,
                disable_sox_warnings=True,
            )
        except (scaper.scaper_exceptions.ScaperError, soundfile.LibsndfileError) as error:
            used = ", ".join(str(event.source_file[1]) for event in soundscape.fg_spec)
            raise UserError(f"soundscape {number} cannot be mixed ({error}); its events are from {used}") from None
    target = sound_file(out_folder, number)
    with whole_file(target.with_suffix(".txt")) as temporary:
        temporary.write_text("".join("\t".join(map(str, event)) + "\n" for event in events), encoding="utf-8")
    with whole_file(target.with_suffix(".jams")) as temporary:
        jam.save(str(temporary), fmt="jams")
    with whole_file(target) as temporary:
        soundfile.write(temporary, audio, SAMPLE_RATE, subtype="PCM_16", format="WAV")


def _import_scaper():
    """Scaper, with the NumPy 1 name that its release 1.6.5 still uses."""
    if not hasattr(np, "Inf"):
        np.Inf = np.inf
    os.environ.setdefault("MPLBACKEND", "agg")
    import scaper

    return scaper
