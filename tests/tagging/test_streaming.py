"""Events of a stream, against those of the same samples as a recording, and what a stream keeps in memory."""

import io
import logging
import os
import pty
import struct
import threading
from functools import lru_cache

import numpy as np
import pytest
import soundfile
from conftest import FIXTURES, SAMPLE_RATE
from hypothesis import given, settings
from hypothesis import strategies as st
from released import CKPT, clip
from test_tagging import own_memory

from src.data.audio import stream as reading
from src.data.audio.stream import Input, opened_stream
from src.errors import UserError
from src.models.decisions import EventDecisions
from src.tagging import stream as telling
from src.tagging.found import found_in
from src.tagging.recordings import in_memory
from src.tagging.stream import bounds_of, told_of
from src.tagging.tagger import Tagger

LBL_MAP = FIXTURES / "lbl_map.json"
NUM_CLASSES = 18


@lru_cache
def tagger_of(window, hop, frames=False):
    return Tagger(CKPT, LBL_MAP, window, hop, frames=frames)


@lru_cache
def soundscapes():
    """(N,) int16 samples of 20 s."""
    return np.concatenate([np.rint(clip(k) * 32767) for k in range(4)]).astype(np.int16)


def sound(num_samples, channels=1):
    """(N, channels) int16 samples, from another place of the soundscapes in each channel."""
    return np.stack([soundscapes()[1000 * k :][:num_samples] for k in range(channels)], axis=1)


class Writer(threading.Thread):
    """Writes blocks of bytes into a pipe, as fast as they are read.

    Attributes:
        number: the file descriptor to read from.
        written: bytes.
    """

    def __init__(self, blocks):
        super().__init__(daemon=True)
        self.number, self._end = os.pipe()
        self.blocks, self.written = blocks, 0
        self.start()

    def run(self):
        with open(self._end, "wb", buffering=0) as pipe:
            for block in self.blocks:
                self.written += pipe.write(block)


def stream_of(data, rate=None, channels=None):
    """A stream of bytes, of samples, or of a writer."""
    if isinstance(data, np.ndarray):
        data, rate, channels = data.tobytes(), rate or SAMPLE_RATE, data.shape[1]
    writer = data if isinstance(data, Writer) else Writer([data])
    return opened_stream(Input(writer.number), SAMPLE_RATE, rate, channels)


def decisions_between(tagged, seed):
    """Thresholds that lie between two scores of each class, about a third of which reach it, and filters of frames.

    A threshold that is itself a score would be reached or not by that score's last bit.
    """
    scores = tagged.scores.T if tagged.frames is None else tagged.frames.values
    thresholds = []
    for values in np.sort(scores, axis=1):
        gaps = np.diff(values)
        most = len(gaps) // 2 + int(np.argmax(gaps[len(gaps) // 2 :])) if len(gaps) else 0
        thresholds.append(float(values[most] + gaps[most] / 2) if len(gaps) and gaps[most] > 1e-4 else 0.05)
    filters = np.random.default_rng(seed).choice([1, 3, 5, 25], NUM_CLASSES)
    return EventDecisions(filters.tolist() if tagged.frames is not None else [1] * NUM_CLASSES, thresholds)


def require_told(stream, tagger, decisions, due):
    """What is told is what is due, each event begins once and ends once, and none is late."""
    begun, found, bounds = {}, [], bounds_of(tagger, stream, decisions)
    for ended, event in told_of(stream, tagger, decisions):
        late = stream.seconds - (event.offset if ended else event.onset)
        assert late <= (bounds.ends if ended else bounds.begins) + 1e-9
        if ended:
            assert begun.pop(event.label) == event.onset
            found.append(event)
        else:
            assert event.label not in begun
            begun[event.label] = event.onset
    assert not begun
    assert [event.label for event in sorted(found)] == [event.label for event in due]
    for event, same in zip(sorted(found), due):
        assert event[:2] == pytest.approx(same[:2], abs=1e-6) and event.confidence == pytest.approx(same[3], abs=1e-5)


@pytest.mark.parametrize(
    "window, hop, frames",
    [(1.0, 0.5, False), (0.5, 0.5, False), (0.4, 0.7, False), (1.0, 0.5, True), (0.81, 0.33, True), (0.5, 0.12, True)],
)
def test_what_is_told_is_what_the_recording_holds(window, hop, frames):
    """At several rates, of one channel or more, and of any length, also about that of a window."""
    tagger = tagger_of(window, hop, frames)
    rng = np.random.default_rng(round(1000 * window))
    for rate, channels, seconds in [
        (SAMPLE_RATE, 1, rng.uniform(2, 4)),
        (SAMPLE_RATE, 2, window),  # and one sample less or more
        (SAMPLE_RATE, 1, window - 1 / SAMPLE_RATE),
        (SAMPLE_RATE, 1, window + 1 / SAMPLE_RATE),
        (44100, 2, rng.uniform(2, 4)),
        (44100, 1, window + hop),
        (16000, 3, rng.uniform(window, 2 * window + hop)),
        (8000, 1, rng.uniform(0.01, window)),
        (44101, 1, rng.uniform(3, 4)),  # whose samples coincide with the network's once a second
    ]:
        samples = sound(round(seconds * rate), channels)
        tagged = tagger.of_recording(in_memory(samples, rate))
        decisions = decisions_between(tagged, seed=len(samples))
        require_told(stream_of(samples, rate), tagger, decisions, found_in(tagged, decisions))


