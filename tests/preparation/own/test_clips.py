"""Recordings cut into clips: where, what is heard in each, and what is lost."""

import math
import os

import numpy as np
import pytest
import soundfile
import torchaudio.functional  # noqa: F401  # its import starts a process
from conftest import SAMPLE_RATE
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.audio.files import read_mono
from src.data.events import Event
from src.errors import UserError
from src.preparation.annotations import read_events
from src.preparation.own.clips import Clip, Cutting, energy, examine, write_clips
from src.preparation.own.listing import Recording, whole


def cutting(clip_seconds=5.0, overlap=0.0, min_overlap=0.25, rate=1000):
    return Cutting(rate, clip_seconds, overlap, min_overlap)


@pytest.mark.parametrize(
    "length, overlap, spans",
    [
        (300, 0, [(0, 300)]),  # short ones stay short
        (5000, 0, [(0, 5000)]),
        (7500, 0, [(0, 5000)]),  # half a clip is not more than half
        (7501, 0, [(0, 5000), (5000, 2501)]),
        (10000, 0, [(0, 5000), (5000, 5000)]),
        (12000, 2.5, [(0, 5000), (2500, 5000), (5000, 5000), (7500, 4500)]),
        (12500, 2.5, [(0, 5000), (2500, 5000), (5000, 5000), (7500, 5000)]),  # all is covered
        (1, 4.999, [(0, 1)]),
    ],
)
def test_where_recordings_are_cut(length, overlap, spans):
    assert cutting(overlap=overlap).spans(length) == spans


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40000), st.floats(0.2, 8), st.floats(0, 0.95))
def test_clips_cover_all_but_half_a_clip_at_the_end(length, seconds, overlap):
    cut = cutting(seconds, overlap * seconds)
    spans = cut.spans(length)
    covered = np.zeros(length, bool)
    for start, size in spans:
        assert 0 < size <= cut.clip_length and start + size <= length
        assert size == cut.clip_length or 2 * size > cut.clip_length or len(spans) == 1
        assert not covered[start : start + size].all()
        covered[start : start + size] = True
    end = spans[-1][0] + spans[-1][1]
    assert covered[:end].all() and 2 * (length - end) <= cut.clip_length


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 19.9), st.floats(0, 20), st.floats(0.1, 5), st.floats(0, 0.9), st.floats(0.01, 2))
def test_an_event_is_heard_where_enough_of_it_lies(onset, duration, seconds, overlap, min_overlap):
    cut = cutting(seconds, overlap * seconds, min_overlap)
    event = Event(onset, min(onset + duration, 20.0), "a")
    clips = cut.clips("x", 20000, [event])
    for clip in clips:
        start, end = clip.start / 1000, (clip.start + clip.length) / 1000
        inside = min(event.offset, end) - max(event.onset, start)
        enough = min(min_overlap, (event.offset - event.onset) / 2, (end - start) / 2)
        if abs(inside - enough) > 1e-5:
            assert bool(clip.events) == (inside > enough)
        for heard in clip.events:
            assert 0 <= heard.onset <= heard.offset <= end - start + 1e-3
            assert heard.offset - heard.onset == pytest.approx(max(inside, 0), abs=2e-4)
    covered = clips[-1].start + clips[-1].length
    if event.offset <= covered / 1000:
        assert any(clip.events for clip in clips)


def test_labels_of_whole_recordings_are_in_every_clip():
    for length in (50, 5000, 23000):
        for clip in cutting().clips("x", length, [whole("a"), whole("b")]):
            assert clip.classes == {"a", "b"} and clip.events[0] == Event(0.0, clip.length / 1000, "a")


def test_events_behind_the_end_are_heard_nowhere_and_points_where_they_are():
    events = [Event(11.0, 12.0, "late"), Event(5.0, 5.0, "point"), Event(9.5, 99.0, "long")]
    first, second = cutting().clips("x", 10000, events)
    assert first.events == () and second.events == (Event(0.0, 0.0, "point"), Event(4.5, 5.0, "long"))


def write(path, samples, rate):
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return Recording(path.name, path, (whole("a"),), path.name)


