"""Isolated events and backgrounds -> soundscapes, by Scaper (Salamon et al., 2017, WASPAA).

A soundscape depends on the recipe, the seed, its own number and the names and contents of the sound files
alone: not on how many processes make it, on which others are made, or on where the files lie.
"""

import errno
import functools
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from src.data.audio.files import as_int16, encode
from src.data.audio.opening import opened
from src.data.labels import LabelMap
from src.data.soundscapes.distribution import BACKGROUND_TIME, EVENT, REF_DB
from src.data.soundscapes.jams import renamed
from src.data.soundscapes.sources import background_files, event_files, file_weights, require_source
from src.errors import UserError
from src.utils.files import claim_folder, write_whole
from src.utils.parallel import make_all

log = logging.getLogger(__name__)

SAMPLE_RATE = 22050  # Hz
SCRATCH = "/tmp"  # where SoX's bindings put samples, whatever TMPDIR says
ROOM = 64 << 20  # bytes to be free there: once it is full they carry on, with less of the sound


@dataclass(frozen=True)
class Recipe:
    """What soundscapes are made of."""

    fg_path: str  # <class>/*.wav
    bg_path: str  # <kind>/*.wav, or *.wav
    seed: int
    duration: float = 5.0  # s
    max_events: int = 3  # 1 to so many events a soundscape, each number as likely


@dataclass(frozen=True)
class Sources:
    """The sound files to draw from."""

    classes: tuple[str, ...]  # names of the folders of events
    events: tuple[str, ...]  # E files, of all classes
    weights: np.ndarray  # (E,) probability of each
    bg_root: str  # <kind>/*.wav
    backgrounds: dict[str, list[str]]  # kind → files


def generate_soundscapes(
    recipe: Recipe,
    out_folder: str | Path,
    numbers: Sequence[int],
    label_map: LabelMap,
    class_weights: Sequence[float] | None = None,
    num_workers: int = 1,
    audio_format: str = "wav",
) -> list[UserError]:
    """Make the soundscapes of these numbers: `soundscape_<number>.wav` or `.flac`, `.txt` and `.jams`.

    Those that are there already are left alone. The audio file is written last: where there is
    one, its annotations are there, and whole.

    Args:
        class_weights: weight of a class's files in the order of the label map. By default it is the
            largest class's number of files over the class's own, so that classes are as likely.
        audio_format: "wav" or "flac". The samples are the same, 16-bit integers.

    Returns:
        What is wrong with each soundscape that cannot be made.

    Raises:
        UserError: classes on disk and in the map differ, or the folder holds soundscapes of another recipe.
    """
    out_folder = Path(out_folder)
    files = event_files(recipe.fg_path, label_map)
    bg_root, backgrounds = background_files(recipe.bg_path)
    events = tuple(file for group in files.values() for file in group)
    weights = file_weights(files, label_map, class_weights)
    classes = {Path(file).parent.name for file in events}  # as Scaper finds them, not as the map spells them
    sources = Sources(tuple(sorted(classes)), events, weights, bg_root, backgrounds)
    choices = {"classes": list(label_map.names), "class_weights": class_weights}
    claim_folder(out_folder, asdict(recipe) | choices, "soundscapes")

    def is_made(number: int) -> bool:
        return is_complete(sound_file(out_folder, number, audio_format))

    make = functools.partial(_make, recipe, sources, out_folder, audio_format)
    return list(make_all(make, numbers, num_workers, out_folder, "soundscapes", is_made).values())


def sound_file(folder: Path, number: int, audio_format: str = "wav") -> Path:
    """Where a soundscape's audio is."""
    return folder / f"soundscape_{number:06d}.{audio_format}"


def is_complete(sound: Path) -> bool:
    """Whether a soundscape's audio and both annotations are there."""
    return all(file.exists() for file in (sound, sound.with_suffix(".txt"), sound.with_suffix(".jams")))


def write_soundscape(
    sound: Path, audio: np.ndarray, sample_rate: int, events: Sequence[Sequence], jams: str | bytes
) -> None:
    """Write a soundscape's annotations, and then its audio.

    Args:
        audio: (N, channels) floats in [-1, 1].
        events: (onset, offset, label) of each, in seconds.
        jams: the content of the JAMS file.
    """
    lines = "".join("\t".join(map(str, event)) + "\n" for event in events)
    write_whole(sound.with_suffix(".txt"), lines)
    write_whole(sound.with_suffix(".jams"), jams)
    write_whole(sound, encode(as_int16(audio), sample_rate, sound.suffix[1:].upper()))


