"""Audio files and bytes -> recordings of known length. Every command opens audio here."""

import io
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import miniaudio
import soundfile

from src.data.audio.recording import BLOCK, InMemory, InOrder, MpegStream, Recording
from src.errors import UserError

Source = bytes | str | Path  # the bytes of an audio file, or its path
Data = bytes | mmap.mmap

LONGEST = 1 << 40  # samples. libsndfile gives a far larger number for a length that it does not know
PIPED = 0x7F000000  # bytes of data from which on a 32-bit header only says that it was written to a pipe

# libsndfile opens a file of which a part is missing, and notes in its log what the header promises: bytes, or samples.
PROMISED_BYTES = re.compile(r"^ *(?:data|SSND|BODY|riff|Data Size|Data length)[ :]*(\d+) \(?should be (\d+)", re.M)
NOTED_SAMPLES = re.compile(r"(?:Frames|Cols) *: (\d+)")
NOTES_SAMPLES = ("AVR", "MAT4", "MAT5", "MPC2K", "NIST", "RF64", "SDS")
NIST_SAMPLES = re.compile(rb"sample_count -i (\d+)")
UNDIVIDED = ("PAF PCM_24", "SDS PCM_S8", "SDS PCM_16", "SDS PCM_24")  # not to be read in parts
FLAC_START = re.compile(rb"fLaC[\x00\x80]\0\0\x22")  # with its first block, of 34 bytes (RFC 9639, section 8)
# The header of an MPEG frame, its side information, and what stands there in place of sound: flags, number of frames.
XING = re.compile(rb"\xff[\xe0-\xff]..(?:..)?(?:.{9}|.{17}|.{32})(?:Xing|Info)...(.)(.{4})", re.DOTALL)


@contextmanager
def opened(source: Source, where: str = "") -> Iterator[Recording]:
    """Audio of known length, at least one sample, of which its header promises no more than there is.

    Some headers say no length: of IRCAM, PAF, PVF, SD2 and XI, and of FLAC from a pipe. What is there is taken for all.

    Args:
        where: how messages call it. A file is called by its path where `where` is empty.

    Raises:
        UserError: not audio, truncated, empty, of unknown length, or several streams. Or in the block, as of
            `Recording`.
    """
    where = where or str(source)
    with _bytes_and_handle(source, where) as (data, handle):
        if _is_flac_without_samples(data):
            raise UserError(f"{where}: is empty, it has no samples")
        try:
            with InOrder(handle, closefd=False) as file:
                if file.frames > LONGEST:
                    raise UserError(f"{where}: does not say how long it is. Was it written to a pipe? Encode it again")
                if fault := _missing(file, data):
                    raise UserError(f"{where}: is truncated: {fault}")
                if file.format == "FLAC" and FLAC_START.search(data, 4):
                    raise UserError(f"{where}: holds several FLAC streams in a row, and only the first could be read")
                if file.format == "OGG" and (fault := _fault_of_ogg(data)):
                    raise UserError(f"{where}: {fault}")
                decoder = _longer_mpeg(data) or file if file.format == "MP3" else file
                if decoder.frames == 0:
                    raise UserError(f"{where}: is empty, its header says no samples")
                encoding = f"{file.format} {file.subtype}"
                if encoding in UNDIVIDED:
                    decoder = InMemory(file.read(file.frames, "float64", always_2d=True), file.samplerate, file.frames)
                yield Recording(decoder, where, encoding)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            raise UserError(f"{where}: is not audio, or is truncated ({reason})") from None


@contextmanager
def _bytes_and_handle(source: Source, where: str) -> Iterator[tuple[Data, io.BytesIO | int | str]]:
    """The audio's bytes, and what libsndfile opens.

    That is no path: it would open the neighbour `._NAME` too, where macOS keeps other things. SD2 has its header there.
    """
    if isinstance(source, bytes):
        audio = plain(source)
        yield audio, io.BytesIO(audio)
        return
    if not Path(source).is_file():
        reason = "is no plain file, and audio was expected" if Path(source).exists() else "no such audio file"
        raise UserError(f"{where}: {reason}")
    try:
        stream = open(source, "rb", buffering=0)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    with stream:
        number = stream.fileno()
        stored = mmap.mmap(number, 0, access=mmap.ACCESS_READ) if os.fstat(number).st_size else b""
        audio = plain(stored)
        if audio is not stored:
            yield audio, io.BytesIO(audio)
        else:
            yield stored, str(source) if Path(source).suffix.lower() == ".sd2" else number