@pytest.mark.parametrize("rate, channels", [(SAMPLE_RATE, 1), (44100, 2), (48000, 1), (8000, 3)])
def test_clips_are_pieces_of_the_whole_recording_resampled(tmp_path, rate, channels):
    samples = 0.2 * np.random.default_rng(0).standard_normal((round(2.3 * rate), channels))
    recording = write(tmp_path / "a.wav", samples, rate)
    cut = Cutting(SAMPLE_RATE, 0.5, 0.1, 0.25)
    facts = examine(SAMPLE_RATE, recording)
    expected = read_mono(recording.file, SAMPLE_RATE)
    assert facts.length == len(expected)
    clips = tuple(cut.clips("x", facts.length, recording.events))
    (tmp_path / "out").mkdir()
    write_clips(SAMPLE_RATE, (recording, tmp_path / "out", clips))
    assert [clip.name for clip in clips] == [f"x_{number:04d}" for number in range(6)]
    for clip in clips:
        found, found_rate = soundfile.read(tmp_path / "out" / f"{clip.name}.flac")
        assert found_rate == SAMPLE_RATE and len(found) == clip.length
        assert np.abs(found - expected[clip.start : clip.start + clip.length]).max() < 1e-4
        assert read_events(tmp_path / "out" / f"{clip.name}.txt") == list(clip.events)


def test_whole_clips_are_kept_and_others_are_made_again(tmp_path):
    recording = write(tmp_path / "a.wav", np.zeros(3000), SAMPLE_RATE)
    item = recording, tmp_path, (Clip("a", 0, 3000, (Event(0, 0.1, "a"),)),)
    flac = tmp_path / "a.flac"
    write_clips(SAMPLE_RATE, item)
    kept = flac.stat().st_ino
    write_clips(SAMPLE_RATE, item)
    assert flac.stat().st_ino == kept
    flac.write_bytes(flac.read_bytes()[:30])
    write_clips(SAMPLE_RATE, item)
    assert soundfile.info(flac).frames == 3000


@pytest.mark.parametrize("age", [-3600, 3600], ids=["newer", "older, as a renamed file"])
def test_clips_of_another_file_under_the_name_are_made_again(tmp_path, age):
    """Of equal length, which many data sets' files are."""
    item = write(tmp_path / "a.wav", np.zeros(3000), SAMPLE_RATE), tmp_path, (Clip("a", 0, 3000, ()),)
    write_clips(SAMPLE_RATE, item)
    then = (tmp_path / "a.wav").stat().st_mtime - age
    write(tmp_path / "a.wav", 0.5 * np.ones(3000), SAMPLE_RATE)
    os.utime(tmp_path / "a.wav", (then, then))
    write_clips(SAMPLE_RATE, item)
    assert soundfile.read(tmp_path / "a.flac")[0].max() > 0.4


@pytest.mark.parametrize("kind", ["mp4", "not audio", "no samples", "missing"])
def test_what_cannot_be_read_is_said(tmp_path, kind):
    path = tmp_path / ("a.m4a" if kind == "mp4" else "a.wav")
    if kind == "no samples":
        soundfile.write(path, np.zeros(0), SAMPLE_RATE)
    elif kind != "missing":
        path.write_text("x")
    found = examine(SAMPLE_RATE, Recording(path.name, path, (), "a"))
    assert isinstance(found, UserError) and str(found).startswith(f"{path}: ")


@pytest.mark.parametrize("frequency, lost", [(3000, 0.0), (15000, 1.0), (None, 0.75)])
def test_how_much_lies_above_half_the_new_rate(tmp_path, frequency, lost):
    """A tone below, one above, and white noise of 88,200 Hz, of which a quarter is kept."""
    rate = 88200
    t = np.arange(4 * rate) / rate
    samples = (
        np.random.default_rng(0).standard_normal(len(t)) if frequency is None else np.sin(2 * np.pi * frequency * t)
    )
    facts = examine(SAMPLE_RATE, write(tmp_path / "a.wav", 0.2 * samples + 0.3, rate))
    assert facts.lost == pytest.approx(lost, abs=0.01)
    assert examine(96000, Recording("a", tmp_path / "a.wav", (), "a")).lost == 0.0


def test_silence_has_no_energy():
    assert energy(np.full(10, 0.5, np.float32), 44100, 1000) == pytest.approx((0, 0), abs=1e-12)
    assert all(math.isfinite(value) for value in energy(np.zeros(1, np.float32), 44100, 1000))


def test_equal_audio_has_one_hash_whatever_its_format(tmp_path):
    samples = np.random.default_rng(0).integers(-9999, 9999, 1 << 19, np.int16)  # more than is read at a time
    hashes = set()
    for name in ("a.wav", "b.flac", "c.aiff"):
        soundfile.write(tmp_path / name, samples, 44100, subtype="PCM_16")
        hashes.add(examine(SAMPLE_RATE, Recording(name, tmp_path / name, (), name)).sound)
    soundfile.write(tmp_path / "d.wav", samples[:-1], 44100, subtype="PCM_16")
    assert len(hashes) == 1
    assert examine(SAMPLE_RATE, Recording("d", tmp_path / "d.wav", (), "d")).sound not in hashes
