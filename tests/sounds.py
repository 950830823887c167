"""Sound files of every encoding that soundfile writes, and what tools, transfers and file systems do to them."""

import io

import numpy as np
import soundfile
from conftest import SAMPLE_RATE

RATES = {"OPUS": 24000, "WVE": 8000, "XI": 44100}  # Hz, of what has no 22,050
UNWRITTEN = {("AIFF", "DWVW_12"), ("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II"), ("WAV", "MPEG_LAYER_III")}
ENCODINGS = [
    (kind, subtype)
    for kind in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(kind)
    if kind != "RAW" and (kind, subtype) not in UNWRITTEN  # RAW has no header: nothing says how to read it
]
# Their headers do not say how many samples there are.
OF_ANY_LENGTH = ("IRCAM", "PAF", "PVF", "SD2", "XI")


def tone(seconds, rate=SAMPLE_RATE):
    """(N,) samples: a tone that becomes louder, so that no second of it is like another."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * t / seconds * np.sin(2 * np.pi * 220 * t)).astype(np.float32)


def rate_of(kind, subtype):
    """Hz of the files written here."""
    return RATES.get(subtype, RATES.get(kind, SAMPLE_RATE))


def write(folder, kind, subtype, samples, name="sound"):
    """A file of an encoding."""
    path = folder / f"{name}.{kind.lower()}"
    soundfile.write(path, samples, rate_of(kind, subtype), format=kind, subtype=subtype)
    return path


def encoded(samples, kind, subtype=None, rate=SAMPLE_RATE, **options):
    """The bytes of a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def noise_then_silence(seconds=5):
    """(2N,) samples, of which a variable bit rate spends nearly all bytes on the first half."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))
    return np.concatenate([noise, np.zeros_like(noise)]).astype(np.float32)


def mp3(samples, rate=SAMPLE_RATE):
    """MP3 of a variable bit rate, with a Xing header."""
    return encoded(samples, "MP3", rate=rate, bitrate_mode="VARIABLE", compression_level=0.5)


def with_length(flac, count):
    """FLAC whose header says so many samples (the lowest 36 bits of bytes 18 to 25)."""
    head = int.from_bytes(flac[18:26], "big") >> 36 << 36 | count
    return flac[:18] + head.to_bytes(8, "big") + flac[26:]


def without_length(flac):
    """FLAC as an encoder writes it to a pipe: the number of samples is 0."""
    return with_length(flac, 0)


def without_xing(data):
    """MP3 without its first frame, as streaming and cutting leave it."""
    assert b"Xing" in data[:64]
    return data[data.index(data[:2], 4) :]


def id3_tag(size=300, footer=False):
    """An ID3v2 tag of so many bytes of content."""
    head = b"\x04\0" + bytes((0x10 * footer, 0, 0, size >> 7, size & 127))
    return b"ID3" + head + b"\0" * size + (b"3DI" + head) * footer
