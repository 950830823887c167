"""Recordings: which files, and windows of them at a network's sample rate."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from src.data.audio.files import AUDIO_SUFFIXES, LONGEST, resampled
from src.errors import UserError
from src.utils.folders import files_in

MARGIN = 0.05  # s around a window, for the resampling filter


def audio_files(paths: Sequence[str]) -> list[Path]:
    """The files given, and of folders and their subfolders all files of a kind that soundfile reads, sorted.

    Raises:
        UserError: a path is not there, or a folder holds no audio files.
    """
    found = []
    for path in map(Path, paths):
        if not os.path.lexists(path):
            raise UserError(f"{path}: no such file or folder")
        if path.is_dir() or not path.exists():  # a link to nothing gets the walk's words
            none = "no audio files in this folder"
            found += [path / file for file in files_in(path, AUDIO_SUFFIXES, "recordings", none=none)]
        else:
            found.append(path)
    return found


def resampled_length(file: soundfile.SoundFile, sample_rate: int) -> int:
    """Samples of a recording at another rate."""
    if file.frames == 0:
        raise UserError(f"{os.fsdecode(file.name)}: is empty, it has no samples")
    if file.frames > LONGEST:
        raise UserError(
            f"{os.fsdecode(file.name)}: does not say how long it is. Was it written to a pipe? Encode it again"
        )
    return math.ceil(file.frames * sample_rate / file.samplerate)


def window_starts(length: int, window: int, hop: int) -> list[int]:
    """Where windows begin, in samples. The last one ends with the recording."""
    last = max(length - window, 0)
    return [*range(0, last, hop), last]


def read_window(file: soundfile.SoundFile, start: int, length: int, sample_rate: int) -> np.ndarray:
    """(≤ length,) mono float32 samples at `sample_rate` from `start` on, as if the whole file were resampled."""
    common = math.gcd(file.samplerate, sample_rate)
    old, new = file.samplerate // common, sample_rate // common
    margin = math.ceil(MARGIN * common) if old != new else 0
    # Samples coincide at both rates every `old` and every `new` samples: reading begins there.
    first = max(start // new - margin, 0)
    last = -(-(start + length) // new) + margin
    begin, end = min(first * old, file.frames), min(last * old, file.frames)
    file.seek(begin)
    samples = file.read(end - begin, dtype="float32", always_2d=True).mean(axis=1)  # (N,)
    if len(samples) < end - begin:
        raise UserError(
            f"{os.fsdecode(file.name)}: is truncated: it ends after {begin + len(samples)} of {file.frames} samples"
        )
    if old != new:
        samples = resampled(samples, old, new)
    offset = start - first * new
    return samples[offset : offset + length]
