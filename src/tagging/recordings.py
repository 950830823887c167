"""Recordings: which files, and windows of them at a network's sample rate."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from src.data.audio.files import AUDIO_SUFFIXES, resampled
from src.data.audio.recording import Recording
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
        try:
            os.lstat(path)
        except OSError as error:
            reason = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
            raise UserError(f"{path}: {reason}") from None
        if path.is_dir() or not path.exists():  # a link to nothing gets the walk's words
            none = "no audio files in this folder"
            found += [path / file for file in files_in(path, AUDIO_SUFFIXES, "recordings", none=none)]
        else:
            found.append(path)
    return found


def resampled_length(recording: Recording, sample_rate: int) -> int:
    """Samples of a recording at another rate."""
    return math.ceil(recording.frames * sample_rate / recording.samplerate)


def window_starts(length: int, window: int, hop: int) -> list[int]:
    """Where windows begin, in samples. The last one ends with the recording."""
    last = max(length - window, 0)
    return [*range(0, last, hop), last]


def windows(recording: Recording, starts: Iterable[int], length: int, sample_rate: int) -> Iterator[np.ndarray]:
    """(≤ length,) mono float32 samples at `sample_rate` from each start on, as if the whole file were resampled.

    One window is in memory at a time.

    Args:
        starts: in samples at `sample_rate`, in ascending order.

    Raises:
        UserError: as of `Recording`.
    """
    common = math.gcd(recording.samplerate, sample_rate)
    old, new = recording.samplerate // common, sample_rate // common
    margin = math.ceil(MARGIN * common) if old != new else 0
    kept = np.empty(0, np.float32)  # the last samples that were read, (N,) up to the recording's position
    for start in starts:
        # Samples coincide at both rates every `old` and every `new` samples: a window is read from such a place on.
        first = max(start // new - margin, 0)
        last = -(-(start + length) // new) + margin
        begin, end = min(first * old, recording.frames), min(last * old, recording.frames)
        recording.skip(max(begin - recording.position, 0))
        kept = kept[len(kept) - (recording.position - begin) :]
        kept = np.concatenate([kept, recording.read(end - recording.position).mean(axis=1)])
        offset = start - first * new
        yield (resampled(kept, old, new) if old != new else kept)[offset : offset + length]
