"""Windows of recordings at any rate, their scores, and the picture over time."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from conftest import FIXTURES, SAMPLE_RATE
from released import CKPT, clip
from sounds import mp3, without_xing

from src.data.audio.opening import opened
from src.data.audio.spectrogram import FeatureExtractor
from src.data.audio.windows import windows
from src.preparation import show
from src.tagging import pictures
from src.tagging.recordings import audio_files, window_starts
from src.tagging.tagger import Tagged, Tagger, maxima

LBL_MAP = FIXTURES / "lbl_map.json"


@pytest.mark.parametrize("index", [0, 3, 6, 7, 12, 13])
def test_rates_and_channels_do_not_change_the_top_class(tmp_path, index):
    """Of recordings whose top class leads clearly: at 16 kHz, what lies above 8 kHz is gone."""
    samples = torch.from_numpy(clip(index))
    at = {rate: torchaudio.functional.resample(samples, SAMPLE_RATE, rate).numpy() for rate in (44100, 16000)}
    soundfile.write(tmp_path / "a.wav", samples.numpy(), SAMPLE_RATE)
    soundfile.write(tmp_path / "b.wav", np.stack([at[44100]] * 2, axis=1), 44100)
    soundfile.write(tmp_path / "c.flac", at[16000], 16000)
    tagger = Tagger(CKPT, LBL_MAP)
    tagged = [tagger(tmp_path / name) for name in ("a.wav", "b.wav", "c.flac")]
    assert len({int(one.strongest(1)[0]) for one in tagged}) == 1
    # Twice the rate, and two equal channels, hold the same sound.
    assert np.abs(tagged[0].scores - tagged[1].scores).max() < 0.05


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 11025, 22050, 32768, 44101])
def test_a_window_is_what_the_whole_file_resampled_holds_there(tmp_path, rate):
    rng = np.random.default_rng(0)
    t = np.arange(rate * 3) / rate
    tones = sum(np.sin(2 * np.pi * f * t + f) for f in (220, 1234, 3456))[:, None] * [0.1, 0.05]
    noise = 0.01 * rng.standard_normal((rate * 3, 2)) if rate not in (32768, 44101) else 0
    samples = (tones + noise).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    mono = torch.from_numpy(samples.mean(axis=1))
    if rate in (32768, 44101):  # torchaudio's filters for these take gigabytes
        whole = sum(
            a * np.sin(2 * np.pi * f * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE + f)
            for a, f in ((0.075, 220), (0.075, 1234), (0.075, 3456))
        )
    else:
        whole = torchaudio.functional.resample(mono, rate, SAMPLE_RATE).numpy()
    starts = (0, 1, 12345, len(whole) - 20000, len(whole) - 100)
    with opened(tmp_path / "a.wav") as recording:
        for start, window in zip(starts, windows(recording, starts, 20000, SAMPLE_RATE), strict=True):
            assert len(window) == min(20000, len(whole) - start)
            exact = rate not in (32768, 44101)  # those are resampled in the Fourier domain
            inner = slice(0 if exact else 50, len(window) if exact else -50)
            error = np.abs(window - whole[start : start + 20000])[inner]
            assert error.max(initial=0) < (1e-4 if exact else 0.002)


@pytest.mark.parametrize("length, expected", [(3, [0]), (10, [0]), (11, [0, 1]), (16, [0, 4, 6]), (18, [0, 4, 8])])
def test_windows_reach_to_the_end(length, expected):
    assert window_starts(length, 10, 4) == expected


def own_memory():
    """Bytes of this process that are no file's."""
    fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return 1024 * int(fields["Anonymous"].split()[0])


def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Eight minutes of 48 kHz stereo are 184 MB of samples. A few are in memory at a time."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 48000, 2, subtype="PCM_16") as file:
        for _ in range(48):
            file.write(0.1 * rng.standard_normal((480000, 2)))
    soundfile.write(tmp_path / "short.flac", 0.1 * rng.standard_normal((480000, 2)), 48000)
    tagger = Tagger(CKPT, LBL_MAP, hop=5.0)
    tagger(tmp_path / "short.flac")
    before, peak = own_memory(), 0
    outputs = tagger.outputs

    def watched(spectrograms):
        nonlocal peak
        peak = max(peak, own_memory())
        return outputs(spectrograms)

    tagger.outputs = watched
    assert len(tagger(tmp_path / "long.flac").starts) == 96
    assert peak - before < 60e6, (before, peak)


