"""One way to open audio: how long a file really is, all of its samples, and what is cut or no number refused."""

import os
import re

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, SAMPLE_RATE
from sounds import (
    ENCODINGS,
    OF_ANY_LENGTH,
    encoded,
    id3_tag,
    mp3,
    noise_then_silence,
    rate_of,
    tone,
    with_length,
    without_length,
    without_xing,
    write,
)

from src.data.audio.files import decode_record, read_audio, read_mono
from src.data.audio.opening import opened, plain
from src.data.audio.recording import LOUDEST
from src.data.audio.spectrogram import FeatureExtractor
from src.data.audio.windows import resampled_length, windows
from src.data.device_features import DeviceFeatures
from src.errors import UserError
from src.tagging.recordings import window_starts

SECONDS = 1.5
BLOCK = 1200  # samples that a codec may pad at the end
every_encoding = pytest.mark.parametrize("kind, subtype", ENCODINGS)


@every_encoding
def test_every_encoding_is_read_whole(tmp_path, kind, subtype):
    expected = tone(SECONDS, rate_of(kind, subtype))
    path = write(tmp_path, kind, subtype, expected)
    samples, rate = read_audio(path)
    assert rate == pytest.approx(rate_of(kind, subtype), rel=0.01) and samples.shape[1] == 1  # some store a period
    assert 0 <= len(samples) - len(expected) < BLOCK
    assert np.corrcoef(samples[: len(expected), 0], expected)[0, 1] > 0.97
    if kind != "SD2":  # whose header is another file
        assert np.array_equal(read_audio(path.read_bytes())[0], samples)


@every_encoding
def test_windows_of_every_encoding_are_those_of_the_whole(tmp_path, kind, subtype):
    path = write(tmp_path, kind, subtype, tone(SECONDS, rate_of(kind, subtype)))
    whole, rate = read_audio(path)
    with opened(path) as recording:
        assert resampled_length(recording.frames, recording.samplerate, rate) == len(whole)
        starts = window_starts(len(whole), 7000, 3001)
        for start, window in zip(starts, windows(recording, starts, 7000, rate), strict=True):
            assert np.array_equal(window, whole[start : start + 7000, 0])
    with opened(path) as recording:  # with gaps
        (last,) = windows(recording, [len(whole) - 100], 100, rate)
    assert np.array_equal(last, whole[-100:, 0])


@pytest.mark.parametrize("share", [0.5, 0.97])
@every_encoding
def test_every_encoding_is_refused_where_it_is_cut(tmp_path, kind, subtype, share):
    samples = tone(SECONDS, rate_of(kind, subtype))
    path = write(tmp_path, kind, subtype, samples)
    size = path.stat().st_size
    os.truncate(path, round(share * size))
    if kind in OF_ANY_LENGTH:
        assert len(read_audio(path)[0]) == pytest.approx(share * len(samples), abs=0.05 * len(samples))
        return
    with pytest.raises(UserError, match=f"sound.{kind.lower()}: is (truncated|not audio, or is truncated)"):
        read_audio(path)
    with pytest.raises(UserError, match="truncated"), opened(path) as recording:
        list(windows(recording, range(0, len(samples), 4000), 4000, SAMPLE_RATE))


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("kind", ["AVR", "MAT4", "MAT5", "NIST", "RF64", "W64", "AIFF", "AU", "WAV"])
def test_several_channels_are_not_taken_for_more_samples(tmp_path, kind, channels):
    if (kind, channels) == ("AVR", 3):
        return
    samples = np.stack([tone(0.3)] * channels, axis=1)
    assert read_audio(write(tmp_path, kind, "PCM_16", samples))[0].shape == samples.shape


@pytest.mark.parametrize("samples", [noise_then_silence(), noise_then_silence()[::-1], tone(4)])
@pytest.mark.parametrize("tag", [b"", id3_tag(), id3_tag(2000)])
def test_mp3_without_a_length_is_as_long_as_it_is(tmp_path, samples, tag):
    (tmp_path / "a.mp3").write_bytes(tag + without_xing(mp3(samples)))
    found, rate = read_audio(tmp_path / "a.mp3")
    assert 0 <= len(found) - len(samples) < 4 * 576 and rate == SAMPLE_RATE
    whole = soundfile.read(write(tmp_path, "MP3", None, samples, "whole"))[0]
    loud = [np.abs(one).reshape(-1)[: len(samples)].reshape(20, -1).max(axis=1) > 0.05 for one in (found, whole)]
    assert np.array_equal(*loud)  # the sound is where it was


