"""16-bit PCM that is read as it comes, raw or behind a WAV header, such as from a recorder."""

import fcntl
import os
import select
import struct
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import numpy as np

from src.data.audio.opening import PIPED
from src.data.audio.recording import InMemory, Recording
from src.errors import UserError

ENDLESS = 1 << 60  # samples
PIPE = 1 << 20  # bytes that may wait in a pipe: more than a recorder brings during a forward pass
READ = 1 << 16  # bytes at a time
PATIENCE = 0.2  # s of waiting, after which a signal is looked for
LARGEST_CHUNK = 1 << 20  # bytes of a WAV header's chunk
HIGHEST_RATE, MOST_CHANNELS = 1_000_000, 1024
PCM, EXTENSIBLE = 1, 0xFFFE  # formats of a WAV header
WIDTH = 2  # bytes of a sample
OTHER_FILES = b"fLaC", b"OggS", b"ID3\3", b"ID3\4", b"FORM", b"RF64", b"RIFX"  # how they begin


class Input:
    """The bytes of a file descriptor. No more are read than asked for: a writer that is faster waits.

    Attributes:
        stopped: whether to take what was read so far for all that there is.
        waited: s, for the writer.

    Raises:
        UserError: it is a terminal.
    """

    def __init__(self, number: int, where: str = "standard input"):
        if os.isatty(number):
            raise UserError(f"{where}: is a terminal, and sound was expected: arecord … | python predict.py --stream …")
        self.where, self.waited = where, 0.0
        self.stopped: Callable[[], bool] = lambda: False
        self._number, self._ahead, self._left = number, b"", float("inf")
        with suppress(OSError):  # it is no pipe, or this user's may not be as large
            fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, PIPE)

    def ahead(self, size: int) -> bytes:
        """The next bytes, which stay the next ones. Fewer where the input ends before."""
        self._ahead = self.take(size)
        return self._ahead

    def take(self, size: int) -> bytes:
        """The next bytes, waited for. Fewer where the input ends before.

        Raises:
            UserError: they cannot be read.
        """
        parts, size = [self._ahead[:size]], int(min(size, self._left))
        self._ahead, missing = self._ahead[size:], size - len(parts[0])
        while missing and (part := self._read(min(missing, READ))):
            parts.append(part)
            missing -= len(part)
        self._left -= size - missing
        return b"".join(parts)

    def end_after(self, size: int) -> None:
        """Take the next bytes for the last ones."""
        self._left = size

    def _read(self, size: int) -> bytes:
        begun = monotonic()
        try:
            while not self.stopped():
                if select.select([self._number], [], [], PATIENCE)[0]:
                    return os.read(self._number, size)
            return b""
        except OSError as error:
            raise UserError(f"{self.where}: cannot be read ({error.strerror})") from None
        finally:
            self.waited += monotonic() - begun


class Stream(Recording):
    """A recording that nobody knows the length of until it ends.

    Attributes:
        frames: samples of a channel. They are ENDLESS until the end was read.
        cut: bytes of a sample that the end cuts. They are left out.
    """

    def __init__(self, source: Input, samplerate: int, channels: int):
        self.source, self.cut = source, 0
        self._arrived = InMemory(np.empty((0, channels), np.int16), samplerate, ENDLESS)
        super().__init__(self._arrived, source.where, "RAW PCM_16")

    @property
    def seconds(self) -> float:
        """How much of it has been read."""
        return (self.position + len(self._arrived.left)) / self.samplerate

    def reaches(self, count: int) -> bool:
        """Whether it has `count` samples of a channel, which are waited for."""
        size = WIDTH * self.channels
        missing = min(count, self.frames) - self.position - len(self._arrived.left)
        if missing > 0:
            data = self.source.take(missing * size)
            whole = len(data) // size
            samples = np.frombuffer(data, "<i2", whole * self.channels).reshape(whole, self.channels)
            self._arrived.left = np.concatenate([self._arrived.left, samples])
            if whole < missing:
                self.frames, self.cut = self.position + len(self._arrived.left), len(data) % size
        return count <= self.frames

    def read(self, count: int | None = None, dtype: str = "float32") -> np.ndarray:
        """The next `count` samples, which are waited for, or all that are left. Of less, the stream has ended."""
        self.reaches(ENDLESS if count is None else self.position + count)
        return super().read(count, dtype)


def opened_stream(source: Input, usual_rate: int, rate: int | None = None, channels: int | None = None) -> Stream:
    """The samples of an input.

    Args:
        usual_rate: Hz of raw samples where no rate is given.
        rate, channels: as the user says. A header must say the same.

    Raises:
        UserError: it is empty, its header is not one of 16-bit PCM or says something else, or a number is out of range.
    """
    start = source.ahead(12)
    if not start:
        raise UserError(f"{source.where}: is empty. Does the recorder run?")
    if start.startswith(OTHER_FILES):
        mend = "16-bit PCM was expected, raw or behind a WAV header: ffmpeg -i FILE -f wav -c:a pcm_s16le -"
        raise UserError(f"{source.where}: begins as a file of another kind, {start[:4]!r}. {mend}")
    said = _read_header(source) if start[:4] == b"RIFF" and start[8:] == b"WAVE" else None
    for name, given, found in zip(("rate", "channels"), (rate, channels), said or ()):
        if given not in (None, found):
            raise UserError(f"--stream_{name}: is {given}, and the WAV header of {source.where} says {found}")
    rate, channels = said or (rate or usual_rate, channels or 1)
    if not (1 <= rate <= HIGHEST_RATE and 1 <= channels <= MOST_CHANNELS):
        limits = f"1 to {HIGHEST_RATE:,} Hz, and 1 to {MOST_CHANNELS} channels"
        raise UserError(f"{source.where}: {rate} Hz and {channels} channels. Expected: {limits}")
    stream = Stream(source, rate, channels)
    if not stream.reaches(1):
        raise UserError(f"{source.where}: is empty, it has no samples")
    return stream


def _read_header(source: Input) -> tuple[int, int]:
    """Hz and channels of a WAV header, up to the first sample (Microsoft, New Multimedia Data Types, 1994)."""
    source.take(12)
    found = None
    while len(head := source.take(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == b"data":
            if found is None:
                break
            if 0 < size < PIPED:  # otherwise it was not known when the header was written
                source.end_after(size)
            return found
        if size > LARGEST_CHUNK or len(content := source.take(size + size % 2)) < size:
            break
        if kind == b"fmt " and size >= 16:
            code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if code == EXTENSIBLE and size >= 26:
                (code,) = struct.unpack("<H", content[24:26])
            if (code, bits) != (PCM, 16):
                what = f"format {code} of {bits} bits" if code != PCM else f"samples of {bits} bits"
                raise UserError(
                    f"{source.where}: has {what}, and 16-bit PCM was expected, such as of arecord -f S16_LE"
                )
            found = rate, channels
    raise UserError(f"{source.where}: its WAV header is damaged, or ends before the samples")
