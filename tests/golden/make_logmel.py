"""Makes logmel.npz: torchaudio's log-mels, in double precision, of half a second of a sweep, a click and silence.

Call it in this folder. The tests import the settings.
"""

import numpy as np
import torch
import torchaudio

SETTINGS = {  # of audio_config. Those of MelSpectrogram have similar names
    "published_rate": {"n_fft": 1024, "win_len": 1024, "hop_len": 441, "n_mels": 64},
    "odd_and_narrow": {"n_fft": 1023, "win_len": 800, "hop_len": 441, "n_mels": 40, "f_min": 50.0, "f_max": 8000.0},
    "short_window": {"n_fft": 2048, "win_len": 551, "hop_len": 220, "n_mels": 128, "f_min": 27.5},
    "low_rate": {"sample_rate": 16000, "n_fft": 512, "win_len": 401, "hop_len": 160, "n_mels": 64, "f_max": 7800.0},
    "high_rate": {"sample_rate": 32000, "n_fft": 800, "win_len": 800, "hop_len": 320, "n_mels": 96, "f_min": 20.0},
}


def waveform():
    """(11025,) float64 in [-1, 1)."""
    t = np.arange(11025) / 22050
    samples = 0.5 * np.sin(2 * np.pi * (200 * t + 7000 * t**2))
    samples[5000] = 0.9
    samples[8000:] = 0
    return samples


def reference(samples, settings):
    """(n_mels, T) dB by torchaudio."""
    own = {"win_len": "win_length", "hop_len": "hop_length"}
    mel = torchaudio.transforms.MelSpectrogram(
        **{"sample_rate": 22050} | {own.get(name, name): value for name, value in settings.items()},
        norm="slaney",
        mel_scale="slaney",
        wkwargs={"dtype": torch.float64},
    )
    return 10 * torch.log10(mel.double()(torch.from_numpy(samples)).clamp(min=1e-10)).numpy()


if __name__ == "__main__":
    np.savez_compressed("logmel.npz", **{name: reference(waveform(), kind) for name, kind in SETTINGS.items()})
