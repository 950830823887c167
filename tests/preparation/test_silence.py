"""Trimming isolated events: what SoX's own command line gives, class by class."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE_RATE, error_line, run_script
from small_sources import contents

from src.preparation.silence import span_of


def strip(src, tgt, *more, check=None):
    return run_script("scripts/strip_silence_sox.py", "--src_dir", src, "--tgt_dir", tgt, *more, check=check)


def sound(*spans, rate=SAMPLE_RATE, channels=1):
    """(N, channels) samples: silence and tones by turns, of so many seconds each, silence first."""
    pieces = [(k % 2) * 0.3 * np.sin(2 * np.pi * 500 * np.arange(round(s * rate)) / rate) for k, s in enumerate(spans)]
    return np.repeat(np.concatenate(pieces)[:, None], channels, axis=1)


def write(path, samples, rate=SAMPLE_RATE, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def by_sox(path, span, folder):
    """Samples that the command line gives, at a path that SoX takes for no pattern."""
    shutil.copy(path, folder / "in.wav")
    effect = ["silence", "1", str(span), "1%", "-1", str(span), "1%"]
    subprocess.run(["sox", folder / "in.wav", folder / "out.wav", *effect], check=True)
    return soundfile.read(folder / "out.wav", dtype="int16")[0]


@pytest.mark.parametrize(
    "name, span",
    [
        ("Gong", 0.1),
        ("Rattle_(instrument)", 0.05),
        ("Rattle", 0.05),
        ("Zipper_(clothing)", 0.05),
        ("Zipper", 0.05),
        ("Glass", 0.05),
        ("Tap", 0.05),
        ("Chirp_and_tweet", 0.05),
        ("Tearing", 0.05),
        ("Whispering", 0.025),
        ("Wind", 0.025),
        ("Crumpling_and_crinkling_and_crushing", 0.025),
        ("Writing", 0.025),
        ("Cricket", 0.025),
        ("Coin_(dropping)", 0.1),
        ("Tambourine", 0.1),
    ],
)
def test_spans_of_the_classes(name, span):
    assert span_of(name) == span


def test_silence_goes_from_both_ends_and_from_the_middle(tmp_path):
    write(tmp_path / "src" / "Gong" / "a.wav", sound(0.5, 1.0, 0.5, 1.0, 0.7))
    write(tmp_path / "src" / "Gong" / "whole.wav", sound(0.0, 1.5))
    strip(tmp_path / "src", tmp_path / "out", check=0)
    a, whole = (soundfile.read(tmp_path / "out" / "Gong" / name)[0] for name in ("a.wav", "whole.wav"))
    heard = np.flatnonzero(np.abs(a) > 0.01)
    window = 0.02 * SAMPLE_RATE  # over which SoX measures: so much of a silence is left
    assert heard[0] == 0 and len(a) - heard[-1] <= window and np.diff(heard).max() <= window
    assert 2.0 * SAMPLE_RATE <= len(a) <= 2.0 * SAMPLE_RATE + 2 * window
    assert abs(len(whole) - 1.5 * SAMPLE_RATE) <= 10


def test_the_samples_are_those_of_the_sox_command(tmp_path):
    rng = np.random.default_rng(3)
    src, out = tmp_path / "src", tmp_path / "out"
    classes = {"Gong": 0.1, "Tap": 0.05, "Wind": 0.025}
    for name in classes:
        for file, spans in (("-n [1]; 'ü 音.wav", (0.3, 0.8, 0.07, 0.6, 0.03, 0.4, 0.2)), ("|x.wav", (0.04, 2.0, 0.2))):
            clip = sound(*spans)
            write(src / name / file, clip + 0.002 * rng.standard_normal(clip.shape))
    write(src / "Tap" / "stereo.wav", sound(0.3, 1.5, 0.3, rate=44100, channels=2), 44100)
    strip(src, out, "--num_workers", 2, check=0)
    files = sorted(src.rglob("*.wav"))
    assert len(files) == 7
    for file in files:
        trimmed = out / file.relative_to(src)
        expected = by_sox(file, classes[file.parent.name], tmp_path)
        found, rate = soundfile.read(trimmed, dtype="int16")
        assert np.array_equal(found[: len(expected)], expected) and rate == soundfile.info(file).samplerate
        assert len(found) == max(len(expected), round(1.25 * rate)) and soundfile.info(trimmed).subtype == "PCM_16"


def test_short_clips_are_tiled_and_what_is_next_to_nothing_is_dropped(tmp_path):
    src, out = tmp_path / "src", tmp_path / "out"
    write(src / "Gong" / "short.wav", sound(0.5, 0.5, 0.5))
    write(src / "Gong" / "silent.wav", sound(1.0))
    write(src / "Gong" / "click.wav", sound(0.5, 0.002, 0.5))
    result = strip(src, out, "--min_clip", 2, check=0)
    short = soundfile.read(out / "Gong" / "short.wav", dtype="int16")[0]
    expected = by_sox(src / "Gong" / "short.wav", 0.1, tmp_path)
    assert len(short) == 2 * SAMPLE_RATE and np.array_equal(short[: len(expected)], expected)
    assert np.array_equal(short[len(expected) : 2 * len(expected)], expected)
    assert f"dropped: {src / 'Gong' / 'silent.wav'}: 0 samples are left, of 22050" in result.stdout
    assert f"dropped: {src / 'Gong' / 'click.wav'}" in result.stdout and "2 clips were dropped" in result.stdout
    assert sorted(contents(out)) == ["Gong/short.wav", "recipe.json"]


def test_flat_folders_a_rerun_and_files_that_are_no_audio(tmp_path):
    src, out = tmp_path / "Wind", tmp_path / "out"
    whole = write(src / "a.wav", sound(0.04, 1.5, 0.3))
    write(src / "f.wav", sound(0.3, 1.5), subtype="FLOAT")
    write(src / "empty.wav", np.zeros((0, 1)))
    (src / "text.wav").write_text("not audio")
    (src / "cut.wav").write_bytes(whole.read_bytes()[:9000])
    result = strip(src, out, "--num_workers", 3)
    assert "3 of the files in" in error_line(result)
    for part in ("empty.wav: is empty", "text.wav: is not audio", "cut.wav: is truncated: it has 8956 of"):
        assert part in result.stderr
    assert sorted(contents(out)) == ["a.wav", "f.wav", "recipe.json"]
    found = soundfile.read(out / "a.wav", dtype="int16")[0]
    assert np.array_equal(found, by_sox(whole, 0.025, tmp_path))
    before = contents(out)
    (out / "f.wav").unlink()
    for name in ("empty", "text", "cut"):
        (src / f"{name}.wav").unlink()
    assert "1 of 2 WAV files are there already" in strip(src, out, check=0).stderr and contents(out) == before


def test_trimming_refuses(tmp_path, monkeypatch):
    src = tmp_path / "src"
    write(src / "Gong" / "a.wav", sound(0.1, 1.5))
    assert "is in --src_dir" in error_line(strip(src, src))
    assert "is in --src_dir" in error_line(strip(src, src / "trimmed"))
    assert "no such folder of WAV files" in error_line(strip(tmp_path / "nowhere", tmp_path / "out"))
    strip(src, tmp_path / "out", check=0)
    before = contents(tmp_path / "out")
    assert "with min_clip 1.25 instead of 2" in error_line(strip(src, tmp_path / "out", "--min_clip", 2))
    shutil.copytree(src, tmp_path / "val")
    assert "with trimmed_from" in error_line(strip(tmp_path / "val", tmp_path / "out"))
    assert contents(tmp_path / "out") == before
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in error_line(strip(src, tmp_path / "file" / "out"))
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run_script("scripts/strip_silence_sox.py", "--src_dir", src, "--tgt_dir", tmp_path / "new", fresh=True)
    assert "apt-get install sox" in error_line(result)