def test_mp3_files_joined_are_read_to_the_last(tmp_path):
    one, other = mp3(tone(1)), mp3(noise_then_silence(0.5))
    (tmp_path / "a.mp3").write_bytes(one + other)
    assert 2 <= len(read_mono(tmp_path / "a.mp3", SAMPLE_RATE)) / SAMPLE_RATE < 2.2


@pytest.mark.parametrize("tag", [b"", id3_tag(), id3_tag(5000)])
def test_mp3_with_its_length_is_what_libsndfile_reads(tmp_path, tag):
    (tmp_path / "a.mp3").write_bytes(tag + mp3(noise_then_silence(1)))
    with soundfile.SoundFile(tmp_path / "a.mp3") as file:
        assert np.array_equal(read_audio(tmp_path / "a.mp3")[0][:, 0], file.read(dtype="float32"))


@pytest.mark.parametrize("subtype, rate", [("VORBIS", SAMPLE_RATE), ("OPUS", 24000)])
def test_ogg_streams_in_a_row_are_refused_not_cut(subtype, rate):
    """As an Internet radio writes them, one a song. libsndfile counts and reads the first alone."""
    one, other = (encoded(tone(seconds, rate), "OGG", subtype, rate) for seconds in (0.5, 1))
    for joined in (one + other, one + one, one + other + other):
        with pytest.raises(UserError, match="it: holds several Ogg streams in a row"):
            read_audio(joined, "it")
    assert np.array_equal(read_audio(one + b"TAG" + b"x" * 125)[0], read_audio(one)[0])  # what taggers add


def test_flac_streams_in_a_row_are_refused_not_cut(tmp_path):
    one, other = (encoded(tone(seconds), "FLAC", "PCM_16") for seconds in (0.5, 1))
    (tmp_path / "joined.flac").write_bytes(one + other)
    for joined in (one + other, id3_tag() + other + one, tmp_path / "joined.flac"):
        with pytest.raises(UserError, match="holds several FLAC streams in a row"):
            read_audio(joined)
    assert np.array_equal(read_audio(one + b"TAG" + b"x" * 125)[0], read_audio(one)[0])  # what taggers add


@pytest.mark.parametrize("size", [0x7F000008, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_that_stands_for_a_pipe_is_no_promise(size):
    """SoX, and others, write such into the headers of WAV and AIFF that go to a pipe."""
    for kind, order in (("WAV", "little"), ("AIFF", "big")):
        data = encoded(tone(0.5), kind, "PCM_16")
        place = data.index(b"data" if kind == "WAV" else b"SSND")
        piped = data[:4] + size.to_bytes(4, order) + data[8 : place + 4] + size.to_bytes(4, order) + data[place + 8 :]
        assert np.array_equal(read_audio(piped)[0], read_audio(data)[0])


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "AIFF", "OGG"])
@pytest.mark.parametrize("tag", [id3_tag(), id3_tag(5000), id3_tag() + id3_tag(), id3_tag(9, footer=True)])
def test_a_tag_in_front_is_passed_over(tmp_path, kind, tag):
    data = encoded(tone(0.5), kind)
    (tmp_path / "a").write_bytes(tag + data)
    for source in (tmp_path / "a", tag + data):
        assert np.array_equal(read_audio(source)[0], read_audio(data)[0])


@every_encoding
def test_what_lies_beside_a_file_is_no_part_of_it(tmp_path, kind, subtype):
    """macOS keeps a file's attributes in `._NAME`, on disks of other systems."""
    path = write(tmp_path, kind, subtype, tone(0.5, rate_of(kind, subtype)))
    expected = read_audio(path)[0]
    if kind != "SD2":
        (tmp_path / f"._{path.name}").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + b"\0" * 300)
    assert np.array_equal(read_audio(path)[0], expected)


