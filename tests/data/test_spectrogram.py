"""Spectrograms against the golden values, and against librosa's definition through torch."""

import numpy as np
import pytest
import torch
import torchaudio
from conftest import GOLDEN
from golden.make_logmel import SETTINGS, reference, waveform

from src.config.sections import AudioConfig
from src.data.audio.spectrogram import FeatureExtractor
from src.errors import UserError

SAMPLE_RATE = 22050


def golden_waveforms():
    t = np.arange(110250) / SAMPLE_RATE
    click = np.zeros(110250)
    click[50000] = 1
    click[50001:50101] = -0.25
    return {
        "sweep": 0.5 * np.sin(2 * np.pi * (200 * t + (4000 - 200) / 10 * t**2)),
        "click": click,
        "short": 0.3 * np.sin(2 * np.pi * 440 * np.arange(26460) / SAMPLE_RATE),
    }


@pytest.mark.parametrize("name", ["sweep", "click", "short"])
def test_double_precision_gives_the_golden_features(name):
    golden = np.load(GOLDEN / "features.npz")[name]
    features = FeatureExtractor.of(AudioConfig())(golden_waveforms()[name])
    assert features.dtype == np.float64 and features.shape == golden.shape
    assert np.abs(features - golden).max() < 1e-4


@pytest.mark.parametrize("name", ["sweep", "click", "short"])
def test_single_precision_stays_close_to_the_golden_features(name):
    golden = np.load(GOLDEN / "features.npz")[name]
    features = FeatureExtractor.of(AudioConfig())(golden_waveforms()[name].astype(np.float32))
    assert features.dtype == np.float32
    error = np.abs(features - golden)
    assert error[golden > golden.max() - 90].max() < 0.02
    assert error.mean() < 0.05


@pytest.mark.parametrize("length", [1, 2, 219, 441, 4400, 15001])
def test_clips_of_any_length_have_the_frames_of_a_centred_stft(length):
    rng = np.random.default_rng(length)
    samples = rng.standard_normal(length)
    features = FeatureExtractor.of(AudioConfig())(samples)
    assert features.shape[0] == 221 and np.isfinite(features).all()
    assert abs(features.mean()) < 1e-9
    if length > 220:  # torch reflects no further than the clip is long
        magnitude = (
            torch.stft(
                torch.from_numpy(samples),
                441,
                220,
                window=torch.hann_window(441, dtype=torch.float64),
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )
            .abs()
            .numpy()
        )
        decibels = 20 * np.log10(np.maximum(magnitude, 1e-5))
        assert features.shape == decibels.shape
        assert np.allclose(features, decibels - decibels.mean(), atol=1e-6)


def test_quiet_bins_are_floored_150_db_below_the_maximum():
    features = FeatureExtractor.of(AudioConfig())(golden_waveforms()["click"])
    assert features.max() - features.min() <= 150 + 1e-9
    silence = FeatureExtractor.of(AudioConfig())(np.zeros(4410))
    assert np.array_equal(silence, np.zeros_like(silence))


def test_mel_spectrogram_agrees_with_torchaudio():
    samples = np.random.default_rng(0).standard_normal(22050) * 0.1
    extractor = FeatureExtractor.of(AudioConfig(feature="melspectrogram"))
    assert (extractor.n_fft, extractor.win_len, extractor.hop_len, extractor.num_bins) == (1920, 661, 220, 96)
    mel = torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE,
        n_fft=1920,
        win_length=661,
        hop_length=220,
        n_mels=96,
        norm="slaney",
        mel_scale="slaney",
        center=True,
        pad_mode="reflect",
        power=2.0,
    )(torch.from_numpy(samples).float()).double()
    decibels = torchaudio.functional.amplitude_to_DB(mel, 10.0, 1e-10, 0.0, top_db=80.0).numpy()
    assert np.abs(extractor(samples) - (decibels - decibels.mean())).max() < 1e-2


@pytest.mark.parametrize("rate", [1600, 16000, 22050, 48000])
def test_rows_have_the_frequencies_that_their_filters_and_bins_let_through(rate):
    linear = FeatureExtractor("spectrogram", n_fft=441, hop_len=220, win_len=441, sample_rate=rate)
    for row in (10, 100, 200):
        tone = np.sin(2 * np.pi * linear.frequencies[row] * np.arange(4410) / rate)
        assert linear(tone).mean(axis=1).argmax() == row
    fine = FeatureExtractor("melspectrogram", n_fft=16384, hop_len=220, win_len=441, sample_rate=rate)
    part = FeatureExtractor("logmel", 16384, 220, 441, rate, n_mels=32, f_min=200.0, f_max=rate / 2.5)
    for extractor, bands in ((fine, 96), (part, 32)):
        peaks = extractor.mel_filters.argmax(axis=0) * rate / 16384
        assert extractor.frequencies.shape == (bands,)
        assert np.abs(extractor.frequencies - peaks).max() < 1.01 * rate / 16384


def logmel(**settings):
    return FeatureExtractor.of(AudioConfig(feature="logmel", **settings))


@pytest.mark.parametrize("name", SETTINGS)
def test_log_mels_are_the_golden_ones_and_torchaudios(name):
    extractor, samples = logmel(**SETTINGS[name]), waveform()
    golden, features = np.load(GOLDEN / "logmel.npz")[name], extractor(samples)
    assert features.dtype == np.float64 and np.abs(features - golden).max() < 1e-4
    assert features.shape == golden.shape == (extractor.num_bins, extractor.num_frames(len(samples)))
    error = np.abs(extractor(samples.astype(np.float32)) - golden)
    assert error[golden > golden.max() - 90].max() < 0.02 and error.mean() < 0.01
    noise = 0.1 * np.random.default_rng(0).standard_normal(extractor.n_fft + 5000)
    assert np.abs(extractor(noise) - reference(noise, SETTINGS[name])).max() < 1e-4


def test_log_mels_keep_the_level_of_a_clip_down_to_the_floor():
    samples, extractor = 0.02 * np.random.default_rng(0).standard_normal(22050), logmel()
    assert extractor(10 * samples) == pytest.approx(extractor(samples) + 20, abs=1e-9)
    assert extractor(np.zeros(22050, np.int16)) == pytest.approx(-100)
    click = np.zeros(22050)
    click[1000] = 0.99
    assert extractor(click).max() - extractor(click).min() > 80 and extractor(click).min() == -100


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-9), (np.float32, 1e-4), (np.int16, 1e-4)])
def test_log_mels_are_deviations_from_a_mean(dtype, tolerance):
    samples = 0.1 * np.random.default_rng(0).standard_normal(5000)
    samples = (samples * 2**15).astype(dtype) if dtype == np.int16 else samples.astype(dtype)
    normalised = logmel(mean=-40.0, std=16.0)(samples)
    assert normalised.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert normalised == pytest.approx((logmel()(samples) + 40) / 16, abs=tolerance)


def test_bands_without_a_bin_are_refused():
    with pytest.raises(UserError, match=r"audio_config.n_mels: is 400.* n_fft 1024 from f_min to f_max. Choose fewer"):
        logmel(n_mels=400)
    assert logmel(n_mels=400, n_fft=4096).num_bins == 400
