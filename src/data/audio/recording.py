"""One recording: its samples from the first to the last."""

import mmap

import miniaudio
import numpy as np
import soundfile

from src.errors import UserError

LOUDEST = 1e12  # of a sample, where full scale is 1. The power of larger ones is no 32-bit number any more
BLOCK = 1 << 16  # samples passed over at a time


class NotFinite(UserError):
    """Samples are NaN, infinite, or far beyond what sound can be."""


class InOrder(soundfile.SoundFile):
    """A file that is never sought in. soundfile seeks after each reading, which some encodings cannot do."""

    def seekable(self) -> bool:
        return False


class InMemory:
    """Samples that are all in memory: a caller's, or those of a file whose last block libsndfile would read in parts.

    Args:
        samples: (N, channels) real numbers of any type.
        samplerate: Hz.
        frames: how many samples of a channel there should be.

    Attributes:
        left: (N, channels) samples that were not read yet.
    """

    def __init__(self, samples: np.ndarray, samplerate: int, frames: int):
        self.frames, self.samplerate, self.channels = frames, samplerate, samples.shape[1]
        self.left = samples

    def read(self, count: int, dtype: str, always_2d: bool) -> np.ndarray:
        """(≤ count, channels) floats, as of `soundfile.SoundFile.read`."""
        samples, self.left = self.left[:count], self.left[count:]
        if samples.dtype.kind in "iu":  # full scale becomes 1, as soundfile has it of a file of integers
            half = 2.0 ** (8 * samples.itemsize - 1)
            samples = (samples.astype(np.float64) - half * (samples.dtype.kind == "u")) / half
        return np.array(samples, dtype, order="C")  # means over channels depend on the layout, in the last bit


class MpegStream:
    """MPEG audio, which miniaudio decodes to its very end.

    Args:
        data: the file. It is kept.
        start: where its first frame, or what is behind it, begins.

    Attributes:
        frames: samples of a channel.
        num_mpeg_frames: what they are stored in.
    """

    def __init__(self, data: bytes | mmap.mmap, start: int):
        library, ffi = miniaudio.lib, miniaudio.ffi
        self._data = ffi.from_buffer(data)
        self._decoder = ffi.gc(ffi.new("ma_dr_mp3 *"), library.ma_dr_mp3_uninit)
        counts = ffi.new("ma_uint64[2]")
        if library.ma_dr_mp3_init_memory(self._decoder, self._data + start, len(data) - start, ffi.NULL):
            library.ma_dr_mp3_get_mp3_and_pcm_frame_count(self._decoder, counts, counts + 1)
        self.num_mpeg_frames, self.frames = counts
        self.samplerate, self.channels = self._decoder.sampleRate, self._decoder.channels

    def read(self, count: int, dtype: str, always_2d: bool) -> np.ndarray:
        """(≤ count, channels) floats, as of `soundfile.SoundFile.read`."""
        samples = np.empty((count, self.channels), np.float32)
        place = miniaudio.ffi.from_buffer("float *", samples)
        read = miniaudio.lib.ma_dr_mp3_read_pcm_frames_f32(self._decoder, count, place)
        return samples[:read].astype(dtype, copy=False)


class Recording:
    """Audio that is read once, from its start to its end: that way, every encoding can be.

    Attributes:
        where: how messages call it.
        encoding: such as "FLAC PCM_16".
        frames: samples of a channel.
        samplerate: Hz.
        position: how many samples were read or passed over.
    """

    def __init__(self, decoder: InOrder | InMemory | MpegStream, where: str, encoding: str):
        self.where, self.encoding, self.position = where, encoding, 0
        self.frames, self.samplerate, self.channels = decoder.frames, decoder.samplerate, decoder.channels
        self._decoder = decoder

    def read(self, count: int | None = None, dtype: str = "float32") -> np.ndarray:
        """The next `count` samples, or all that are left.

        Args:
            dtype: float32, float64, or int16 where samples are stored as integers.

        Returns:
            (≤ count, channels) samples, floats in [-1, 1) but for those of a file of floats.

        Raises:
            UserError: the file ends before, or they do not fit into memory.
            NotFinite: not all of them are numbers.
        """
        left = self.frames - self.position
        count = left if count is None else min(count, left)
        try:
            samples = self._decoder.read(count, dtype=dtype, always_2d=True)
        except MemoryError:
            many = f"says {self.frames} samples, more than fit into memory"
            raise UserError(f"{self.where}: {many}. Is it damaged?") from None
        if len(samples) != count:
            found = self.position + len(samples)
            raise UserError(f"{self.where}: is truncated: {found} of its {self.frames} samples can be read")
        if " PCM_" not in self.encoding and not (np.abs(samples) < LOUDEST).all():
            row, channel = np.argwhere(~(np.abs(samples) < LOUDEST))[0]
            example = f"{samples[row, channel]:g} at {(self.position + row) / self.samplerate:.3f} s"
            raise NotFinite(f"{self.where}: holds samples that are no finite numbers below {LOUDEST:g}: {example}")
        self.position += count
        return samples

    def skip(self, count: int) -> None:
        """Pass over the next `count` samples, which are looked at as others are.

        Raises:
            UserError: as of `read`.
        """
        if isinstance(self._decoder, InOrder) and self.encoding.startswith(("WAV PCM_", "WAVEX PCM_")):
            self._decoder.seek(self.position + count)  # of these nothing can be wrong, and the place is known
            self.position += count
            return
        for start in range(0, count, BLOCK):
            self.read(min(BLOCK, count - start))
