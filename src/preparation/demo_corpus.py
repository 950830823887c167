"""Real, sampled sounds of some GISE-51 classes, rendered from a General MIDI sample bank.

The bank is TimGM6mb.sf2, which the package pretty_midi ships. The package tinysoundfont plays it. A clip is a
phrase of up to 4.5 seconds, notes or strokes of one instrument, cut where the last has died away. What
an instrument plays in one split, a (program, key, tuning), it plays in no other.
"""

import importlib
import itertools
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from src.data.audio.files import encode
from src.data.labels import LabelMap
from src.errors import UserError
from src.utils.files import claim_folder, write_whole
from src.utils.progress import progress

SAMPLE_RATE = 22050  # Hz
SILENCE = 1e-3  # of full scale: a clip that never exceeds it is not kept
LONGEST = 6.0  # s
DRUM_BANK = 128  # of the drum kit, whose keys are instruments
Note = tuple[float, float, int, int]  # start and length in s, key, velocity
SEMITONES = np.arange(-3, 3.5, 0.5)  # tunings of an instrument that has one key

PITCHED = {  # class: General MIDI programs (from 0), lowest and highest key
    "Piano": ((0, 1, 2, 3), 36, 84),
    "Marimba_and_xylophone": ((12, 13), 48, 84),
    "Organ": ((16, 17, 18, 19, 20), 36, 84),
    "Guitar": ((24, 25, 26, 27, 28), 40, 76),
    "Harp": ((46,), 36, 84),
    "Trumpet": ((56, 59), 52, 80),
    "Harmonica": ((22,), 55, 84),
    "Waves_and_surf_and_splash_and_splatter_stream": ((122,), 48, 72),
    "Chirp_and_tweet": ((123,), 54, 84),
    "Applause": ((126,), 52, 72),
    "Gunshot_and_gunfire": ((127,), 44, 72),
}
DRUMS = {  # class: keys of the General MIDI drum kit
    "Drum": (35, 36, 37, 38, 40, 41, 43, 45, 47, 48, 50),
    "Hi-hat": (42, 44, 46),
    "Crash_cymbal": (49, 55, 57),
    "Gong": (52,),
    "Tambourine": (54,),
    "Clapping": (39,),
    "Rattle_(instrument)": (69, 70, 82),
}
SUSTAINED = {"Waves_and_surf_and_splash_and_splatter_stream", "Applause", "Organ", "Harmonica", "Trumpet"}
BACKGROUNDS = ((88, 36), (89, 40), (90, 31), (94, 43), (95, 34), (97, 38), (101, 41), (125, 40))  # (program, key)


@dataclass(frozen=True)
class Voice:
    """One instrument at one pitch."""

    bank: int
    program: int
    key: int
    tuning: float  # semitones


def build_demo_corpus(folder: str | Path, clips: dict[str, int], seed: int) -> None:
    """Write `isolated_events/<split>/<class>/*.wav`, `noises/ambience/*.wav` and `meta/lbl_map.json`.

    Clips vary in pitch, loudness, length and instrument. Files that are there already are kept.

    Args:
        clips: number of clips of each class, by split.
        seed: equal seeds give equal files.

    Raises:
        UserError: the sample bank is not installed, or the folder holds a corpus of another seed.
    """
    folder = Path(folder)
    bank = sample_bank()
    claim_folder(folder, {"seed": seed}, "a demo corpus")
    classes = sorted([*PITCHED, *DRUMS])
    with progress(len(classes) * sum(clips.values()) + len(BACKGROUNDS), "sampled sounds", "clip") as bar:
        for index, name in enumerate(classes):
            shares = deal_voices(voices_of(name), len(clips), np.random.default_rng((seed, index)))
            for share, (voices, (split, count)) in enumerate(zip(shares, clips.items())):
                for number in range(count):
                    path = folder / "isolated_events" / split / name / f"{number:03d}.wav"
                    if not path.exists():
                        rng = np.random.default_rng((seed, index, share, number))
                        write_whole(path, encode(audible_phrase(bank, name, voices, rng), SAMPLE_RATE, "WAV"))
                    bar.update()
        for number, (program, key) in enumerate(BACKGROUNDS):
            path = folder / "noises" / "ambience" / f"{number:03d}.wav"
            if not path.exists():
                notes = [(0.0, 20.0, key, 90), (0.0, 20.0, key + 7, 60)]
                ambience = play(bank, Voice(0, program, key, 0.0), notes)[: 20 * SAMPLE_RATE]
                assert len(trimmed(ambience)), f"background {number} is silent"
                write_whole(path, encode(ambience, SAMPLE_RATE, "WAV"))
            bar.update()
    LabelMap(tuple(classes)).save(folder / "meta" / "lbl_map.json")


