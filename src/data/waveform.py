"""Audio bytes or files -> samples."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from src.errors import UserError

LONGEST = 1 << 40  # samples; libsndfile gives a far larger number for a length that it does not know


class Audio(NamedTuple):
    """A decoded clip, of whatever kind."""

    samples: np.ndarray  # (N, channels) in [-1, 1), N ≥ 1
    sample_rate: int  # Hz
    encoding: str  # such as "FLAC PCM_16"


def decode(source: bytes | str | Path, sample_rate: int, where: str | None = None,
           dtype: str = "float32") -> np.ndarray:
    """Samples of a mono clip.

    Args:
        source: the bytes of an audio file, or its path.
        sample_rate: what the clip must have, in Hz.
        where: how messages call the clip; the path if left out.
        dtype: float32 or float64.

    Returns:
        (N,) samples in [-1, 1), N ≥ 1.

    Raises:
        UserError: not audio, truncated, empty, at another rate, or of several channels.
    """
    where = where or str(source)
    audio = read_audio(source, where, dtype)
    if audio.sample_rate != sample_rate:
        raise UserError(f"{where}: its sample rate is {audio.sample_rate} Hz, not {sample_rate} Hz; resample it first")
    if audio.samples.shape[1] != 1:
        raise UserError(f"{where}: has {audio.samples.shape[1]} channels; mono is needed")
    return audio.samples[:, 0]


def read_audio(source: bytes | str | Path, where: str, dtype: str = "float32") -> Audio:
    """A whole clip of any rate and number of channels; the arguments are `decode`'s.

    Raises:
        UserError: not audio, truncated, or empty.
    """
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise UserError(f"{where}: no such audio file")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
            promised, rate, encoding = file.frames, file.samplerate, f"{file.format} {file.subtype}"
            if promised > LONGEST:
                raise UserError(f"{where}: does not say how long it is; was it written to a pipe? Encode it again")
            samples = file.read(dtype=dtype, always_2d=True)  # (N, channels)
    except soundfile.LibsndfileError as error:
        if _is_flac_without_samples(source):
            raise UserError(f"{where}: is empty, it has no samples") from None
        raise UserError(f"{where}: is not audio, or is truncated ({error.error_string.rstrip('.')})") from None
    if promised == 0:
        raise UserError(f"{where}: is empty, it has no samples")
    if len(samples) != promised:
        raise UserError(f"{where}: is truncated: {len(samples)} of its {promised} samples can be read")
    return Audio(samples, rate, encoding)


def _is_flac_without_samples(source: bytes | str | Path) -> bool:
    """Whether a FLAC file ends right behind its headers, which libsndfile takes for no audio file."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    position, last = 4, not data.startswith(b"fLaC")
    while not last and position + 4 <= len(data):  # metadata blocks: 1 byte of type, 3 of length, the block
        last = bool(data[position] & 0x80)
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "big")
    return last and position == len(data)


def tile(samples: np.ndarray, min_length: int) -> np.ndarray:
    """Repeat (N,) samples until there are `min_length`; longer clips are left alone."""
    if len(samples) >= min_length:
        return samples
    return np.tile(samples, math.ceil(min_length / len(samples)))[:min_length]