def _make(recipe: Recipe, sources: Sources, out_folder: Path, audio_format: str, number: int) -> None:
    """Make one soundscape."""
    rng = np.random.default_rng((recipe.seed, number))
    draws = np.random.RandomState(int(rng.integers(2**32)))  # Scaper's
    kinds = sorted(sources.backgrounds)
    kind = kinds[draws.randint(len(kinds))]
    background = sources.backgrounds[kind][draws.randint(len(sources.backgrounds[kind]))]
    chosen = rng.choice(len(sources.events), size=rng.integers(1, recipe.max_events + 1), p=sources.weights)
    events = [sources.events[index] for index in chosen]
    try:
        for file in (background, *events):
            require_source(file)
        with mixing((background, *events)):
            audio, jams, lines = _mix(recipe, sources, (kind, background), events, draws)
    except UserError as error:
        raise UserError(f"soundscape {number}: {error}") from None
    write_soundscape(sound_file(out_folder, number, audio_format), audio, SAMPLE_RATE, lines, jams)


def _mix(
    recipe: Recipe, sources: Sources, background: tuple[str, str], events: Sequence[str], draws: np.random.RandomState
) -> tuple[np.ndarray, str, list[list]]:
    """(N, 1) samples, the text of the JAMS file, and onset, offset and label of each event."""
    soundscape = import_scaper().Scaper(
        recipe.duration, recipe.fg_path, sources.bg_root, protected_labels=[], random_state=draws
    )
    soundscape.sr = SAMPLE_RATE
    soundscape.ref_db = REF_DB
    soundscape.fg_labels, soundscape.bg_labels = list(sources.classes), sorted(sources.backgrounds)
    # Files are drawn before: Scaper would draw an event's label first, and so ignore the weights. It also
    # takes a folder's name for a pattern.
    soundscape.add_background(("const", background[0]), ("const", background[1]), BACKGROUND_TIME)
    for file in events:
        soundscape.add_event(("const", Path(file).parent.name), ("const", file), **EVENT)
    audio, jam, lines, _ = soundscape.generate(
        fix_clipping=True, allow_repeated_label=True, allow_repeated_source=True, reverb=None, disable_sox_warnings=True
    )
    names = _portable_names((recipe.fg_path, *events), recipe.fg_path)
    names |= _portable_names((sources.bg_root, background[1]), recipe.bg_path)
    return audio, json.dumps(renamed(json.loads(jam.dumps()), names), indent=2), lines


def _portable_names(paths: Sequence[str], root: str) -> dict[str, str]:
    """Path → what stands for it in a JAMS file: from the root's own name on, wherever the root lies."""
    above = os.path.dirname(os.path.abspath(root))
    return {path: os.path.relpath(os.path.abspath(path), above) for path in paths}


@contextmanager
def mixing(sources: Sequence[str]) -> Iterator[None]:
    """Whatever Scaper and SoX raise for sounds and annotations that they cannot cope with, as a UserError.

    Raises:
        OSError: there is too little room for SoX to work in.
    """
    if shutil.disk_usage(SCRATCH).free < ROOM:
        raise OSError(errno.ENOSPC, f"fewer than {ROOM >> 20} MiB are free, which SoX needs", SCRATCH)
    level = logging.getLogger().level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a source shorter than the drawn duration is the rule, not the exception
        try:
            yield
        except (OSError, MemoryError, UserError):
            raise
        except Exception as error:  # they raise all kinds. One soundscape must not end a run of thousands
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"cannot be mixed ({reason}). It is made of {', '.join(sources)}") from None
        finally:
            logging.getLogger().setLevel(level)  # Scaper leaves it at "critical" when something is raised


def sound_info(file: str) -> SimpleNamespace:
    """Duration (s) and sample rate (Hz) of a source, as `soundfile.info` has them."""
    with opened(file) as recording:
        return SimpleNamespace(duration=recording.frames / recording.samplerate, samplerate=recording.samplerate)


def read_part(file: str, start: int, stop: int, always_2d: bool) -> tuple[np.ndarray, int]:
    """(N, channels) float64 samples from `start` to `stop`, and Hz, as `soundfile.read` returns them.

    The whole of a source is looked at: whether it is used does not depend on the part that was drawn.
    """
    with opened(file) as recording:
        start, stop, _ = slice(start, stop).indices(recording.frames)
        recording.skip(start)
        samples = recording.read(max(stop - start, 0), dtype="float64")
        recording.skip(recording.frames - recording.position)
        return samples, recording.samplerate


def import_scaper():
    """Scaper, which opens sound files as this project does, with a NumPy 1 name that its release 1.6.5 still uses."""
    if not hasattr(np, "Inf"):
        np.Inf = np.inf
    os.environ.setdefault("MPLBACKEND", "agg")
    import scaper

    scaper.core.soundfile = SimpleNamespace(info=sound_info, read=read_part)
    return scaper
