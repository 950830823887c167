"""The clips of a data set -> FLAC files -> LMDBs, and lists of what was packed and what was not."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data.audio.files import read_mono
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.preparation.catalogues import Catalogue, Clip
from src.preparation.clip_files import UNREADABLE_SUFFIXES, find_files
from src.preparation.flac_conversion import write_flac
from src.preparation.packing import read_flac
from src.utils.files import claim_folder, whole_file, write_csv
from src.utils.parallel import map_in_processes
from src.utils.progress import progress

log = logging.getLogger(__name__)

SAMPLE_RATE = 22050  # Hz; the cfgs' audio_config.sample_rate
SLACK = 1.0  # s that a file may last longer than its clip: codecs pad, and cut at their frames
WRITE_FREQUENCY = 100  # records in one transaction: 25 MB of ten-second clips
NO_FILE = "no file"


@dataclass(frozen=True)
class Job:
    """One file to convert."""

    source: Path
    target: Path
    seconds: float  # of the clip that it should hold


def prepare_clip_sets(
    catalogue: Catalogue, clips_dir: str | Path, out_dir: str | Path, num_workers: int = 1, map_size: float = 5e9
) -> None:
    """Convert a data set's clips to 22,050 Hz mono FLAC and pack each of its sets into an LMDB.

    Writes, below `out_dir` and for each set, `flac/<set>/<clip id>.flac`, `lmdbs/<set>.lmdb`,
    `meta/<set>_ids.txt` (the clips packed) and `meta/<set>_missing.csv` (the others, with the reason),
    and `meta/lbl_map.json`. Records are in the catalogue's order. FLAC files that are there
    and whole are kept: an interrupted run goes on where it stopped.

    Args:
        clips_dir: searched, with its subfolders, for the clips' files.
        num_workers: processes that convert; the results do not depend on it.
        map_size: bytes that an LMDB may grow to at first.

    Raises:
        UserError: none of a set's clips is there or can be read; `out_dir` holds another data set, or
            clips from another folder.
    """
    out_dir = Path(out_dir)
    files = find_files(clips_dir, (clip for clips in catalogue.sets.values() for clip in clips), out_dir / "flac")
    for name, clips in catalogue.sets.items():
        _require_a_file(name, clips, files, clips_dir, catalogue)
    _claim_label_map(out_dir / "meta" / "lbl_map.json", catalogue.classes)
    for name in catalogue.sets:
        claim_folder(
            out_dir / "flac" / name, {"clips_dir": str(Path(clips_dir).resolve())}, f"clips of {name}", "--out_dir"
        )
    for name, clips in catalogue.sets.items():
        _prepare(name, clips, files, out_dir, num_workers, map_size)


def _require_a_file(
    name: str, clips: Sequence[Clip], files: Mapping[str, Path], clips_dir: str | Path, catalogue: Catalogue
) -> None:
    if not clips:
        raise UserError(f"{catalogue.path}: lists no clips of '{name}'")
    if not any(clip.id in files for clip in clips):
        first = " or ".join(f"{stem}.wav" for stem in clips[0].names)
        raise UserError(
            f"{clips_dir}: in this folder is none of the {len(clips)} clips of '{name}' that "
            f"{catalogue.path} lists, such as {first}; is it the right one?"
        )


def _claim_label_map(path: Path, classes: LabelMap) -> None:
    """Write the label map, or refuse a folder that has another one."""
    if not path.exists():
        classes.save(path)
    elif LabelMap.load(path).names != classes.names:
        raise UserError(
            f"{path}: is the label map of other classes than those of {classes.path}; choose another --out_dir"
        )


def _prepare(
    name: str, clips: Sequence[Clip], files: Mapping[str, Path], out_dir: Path, num_workers: int, map_size: float
) -> None:
    """Convert and pack one set."""
    flac_dir, meta = out_dir / "flac" / name, out_dir / "meta"
    unreadable = convert_clips(clips, files, flac_dir, num_workers)
    packed = [clip for clip in clips if clip.id in files and clip.id not in unreadable]
    for reason in unreadable.values():
        log.warning("%s", reason)
    if not packed:
        raise UserError(f"{name}: none of the {len(unreadable)} clips that are there can be read; see above")
    pack_clips(packed, flac_dir, out_dir / "lmdbs" / f"{name}.lmdb", map_size)
    with whole_file(meta / f"{name}_ids.txt") as temporary:
        temporary.write_text("".join(f"{clip.id}\n" for clip in packed), encoding="utf-8")
    write_csv(
        meta / f"{name}_missing.csv",
        ("id", "file", "reason"),
        (
            {"id": clip.id, "file": files.get(clip.id, ""), "reason": unreadable.get(clip.id, NO_FILE)}
            for clip in clips
            if clip.id not in files or clip.id in unreadable
        ),
    )
    log.info(
        "%s: %d of %d clips packed, %d missing, %d unreadable; the others are listed in %s",
        name,
        len(packed),
        len(clips),
        len(clips) - len(packed) - len(unreadable),
        len(unreadable),
        meta / f"{name}_missing.csv",
    )


def convert_clips(
    clips: Sequence[Clip], files: Mapping[str, Path], flac_dir: Path, num_workers: int = 1
) -> dict[str, str]:
    """Write `<flac_dir>/<clip id>.flac` of every clip that has a file, unless it is there already.

    Returns:
        Clip id → what is wrong with its file, for those that cannot be read.
    """
    jobs = {
        clip.id: Job(files[clip.id], _flac_file(flac_dir, clip), clip.seconds) for clip in clips if clip.id in files
    }
    problems = list(map_in_processes(_convert, list(jobs.values()), num_workers, f"FLAC for {flac_dir.name}"))
    return {clip_id: problem for clip_id, problem in zip(jobs, problems) if problem}


def pack_clips(clips: Sequence[Clip], flac_dir: Path, lmdb_path: Path, map_size: float = 5e9) -> None:
    """Pack the clips' FLAC files, with their labels and folds, into one LMDB."""
    with (
        LMDBWriter(lmdb_path, map_size, WRITE_FREQUENCY) as writer,
        progress(len(clips), f"packing {lmdb_path.name}", "clip") as bar,
    ):
        for clip in clips:
            writer.add(Record(_flac_file(flac_dir, clip).read_bytes(), clip.label, clip.fold))
            bar.update()


def _flac_file(flac_dir: Path, clip: Clip) -> Path:
    return flac_dir / f"{clip.id}.flac"


def _convert(job: Job) -> str | None:
    """Have a whole FLAC file of the clip in its place; what is wrong with its source, if anything is."""
    if _is_whole(job.target):
        return None
    if job.source.suffix.lower() in UNREADABLE_SUFFIXES:
        return f"{job.source}: {job.source.suffix} is not among the formats that can be read; convert it, say to WAV"
    try:
        samples = read_mono(job.source, SAMPLE_RATE, job.seconds + SLACK)
    except (UserError, OSError) as error:
        return str(error)
    write_flac(job.target, samples, SAMPLE_RATE)
    return None


def _is_whole(target: Path) -> bool:
    try:
        read_flac(target, 0.0, SAMPLE_RATE)
    except (UserError, FileNotFoundError):
        return False
    return True
