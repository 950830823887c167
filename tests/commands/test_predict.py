"""predict.py: recordings of any kind, scored as in evaluation."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from conftest import FIXTURES, SAMPLE_RATE, error_line, run_script, write_lbl_map
from released import CKPT, FIRST_RECORD, LMDB

from src.data.lmdb.store import LMDBReader
from src.tagging.recordings import audio_files, read_window, window_starts
from src.tagging.tagger import Tagger, maxima

LBL_MAP = FIXTURES / "lbl_map.json"


def clip(index=0):
    """(110250,) samples of a released soundscape."""
    return soundfile.read(io.BytesIO(LMDBReader(LMDB)[index].flac), dtype="float32")[0]


def predict(*more, check=None):
    return run_script("predict.py", "--ckpt_path", CKPT, "--lbl_map", LBL_MAP, *more, check=check)


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_five_second_clip_gets_the_scores_of_the_evaluation(tmp_path):
    soundfile.write(tmp_path / "a.flac", clip(), SAMPLE_RATE, subtype="PCM_16")
    predict("--audio", tmp_path / "a.flac", "--csv", tmp_path / "a.csv", check=0)
    rows = rows_of(tmp_path / "a.csv")
    assert len(rows) == 18 and {(row["start"], row["end"]) for row in rows} == {("0.000", "5.000")}
    assert np.abs(np.array([float(row["score"]) for row in rows]) - FIRST_RECORD).max() < 1e-5


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
    with soundfile.SoundFile(tmp_path / "a.wav") as file:
        for start in (0, 1, 12345, len(whole) - 20000, len(whole) - 100):
            window = read_window(file, start, 20000, SAMPLE_RATE)
            assert len(window) == min(20000, len(whole) - start)
            exact = rate not in (32768, 44101)  # those are resampled in the Fourier domain
            inner = slice(0 if exact else 50, len(window) if exact else -50)
            error = np.abs(window - whole[start : start + 20000])[inner]
            assert error.max(initial=0) < (1e-4 if exact else 0.002)


@pytest.mark.parametrize("length, expected", [(3, [0]), (10, [0]), (11, [0, 1]), (16, [0, 4, 6]), (18, [0, 4, 8])])
def test_windows_reach_to_the_end(length, expected):
    assert window_starts(length, 10, 4) == expected


def test_long_and_very_short_recordings(tmp_path):
    folder = tmp_path / "my recordings; ü"
    folder.mkdir()
    soundfile.write(folder / "long.wav", np.concatenate([clip(k) for k in range(4)]), SAMPLE_RATE)
    soundfile.write(folder / "short.wav", clip()[:2205], SAMPLE_RATE)
    soundfile.write(folder / "one.wav", clip()[:1], SAMPLE_RATE)
    result = predict(
        "--audio", folder, "--csv", tmp_path / "a.csv", "--plot", tmp_path / "a.png", "--hop", 5, "--top_k", 3, check=0
    )
    rows = rows_of(tmp_path / "a.csv")
    starts = sorted({float(row["start"]) for row in rows if row["file"].endswith("long.wav")})
    assert starts == [0, 5, 10, 15] and len(rows) == 18 * (4 + 1 + 1)
    assert len(list(tmp_path.glob("a_*.png"))) == 3 and "20.0 s, 4 windows" in result.stdout
    shown = result.stdout.split("long.wav")[1].splitlines()[1:4]
    scores = [float(line.split()[0]) for line in shown]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    # Scored window by window as each clip alone.
    tagger = Tagger(CKPT, LBL_MAP, hop=5.0)
    soundfile.write(tmp_path / "second.wav", clip(1), SAMPLE_RATE)
    assert np.abs(tagger(folder / "long.wav").scores[1] - tagger(tmp_path / "second.wav").scores[0]).max() < 1e-5


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
    scores = tagger._scores

    def watched(spectrograms):
        nonlocal peak
        peak = max(peak, own_memory())
        return scores(spectrograms)

    tagger._scores = watched
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


def test_a_threshold_hides_what_does_not_reach_it(tmp_path):
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    shown = [
        line
        for line in predict("--audio", tmp_path / "a.wav", "--threshold", 0.17, check=0).stdout.splitlines()
        if line.startswith("  ")
    ]
    assert len(shown) == sum(score >= 0.17 for score in FIRST_RECORD)


def test_the_checkpoints_own_label_map(trained, tmp_path):
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    ckpt = next((trained / "r1").rglob("epoch=01*.ckpt"))
    result = run_script("predict.py", "--ckpt_path", ckpt, "--audio", tmp_path / "a.wav", "--top_k", 9, check=0)
    assert sorted(line.split()[1] for line in result.stdout.splitlines()[1:]) == ["Drum", "Harp", "Organ"]


def test_what_cannot_be_read_is_reported_and_the_rest_is_tagged(tmp_path):
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    (tmp_path / "b.wav").write_text("not audio")
    soundfile.write(tmp_path / "c.wav", np.zeros(0), SAMPLE_RATE)
    for name in ("d.mp3", "e.ogg", "f.flac"):
        soundfile.write(tmp_path / name, np.concatenate([clip(0), clip(1)]), SAMPLE_RATE)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
    flac = bytearray((tmp_path / "f.flac").read_bytes())
    flac[21] &= 0xF0  # the length in its header, as an encoder that writes to a pipe leaves it
    flac[22:26] = bytes(4)
    (tmp_path / "g.flac").write_bytes(flac)
    (tmp_path / "h.raw").write_bytes(bytes(1000))
    result = predict("--audio", tmp_path, tmp_path / "h.raw", "--csv", tmp_path / "out.csv")
    assert " of 8 recordings could not be read" in error_line(result)
    assert "b.wav: is not audio" in result.stderr and "c.wav: is empty" in result.stderr
    assert "f.flac" in result.stderr and "g.flac: does not say how long it is" in result.stderr
    assert "h.raw: is not audio" in result.stderr and "d.mp3" in result.stderr
    assert "a.wav" in result.stdout
    rows = [row for row in rows_of(tmp_path / "out.csv") if row["file"].endswith("a.wav")]
    assert len(rows) == 18


def test_predicting_refuses(tmp_path, trained):
    ckpt = next((trained / "r1").rglob("epoch=01*.ckpt"))
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    (tmp_path / "empty").mkdir()
    line = error_line(run_script("predict.py", "--ckpt_path", CKPT, "--audio", tmp_path / "a.wav"))
    assert "carries no label map" in line and "--lbl_map" in line
    line = error_line(predict("--audio", tmp_path / "a.wav", "--lbl_map", "meta/lbl_map.json"))
    assert "model.num_classes is 18, but the label map meta/lbl_map.json has 51 classes" in line
    line = error_line(
        run_script(
            "predict.py",
            "--ckpt_path",
            ckpt,
            "--audio",
            tmp_path / "a.wav",
            "--lbl_map",
            write_lbl_map(tmp_path / "other.json", ("Harp", "Drum", "Organ")),
        )
    )
    assert "class 0 is 'Harp'" in line and "was trained with 'Drum' there" in line
    line = error_line(predict("--audio", tmp_path / "a.wav", "--plot", "out.xyz"))
    assert "--plot out.xyz: a picture ends in" in line
    assert "is a folder" in error_line(predict("--audio", tmp_path / "a.wav", "--csv", tmp_path))
    (tmp_path / "cut.ckpt").write_bytes(CKPT.read_bytes()[:5000])
    line = error_line(run_script("predict.py", "--ckpt_path", tmp_path / "cut.ckpt", "--audio", tmp_path / "a.wav"))
    assert "is not a checkpoint, or is truncated" in line
    assert "no audio files in this folder" in error_line(predict("--audio", tmp_path / "empty"))
    assert "nowhere.wav: no such file or folder" in error_line(predict("--audio", "nowhere.wav"))


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
