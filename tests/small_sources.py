"""Isolated events and backgrounds for Scaper: a second or two of noise and tones, under awkward names."""

import json

import numpy as np
import soundfile
from conftest import CLASSES, SAMPLE_RATE, TONES, run_script, write_lbl_map

EVENTS = ("-a [1].wav", "b; 'ü\" 音.wav")
NOISES = ("n [1].wav", "шум; 2.wav")


def noise(seconds, seed, level=0.1, rate=SAMPLE_RATE):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def write_sources(folder, kinds=("quiet [x]", "loud")):
    """events/<class>/*.wav, two a class, one of them at 44.1 kHz, noises/<kind>/*.wav, flat/*.wav and lbl_map.json."""
    for index, name in enumerate(CLASSES):
        for number, file in enumerate(EVENTS):
            rate = SAMPLE_RATE * (1 + number)
            path = folder / "events" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            t = np.arange(round((0.6 + 1.2 * number) * rate)) / rate
            tone = 0.3 * np.sin(2 * np.pi * TONES[name] * t) + noise(0.6 + 1.2 * number, index, 0.02, rate)
            soundfile.write(path, tone, rate, subtype="PCM_16")
    for place in (*(f"noises/{kind}" for kind in kinds), "flat"):
        (folder / place).mkdir(parents=True)
        for number, file in enumerate(NOISES):
            soundfile.write(folder / place / file, noise(7 - 4 * number, 10 * len(place) + number), SAMPLE_RATE)
    write_lbl_map(folder / "lbl_map.json")
    return folder


def generate(sources, out, *more, count=4, seed=7, bg="noises", check=None):
    return run_script(
        "scripts/generate_mixtures.py",
        "--fg_path",
        sources / "events",
        "--bg_path",
        sources / bg,
        "--out_folder",
        out,
        "--num_soundscapes",
        count,
        "--lbl_map",
        sources / "lbl_map.json",
        "--seed",
        seed,
        *more,
        check=check,
    )


def regenerate(sources, jams, out, *more, bg="noises", check=None):
    return run_script(
        "scripts/generate_from_jams.py",
        "--fg_path",
        sources / "events",
        "--bg_path",
        sources / bg,
        "--jams_dir",
        jams,
        "--out_folder",
        out,
        *more,
        check=check,
    )


def contents(folder):
    """Name → bytes of the files in and below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def samples(path):
    return soundfile.read(path, dtype="int16")[0].astype(int)


def edit_jams(path, change):
    """Write a JAMS file anew with its Scaper annotation changed."""
    tree = json.loads(path.read_text())
    change(tree["annotations"][0])
    path.write_text(json.dumps(tree))
