"""The clips of a data set -> FLAC files -> LMDBs, and lists of what was packed and what was not."""

import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from src.data.audio.files import AUDIO_SUFFIXES, encode, read_mono
from src.data.labels import LabelMap, nfc
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.preparation.catalogues import Catalogue, Clip, owners_of
from src.preparation.packing import read_flac
from src.utils.files import claim_folder, require_writable, write_whole
from src.utils.folders import files_in
from src.utils.parallel import make_all
from src.utils.progress import progress
from src.utils.tables import write_csv

log = logging.getLogger(__name__)

SAMPLE_RATE = 22050  # Hz, the cfgs' audio_config.sample_rate
SLACK = 1.0  # s that a file may last longer than its clip: codecs pad, and cut at their frames
UNREADABLE_SUFFIXES = frozenset({".aac", ".m4a", ".mka", ".mkv", ".mp4", ".webm", ".wma"})  # libsndfile has no decoder
WRITE_FREQUENCY = 100  # records in one transaction: 25 MB of ten-second clips


def prepare_clip_sets(
    catalogue: Catalogue, clips_dir: str | Path, out_dir: str | Path, num_workers: int = 1, map_size: float = 5e9
) -> None:
    """Convert a data set's clips to 22,050 Hz mono FLAC and pack each of its sets into an LMDB.

    Writes, below `out_dir` and for each set, `flac/<set>/<clip id>.flac`, `lmdbs/<set>.lmdb`,
    `meta/<set>_ids.txt` (the clips packed) and `meta/<set>_missing.csv` (the others, with the reason),
    and `meta/lbl_map.json`. Records are in the catalogue's order. FLAC files that are there
    and whole are kept, so that an interrupted preparation can be resumed.

    Args:
        clips_dir: searched, with its subfolders, for the clips' files.
        num_workers: processes that convert. The results do not depend on it.
        map_size: bytes that an LMDB may grow to at first.

    Raises:
        UserError: none of a set's clips is there or can be read. Or `out_dir` holds another data set,
            or clips from another folder.
    """
    out_dir = Path(out_dir)
    for name in catalogue.sets:
        lists = (out_dir / "meta" / f"{name}_{what}" for what in ("ids.txt", "missing.csv"))
        require_writable(out_dir / "flac" / name / "clip.flac", out_dir / "lmdbs" / f"{name}.lmdb", *lists)
    files = find_files(clips_dir, (clip for clips in catalogue.sets.values() for clip in clips), out_dir / "flac")
    for name, clips in catalogue.sets.items():
        if not clips:
            raise UserError(f"{catalogue.path}: lists no clips of '{name}'")
        if not any(clip.id in files for clip in clips):
            first = " or ".join(f"{stem}.wav" for stem in clips[0].names)
            wanted = f"the {len(clips)} clips of '{name}' that {catalogue.path} lists, such as {first}"
            raise UserError(f"{clips_dir}: has none of {wanted}. Is it the right folder?")
    label_map = out_dir / "meta" / "lbl_map.json"
    if not label_map.exists():
        catalogue.classes.save(label_map)
    elif LabelMap.load(label_map).names != catalogue.classes.names:
        raise UserError(f"{label_map}: has other classes than {catalogue.classes.path}. Choose another --out_dir")
    origin = {"clips_dir": str(Path(clips_dir).resolve())}
    for name in catalogue.sets:
        claim_folder(out_dir / "flac" / name, origin, f"clips of {name}", "--out_dir")
    for name, clips in catalogue.sets.items():
        _prepare(name, clips, files, out_dir, num_workers, map_size)


def find_files(clips_dir: str | Path, clips: Iterable[Clip], leave_out: str | Path | None = None) -> dict[str, Path]:
    """Clip id → its file, for the clips that are anywhere below `clips_dir`, but not below `leave_out`.

    Of several files that fit a clip, those that libsndfile can read come first. Then the surest name counts
    (see `Clip.names`), then the order of the paths below `clips_dir`.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    owners = owners_of(clips)
    best: dict[str, tuple[bool, int, str]] = {}
    for relative in files_in(clips_dir, AUDIO_SUFFIXES | UNREADABLE_SUFFIXES, "clips", apart_from=leave_out):
        stem, suffix = os.path.splitext(os.path.basename(relative))
        if nfc(stem) in owners:
            clip_id, rank = owners[nfc(stem)]
            found = (suffix.lower() in UNREADABLE_SUFFIXES, rank, relative)
            best[clip_id] = min(best.get(clip_id, found), found)
    return {clip_id: Path(clips_dir, relative) for clip_id, (_, _, relative) in best.items()}


def _prepare(
    name: str, clips: Sequence[Clip], files: Mapping[str, Path], out_dir: Path, num_workers: int, map_size: float
) -> None:
    """Convert and pack one set."""
    flac_dir, missing_csv = out_dir / "flac" / name, out_dir / "meta" / f"{name}_missing.csv"
    found = [clip for clip in clips if clip.id in files]
    convert = functools.partial(_convert, files, flac_dir)
    unreadable = make_all(convert, found, num_workers, flac_dir, "FLAC files")
    for reason in unreadable.values():
        log.warning("%s", reason)
    packed = [clip for clip in found if clip not in unreadable]
    if not packed:
        raise UserError(f"{name}: none of the {len(found)} clips that are there can be read. See above")
    with (
        LMDBWriter(out_dir / "lmdbs" / f"{name}.lmdb", map_size, WRITE_FREQUENCY) as writer,
        progress(len(packed), f"packing {name}.lmdb", "clip") as bar,
    ):
        for clip in packed:
            flac = (flac_dir / f"{clip.id}.flac").read_bytes()
            writer.add(Record(flac, clip.label, clip.fold), group=clip.group)
            bar.update()
    write_whole(out_dir / "meta" / f"{name}_ids.txt", "".join(f"{clip.id}\n" for clip in packed))
    rows = (
        {"id": clip.id, "file": files.get(clip.id, ""), "reason": unreadable.get(clip, "no file")}
        for clip in clips
        if clip.id not in files or clip in unreadable
    )
    write_csv(missing_csv, ("id", "file", "reason"), rows)
    counts = f"{len(packed)} of {len(clips)} clips packed, {len(clips) - len(found)} missing"
    log.info("%s: %s, %d unreadable. The others are listed in %s", name, counts, len(unreadable), missing_csv)


def _convert(files: Mapping[str, Path], flac_dir: Path, clip: Clip) -> None:
    """Have a whole FLAC file of the clip in its place."""
    source, target = files[clip.id], flac_dir / f"{clip.id}.flac"
    with suppress(UserError, FileNotFoundError):  # of a file that is not whole, or not there
        read_flac(target, 0.0, SAMPLE_RATE)
        return
    if source.suffix.lower() in UNREADABLE_SUFFIXES:
        raise UserError(f"{source}: {source.suffix} is not among the formats that can be read. Convert it, say to WAV")
    try:
        samples = read_mono(source, SAMPLE_RATE, clip.seconds + SLACK)  # (N,)
    except OSError as error:
        raise UserError(str(error)) from None
    write_whole(target, encode(samples, SAMPLE_RATE, "FLAC"))
