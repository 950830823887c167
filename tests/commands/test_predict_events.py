"""predict.py --events and --frames: what sounds when, by a network of events or by a tagger made to score frames."""

import csv
import logging

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLASSES, FIXTURES, SAMPLE_RATE, as_events, error_line, run_script
from released import CKPT, clip

from src import prediction
from src.data.events import Event
from src.models.checkpoint import architecture, read_checkpoint
from src.models.frames import FrameNetwork
from src.models.registry import create
from src.models.safe_loading import read_torch_file
from src.models.torch_files import write_torch_file
from src.tagging import Tagger, pictures
from src.tagging.found import found_events
from src.tagging.frames import with_frames

WINDOWS = "--window", 0.7, "--hop", 0.3


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def sounds(corpus, tmp_path_factory):
    """Two recordings of several windows, and one that is none."""
    folder = tmp_path_factory.mktemp("sounds")
    for name in ("a", "c"):
        parts = [soundfile.read(corpus / "eval" / f"s00{number}.flac")[0] for number in range(3)]
        soundfile.write(folder / f"{name}.wav", np.concatenate(parts[:: 1 if name == "a" else -1]), SAMPLE_RATE)
    (folder / "b.wav").write_text("none")
    return folder


@pytest.fixture(scope="module")
def tagger_file(trained):
    return next((trained / "r1").rglob("epoch=01*.ckpt"))


@pytest.fixture(scope="module")
def checkpoint(tagger_file, sounds, tmp_path_factory):
    """A network of events whose classes are heard half of the time, but the last one never."""
    folder = tmp_path_factory.mktemp("network")
    plain = as_events(tagger_file, folder / "plain.ckpt")
    middle = np.median(Tagger(plain, None, 0.7, 0.3)(sounds / "a.wav").frames.values, axis=1)
    return as_events(
        tagger_file, folder / "events.ckpt", medians=[1, 3, 1], thresholds=[float(middle[0]), float(middle[1]), None]
    )


def test_tables_of_events_and_frames_hold_what_the_network_says(checkpoint, sounds, tmp_path):
    """Of the recordings that can be read, in their order. The events of each go by onset."""
    tables = "--events", tmp_path / "e.tsv", "--frames", tmp_path / "f.tsv"
    result = run_script("predict.py", "--ckpt_path", checkpoint, "--audio", sounds, *WINDOWS, *tables)
    assert "1 of 3 recordings could not be read" in error_line(result) and "b.wav: is not audio" in result.stderr
    tagger, events, frames = Tagger(checkpoint, None, 0.7, 0.3), [], []
    limits = tagger.event_decisions.limits
    for file in (sounds / "a.wav", sounds / "c.wav"):
        scores = tagger(file).frames
        for event in found_events(scores, tagger.event_decisions):
            assert limits[event.label] <= event.confidence <= 1 and event.onset < event.offset
            times = [f"{time:.3f}" for time in (event.onset, event.offset)]
            events.append([str(file), *times, CLASSES[event.label], f"{event.confidence:.6f}"])
        for onset, offset, values in zip(scores.onset, scores.offset, scores.values.T):
            frames.append([str(file), f"{onset:.3f}", f"{offset:.3f}", *(f"{value:.6f}" for value in values)])
    assert {row[3] for row in events} == {"Drum", "Harp"} and len({row[0] for row in events}) == 2
    lines = [line.split("\t") for line in (tmp_path / "e.tsv").read_text().splitlines()]
    assert lines == [["filename", "onset", "offset", "event_label", "confidence"], *events]
    for file in {row[0] for row in events}:
        onsets = [float(row[1]) for row in lines[1:] if row[0] == file]
        assert onsets == sorted(onsets)
    lines = [line.split("\t") for line in (tmp_path / "f.tsv").read_text().splitlines()]
    assert lines == [["filename", "onset", "offset", *CLASSES], *frames]


def test_events_alone_are_the_same_and_so_are_the_scores_of_windows(checkpoint, sounds, tmp_path):
    words = "predict.py", "--ckpt_path", checkpoint, "--audio", sounds / "a.wav", *WINDOWS
    run_script(*words, "--csv", tmp_path / "s.csv", check=0)
    run_script(*words, "--csv", tmp_path / "t.csv", "--events", tmp_path / "e.tsv", check=0)
    run_script(*words, "--events", tmp_path / "g.tsv", "--frames", tmp_path / "f.tsv", check=0)
    assert (tmp_path / "s.csv").read_text() == (tmp_path / "t.csv").read_text()
    assert (tmp_path / "e.tsv").read_text() == (tmp_path / "g.tsv").read_text()


def test_a_taggers_frames_are_those_of_its_weights_in_a_network_of_events(tmp_path):
    soundfile.write(tmp_path / "a.flac", clip(), SAMPLE_RATE, subtype="PCM_16")
    words = "--ckpt_path", CKPT, "--lbl_map", FIXTURES / "lbl_map.json", "--audio", tmp_path / "a.flac"
    run_script("predict.py", *words, "--frames", tmp_path / "f.tsv", check=0)
    checkpoint = with_frames(read_checkpoint(CKPT))
    network = create(*architecture(checkpoint.config)).eval()
    network.load_state_dict(checkpoint.weights)
    assert isinstance(network, FrameNetwork) and network.stride == 4
    spectrogram = Tagger(CKPT, FIXTURES / "lbl_map.json").features(clip())[:, :501]
    with torch.inference_mode():
        due = network(torch.from_numpy(spectrogram)[None, None], of_frames=True)[0].sigmoid().numpy()
    rows = rows_of(tmp_path / "f.tsv")
    found = np.array([list(row.values())[3:] for row in rows], dtype=float)
    assert found.shape == (126, 18) and np.abs(found - due).max() < 1e-5
    # Of 502 columns 501 are seen, as in evaluation. They end 500.5 hops behind the start.
    assert rows[0]["onset"] == "0.000" and rows[-1]["offset"] == f"{500.5 * 220 / SAMPLE_RATE:.3f}"