def plain(data: Data) -> Data:
    """Audio without the ID3v2 tags that tools put before every format, and FLAC with the number of its samples.

    MPEG keeps its tags: of that alone, libsndfile passes over them rightly.
    """
    end = _tags_end(data)
    if data[end : end + 4] == b"fLaC":
        return _flac_with_length(data[end:] if end else data)
    return data[end:] if end and data[end : end + 1] != b"\xff" else data


def _tags_end(data: Data) -> int:
    """Where the ID3v2 tags in front of the audio end, in bytes."""
    end = 0
    while data[end : end + 3] == b"ID3":  # 10 bytes, the last four of which are the tag's length, in 7 bits each
        length = sum(byte << 7 * place for place, byte in enumerate(reversed(data[end + 6 : end + 10])))
        end += length + (20 if int.from_bytes(data[end + 5 : end + 6], "big") & 0x10 else 10)  # with a footer, or not
    return end


def _flac_with_length(flac: Data) -> Data:
    """FLAC with the number of its samples, where its header says fewer. An encoder that writes to a pipe says 0."""
    header = int.from_bytes(flac[18:26], "big")  # the last 36 bits are the number (RFC 9639, section 8.2)
    decoder = miniaudio.lib.ma_dr_flac_open_memory(miniaudio.ffi.from_buffer(flac), len(flac), miniaudio.ffi.NULL)
    if not decoder:
        return flac
    try:
        if not miniaudio.lib.ma_dr_flac_seek_to_pcm_frame(decoder, header & (1 << 36) - 1):
            return flac  # which has fewer samples than it says
        more = sum(iter(lambda: miniaudio.lib.ma_dr_flac_read_pcm_frames_s32(decoder, BLOCK, miniaudio.ffi.NULL), 0))
        return flac[:18] + (header + more).to_bytes(8, "big") + flac[26:] if more else flac
    finally:
        miniaudio.lib.ma_dr_flac_close(decoder)


def _missing(file: InOrder, data: Data) -> str | None:
    """What of a file its header promises, but is not there. None if all is there."""
    log, limit = file.extra_info, LONGEST if file.format in ("RF64", "W64") else PIPED
    for promised, found in PROMISED_BYTES.findall(log):
        if int(found) < int(promised) < limit:
            return f"it has {found} of {promised} bytes of audio"
    counts = NIST_SAMPLES.findall(data[:1024]) if file.format == "NIST" else NOTED_SAMPLES.findall(log)
    if counts and file.format in NOTES_SAMPLES:
        # libsndfile counts what is there and notes what is promised. Of SDS, the other way round.
        there, promised = (file.frames, int(counts[-1]))[:: -1 if file.format == "SDS" else 1]
        if there < promised:
            return f"it has {there} of {promised} samples"
    if "truncated file" in log:  # VOC
        return "its last block is cut"
    return None


def _fault_of_ogg(data: Data) -> str | None:
    """What is wrong with the pages of an Ogg file (RFC 3533, section 6)."""
    position, flags, begun = 0, 0, False
    while data[position : position + 4] == b"OggS" and position + 27 <= len(data):
        flags = data[position + 5]  # 2: the first page of a stream, 4: its last one
        if flags & 2 and begun:
            return "holds several Ogg streams in a row, and only the first could be read. Encode them as one"
        begun = not flags & 2
        content = position + 27 + data[position + 26]
        position = content + sum(data[position + 27 : content])
    whole = flags & 4 and position <= len(data)
    return None if whole else "is truncated: the last page of its Ogg stream is missing"


def _longer_mpeg(data: Data) -> MpegStream | None:
    """The whole of an MPEG stream, where there is more than its first frame promises.

    libsndfile reads as many samples as are promised. Without a promise it guesses from the first frame's bit rate.
    """
    start = _tags_end(data)
    promise = XING.search(data[start : start + 4096])
    mpeg = MpegStream(data, start + (promise.end() if promise else 0))
    promised = int.from_bytes(promise[2], "big") if promise and promise[1][0] & 1 else 0
    return mpeg if mpeg.num_mpeg_frames > promised else None


def _is_flac_without_samples(data: Data) -> bool:
    """Whether a FLAC file ends right behind its headers, which libsndfile takes for no audio file."""
    if data[:4] != b"fLaC":
        return False
    position, last = 4, False
    while not last and position + 4 <= len(data):  # metadata blocks: 1 byte of type, 3 of length, the block
        last = bool(data[position] & 0x80)
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "big")
    return last and position == len(data)