def test_a_name_that_is_no_text_is_opened(tmp_path):
    path = tmp_path / os.fsdecode(b"\xe9t\xe9.wav")
    path.write_bytes(encoded(tone(0.5), "WAV"))
    assert len(read_audio(path)[0]) == round(0.5 * SAMPLE_RATE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("kind, subtype", [one for one in ENCODINGS if one[1] in ("FLOAT", "DOUBLE")])
def test_samples_that_are_no_numbers_are_refused(tmp_path, kind, subtype, value):
    samples = np.stack([tone(SECONDS).astype(float)] * 2, axis=1)
    samples[20000, 1] = value
    path = write(tmp_path, kind, subtype, samples)
    where = "sound.*: holds samples that are no finite numbers below 1e[+]12: .* at 0.907 s"
    for dtype in ("float32", "float64"):
        with pytest.raises(UserError, match=where):
            read_audio(path, dtype=dtype)
    for first in (0, 25000):  # read, or passed over
        with pytest.raises(UserError, match=where), opened(path) as recording:
            list(windows(recording, range(first, 33000, 3000), 3000, SAMPLE_RATE))


@pytest.mark.parametrize("value", [2.0, -32768.0, 1e9])
def test_loud_samples_are_samples(tmp_path, value):
    samples = tone(0.5)
    samples[100] = value
    assert read_audio(write(tmp_path, "WAV", "FLOAT", samples))[0][100] == np.float32(value)


@pytest.mark.parametrize("feature", ["spectrogram", "melspectrogram"])
def test_features_of_the_loudest_samples_are_finite(feature):
    """So that a loss is never NaN because of a clip."""
    extractor = FeatureExtractor(feature, n_fft=2048, hop_len=220, win_len=2048, sample_rate=SAMPLE_RATE)
    samples = np.full(5000, 0.99 * LOUDEST, dtype=np.float32)
    assert np.isfinite(extractor(samples)).all()
    assert DeviceFeatures(extractor).spectrograms(torch.from_numpy(samples)[None]).isfinite().all()


@pytest.mark.parametrize("channels, bits", [(1, 16), (2, 24)])
def test_flac_is_as_long_as_it_is_whatever_its_header_says(channels, bits):
    """An encoder that cannot go back leaves the number of samples in the header at 0."""
    sound = np.stack([tone(SECONDS)] * channels, axis=1)
    whole = encoded(sound, "FLAC", f"PCM_{bits}")
    piped = without_length(whole)
    assert np.array_equal(read_audio(piped)[0], read_audio(whole)[0]) and len(read_audio(piped)[0]) == len(sound)
    if channels == 1:
        assert np.array_equal(decode_record(piped, SAMPLE_RATE, "it"), decode_record(whole, SAMPLE_RATE, "it") / 2**15)
        assert plain(piped) == whole
    cut = read_audio(piped[: len(piped) // 2])[0]  # nothing says that more was there
    assert 0 < len(cut) < len(sound) and np.array_equal(cut, read_audio(whole)[0][: len(cut)])
    for said in (1, len(sound) // 2, len(sound) - 1):  # fewer than there are
        short = with_length(whole, said)
        assert np.array_equal(read_audio(short)[0], read_audio(whole)[0]) and plain(short) == whole
        if channels == 1:
            assert np.array_equal(decode_record(short, SAMPLE_RATE, "it"), decode_record(piped, SAMPLE_RATE, "it"))
    headers = piped[: whole.index(b"\xff\xf8")]
    with pytest.raises(UserError, match="it: is empty"):
        read_audio(headers, "it")


def test_audio_is_opened_in_one_place():
    opening = re.compile(r"soundfile\.SoundFile(?!\(\w+, \"w\")")  # but to write
    uses = {path.name for path in (ROOT / "src").rglob("*.py") if opening.search(path.read_text())}
    others = [path for path in (ROOT / "src").rglob("*.py") if re.search(r"soundfile\.(read|info)\(", path.read_text())]
    assert uses == {"recording.py"} and not others
