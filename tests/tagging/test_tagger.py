"""The Tagger as a program uses it: samples in memory give what predict.py gives their file."""

import logging
import re

import numpy as np
import pytest
import soundfile
import torch
from conftest import FIXTURES, SAMPLE_RATE
from released import CKPT, clip
from torch import nn

from src.errors import UserError
from src.models.last_layer import Embedder
from src.tagging import Tagger

LBL_MAP = FIXTURES / "lbl_map.json"


@pytest.fixture(scope="module")
def tagger():
    """Of small windows, to be quick."""
    return Tagger(CKPT, LBL_MAP, window=1, hop=0.5)


def noise(seconds, rate, channels=1, seed=0):
    """(N, channels) float32 samples."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (round(seconds * rate), channels)).astype(np.float32)


KINDS = {  # what a file holds -> its samples as a program may have them
    "PCM_16": lambda samples: np.round(samples * 2**15).astype(np.int16),
    "PCM_32": lambda samples: np.round(samples.astype(np.float64) * 2**31).astype(np.int32),
    "PCM_U8": lambda samples: np.round(samples * 2**7 + 2**7).astype(np.uint8),
    "FLOAT": lambda samples: samples,
    "DOUBLE": lambda samples: samples.astype(np.float64),
}


@pytest.mark.parametrize(
    "rate, channels", [(SAMPLE_RATE, 1), (44100, 2), (16000, 1), (8000, 5), (48000, 16), (44101, 1)]
)
def test_samples_get_the_scores_and_embeddings_of_their_file_to_the_last_bit(tagger, tmp_path, rate, channels):
    soundfile.write(tmp_path / "a.wav", noise(1.3, rate, channels), rate, subtype="PCM_16")
    samples, found = soundfile.read(tmp_path / "a.wav", dtype="float32")
    tagged = tagger(tmp_path / "a.wav")
    assert tagged.scores.shape == (2, 18) and tagged.embeddings.shape == (2, 128)
    for given in (samples, torch.from_numpy(samples), samples.T, np.asfortranarray(samples)):
        scores, embeddings = tagger.scores(given, found), tagger.embeddings(given, found)
        assert scores.dtype == embeddings.dtype == np.float32
        assert np.array_equal(scores, tagged.scores) and np.array_equal(embeddings, tagged.embeddings)
    starts, ends = tagger.window_times(len(samples), found)
    assert np.array_equal(starts, tagged.starts) and np.array_equal(ends, tagged.ends)


@pytest.mark.parametrize("subtype", KINDS)
def test_every_type_of_number_is_scaled_as_in_a_file(tagger, tmp_path, subtype):
    samples = KINDS[subtype](noise(1, SAMPLE_RATE)[:, 0])
    stored = samples if samples.dtype != np.uint8 else (samples.astype(np.int16) - 128) * 256
    soundfile.write(tmp_path / "a.wav", stored, SAMPLE_RATE, subtype=subtype)
    expected = tagger(tmp_path / "a.wav").scores
    for given in (samples, torch.from_numpy(samples), samples.astype(samples.dtype.newbyteorder())):
        assert np.array_equal(tagger.scores(given, SAMPLE_RATE), expected)


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint32, np.float16, "bfloat16"])
def test_other_types_have_their_own_full_scale(tagger, kind):
    samples = noise(1, SAMPLE_RATE)[:, 0]
    if kind == "bfloat16":
        given = torch.from_numpy(samples).bfloat16().requires_grad_()
    elif np.issubdtype(kind, np.integer):
        half = 2.0 ** (8 * np.dtype(kind).itemsize - 1)
        given = np.floor(samples * half + (half if np.issubdtype(kind, np.unsignedinteger) else 0)).astype(kind)
    else:
        given = samples.astype(kind)
    assert np.abs(tagger.scores(given, SAMPLE_RATE) - tagger.scores(samples, SAMPLE_RATE)).max() < 0.02
    assert np.abs(tagger.scores(given, SAMPLE_RATE) - tagger.scores(samples / 2, SAMPLE_RATE)).max() < 0.1


def test_several_recordings_each_get_their_own_scores(tagger):
    recordings = [noise(seconds, 16000, seed=k) for k, seconds in enumerate((0.1, 2.4, 1))]
    for found in (tagger.scores(recordings, 16000), tagger.scores(tuple(map(torch.from_numpy, recordings)), 16000)):
        assert [len(scores) for scores in found] == [1, 4, 1]
        assert all(np.array_equal(scores, tagger.scores(one, 16000)) for scores, one in zip(found, recordings))
    assert [each.shape for each in tagger.embeddings(recordings, 16000)] == [(1, 128), (4, 128), (1, 128)]
    assert tagger.scores([], 16000) == []


@pytest.mark.parametrize("batch_size", [0.5, 1, 3, 100])
def test_windows_may_be_scored_more_at_a_time(tagger, batch_size):
    samples = noise(4, SAMPLE_RATE)
    other = Tagger(CKPT, LBL_MAP, window=1, hop=0.5, batch_size=batch_size)
    assert np.abs(other.scores(samples, SAMPLE_RATE) - tagger.scores(samples, SAMPLE_RATE)).max() < 1e-5


def test_classes_windows_and_rate_are_told(tagger):
    assert len(tagger.classes) == 18 and tagger.classes == tagger.label_map.names
    assert tagger.sample_rate == SAMPLE_RATE and tagger.embedding_size == 128
    starts, ends = Tagger(CKPT, LBL_MAP).window_times(12 * 48000, 48000)
    assert np.array_equal(starts, [0, 2.5, 5, 7]) and np.array_equal(ends, [5, 7.5, 10, 12])
    starts, ends = tagger.window_times(8800, 8000)
    assert np.allclose(starts, [0, 0.1]) and np.allclose(ends, [1, 1.1])
    assert tagger.scores(noise(1.1, 8000), 8000).shape == (2, 18)


RIGHT = np.zeros(100, np.float32)
WRONG = {  # samples and rate -> what the message says
    "empty": (RIGHT[:0], 8000, r"samples: have the shape \(0,\)"),
    "no channels": (np.zeros((100, 0)), 8000, r"shape \(100, 0\)"),
    "three axes": (np.zeros((1, 1, 100)), 8000, r"shape \(1, 1, 100\)\. Expected: \(N,\)"),
    "a number": (np.array(1.0), 8000, r"shape \(\)"),
    "a batch": (np.zeros((32, 8000)), 8000, "32 channels, and 16 at most .* as a list"),
    "a spectrogram": (np.zeros((501, 221)), 8000, "221 channels"),
    "complex": (RIGHT + 0j, 8000, "samples: are complex"),
    "booleans": (RIGHT > 0, 8000, "samples: are bool"),
    "objects": (RIGHT.astype(object), 8000, "samples: are object"),
    "text": ("a.wav", 8000, "samples: are str. A NumPy array or a tensor"),
    "numbers in a list": ([0.1, 0.2], 8000, "samples: are float"),
    "nothing": (None, 8000, "samples: are NoneType"),
    "NaN": (np.where(np.arange(100) == 80, np.nan, RIGHT), 8000, "samples: .* nan at 0.010 s"),
    "infinite": (np.where(np.arange(100) == 0, -np.inf, RIGHT), 8000, "-inf at 0.000 s"),
    "too loud": (np.where(np.arange(100) == 0, 1e30, RIGHT), 8000, "1e"),
    "complex tensor": (torch.zeros(100, dtype=torch.complex64), 8000, "samples: are complex"),
    "a sparse tensor": (torch.ones(100).to_sparse(), 8000, "samples: are no tensor of plain numbers"),
    "a tensor without memory": (torch.ones(100, device="meta"), 8000, "samples: are no tensor of plain numbers"),
    "8-bit floats": (torch.ones(100).to(torch.float8_e4m3fn), 8000, "samples: are no tensor of plain numbers"),
    "NaN in a tensor": (torch.full((2, 100), torch.nan), 8000, "nan at 0.000 s"),
    "no rate": (RIGHT, 0, "sample_rate: is 0"),
    "negative rate": (RIGHT, -8000, "sample_rate: is -8000"),
    "part of a rate": (RIGHT, 22050.5, "sample_rate: is 22050.5"),
    "NaN rate": (RIGHT, float("nan"), "sample_rate: is nan"),
    "infinite rate": (RIGHT, float("inf"), "sample_rate: is inf"),
    "rate as text": (RIGHT, "8000", "sample_rate: is '8000'"),
    "a rate each": (RIGHT, [8000, 16000], "sample_rate: is"),
    "true rate": (RIGHT, True, "sample_rate: is True"),
    "kHz for Hz": (RIGHT, 44.1, "sample_rate: is 44.1. A whole number of Hz"),
    "too high a rate": (RIGHT, 10**12, "from 1 to 1,000,000"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("call", ["scores", "embeddings"])
def test_what_is_no_recording_is_refused_in_one_line(tagger, wrong, call):
    samples, rate, words = WRONG[wrong]
    with pytest.raises(UserError, match=words) as caught:
        getattr(tagger, call)(samples, rate)
    assert "\n" not in str(caught.value)
    if not isinstance(samples, list):
        with pytest.raises(UserError, match=words):
            getattr(tagger, call)([RIGHT, samples], rate)


@pytest.mark.parametrize(
    "words, options",
    [
        ("window: is 0", {"window": 0}),
        ("window: is -1", {"window": -1}),
        ("hop: is nan", {"hop": float("nan")}),
        ("hop: is inf", {"hop": float("inf")}),
        ("batch_size: is 0", {"batch_size": 0}),
        ("window: is '5'", {"window": "5"}),
        ("hop: is None", {"hop": None}),
        ("PyTorch cannot use 'None' here", {"device": None}),
        ("PyTorch cannot use 'gpu' here", {"device": "gpu"}),
        ("PyTorch cannot use 'cuda:99' here", {"device": "cuda:99"}),
        ("PyTorch cannot use 'meta' here", {"device": "meta"}),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(words, options):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        Tagger(CKPT, LBL_MAP, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_where_asked(tagger):
    samples = noise(4, 44100, 2)
    on_gpu = Tagger(CKPT, LBL_MAP, window=1, hop=0.5, device="cuda", batch_size=8)
    assert np.abs(on_gpu.scores(samples, 44100) - tagger.scores(samples, 44100)).max() < 0.01


def test_nothing_is_said_and_nothing_global_changes(tagger, capfd, caplog):
    threads, grad, state = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state()
    caplog.set_level(logging.WARNING)
    samples = noise(1, 44100)
    before = samples.copy()
    Tagger(CKPT, LBL_MAP).scores(samples, 44100)
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, grad)
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(samples, before)


def test_the_scores_are_those_of_the_embeddings(tagger):
    """The last layer makes the logits of them."""
    samples = np.concatenate([clip(0), clip(1)])
    last = tagger.network.network.linear
    with torch.inference_mode():
        logits = last(torch.from_numpy(tagger.embeddings(samples, SAMPLE_RATE)))
    assert np.abs(logits.sigmoid().numpy() - tagger.scores(samples, SAMPLE_RATE)).max() < 1e-6


def test_a_network_without_a_last_layer_has_scores_and_no_embeddings(monkeypatch, tagger):
    class MeanOfTwo(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, inputs):
            return (self.network(inputs) + self.network(inputs.flip(3))) / 2

    monkeypatch.setattr("src.tagging.tagger.Embedder", lambda network: Embedder(MeanOfTwo(network)))
    other = Tagger(CKPT, LBL_MAP)
    assert other.scores(clip(), SAMPLE_RATE).shape == (1, 18) and other.embedding_size == 0
    with pytest.raises(UserError, match="this network has no embeddings"):
        other.embeddings(clip(), SAMPLE_RATE)
