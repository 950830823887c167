"""WAV -> 16-bit mono FLAC, with the annotation files copied along."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from src.data.audio.files import encode, read_mono
from src.errors import UserError
from src.utils.files import whole_file
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)


def convert_folder(
    src_dir: str | Path,
    tgt_dir: str | Path,
    sample_rate: int = 22050,
    annotations: Sequence[str] = (),
    num_workers: int = 1,
) -> list[str]:
    """Convert every `*.wav` of a folder that has no such FLAC, with its annotations, in `tgt_dir` yet.

    Args:
        sample_rate: of the FLAC files, in Hz; others are resampled, several channels averaged.
        annotations: suffixes of files to copy along, such as ".txt".

    Returns:
        A line for each file that could not be converted; the others were.

    Raises:
        UserError: no WAV files in `src_dir`.
    """
    src_dir, tgt_dir = Path(src_dir), Path(tgt_dir)
    files = sorted(src_dir.glob("*.wav"))
    if not files:
        raise UserError(f"{src_dir}: no WAV files in this folder")
    tgt_dir.mkdir(parents=True, exist_ok=True)
    todo = [file for file in files if not _is_converted(file, tgt_dir, sample_rate, annotations)]
    if len(todo) < len(files):
        log.info("%s: %d of %d FLAC files are there already", tgt_dir, len(files) - len(todo), len(files))
    convert = functools.partial(_convert, tgt_dir, sample_rate, tuple(annotations))
    problems = map_in_processes(convert, todo, num_workers, f"FLAC for {tgt_dir.name}")
    return [problem for problem in problems if problem]


def _is_converted(file: Path, tgt_dir: Path, sample_rate: int, annotations: Sequence[str]) -> bool:
    target = tgt_dir / f"{file.stem}.flac"
    try:
        return (
            all((tgt_dir / file.with_suffix(suffix).name).exists() for suffix in annotations)
            and target.exists()
            and soundfile.info(target).samplerate == sample_rate
        )
    except soundfile.LibsndfileError:
        return False  # something else left a broken file there


def _convert(tgt_dir: Path, sample_rate: int, annotations: Sequence[str], file: Path) -> str | None:
    """Convert one file; what is wrong with it, if anything is."""
    beside = [file.with_suffix(suffix) for suffix in annotations]
    missing = [annotation.name for annotation in beside if not annotation.exists()]
    if missing:
        return f"{file}: has no {missing[0]} beside it"
    try:
        mono = read_mono(file, sample_rate)
    except UserError as error:
        return str(error)
    for annotation in beside:
        with whole_file(tgt_dir / annotation.name) as temporary:
            shutil.copyfile(annotation, temporary)
    write_flac(tgt_dir / f"{file.stem}.flac", mono, sample_rate)
    return None


def write_flac(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write (N,) samples in [-1, 1) as 16-bit mono FLAC; what lies outside is clipped."""
    with whole_file(path) as temporary:
        temporary.write_bytes(encode(samples, sample_rate, "FLAC"))