@pytest.mark.parametrize("frames", [False, True])
def test_an_event_that_never_ends_is_told_once_and_one_without_threshold_never(frames):
    samples = sound(3 * SAMPLE_RATE)
    decisions = EventDecisions([25 if frames else 1] * NUM_CLASSES, [0.0] + [None] * (NUM_CLASSES - 1))
    stream = stream_of(samples)
    first, last = told_of(stream, tagger_of(1.0, 0.5, frames), decisions)
    assert not first.ended and last.ended and first.event.onset == last.event.onset == 0
    assert first.event.label == last.event.label == 0
    assert last.event.offset == pytest.approx(3, abs=0.01 if frames else 1e-9)
    assert first.event.confidence <= last.event.confidence <= 1


def test_memory_does_not_grow_and_the_writer_waits():
    """Four minutes of 48 kHz stereo are 46 MB of samples, which the writer would bring at once."""
    second = (0.1 * 32767 * np.random.default_rng(0).standard_normal((48000, 2))).astype(np.int16).tobytes()
    writer = Writer(second for _ in range(240))
    tagger, decisions = Tagger(CKPT, LBL_MAP, hop=5.0), EventDecisions.plain(NUM_CLASSES)
    stream = stream_of(writer, 48000, 2)
    memory, ahead, kept = [], [], []
    outputs = tagger.outputs

    def watched(inputs):
        memory.append(own_memory())
        ahead.append(writer.written - round(stream.seconds * 48000) * 4)
        kept.append(4 * (round(stream.seconds * 48000) - stream.position))
        return outputs(inputs)

    tagger.outputs = watched
    for _ in told_of(stream, tagger, decisions):
        pass
    assert len(memory) == 48 and stream.frames == 240 * 48000 and stream.seconds == 240
    assert max(memory[10:]) - max(memory[:10]) < 10e6, memory
    assert max(ahead) <= reading.PIPE + len(second)
    assert max(kept) <= bounds_of(tagger, stream, decisions).memory < 3e6


@pytest.mark.parametrize("slower, words", [(0.5, []), (2.0, ["2.0", "2.0"])])
def test_a_machine_that_is_too_slow_is_told_now_and_then(monkeypatch, caplog, slower, words):
    """Scoring takes this many times as long as the sound lasts. Every tenth of a second of it is a window."""
    clock = [0.0]
    for module in (reading, telling):
        monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(telling, "JUDGED", 1.0)
    monkeypatch.setattr(telling, "SILENT", 10.0)
    tagger = Tagger(CKPT, LBL_MAP, 0.5, 0.1)
    outputs = tagger.outputs

    def slow(inputs):
        clock[0] += 0.1 * slower
        return outputs(inputs)

    tagger.outputs = slow
    decisions = EventDecisions.plain(NUM_CLASSES)
    samples = sound(8 * SAMPLE_RATE)
    with caplog.at_level(logging.WARNING):
        told = list(told_of(stream_of(samples), tagger, decisions))
    assert [line.split("takes ")[1].split()[0] for line in caplog.messages] == words
    assert told == list(told_of(stream_of(samples), tagger_of(0.5, 0.1), decisions))  # nothing is lost


# ---- what comes ----


def wav(samples, rate, size, code=1, bits=16, between=b"", behind=b""):
    """A WAV file whose header says so many bytes of samples."""
    channels = samples.shape[1]
    layout = struct.pack("<HHIIHH", code, channels, rate, rate * channels * 2, channels * 2, bits)
    if code == 0xFFFE:  # with the format in a GUID
        layout += struct.pack("<HHIH", 22, bits, 0, 1) + bytes.fromhex("000000001000800000aa00389b71")
    parts = b"fmt " + struct.pack("<I", len(layout)) + layout + between
    return b"RIFF\xff\xff\xff\xffWAVE" + parts + b"data" + struct.pack("<I", size) + samples.tobytes() + behind


LIST = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"


