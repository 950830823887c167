"""Spectrograms made batch by batch on the network's device against those made clip by clip."""

import csv

import numpy as np
import pytest
import torch
from conftest import CLASSES, error_line, run_script, train_command
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config.sections import AudioConfig, AugmentConfig
from src.data.audio.files import encode
from src.data.device_features import DeviceFeatures, views_of
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.data.transforms import Bands, View, evaluation_chain, training_chain

EVERYTHING = AugmentConfig(roll=True, gain=6.0, freq_shift=20, mask_prob=0.8, freq_mask=0.3, time_mask=0.4)
LENGTHS = (110250, 110250, 50000, 50000, 3000, 100, 30000, 110250)  # samples


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """An LMDB of clips of several lengths, loud and soft. The last one, of 24 bits, is decoded to floats."""
    path = tmp_path_factory.mktemp("clips") / "clips.lmdb"
    rng = np.random.default_rng(0)
    with LMDBWriter(path) as writer:
        for number, length in enumerate(LENGTHS):
            samples = 0.02 * rng.standard_normal(length) + 0.3 * np.sin(np.arange(length) / (3 + number))
            writer.add(Record(encode(samples, 22050, "FLAC"), CLASSES[number % 3]))
    return path


LOGMELS = (
    AudioConfig(feature="logmel", hop_len=441, mean=-40.0, std=16.0),
    AudioConfig(feature="logmel", n_fft=1023, win_len=800, n_mels=40, f_min=50.0, f_max=8000.0),
)


@pytest.mark.parametrize("audio", [AudioConfig(), AudioConfig(feature="melspectrogram"), *LOGMELS])
@pytest.mark.parametrize(
    "chain, wave_mix",
    [
        (training_chain(500), 0.0),
        (training_chain(64), 0.0),
        (training_chain(64, EVERYTHING), 0.0),
        (training_chain(500, EVERYTHING), 0.5),
        (evaluation_chain(501), 0.0),
        (evaluation_chain(64, crop=False), 0.0),
    ],
)
def test_a_batch_is_that_of_the_single_clips(clips, audio, chain, wave_mix):
    dataset = LMDBDataset(str(clips), audio, LabelMap(tuple(CLASSES)), "multilabel", chain, 7)
    dataset.wave_mix = wave_mix
    keys = [(epoch, index) for epoch in range(4) for index in range(len(dataset))]
    expected, targets, *_ = dataset.__getitems__(keys)
    dataset.on_device = True
    samples, same_targets, *_ = dataset.__getitems__(keys)
    assert samples.samples.dtype == (torch.float32 if wave_mix else torch.int16) and torch.equal(targets, same_targets)
    found = DeviceFeatures(dataset.features)(samples)
    assert found.shape == expected.shape and found.dtype == torch.float32
    loudest = torch.tensor([dataset.features(dataset.mixed_sound(*key)[0]).max() for key in keys])[:, None, None, None]
    strong = expected > loudest - 84  # dB, and a gain is 6 at most. Weaker bins stray in single precision
    difference = (found - expected).abs()
    assert difference[strong].max() < 0.01 and difference.mean() < 0.03


@st.composite
def batches_of_views(draw):
    """(F, T), and views of one size of such spectrograms, each its own."""
    num_bins, num_frames, size = draw(st.integers(1, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 30))

    def bands():
        row, column = draw(st.integers(0, num_bins)), draw(st.integers(0, size))
        return Bands(row, draw(st.integers(0, num_bins - row)), column, draw(st.integers(0, size - column)))

    def view():
        return View(
            num_bins,
            num_frames,
            draw(st.integers(-30, 15)),
            size,
            draw(st.booleans()),
            tuple(bands() for _ in range(draw(st.integers(0, 2)))),
            draw(st.integers(0, num_frames - 1)),
            draw(st.integers(-num_bins - 2, num_bins + 2)),
            draw(st.sampled_from([0.0, -1.5, 0.3])),
        )

    return [view() for _ in range(draw(st.integers(1, 4)))]


@settings(max_examples=200, deadline=None)
@given(batches_of_views(), st.integers(0, 99))
def test_a_batch_of_views_is_that_of_the_single_views(views, seed):
    shape = len(views), views[0].num_bins, views[0].num_frames
    spectrograms = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    expected = np.stack([view.of(spectrogram) for view, spectrogram in zip(views, spectrograms)])
    assert np.array_equal(views_of(torch.from_numpy(spectrograms), views), expected)


def test_clips_of_other_than_16_bits_go_as_floats(clips, tmp_path):
    import io

    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.linspace(-0.5, 0.5, 50000), 22050, subtype="PCM_24", format="FLAC")
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(buffer.getvalue(), "Harp"))
        writer.add(Record(encode(np.linspace(-0.5, 0.5, 40000), 22050, "FLAC"), "Harp"))
    dataset = LMDBDataset(
        str(tmp_path / "a.lmdb"), AudioConfig(), LabelMap(("Harp",)), "multilabel", evaluation_chain(64)
    )
    expected = dataset.__getitems__([0, 1]).inputs
    dataset.on_device = True
    samples = dataset.__getitems__([0, 1]).inputs
    assert samples.samples.dtype == torch.float32
    assert (DeviceFeatures(dataset.features)(samples) - expected).abs().mean() < 0.03


def test_training_is_nearly_the_same_either_way(corpus, tmp_path):
    losses = []
    for features in ("workers", "device"):
        folder = tmp_path / features
        run_script(*train_command(corpus, folder, "--use_mixup", "--features", features, epochs=2), check=0)
        with open(folder / "logs/metrics.csv", newline="") as stream:
            losses.append([float(row["train_loss"]) for row in csv.DictReader(stream)])
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_spectrograms_kept_in_memory_are_not_made_on_the_device(corpus, tmp_path):
    line = error_line(
        run_script(
            *train_command(
                corpus, tmp_path / "run", "--features", "device", "--set", "audio_config.precompute_features=True"
            )
        )
    )
    assert "--features device" in line and "precompute_features" in line
