"""Networks as ONNX files, read back by ONNX Runtime."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import FIXTURES, SAMPLE_RATE
from exported import LOGMEL, MEL, NAMES, NETWORKS, write_random
from released import CKPT, clip

from src.data.audio.spectrogram import FeatureExtractor
from src.errors import UserError
from src.export import onnx_file
from src.export.onnx_file import export_onnx, golden_clips
from src.export.waveform_network import WaveformNetwork
from src.models.checkpoint import read_checkpoint
from src.models.registry import FAMILIES
from src.tagging import Tagger

TOLERANCE = 1e-4
LENGTHS = SAMPLE_RATE, 5 * SAMPLE_RATE, round(7.3 * SAMPLE_RATE)
LBL_MAP = FIXTURES / "lbl_map.json"


def opened(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}


def sounds(length):
    """(3, N) of real soundscapes, one after the other."""
    return np.stack([np.concatenate([clip(k), clip(k + 1)])[:length] for k in (0, 2, 4)])


def furthest(session, checkpoint, clips, lbl_map=None):
    """How far ONNX Runtime is from the tagger whose one window holds each clip, with all clips in one batch."""
    tagger = Tagger(checkpoint, lbl_map, window=clips.shape[1] / SAMPLE_RATE)
    scores = np.concatenate(tagger.scores(list(clips), SAMPLE_RATE))
    return np.abs(session.run(["probabilities"], {"waveform": clips})[0] - scores).max()


def test_every_family_is_here():
    assert FAMILIES.keys() <= NETWORKS.keys() and NETWORKS.keys() - FAMILIES.keys() == {"events"}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_every_family_scores_as_the_tagger_does(name, tmp_path):
    checkpoint, sizes = write_random(tmp_path / "a.ckpt", *NETWORKS[name]), {}
    for bits in (32, 16):
        path = tmp_path / f"{bits}.onnx"
        difference, sizes[bits] = export_onnx(checkpoint, path, bits), path.stat().st_size
        session, metadata = opened(path)
        assert furthest(session, checkpoint, sounds(metadata["shortest"])) < TOLERANCE
        assert furthest(session, checkpoint, sounds(SAMPLE_RATE)) < TOLERANCE
        assert furthest(session, checkpoint, sounds(round(2.3 * SAMPLE_RATE))[:1]) < TOLERANCE
        assert metadata["classes"] == list(NAMES) and metadata["sample_rate"] == SAMPLE_RATE
        assert metadata["decisions"] == {"by": "F1", "thresholds": [0.25, None, 0.5], "temperature": 2.0}
        assert metadata["checkpoint"] == read_checkpoint(checkpoint).digest and metadata["bits"] == bits
        assert metadata["largest_difference"] == difference < TOLERANCE
    weights = sum(tensor.nbytes for tensor in read_checkpoint(checkpoint).weights.values())
    assert 0.4 * weights < sizes[32] - sizes[16] < 0.51 * weights


@pytest.mark.parametrize("bits", (32, 16))
def test_a_released_network_scores_real_and_extreme_sounds_as_the_tagger_does(bits, tmp_path):
    export_onnx(CKPT, tmp_path / "a.onnx", bits, LBL_MAP)
    session, metadata = opened(tmp_path / "a.onnx")
    for length in LENGTHS:
        assert furthest(session, CKPT, sounds(length), LBL_MAP) < TOLERANCE
        extreme = golden_clips(length, SAMPLE_RATE).values()
        assert max(furthest(session, CKPT, clip[None], LBL_MAP) for clip in extreme) < TOLERANCE
    # Integers of 16 bits stand for their 32768th part, as in the tagger.
    integers = (sounds(LENGTHS[1]) * 2**15).astype(np.int16)
    scores = np.concatenate(Tagger(CKPT, LBL_MAP).scores(list(integers), SAMPLE_RATE))
    found = session.run(None, {"waveform": np.float32(integers / 2**15)})[0]
    assert np.abs(found - scores).max() < TOLERANCE
    assert metadata["decisions"] is None and metadata["frame_step"] is None


def test_a_network_of_events_scores_its_frames(tmp_path):
    checkpoint = write_random(tmp_path / "a.ckpt", *NETWORKS["events"])
    export_onnx(checkpoint, tmp_path / "a.onnx")
    session, metadata = opened(tmp_path / "a.onnx")
    samples = sounds(LENGTHS[1])[0]
    (frames,) = session.run(["frames"], {"waveform": samples[None]})
    tagger = Tagger(checkpoint)
    due = tagger._of_each("frames", samples, SAMPLE_RATE)
    count = due.values.shape[1]
    assert np.abs(frames[0, :count].T - due.values).max() < TOLERANCE
    starts = metadata["frame_step"] * np.arange(count) - metadata["features"]["hop_len"] / 2  # samples
    assert np.abs(starts.clip(0) / metadata["sample_rate"] - due.onset).max() < 1e-9
    assert metadata["event_decisions"] == {"medians": [1, 3, 5], "thresholds": [0.5, 0.25, None]}


@pytest.mark.parametrize(
    "audio", ({}, MEL, LOGMEL, {"feature": "spectrogram", "n_fft": 400, "win_len": 333, "hop_len": 100}), ids=str
)
def test_features_are_those_of_numpy(audio, tmp_path):
    """To what 32 bits of the samples' Fourier transform can say: nearer than 1e-3 dB, in the mean."""
    tagger = Tagger(write_random(tmp_path / "a.ckpt", {"arch": "cifar_resnet", "model_depth": 20}, audio))
    network, samples = WaveformNetwork(tagger), sounds(LENGTHS[0] + 7)
    with torch.inference_mode():
        found = network.inputs(torch.from_numpy(samples))[:, 0].numpy()
    for one, clip_of_it in zip(found, samples):
        due = FeatureExtractor.of(read_checkpoint(tmp_path / "a.ckpt").config.audio_config)(clip_of_it)
        size = due.shape[1] if audio == LOGMEL else len(clip_of_it) // tagger.features.hop_len
        assert one.shape == (len(due), size) and np.abs(one - due[:, :size]).mean() < 1e-3
    silent = network.inputs(torch.zeros(1, SAMPLE_RATE))
    assert torch.equal(silent, silent[..., :1, :1].expand_as(silent))


def test_a_clip_that_is_too_short_is_refused_by_onnx_runtime(tmp_path):
    export_onnx(CKPT, tmp_path / "a.onnx", lbl_map=LBL_MAP)
    session, metadata = opened(tmp_path / "a.onnx")
    assert metadata["shortest"] == 221
    with pytest.raises(Exception, match="Pad"):
        session.run(None, {"waveform": np.zeros((1, 220), np.float32)})


def test_what_differs_is_not_written(tmp_path, monkeypatch):
    one, other = (write_random(tmp_path / f"{n}.ckpt", *NETWORKS["events"]) for n in "ab")
    content = torch.load(other)
    content["state_dict"]["net.linear.bias"] += 1e-3
    torch.save(content, other)
    file = onnx_file.traced(WaveformNetwork(Tagger(other)).eval(), "x")
    monkeypatch.setattr(onnx_file, "traced", lambda *_: file)
    with pytest.raises(UserError, match=r"c\.onnx: is not written: of silence, \d+ samples, its outputs are 0\.000\d+"):
        export_onnx(one, tmp_path / "c.onnx")
    monkeypatch.setattr(onnx_file, "traced", lambda *_: b"")
    with pytest.raises(UserError, match="ONNX Runtime cannot run this network"):
        export_onnx(one, tmp_path / "c.onnx")
    assert not (tmp_path / "c.onnx").exists()
