"""Audio bytes or files -> samples."""

import functools
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import miniaudio
import numpy as np
import soundfile

from src.data.audio.opening import Source, opened
from src.errors import UserError

LARGEST_BLOCK = 1 << 13  # samples for a byte of FLAC: a frame has at most 65,535, in ten bytes at least
HIGHEST_RATE = 655_350  # Hz, that FLAC's header holds
LARGEST_RATIO = 1000  # the larger term of the rates' ratio, up to which torchaudio resamples

# What libsndfile reads. RAW files have no header: nothing says how to read them.
OTHER_SUFFIXES = ".aif .aifc .bwf .snd .wave .mp1 .mp2 .mpga .oga .opus .sph .8svx".split()
AUDIO_SUFFIXES = frozenset({f".{name.lower()}" for name in soundfile.available_formats()}.union(OTHER_SUFFIXES)) - {
    ".raw"
}


def decode(
    source: Source, sample_rate: int, where: str = "the clip", dtype: str = "float32", hint: str = ""
) -> np.ndarray:
    """Samples of a mono clip.

    Args:
        sample_rate: what the clip must have, in Hz.
        where: how messages call the clip.
        dtype: float32 or float64.
        hint: what else to do about another rate or several channels, for the message.

    Returns:
        (N,) samples in [-1, 1), N ≥ 1.

    Raises:
        UserError: as of `read_audio`. Or at another rate, or of several channels.
    """
    samples, rate = read_audio(source, where, dtype)
    if rate != sample_rate:
        raise UserError(f"{where}: its sample rate is {rate} Hz, not {sample_rate} Hz: resample it first{hint}")
    if samples.shape[1] != 1:
        raise UserError(f"{where}: has {samples.shape[1]} channels: mono is needed{hint}")
    return samples[:, 0]


def decode_record(flac: bytes, sample_rate: int, where: str) -> np.ndarray:
    """Samples of a mono clip, as `decode` gives them, but 16-bit FLAC as its own integers, in half the time.

    Its decoder looks at the checksums of all frames. A file that it does not read whole goes to libsndfile, as does
    every other kind: that one says what is wrong.

    Returns:
        (N,) int16 samples, or float32 ones in [-1, 1).

    Raises:
        UserError: as of `decode`.
    """
    rate, channels, bits, num_samples = _stream_info(flac)
    if (rate, channels, bits) == (sample_rate, 1, 16):
        samples = _mono_samples(flac, num_samples)
        if 0 < len(samples) == num_samples:
            return samples
    return decode(flac, sample_rate, where)


def decode_part(flac: bytes | memoryview, start: int, stop: int) -> np.ndarray:
    """(stop - start,) int16 samples of 16-bit mono FLAC. What is before them is passed over, and not decoded.

    Raises:
        ValueError: it is no such FLAC, or it is damaged or shorter.
    """
    samples = np.empty(stop - start, np.int16)
    with _flac_decoder(flac) as decoder:
        found = decoder and miniaudio.lib.ma_dr_flac_seek_to_pcm_frame(decoder, start)
        if not found or _read_into(samples, decoder) < len(samples):
            raise ValueError(f"no samples {start} to {stop}")
    return samples


def num_samples(flac: bytes | memoryview) -> int:
    """Samples of a channel, as FLAC's header says."""
    return _stream_info(flac)[3]


def _mono_samples(flac: bytes, count: int) -> np.ndarray:
    """(count,) int16 samples of 16-bit mono FLAC, fewer where it breaks off, and none where there are more."""
    if not 0 < count <= LARGEST_BLOCK * len(flac):  # of more, no such file is whole, and no such memory there
        return np.empty(0, np.int16)
    with _flac_decoder(flac) as decoder:
        if not decoder:
            return np.empty(0, np.int16)
        samples = np.empty(count, np.int16)
        read = _read_into(samples, decoder)
        more = miniaudio.lib.ma_dr_flac_read_pcm_frames_s16(decoder, 1, miniaudio.ffi.NULL)
        return samples[: 0 if more else read]


@contextmanager
def _flac_decoder(flac: bytes | memoryview) -> Iterator[Any]:
    """miniaudio's decoder, or what is false. Its functions in Python decode to memory of their own first."""
    content = miniaudio.ffi.from_buffer(flac)
    decoder = miniaudio.lib.ma_dr_flac_open_memory(content, len(flac), miniaudio.ffi.NULL)
    try:
        yield decoder
    finally:
        if decoder:
            miniaudio.lib.ma_dr_flac_close(decoder)