@pytest.mark.parametrize("hop", [0.7, 2.5, 5.0])
def test_the_picture_is_even_over_time(tmp_path, hop):
    """A click at 12 s of 20 s is drawn at 12 / 20 of the width, once, however much the windows overlap."""
    samples = 1e-4 * np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE)
    samples[12 * SAMPLE_RATE : 12 * SAMPLE_RATE + 200] = 0.9
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    picture = Tagger(CKPT, LBL_MAP, hop=hop)(tmp_path / "a.wav").picture
    loud = np.flatnonzero(picture.mean(axis=0) > picture.mean() + 20)
    assert abs(loud.mean() / picture.shape[1] - 12 / 20) < 0.01 and np.ptp(loud) < 0.01 * picture.shape[1]


def test_folders_are_searched_for_all_kinds_of_audio(tmp_path):
    for name in ("b.WAV", "a.flac", "sub/c.mp3", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in audio_files([str(tmp_path)])]
    assert found == ["a.flac", "b.WAV", "sub/c.mp3"]


def test_a_picture_keeps_the_maxima():
    spectrogram = np.random.default_rng(0).standard_normal((3, 100))
    assert np.array_equal(maxima(spectrogram, 10), spectrogram.reshape(3, 10, 10).max(axis=2))
    assert np.array_equal(maxima(spectrogram, 300), np.repeat(spectrogram, 3, axis=1))
    assert maxima(spectrogram, 0).shape == (3, 0)


@pytest.mark.parametrize("encode", [without_xing, bytes])
def test_memory_does_not_grow_with_what_cannot_be_sought_in(tmp_path, encode):
    """Eighty seconds of 44.1 kHz stereo are 28 MB of samples."""
    t = np.arange(80 * 44100) / 44100
    samples = np.stack([np.sin(2 * np.pi * f * t).astype(np.float32) for f in (220, 330)], axis=1)
    (tmp_path / "long.mp3").write_bytes(encode(mp3(0.3 * samples, 44100)))
    del t, samples
    before, peak, length = own_memory(), 0, 0
    with opened(tmp_path / "long.mp3") as recording:
        starts = range(0, recording.frames, 100_000)
        for window in windows(recording, starts, 100_000, 44100):
            peak, length = max(peak, own_memory()), length + len(window)
    assert length >= 80 * 44100 and peak - before < 12e6, (length, peak - before)


def axes_of(figure):
    """Of a figure with a spectrogram: its axes, and the Hz of each tick."""
    (axes,) = [axes for axes in figure.axes if axes.get_ylabel() == "frequency (Hz)"]
    return axes, [float(label.get_text()) for label in axes.get_yticklabels()]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, instead of their files."""
    found = []
    for module in (pictures, show):
        monkeypatch.setattr(module, "save_figure", lambda figure, *_, **__: found.append(figure))
    return found


@pytest.mark.parametrize("feature", ["spectrogram", "melspectrogram"])
def test_the_spectrograms_axis_is_in_hz(figures, feature):
    """A tone is drawn where the axis says that its frequency is."""
    features = FeatureExtractor(feature, n_fft=1024, hop_len=220, win_len=1024, sample_rate=SAMPLE_RATE)
    for tone in (500.0, 2000.0, 8000.0):
        picture = features(np.sin(2 * np.pi * tone * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32))
        tagged = Tagged(Path("a.wav"), np.zeros(1), np.ones(1), np.full((1, 2), 0.5), np.empty((1, 0)), picture)
        pictures.draw("a.png", tagged, features.frequencies, ["Drum", "Harp"], 2)
        axes, hertz = axes_of(figures[-1])
        places, top = axes.get_yticks(), axes.images[0].get_extent()[3]
        assert len(hertz) >= 5 and all(-0.5 <= place <= top for place in places)
        drawn = picture.mean(axis=1).argmax()
        assert np.interp(drawn, places, hertz) == pytest.approx(tone, rel=0.1)
        assert hertz == sorted(hertz) and hertz[-1] <= SAMPLE_RATE / 2


@pytest.mark.parametrize("rate", [8000, 22050, 96000])
def test_a_soundscapes_picture_has_the_same_axis(figures, rate):
    samples = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    show.draw_soundscape("a.png", show.Soundscape("a", samples, rate, ()))
    axes, hertz = axes_of(figures[-1])
    drawn = axes.images[0].get_array().mean(axis=1).argmax()
    assert np.interp(drawn, axes.get_yticks(), hertz) == pytest.approx(1000, abs=rate / 441)
    assert 4 <= len(hertz) <= 12 and hertz[0] == 0 and hertz[-1] > rate / 4
