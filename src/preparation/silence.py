"""Isolated events without silence, by SoX: what Scaper mixes should sound for as long as its label says."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.data.audio.files import as_int32, encode, read_audio, tile
from src.errors import UserError
from src.utils.files import claim_folder, whole_file
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

THRESHOLD = "1%"  # of full scale
SPAN = 0.1  # s that must be louder to count as sound, or softer to count as silence
SPANS = {  # s, for classes whose sounds are short or soft
    "Whispering": 0.025,
    "Wind": 0.025,
    "Crumpling_and_crinkling_and_crushing": 0.025,
    "Writing": 0.025,
    "Cricket": 0.025,
    "Glass": 0.05,
    "Tap": 0.05,
    "Zipper": 0.05,
    "Rattle": 0.05,
    "Chirp_and_tweet": 0.05,
    "Tearing": 0.05,
}
SHORTEST = 220  # samples; what is shorter is dropped


@dataclass(frozen=True)
class Stripped:
    """What came of a folder: a line for each file that was dropped, and for each that could not be read."""

    dropped: list[str]
    problems: list[str]


def strip_folder(src_dir: str | Path, tgt_dir: str | Path, min_clip: float = 1.25, num_workers: int = 1) -> Stripped:
    """Trim every `*.wav` in and below a folder into the same tree of 16-bit WAV files.

    The folder that a file is in is its class. SoX removes silence within a clip, too. Files that are
    there already are left alone.

    Args:
        min_clip: seconds up to which shorter clips are tiled.

    Raises:
        UserError: SoX is not installed, there are no WAV files, or `tgt_dir` holds something else.
    """
    src_dir, tgt_dir = Path(os.path.abspath(src_dir)), Path(os.path.abspath(tgt_dir))
    if shutil.which("sox") is None:
        raise UserError("sox is not installed; on Debian and Ubuntu: apt-get install sox")
    if tgt_dir.is_relative_to(src_dir):
        raise UserError(f"{tgt_dir}: is in --src_dir {src_dir}; choose a folder outside of it")
    files = [file.relative_to(src_dir) for file in sorted(src_dir.rglob("*.wav"))]
    if not files:
        raise UserError(f"{src_dir}: no WAV files in this folder, nor in its subfolders")
    claim_folder(tgt_dir, {"trimmed_from": str(src_dir), "min_clip": min_clip}, "isolated events")
    todo = [file for file in files if not (tgt_dir / file).exists()]
    if len(todo) < len(files):
        log.info("%s: %d of %d WAV files are there already", tgt_dir, len(files) - len(todo), len(files))
    strip = functools.partial(_strip, src_dir, tgt_dir, min_clip)
    outcomes = list(map_in_processes(strip, todo, num_workers, f"trimmed events for {tgt_dir.name}"))
    return Stripped(
        [line for kind, line in outcomes if kind == "dropped"], [line for kind, line in outcomes if kind == "problem"]
    )


def span_of(class_name: str) -> float:
    """Seconds of sound or silence that count, for a class; its name may go on in brackets, as `Zipper_(clothing)`."""
    return SPANS.get(class_name.split("_(")[0], SPAN)


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


def _strip(src_dir: Path, tgt_dir: Path, min_clip: float, file: Path) -> tuple[str, str]:
    """Trim one file; ("done", ""), or "dropped" or "problem" and why."""
    source = src_dir / file
    try:
        samples, rate = read_audio(source, dtype="float64")  # (N, channels)
        left = without_silence(as_int32(samples), rate, span_of(source.parent.name), str(source))
    except UserError as error:
        return "problem", str(error)
    if len(left) < SHORTEST:
        return "dropped", f"{source}: {len(left)} samples are left, of {len(samples)}"
    clip = tile((left >> 16).astype(np.int16), round(min_clip * rate))
    with whole_file(tgt_dir / file) as temporary:
        temporary.write_bytes(encode(clip, rate, "WAV"))
    return "done", ""
