"""Recordings: which files, samples in memory, and where windows of them begin."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from src.data.audio.files import AUDIO_SUFFIXES
from src.data.audio.recording import InMemory, Recording
from src.errors import UserError
from src.utils.folders import files_in

MOST_CHANNELS = 16  # of samples in memory. More are rather a batch
RATES = range(1, 1_000_001)  # Hz of samples in memory


class AudioFile(NamedTuple):
    """A recording to read."""

    path: Path
    name: Path  # below the folder that was given, or the file's own name


def audio_files(paths: Sequence[str]) -> list[AudioFile]:
    """The files given, and of folders and their subfolders all files of a kind that soundfile reads, sorted.

    Raises:
        UserError: a path is not there, or a folder holds no audio files.
    """
    found = []
    for path in map(Path, paths):
        try:
            os.lstat(path)
        except OSError as error:
            reason = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
            raise UserError(f"{path}: {reason}") from None
        if path.is_dir() or not path.exists():  # a link to nothing gets the walk's words
            none = "no audio files in this folder"
            names = files_in(path, AUDIO_SUFFIXES, "recordings", none=none)
            found += [AudioFile(path / name, Path(name)) for name in names]
        else:
            found.append(AudioFile(path, Path(path.name)))
    return found


def in_memory(samples: Any, sample_rate: Any) -> Recording:
    """Samples that a program has made or read, as a recording.

    Args:
        samples: a NumPy array or tensor of (N,), (N, channels) or (channels, N) real numbers: the shorter axis is the
            channels. Full scale is 1 for floats, and the type's range for integers.
        sample_rate: Hz, a whole number.

    Raises:
        UserError: they are something else, or empty. The recording itself refuses what is not finite as it is read.
    """
    if isinstance(samples, torch.Tensor):
        try:
            samples = (samples.float() if samples.dtype == torch.bfloat16 else samples).numpy(force=True)
        except (TypeError, RuntimeError) as error:  # sparse, quantised, without memory
            raise UserError(f"samples: are no tensor of plain numbers ({str(error).splitlines()[0]})") from None
    if not isinstance(samples, np.ndarray) or samples.dtype.kind not in "iuf":
        found = f"{samples.dtype} numbers" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise UserError(f"samples: are {found}. A NumPy array or a tensor of real numbers was expected")
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise UserError(f"samples: have the shape {samples.shape}. Expected: (N,), (N, channels) or (channels, N)")
    samples = samples.reshape(len(samples), -1)  # (N, channels) of (N,)
    if samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.shape[1] > MOST_CHANNELS:
        several = f"{MOST_CHANNELS} at most were expected. Are they several recordings? Give those as a list"
        raise UserError(f"samples: {samples.shape[1]} channels, and {several}")
    if np.ndim(sample_rate) or isinstance(sample_rate, bool) or sample_rate not in RATES:
        raise UserError(f"sample_rate: is {sample_rate!r}. A whole number of Hz from 1 to {RATES[-1]:,} was expected")
    return Recording(InMemory(samples, int(sample_rate), len(samples)), "samples", "in memory")


def window_starts(length: int, window: int, hop: int) -> list[int]:
    """Where windows begin, in samples. The last one ends with the recording."""
    last = max(length - window, 0)
    return [*range(0, last, hop), last]
