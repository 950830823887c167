"""FLAC records: the samples that libsndfile gives, whatever the header says."""

import io

import numpy as np
import pytest
import soundfile
from conftest import tone_clip
from sounds import with_length

from src.data.audio.files import decode_record
from src.errors import UserError

RATE = 22050


def flac(length, subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone_clip(["Harp"], 0, length), RATE, subtype=subtype, format="FLAC")
    return buffer.getvalue()


@pytest.mark.parametrize("length", [1, 16, 4095, 4096, 4097, 110250])
def test_sixteen_bits_are_the_files_own(length):
    data = flac(length)
    samples = decode_record(data, RATE, "it")
    assert samples.dtype == np.int16
    assert np.array_equal(samples, soundfile.read(io.BytesIO(data), dtype="int16")[0])


def test_silence_is_decoded_however_small_the_file():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(20 * RATE), RATE, subtype="PCM_16", format="FLAC")
    samples = decode_record(buffer.getvalue(), RATE, "it")
    assert samples.dtype == np.int16 and len(samples) == 20 * RATE and not samples.any()


def test_other_depths_are_floats():
    data = flac(5000, "PCM_24")
    samples = decode_record(data, RATE, "it")
    assert samples.dtype == np.float32
    assert np.array_equal(samples, soundfile.read(io.BytesIO(data), dtype="float32")[0])


@pytest.mark.parametrize("promised", [5001, 2**30, 2**36 - 1])
def test_a_header_that_promises_too_much_is_an_error(promised):
    with pytest.raises(UserError, match="it: "):
        decode_record(with_length(flac(5000), promised), RATE, "it")


def test_a_header_that_does_not_know_the_length_gets_it():
    samples = decode_record(with_length(flac(5000), 0), RATE, "it")
    assert np.array_equal(samples, soundfile.read(io.BytesIO(flac(5000)), dtype="float32")[0])
