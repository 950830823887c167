"""WAV -> 16-bit mono FLAC, with the annotation files copied along."""

import functools
from collections.abc import Sequence
from pathlib import Path

from src.data.audio.files import encode, read_mono
from src.data.audio.opening import opened
from src.errors import UserError
from src.utils.files import require_writable, write_whole
from src.utils.folders import beside, files_in, require_different_stems
from src.utils.parallel import make_all
from src.utils.processes import Part


def convert_folder(
    src_dir: str | Path,
    tgt_dir: str | Path,
    sample_rate: int,
    annotations: Sequence[str],
    num_workers: int,
    part: Part | None = None,
) -> list[UserError]:
    """Convert every WAV file of a folder that has no such FLAC, with its annotations, in `tgt_dir` yet.

    Args:
        sample_rate: of the FLAC files, in Hz. Others are resampled. Several channels are averaged.
        annotations: suffixes of files to copy along, such as ".txt".
        part: of the sorted WAV files, by default all.

    Returns:
        What is wrong with each file that cannot be converted.

    Raises:
        UserError: no WAV files in `src_dir`, or two that only their suffixes tell apart.
    """
    src_dir, tgt_dir = Path(src_dir), Path(tgt_dir)
    found = files_in(src_dir, {".wav"}, "WAV files", levels=range(1), none="no WAV files in this folder")
    require_different_stems(src_dir, found)
    files = [src_dir / file for file in (part.take(found) if part else found)]
    require_writable(tgt_dir / f"{files[0].stem}.flac")
    tgt_dir.mkdir(parents=True, exist_ok=True)
    convert = functools.partial(_convert, tgt_dir, sample_rate, annotations)
    is_converted = functools.partial(_is_converted, tgt_dir, sample_rate, annotations)
    return list(make_all(convert, files, num_workers, tgt_dir, "FLAC files", is_converted).values())


def _is_converted(tgt_dir: Path, sample_rate: int, annotations: Sequence[str], file: Path) -> bool:
    target = tgt_dir / f"{file.stem}.flac"
    present = [target, *(tgt_dir / f"{file.stem}{suffix}" for suffix in annotations)]
    if not all(map(Path.exists, present)):
        return False
    try:
        with opened(target) as recording:
            return recording.samplerate == sample_rate
    except UserError:
        return False  # something else left a broken file there


def _convert(tgt_dir: Path, sample_rate: int, annotations: Sequence[str], file: Path) -> None:
    """Convert one file."""
    for suffix in annotations:
        if not beside(file, suffix).exists():
            raise UserError(f"{file}: has no {file.stem}{suffix} beside it")
    samples = read_mono(file, sample_rate)  # (N,)
    for suffix in annotations:
        write_whole(tgt_dir / f"{file.stem}{suffix}", beside(file, suffix).read_bytes())
    write_whole(tgt_dir / f"{file.stem}.flac", encode(samples, sample_rate, "FLAC"))
