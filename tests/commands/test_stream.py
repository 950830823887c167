"""predict.py --stream, fed as a recorder feeds it, against the events of the same file."""

import json
import os
import signal

import numpy as np
import pytest
import soundfile
from conftest import FIXTURES, ROOT, SAMPLE_RATE, _as_main, as_events, error_line, fork, run_script, wait_until
from released import CKPT, clip

from src.models.checkpoint import published_settings
from src.models.safe_loading import read_torch_file
from src.models.torch_files import write_torch_file
from src.tagging import Tagger
from src.tagging.found import decisions_of, found_in

WINDOW, HOP = 1.0, 0.5
WINDOWS = "--window", WINDOW, "--hop", HOP


class Streaming:
    """`predict.py --stream` in a process whose standard input is a pipe, or a file."""

    def __init__(self, folder, checkpoint, *more, file=None):
        self.out, self.err = folder / "out.log", folder / "err.log"
        if not self.out.exists():
            self.out.touch()  # to be looked into at once
        source = file or folder / "pipe"
        if not file:
            os.mkfifo(source)
        words = [ROOT / "predict.py", "--ckpt_path", checkpoint, "--stream", *WINDOWS, *more]
        logs = str(self.out), str(self.err)
        self.process = fork(_with_input, str(source), list(map(str, words)), str(folder), *logs, dict(os.environ))
        self.pipe = None if file else open(source, "wb", buffering=0)

    def lines(self):
        """What was told so far."""
        return [json.loads(line) for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def end(self, status=0):
        """What was told, and what was said on standard error."""
        if self.pipe:
            self.pipe.close()
        self.process.join(120)
        assert self.process.exitcode == status, self.err.read_text()
        return self.lines(), self.err.read_text()


def _with_input(source, *arguments):
    os.dup2(os.open(source, os.O_RDONLY), 0)
    _as_main(*arguments)


@pytest.fixture(scope="module")
def sounds():
    """(N, 2) 16-bit samples of two soundscapes of the demo corpus, of an odd length."""
    samples = np.concatenate([clip(0), clip(1)])[: 8 * SAMPLE_RATE + 321]
    return np.rint(np.stack([samples, samples[::-1]], axis=1) * 32767).astype("<i2")


@pytest.fixture(scope="module")
def network(sounds, tmp_path_factory):
    """A network of events, of filters of up to nine frames, whose classes are heard now and then."""
    folder = tmp_path_factory.mktemp("network")
    released = read_torch_file(CKPT, "a checkpoint")  # with objects of classes that nobody has any more
    classes = json.loads((FIXTURES / "lbl_map.json").read_text())
    content = {"cfg": published_settings(released["hyper_parameters"]["cfg"]), "lbl_map": classes}
    plain = {"state_dict": released["state_dict"], "hyper_parameters": content}
    write_torch_file(folder / "plain.ckpt", plain)
    soundfile.write(folder / "a.wav", sounds, SAMPLE_RATE)
    values = Tagger(as_events(folder / "plain.ckpt", folder / "some.ckpt"), None, WINDOW, HOP)(folder / "a.wav")
    middle = np.sort(values.frames.values, axis=1)[:, [150, 151]].mean(axis=1).tolist()  # between two scores
    decisions = {"medians": [1, 3, 9] * 6, "thresholds": [*middle[:-1], None]}
    return as_events(folder / "plain.ckpt", folder / "events.ckpt", **decisions)


@pytest.fixture(scope="module")
def tagger(network):
    return network.with_name("plain.ckpt")


def require_same(lines, checkpoint, file, threshold=None):
    """Each event is told twice, as it begins and as it ends, and it is the recording's."""
    tagger = Tagger(checkpoint, None, WINDOW, HOP)
    due = found_in(tagger(file), decisions_of(tagger, threshold))
    begun = [(line["class"], line["start"]) for line in lines if line["event"] == "begins"]
    ended = sorted((line for line in lines if line["event"] == "ends"), key=lambda line: (line["start"], line["end"]))
    assert len(due) > 5 and len(begun) == len(ended) == len(due)
    assert sorted(begun) == sorted((line["class"], line["start"]) for line in ended)
    key = {name: number for number, name in enumerate(tagger.classes)}
    ended.sort(key=lambda line: (line["start"], line["end"], key[line["class"]]))
    for line, event in zip(ended, due):
        assert (line["start"], line["end"]) == pytest.approx(event[:2], abs=1e-6)
        assert line["class"] == tagger.classes[event.label]
        assert line["score"] == pytest.approx(event.confidence, abs=1e-5)
    for line in lines:
        assert list(line) == ["event", "class", "start", *["end"] * (line["event"] == "ends"), "score", "at"]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


@pytest.mark.parametrize("header", [True, False])
def test_a_network_of_events_tells_those_of_the_recording(network, sounds, tmp_path, header):
    """At 44.1 kHz, in stereo, by the checkpoint's thresholds and filters."""
    soundfile.write(tmp_path / "a.wav", sounds, 44100, subtype="PCM_16")
    data = (tmp_path / "a.wav").read_bytes()
    words = () if header else ("--stream_rate", 44100, "--stream_channels", 2)
    streaming = Streaming(tmp_path, network, *words)
    streaming.pipe.write(data if header else sounds.tobytes() + b"\0")
    lines, said = streaming.end()
    require_same(lines, network, tmp_path / "a.wav")
    # Window, hop of whole frames, what resampling reads ahead, and four frames of the median filter.
    assert "44100 Hz, 2 channels. Events are told within 1.69 s of sound after they begin" in said
    assert ("ends within a sample, of which 1 bytes are left out" in said) != header


def test_a_tagger_tells_the_windows_of_a_file_that_reach_the_threshold(tagger, sounds, tmp_path):
    soundfile.write(tmp_path / "a.wav", sounds[:, 0], SAMPLE_RATE, subtype="PCM_16")
    lines, said = Streaming(tmp_path, tagger, "--threshold", 0.1234, file=tmp_path / "a.wav").end()
    require_same(lines, tagger, tmp_path / "a.wav", 0.1234)
    assert "within 1.00 s of sound after they begin, and 0.50 s after they end" in said


def test_events_are_told_while_the_sound_goes_on_and_a_signal_ends_them(tagger, sounds, tmp_path):
    """Every score reaches the lowest threshold: all classes begin with the first window, and end with the stream."""
    streaming = Streaming(tmp_path, tagger, "--threshold", 1e-9)
    samples = sounds[:, 0].tobytes()
    streaming.pipe.write(samples[: 2 * SAMPLE_RATE + 2])  # of a second and a sample
    wait_until(streaming.process, lambda: len(streaming.lines()) == 18)
    begun = streaming.lines()
    assert {(line["event"], line["start"]) for line in begun} == {("begins", 0.0)}
    assert {line["at"] for line in begun} == {round(1 + 1 / SAMPLE_RATE, 6)}
    streaming.pipe.write(samples[2 * SAMPLE_RATE + 2 : 3 * SAMPLE_RATE + 100])
    os.kill(streaming.process.pid, signal.SIGINT)
    streaming.process.join(120)
    lines, said = streaming.end(130)
    assert lines[:18] == begun and len(lines) == 36 and said.splitlines()[-1].startswith("predict.py: interrupted")
    assert {line["event"] for line in lines[18:]} == {"ends"} and len({line["class"] for line in lines[18:]}) == 18
    (end,) = {line["end"] for line in lines[18:]}
    assert 1 < end <= 1.5 + 50 / SAMPLE_RATE + 1e-6


def test_a_reader_that_ends_ends_the_command(tagger, sounds, tmp_path):
    """As in `arecord … | python predict.py --stream … | head -n 1`."""
    os.mkfifo(tmp_path / "out.log")
    streaming = Streaming(tmp_path, tagger, "--threshold", 1e-9)
    with open(tmp_path / "out.log", "rb") as reader:
        streaming.pipe.write(sounds[: SAMPLE_RATE + 1, 0].tobytes())
        assert json.loads(reader.readline())["event"] == "begins"
    streaming.pipe.close()
    streaming.process.join(120)
    assert streaming.process.exitcode == 1
    assert streaming.err.read_text().splitlines()[-1] == "predict.py: error: standard output: Broken pipe"


def test_flags_that_do_not_fit_are_refused(tagger, tmp_path):
    words = "predict.py", "--ckpt_path", tagger
    for flags, fault in [
        (("--csv", "s.csv", "--top_k", 3), "--csv, --top_k: cannot be had with --stream"),
        (("--plot", "a.png"), "--plot: cannot be had with --stream"),
        (("--events", "e.tsv"), "--events: cannot be had with --stream"),
        ((), "standard input: is empty. Does the recorder run?"),
    ]:
        assert fault in error_line(run_script(*words, "--stream", *flags))
    rate = run_script(*words, "--audio", tmp_path, "--stream_rate", 8000)
    assert "--stream_rate and --stream_channels are of --stream" in error_line(rate)
    for flags, fault in [
        (("--stream", "--audio", "a"), "not allowed with"),
        ((), "one of the arguments --audio --stream"),
    ]:
        result = run_script(*words, *flags)
        assert result.returncode == 2 and fault in result.stderr.splitlines()[-1]
    network_of_events = as_events(tagger, tmp_path / "events.ckpt")
    (tmp_path / "sound").write_bytes(bytes(1000))
    streaming = Streaming(tmp_path, network_of_events, "--hop", 2, file=tmp_path / "sound")
    assert "error: the hop is longer than the window" in streaming.end(1)[1].splitlines()[-1]