def test_what_cannot_be_told_is_refused_in_one_line_and_tables_stay(checkpoint, tagger_file, sounds, tmp_path):
    table = tmp_path / "e.tsv"
    table.write_text("before")

    def line(path, *more):
        found = error_line(run_script("predict.py", "--ckpt_path", path, "--audio", sounds / "a.wav", *more))
        assert table.read_text() == "before" and sorted(tmp_path.glob("*.tsv")) == [table]
        return found

    assert "this network is a tagger, and scores no frames" in line(tagger_file, "--events", table)
    plain = as_events(tagger_file, tmp_path / "plain.ckpt")
    for path, more in ((plain, ()), (tagger_file, ("--frames", tmp_path / "f.tsv"))):
        said = line(path, "--events", table, *more)
        assert f"--events: {path} has no thresholds of events" in said and "scripts/calibrate.py" in said
    for flag in ("--events", "--frames"):
        assert "the hop is longer than the window" in line(checkpoint, flag, table, "--window", 1, "--hop", 2)
        assert "A frame of this network lasts" in line(checkpoint, flag, table, "--window", 0.001)
    content = read_torch_file(checkpoint, "a checkpoint")
    content["hyper_parameters"]["lbl_map"] = {"Drum": 0, "onset": 1, "Organ": 2}
    write_torch_file(tmp_path / "odd.ckpt", content)
    assert "--frames: a class is called 'onset', as a column" in line(tmp_path / "odd.ckpt", "--frames", table)
    run_script(
        *("predict.py", "--ckpt_path", tmp_path / "odd.ckpt", "--audio", sounds / "a.wav", *WINDOWS),
        *("--events", table),
        check=0,
    )
    assert {row["event_label"] for row in rows_of(table)} == {"Drum", "onset"}


def test_a_hop_longer_than_the_window_still_scores_windows(checkpoint, sounds, tmp_path):
    words = "--ckpt_path", checkpoint, "--audio", sounds / "a.wav", "--window", 0.5, "--hop", 0.9
    run_script("predict.py", *words, "--csv", tmp_path / "s.csv", "--plot", tmp_path / "a.png", check=0)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "s.csv").read_text().count("\n") == 1 + 3 * 3


@pytest.mark.parametrize("kept", [True, False])
def test_a_picture_has_the_events_that_were_found_and_the_true_ones(
    checkpoint, tagger_file, sounds, tmp_path, monkeypatch, kept
):
    """Without event decisions it is as of a tagger, with the frames' scores."""
    figures = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, *_, **__: figures.append(figure))
    path = checkpoint if kept else as_events(tagger_file, tmp_path / "plain.ckpt")
    tagger = Tagger(path, None, 0.7, 0.3)
    tagged = tagger(sounds / "a.wav")
    true = [Event(0.1, 0.4, "Harp"), Event(0.5, 1.5, "Gong")]
    for events in ([], true):
        pictures.draw("a.png", tagged, tagger.features.frequencies, CLASSES, 2, tagger.event_decisions, events)
    for figure, events in zip(figures, ([], true)):
        panels = {axes.get_ylabel(): axes for axes in figure.axes}
        if not kept:
            assert "found" not in panels and "true" not in panels
            continue
        assert ("true" in panels) == bool(events) and list(panels)[:2] == ["frequency (Hz)", "found"]
        assert len(panels["found"].patches) == len(found_events(tagged.frames, tagger.event_decisions))
        labels = [tick.get_text() for tick in panels["found"].get_yticklabels()]
        assert labels == ["Drum", "Gong", "Harp"] if events else ["Drum", "Harp"]
        if events:
            spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in panels["true"].patches]
            assert np.allclose(spans, [(0.1, 0.4), (0.5, 1.5)])
            assert figure.axes[-1].get_xlim() == pytest.approx((0, tagged.ends[-1]))


@pytest.mark.parametrize(
    "text, warning", [(None, None), ("0.1\t0.4\tHarp\n", None), ("no annotation\n", "a.txt, line 1: 'no annotation'")]
)
def test_a_text_beside_a_recording_that_is_no_annotation_is_left_out(checkpoint, sounds, tmp_path, text, warning):
    recording = tmp_path / "a.wav"
    recording.write_bytes((sounds / "a.wav").read_bytes())
    if text:
        (tmp_path / "a.txt").write_text(text)
    words = "--ckpt_path", checkpoint, "--audio", recording, *WINDOWS, "--plot", tmp_path / "a.png"
    result = run_script("predict.py", *words, check=0)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ("It is not drawn" in result.stderr) == bool(warning) and (warning or "") in result.stderr


def test_the_true_events_are_those_of_the_text_beside(tmp_path, caplog):
    (tmp_path / "a.TXT").write_text("0.1\t0.4\tHarp\n")
    (tmp_path / "b.txt").mkdir()
    assert prediction.true_events(tmp_path / "a.wav") == [Event(0.1, 0.4, "Harp")]
    assert prediction.true_events(tmp_path / "none.wav") == []
    with caplog.at_level(logging.WARNING):
        assert prediction.true_events(tmp_path / "b.wav") == []
    assert "is no plain file" in caplog.text