def _read_into(samples: np.ndarray, decoder: Any) -> int:
    """How many int16 samples the decoder could write."""
    place = miniaudio.ffi.from_buffer("short *", samples)
    return miniaudio.lib.ma_dr_flac_read_pcm_frames_s16(decoder, len(samples), place)


def _stream_info(flac: bytes | memoryview) -> tuple[int, int, int, int]:
    """Hz, channels, bits of a sample, and number of samples, as FLAC's first block says (RFC 9639, section 8.2).

    The number is 0 where it is not known, and all are where the bytes begin otherwise.
    """
    if flac[:4] != b"fLaC" or len(flac) < 42 or flac[4] & 0x7F:
        return 0, 0, 0, 0
    packed = int.from_bytes(flac[18:26], "big")  # 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of samples
    return packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & (1 << 36) - 1


def read_mono(path: str | Path, sample_rate: int, longest: float = math.inf, where: str = "") -> np.ndarray:
    """Samples of an audio file of any format, rate and number of channels, averaged and resampled.

    Args:
        sample_rate: of the result, in Hz.
        longest: what it may last, in s. A longer file is refused before it is read.
        where: how messages call it, by default its path.

    Returns:
        (N,) float32 samples, N ≥ 1.

    Raises:
        UserError: as of `read_audio`.
    """
    samples, rate = read_audio(path, where, longest=longest)
    return mono(samples) if rate == sample_rate else resampled(mono(samples), rate, sample_rate)


def mono(samples: np.ndarray) -> np.ndarray:
    """(N, channels) -> (N,), their mean. Along so short an axis, NumPy's own takes twenty times as long."""
    return functools.reduce(np.add, samples.T) / samples.shape[1]


def resampled(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """(N,) samples at new / old of their rate."""
    common = math.gcd(old, new)
    old, new = old // common, new // common
    if max(old, new) <= LARGEST_RATIO:
        import torch  # takes seconds
        import torchaudio.functional

        return torchaudio.functional.resample(torch.from_numpy(samples), old, new).numpy()
    # torchaudio's filter bank grows with old × new, to gigabytes for such a ratio: in the Fourier domain then.
    import scipy.signal

    # Reflected at both ends, for the transform takes its input as periodic, up to a length that becomes a
    # whole number of samples.
    whole = np.pad(samples, (old, old + -len(samples) % old), mode="reflect", reflect_type="odd")
    return scipy.signal.resample(whole, len(whole) // old * new)[new : new + math.ceil(len(samples) * new / old)]


def read_audio(
    source: Source, where: str = "", dtype: str = "float32", longest: float = math.inf
) -> tuple[np.ndarray, int]:
    """Samples and sample rate of a whole audio file, whatever its rate and number of channels.

    Args:
        where, dtype: as of `decode`. A file is called by its path where `where` is empty.
        longest: what it may last, in s. A longer file is refused before it is read.

    Returns:
        (N, channels) samples, N ≥ 1, and Hz.

    Raises:
        UserError: not audio, truncated, empty, too long, or with samples that are no finite numbers.
    """
    with opened(source, where) as recording:
        if recording.frames > longest * recording.samplerate:
            seconds = recording.frames / recording.samplerate
            raise UserError(
                f"{recording.where}: lasts {seconds:.1f} s, and {longest:g} s at most were expected. "
                "Is it the whole recording that the clip was cut from?"
            )
        return recording.read(dtype=dtype), recording.samplerate


def encode(samples: np.ndarray, sample_rate: int, file_format: str) -> bytes:
    """A 16-bit audio file.

    It is made in memory: libsndfile has no clear word for a disk that is full.

    Args:
        samples: (N,) or (N, channels), floats in [-1, 1) or 16-bit integers.
        file_format: "WAV" or "FLAC". They round floats differently, to either side of a step.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, subtype="PCM_16", format=file_format)
    return buffer.getvalue()


def as_int32(samples: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] as 32-bit integers. Exact for the samples of a file of up to 32 bits."""
    return np.clip(np.rint(samples.astype(np.float64) * 2**31), -(2**31), 2**31 - 1).astype(np.int32)


def as_int16(samples: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] as 16-bit integers, as libsndfile does for WAV. For FLAC it rounds otherwise."""
    return (as_int32(samples) >> 16).astype(np.int16)


def tile(samples: np.ndarray, min_length: int) -> np.ndarray:
    """Repeat (N,) or (N, channels) samples until there are `min_length`. Longer clips are left alone."""
    if len(samples) >= min_length:
        return samples
    return np.concatenate([samples] * math.ceil(min_length / len(samples)))[:min_length]