def sample_bank() -> Path:
    """The sample bank's file."""
    try:
        files = metadata.files("pretty_midi") or []
        importlib.import_module("tinysoundfont")
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install --no-deps -r requirements-demo.txt") from None
    for file in files:
        if file.suffix == ".sf2":
            return Path(file.locate())
    raise UserError("the installed pretty_midi has no .sf2 sample bank: pip install --no-deps -r requirements-demo.txt")


def voices_of(name: str) -> list[Voice]:
    """Every (program, key, tuning) that sounds as a class."""
    if name in DRUMS:
        return [Voice(DRUM_BANK, 0, key, float(tuning)) for key, tuning in itertools.product(DRUMS[name], SEMITONES)]
    programs, low, high = PITCHED[name]
    return [Voice(0, program, key, 0.0) for program, key in itertools.product(programs, range(low, high + 1))]


def deal_voices(voices: list[Voice], num_shares: int, rng: np.random.Generator) -> list[list[Voice]]:
    """Disjoint shares of the voices."""
    order = rng.permutation(len(voices))
    return [[voices[i] for i in order[share::num_shares]] for share in range(num_shares)]


def audible_phrase(bank: Path, name: str, voices: list[Voice], rng: np.random.Generator) -> np.ndarray:
    """A phrase that can be heard, (N,) float32 samples without silence at either end."""
    for _ in range(20):
        voice = voices[rng.integers(len(voices))]
        samples = trimmed(play(bank, voice, phrase(name, voice, voices, rng)))
        if len(samples) >= 0.1 * SAMPLE_RATE:
            return samples[: int(LONGEST * SAMPLE_RATE)]
    raise AssertionError(f"20 renderings of {name} were silent")


def phrase(name: str, voice: Voice, voices: list[Voice], rng: np.random.Generator) -> list[Note]:
    """Notes: strokes of one drum, or a melody on keys of the same share."""
    keys = [voice.key]
    if voice.bank != DRUM_BANK:
        keys = [other.key for other in voices if other.program == voice.program and abs(other.key - voice.key) <= 7]
    velocity = int(rng.integers(60, 128))
    whole = rng.uniform(0.5, 4.5)  # s
    if name in SUSTAINED and rng.random() < 0.5:
        return [(0.0, whole, voice.key, velocity)]
    pace = rng.uniform(0.12, 0.6)  # s
    notes = []
    for start in np.arange(0, whole, pace).tolist():
        loudness = int(np.clip(velocity + rng.integers(-15, 16), 1, 127))
        notes.append((start, pace * rng.uniform(0.8, 1.5), int(rng.choice(keys)), loudness))
    return notes


def play(bank: Path, voice: Voice, notes: list[Note]) -> np.ndarray:
    """Render notes to (N,) float32 samples, with 1.5 s for the last one to die away."""
    import tinysoundfont

    synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE, gain=0)
    channel = 9 if voice.bank == DRUM_BANK else 0
    synth.program_select(channel, synth.sfload(str(bank)), voice.bank, voice.program, voice.bank == DRUM_BANK)
    synth.set_tuning(channel, voice.tuning)
    events = [(start, 1, key, velocity) for start, _, key, velocity in notes]
    events += [(start + length, 0, key, 0) for start, length, key, _ in notes]
    pieces, now = [], 0
    for time, is_on, key, velocity in sorted(events):
        pieces.append(_generate(synth, round(time * SAMPLE_RATE) - now))
        now = round(time * SAMPLE_RATE)
        if is_on:
            synth.noteon(channel, key, velocity)
        else:
            synth.noteoff(channel, key)
    pieces.append(_generate(synth, int(1.5 * SAMPLE_RATE)))
    samples = np.concatenate(pieces)  # (N,)
    peak = np.abs(samples).max()
    return samples / peak * 0.99 if peak > 0.99 else samples


def _generate(synth, count: int) -> np.ndarray:
    """(count,) samples: the mean of the synthesiser's two channels."""
    if count <= 0:
        return np.zeros(0, dtype=np.float32)
    return np.frombuffer(bytes(synth.generate(count)), dtype=np.float32).reshape(-1, 2).mean(axis=1)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Without what lies below SILENCE before the first and after the last audible sample, which may be all."""
    audible = np.flatnonzero(np.abs(samples) > SILENCE)
    return samples[audible[0] : audible[-1] + 1] if len(audible) else samples[:0]
