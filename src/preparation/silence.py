"""Isolated events without silence, by SoX: what Scaper mixes should sound for as long as its label says."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from src.data.audio.files import as_int32, encode, read_audio, tile
from src.errors import UserError
from src.utils.files import claim_folder, write_whole
from src.utils.folders import files_in
from src.utils.parallel import make_all

THRESHOLD = "1%"  # of full scale
SPAN = 0.1  # s that must be louder to count as sound, or softer to count as silence
SPANS = {  # s, for classes whose sounds are short or soft
    0.025: ("Whispering", "Wind", "Crumpling_and_crinkling_and_crushing", "Writing", "Cricket"),
    0.05: ("Glass", "Tap", "Zipper", "Rattle", "Chirp_and_tweet", "Tearing"),
}
SHORTEST = 220  # samples of a clip. What is shorter is dropped


class TooShort(UserError):
    """Without silence, too little is left of a file: it is dropped."""


def strip_folder(
    src_dir: str | Path, tgt_dir: str | Path, min_clip: float = 1.25, num_workers: int = 1
) -> list[UserError]:
    """Trim every `*.wav` in and below a folder into the same tree of 16-bit WAV files.

    The folder that a file is in is its class. SoX removes silence within a clip, too. Files that are
    there already are left alone.

    Args:
        min_clip: seconds up to which shorter clips are tiled.

    Returns:
        What is wrong with each file that gave no clip: `TooShort` for those that were dropped.

    Raises:
        UserError: SoX is not installed, there are no WAV files, or `tgt_dir` holds something else.
    """
    src_dir, tgt_dir = Path(os.path.abspath(src_dir)), Path(os.path.abspath(tgt_dir))
    if shutil.which("sox") is None:
        raise UserError("sox is not installed. On Debian and Ubuntu: apt-get install sox")
    if tgt_dir.is_relative_to(src_dir):
        raise UserError(f"{tgt_dir}: is in --src_dir {src_dir}. Choose a folder outside of it")
    none = "no WAV files in this folder, nor in its subfolders"
    found = files_in(src_dir, {".wav"}, "WAV files", apart_from=tgt_dir, none=none)
    files = list(map(Path, found))
    claim_folder(tgt_dir, {"trimmed_from": str(src_dir), "min_clip": min_clip}, "isolated events")
    strip = functools.partial(_strip, src_dir, tgt_dir, min_clip)
    failed = make_all(strip, files, num_workers, tgt_dir, "WAV files", lambda file: (tgt_dir / file).exists())
    return list(failed.values())


def span_of(class_name: str) -> float:
    """Seconds of sound or silence that count, for a class. Brackets are no part of it, as in `Zipper_(clothing)`."""
    return next((span for span, names in SPANS.items() if class_name.split("_(")[0] in names), SPAN)


def without_silence(samples: np.ndarray, sample_rate: int, span: float, where: str) -> np.ndarray:
    """What SoX's `silence 1 SPAN 1% -1 SPAN 1%` leaves of (N, channels) 32-bit integers.

    SoX gets samples and no file name: it would take one for a pattern, an option or a command.

    Args:
        where: how messages call the clip.

    Raises:
        UserError: SoX fails.
    """
    raw = ["-t", "raw", "-e", "signed-integer", "-b", "32", "-r", str(sample_rate), "-c", str(samples.shape[1]), "-"]
    effect = ["silence", "1", f"{span:g}", THRESHOLD, "-1", f"{span:g}", THRESHOLD]
    result = subprocess.run(["sox", *raw, *raw, *effect], input=samples.tobytes(), capture_output=True, check=False)
    if result.returncode != 0:
        raise UserError(f"{where}: SoX fails ({result.stderr.decode(errors='replace').strip()})")
    return np.frombuffer(result.stdout, dtype=np.int32).reshape(-1, samples.shape[1])


def _strip(src_dir: Path, tgt_dir: Path, min_clip: float, file: Path) -> None:
    """Trim one file."""
    source = src_dir / file
    samples, rate = read_audio(source, dtype="float64")  # (N, channels)
    left = without_silence(as_int32(samples), rate, span_of(source.parent.name), str(source))
    if len(left) < SHORTEST:
        raise TooShort(f"{source}: {len(left)} samples are left, of {len(samples)}")
    clip = tile((left >> 16).astype(np.int16), round(min_clip * rate))
    write_whole(tgt_dir / file, encode(clip, rate, "WAV"))
