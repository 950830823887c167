"""WAV -> 16-bit mono FLAC, with the annotation files copied along."""

import functools
from collections.abc import Sequence
from pathlib import Path

import soundfile

from src.data.audio.files import encode, read_mono
from src.errors import UserError
from src.utils.files import require_writable, write_whole
from src.utils.parallel import make_all


def convert_folder(
    src_dir: str | Path, tgt_dir: str | Path, sample_rate: int, annotations: Sequence[str], num_workers: int
) -> list[UserError]:
    """Convert every `*.wav` of a folder that has no such FLAC, with its annotations, in `tgt_dir` yet.

    Args:
        sample_rate: of the FLAC files, in Hz. Others are resampled. Several channels are averaged.
        annotations: suffixes of files to copy along, such as ".txt".

    Returns:
        What is wrong with each file that cannot be converted.

    Raises:
        UserError: no WAV files in `src_dir`.
    """
    src_dir, tgt_dir = Path(src_dir), Path(tgt_dir)
    files = sorted(src_dir.glob("*.wav"))
    if not files:
        raise UserError(f"{src_dir}: no WAV files in this folder")
    require_writable(tgt_dir / f"{files[0].stem}.flac")
    tgt_dir.mkdir(parents=True, exist_ok=True)
    convert = functools.partial(_convert, tgt_dir, sample_rate, annotations)
    is_converted = functools.partial(_is_converted, tgt_dir, sample_rate, annotations)
    return list(make_all(convert, files, num_workers, tgt_dir, "FLAC files", is_converted).values())


def _is_converted(tgt_dir: Path, sample_rate: int, annotations: Sequence[str], file: Path) -> bool:
    target = tgt_dir / f"{file.stem}.flac"
    present = [target, *(tgt_dir / file.with_suffix(suffix).name for suffix in annotations)]
    try:
        return all(map(Path.exists, present)) and soundfile.info(target).samplerate == sample_rate
    except soundfile.LibsndfileError:
        return False  # something else left a broken file there


def _convert(tgt_dir: Path, sample_rate: int, annotations: Sequence[str], file: Path) -> None:
    """Convert one file."""
    beside = [file.with_suffix(suffix) for suffix in annotations]
    for annotation in beside:
        if not annotation.exists():
            raise UserError(f"{file}: has no {annotation.name} beside it")
    samples = read_mono(file, sample_rate)  # (N,)
    for annotation in beside:
        write_whole(tgt_dir / annotation.name, annotation.read_bytes())
    write_whole(tgt_dir / f"{file.stem}.flac", encode(samples, sample_rate, "FLAC"))
