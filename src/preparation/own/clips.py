"""Recordings -> clips of equal length: where they are cut, what is heard in each, and their FLAC files."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.data.audio.files import encode, mono
from src.data.audio.opening import opened
from src.data.audio.windows import resampled_length, windows
from src.data.checks.record import sound_hash
from src.data.events import Event
from src.errors import UserError
from src.preparation.clip_sets import UNREADABLE_SUFFIXES
from src.preparation.own.listing import Recording
from src.utils.files import write_whole

BLOCK = 1 << 18  # samples that are read at a time
TOLERANCE = 1e-6  # s: of an event cut in halves, one half counts
SPECTRUM = 2048  # samples of a transform, to tell how much lies above a frequency


class Facts(NamedTuple):
    """What is known of a readable recording."""

    length: int  # samples at the clips' rate
    rate: int  # Hz, its own
    sound: bytes  # equal for equal samples
    lost: float  # share of its energy above half the clips' rate


class Clip(NamedTuple):
    """A piece of a recording."""

    name: str  # of its FLAC file, without the suffix
    start: int  # samples at the clips' rate
    length: int  # samples at the clips' rate
    events: tuple[Event, ...]  # in seconds from `start`

    @property
    def classes(self) -> set[str]:
        return {event.label for event in self.events}


@dataclass(frozen=True)
class Cutting:
    """How recordings become clips."""

    sample_rate: int  # Hz
    clip_seconds: float
    overlap: float  # s that a clip shares with the one before
    min_overlap: float  # s of an event that must lie in a clip, to count there

    @property
    def clip_length(self) -> int:
        """Samples."""
        return max(round(self.clip_seconds * self.sample_rate), 1)

    def spans(self, length: int) -> list[tuple[int, int]]:
        """(start, length) of the clips of a recording, in samples.

        What is left at the end is a clip if it is longer than half of one, or is all there is.
        """
        step = max(self.clip_length - round(self.overlap * self.sample_rate), 1)
        starts = list(range(0, max(length - self.clip_length, 0) + 1, step))
        end = starts[-1] + self.clip_length
        if end < length and 2 * (length - starts[-1] - step) > self.clip_length:
            starts.append(starts[-1] + step)
        return [(start, min(self.clip_length, length - start)) for start in starts]

    def clips(self, name: str, length: int, events: Sequence[Event]) -> list[Clip]:
        """The clips of a recording of `length` samples."""
        spans = self.spans(length)
        names = [name] if len(spans) == 1 else [f"{name}_{number:04d}" for number in range(len(spans))]
        return [
            Clip(called, start, size, self._heard(events, start, size, length))
            for called, (start, size) in zip(names, spans)
        ]

    def _heard(self, events: Sequence[Event], start: int, size: int, length: int) -> tuple[Event, ...]:
        """The events that count in a clip, with their times in it.

        `min_overlap` seconds of an event must lie in the clip, or half of a shorter event, or of a shorter clip.
        """
        begin, end, last = (samples / self.sample_rate for samples in (start, start + size, length))
        heard = []
        for onset, offset, label in events:
            offset = min(offset, last)
            needed = min(self.min_overlap, (offset - onset) / 2, (end - begin) / 2)
            first, final = max(onset, begin), min(offset, end)
            if final - first >= max(needed - TOLERANCE, 0) and (final > first or begin <= onset < end):
                heard.append(Event(round(first - begin, 4), round(final - begin, 4), label))
        return tuple(heard)


def examine(sample_rate: int, recording: Recording) -> Facts | UserError:
    """Read a recording to its end, block by block, or say what is wrong with it."""
    file = recording.file
    if file.suffix.lower() in UNREADABLE_SUFFIXES:
        return UserError(f"{file}: {file.suffix} is not among the formats that can be read. Convert it, say to WAV")
    sound, total, above = hashlib.blake2b(digest_size=16), 0.0, 0.0
    try:
        with opened(file) as audio:
            for _ in range(0, audio.frames, BLOCK):
                samples = audio.read(BLOCK)  # (N, channels)
                sound.update(sound_hash(samples))
                if audio.samplerate > sample_rate:
                    powers = energy(mono(samples), audio.samplerate, sample_rate / 2)
                    total, above = total + powers[0], above + powers[1]
            length = resampled_length(audio.frames, audio.samplerate, sample_rate)
            return Facts(length, audio.samplerate, sound.digest(), above / total if total else 0.0)
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{error.filename or file}: {error.strerror}")


def energy(samples: np.ndarray, rate: int, limit: float) -> tuple[float, float]:
    """The energy of (N,) samples without their mean, and what of it lies above a frequency in Hz."""
    import scipy.signal

    frequencies, density = scipy.signal.welch(samples, rate, nperseg=min(SPECTRUM, len(samples)))
    return len(samples) * float(density.sum()), len(samples) * float(density[frequencies > limit].sum())


def write_clips(sample_rate: int, item: tuple[Recording, Path, tuple[Clip, ...]]) -> None:
    """Have whole FLAC files of a recording's clips in a folder, and beside each a `.txt` of its events."""
    recording, folder, clips = item
    for clip in clips:
        lines = "".join(f"{onset:g}\t{offset:g}\t{label}\n" for onset, offset, label in clip.events)
        write_if_other(folder / f"{clip.name}.txt", lines.encode())
    if all(is_made(folder / f"{clip.name}.flac", clip, sample_rate, recording.file) for clip in clips):
        return
    longest = max(clip.length for clip in clips)
    with opened(recording.file) as audio:
        for clip, samples in zip(clips, windows(audio, [clip.start for clip in clips], longest, sample_rate)):
            flac = folder / f"{clip.name}.flac"
            write_whole(flac, encode(samples, sample_rate, "FLAC"))
            os.utime(flac, ns=(recording.file.stat().st_mtime_ns,) * 2)  # by which `is_made` knows it


def is_made(file: Path, clip: Clip, sample_rate: int, source: Path) -> bool:
    """Whether a clip's FLAC file is there, and of the recording as it is now.

    It has the recording's time. An older file under the recording's name, such as a renamed one, has another.
    """
    with suppress(UserError), opened(file) as audio:
        same_time = file.stat().st_mtime_ns == source.stat().st_mtime_ns
        return same_time and (audio.samplerate, audio.frames) == (sample_rate, clip.length)
    return False


def write_if_other(file: Path, content: bytes) -> None:
    """Write a file, unless it holds just that."""
    if not (file.is_file() and file.read_bytes() == content):
        write_whole(file, content)