@pytest.mark.parametrize(
    "more",
    [
        {"size": 0},
        {"size": 0x7FFFF000},
        {"size": 0xFFFFFFFF, "between": LIST},
        {"size": 0x80000000, "code": 0xFFFE},
        {"size": 3000 * 4, "behind": LIST},
    ],
)
def test_headers_of_pipes_are_read_and_what_is_behind_the_samples_is_none(more):
    samples = sound(3000, channels=2)
    for flags in ((None, None), (32000, 2)):
        stream = stream_of(wav(samples, 32000, **more), *flags)
        assert (stream.samplerate, stream.channels) == (32000, 2)
        assert np.array_equal(stream.read(), samples / np.float32(32768)) and stream.cut == 0


def test_raw_samples_are_those_of_the_type_and_a_cut_one_is_left_out():
    samples = sound(1000, channels=3)
    stream = stream_of(samples.tobytes() + b"12345", 48000, 3)
    assert np.array_equal(stream.read(), samples / np.float32(32768))
    assert stream.cut == 5 and stream.frames == 1000 and stream.seconds == 1000 / 48000
    stream = stream_of(samples[:, :1].tobytes())
    assert (stream.samplerate, stream.channels) == (SAMPLE_RATE, 1) and not stream.reaches(1001)


BAD = [
    (b"", "is empty. Does the recorder run?"),
    (b"1", "is empty, it has no samples"),
    (wav(np.zeros((0, 1), np.int16), 8000, 0), "is empty, it has no samples"),
    (wav(np.zeros((9, 1), np.int16), 8000, 0, bits=24), "has samples of 24 bits, and 16-bit PCM was expected"),
    (wav(np.zeros((9, 1), np.int16), 8000, 0, code=3, bits=32), "has format 3 of 32 bits, and 16-bit PCM was expected"),
    (wav(np.zeros((9, 1), np.int16), 0, 0), "0 Hz and 1 channels. Expected: 1 to 1,000,000 Hz"),
    (wav(np.zeros((9, 0), np.int16), 8000, 0), "8000 Hz and 0 channels"),
    (wav(np.zeros((9, 1), np.int16), 8000, 0)[:30], "its WAV header is damaged, or ends before the samples"),
    (b"RIFF1234WAVEdata\0\0\0\0" + bytes(100), "its WAV header is damaged"),
    (b"RIFF1234WAVEjunk\xff\xff\xff\x7f" + bytes(100), "its WAV header is damaged"),
]


@pytest.mark.parametrize("data, fault", BAD, ids=[fault for _, fault in BAD])
def test_other_input_is_refused(data, fault):
    with pytest.raises(UserError) as error:
        stream_of(data)
    assert str(error.value).startswith("standard input: ") and fault in str(error.value)


@given(st.binary(max_size=60), st.sampled_from([b"", b"RIFF1234WAVE", b"RIFF1234WAVEfmt \x10\0\0\0\1\0"]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_samples_or_refused(data, start):
    file = os.memfd_create("input")
    os.write(file, start + data)
    os.lseek(file, 0, os.SEEK_SET)
    try:
        stream = opened_stream(Input(file), SAMPLE_RATE)
        assert stream.read().size == stream.frames * stream.channels > 0
    except UserError as error:
        assert "standard input: " in str(error) and "\n" not in str(error)
    finally:
        os.close(file)


def test_numbers_that_do_not_fit_are_refused():
    header = wav(sound(100), 8000, 0)
    with pytest.raises(UserError, match="--stream_rate: is 44100, and the WAV header of standard input says 8000"):
        stream_of(header, 44100)
    with pytest.raises(UserError, match="--stream_channels: is 2, and the WAV header of standard input says 1"):
        stream_of(header, 8000, 2)
    with pytest.raises(UserError, match="2000000 Hz and 1 channels. Expected: 1 to 1,000,000 Hz, and 1 to 1024"):
        stream_of(sound(100), 2_000_000)
    with pytest.raises(UserError, match="the hop is longer than the window"):
        telling.tell(stream_of(sound(100)), tagger_of(0.5, 0.9, True), EventDecisions.plain(NUM_CLASSES))


def test_a_terminal_and_a_folder_are_no_input(tmp_path):
    ours, theirs = pty.openpty()
    with pytest.raises(UserError, match="standard input: is a terminal, and sound was expected"):
        Input(theirs)
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UserError, match=r"standard input: cannot be read \(Is a directory\)"):
        opened_stream(Input(folder), SAMPLE_RATE)
    for number in (ours, theirs, folder):
        os.close(number)


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "AIFF", "MP3", "RF64"])
def test_a_file_of_another_kind_is_not_taken_for_raw_samples(kind):
    buffer = io.BytesIO()
    soundfile.write(buffer, sound(SAMPLE_RATE), SAMPLE_RATE, format=kind)
    content = (b"ID3\4" + bytes(6)) * (kind == "MP3") + buffer.getvalue()
    with pytest.raises(UserError, match="standard input: begins as a file of another kind"):
        opened_stream(Input(Writer([content]).number), SAMPLE_RATE)
