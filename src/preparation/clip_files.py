"""Which file of a folder tree is which clip: one walk, whatever the number of files."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from src.data.audio.files import AUDIO_SUFFIXES
from src.errors import UserError
from src.preparation.catalogues import Clip
from src.utils.progress import progress

log = logging.getLogger(__name__)

UNREADABLE_SUFFIXES = frozenset({".aac", ".m4a", ".mka", ".mkv", ".mp4", ".webm", ".wma"})  # libsndfile has no decoder


def find_files(clips_dir: str | Path, clips: Iterable[Clip], leave_out: str | Path | None = None) -> dict[str, Path]:
    """Clip id → its file, for the clips that are anywhere below `clips_dir`, but not below `leave_out`.

    Of several files that fit a clip, those that libsndfile can read come first. Then the surest name counts
    (see `Clip.names`), then the order of the paths below `clips_dir`.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(clips_dir).is_dir():
        raise UserError(f"{clips_dir}: no such folder of clips")
    owners: dict[str, tuple[str, int]] = {}  # name without extension → (clip id, how unsure the name is)
    for clip in clips:
        for rank, name in enumerate(clip.names):
            if name not in owners or rank < owners[name][1]:  # a name of two clips is that of the surer one
                owners[name] = (clip.id, rank)
    best: dict[str, tuple[bool, int, str]] = {}
    with progress(None, f"looking through {clips_dir}", "file") as bar:
        for relative in _walk(str(clips_dir), leave_out):
            bar.update()
            stem, suffix = os.path.splitext(os.path.basename(relative))
            unreadable = suffix.lower() in UNREADABLE_SUFFIXES
            if stem in owners and (unreadable or suffix.lower() in AUDIO_SUFFIXES):
                clip_id, rank = owners[stem]
                found = (unreadable, rank, relative)
                best[clip_id] = min(best.get(clip_id, found), found)
    return {clip_id: Path(clips_dir, relative) for clip_id, (_, _, relative) in best.items()}


def _walk(top: str, leave_out: str | Path | None) -> Iterator[str]:
    """Paths below `top` of all files in it. Links to folders are followed, and each folder is seen once."""
    seen = {_identity(leave_out)} if leave_out and os.path.isdir(leave_out) else set()
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=lambda error: log.warning("%s", error)):
        if _identity(folder) in seen:
            subfolders.clear()
            continue
        seen.add(_identity(folder))
        subfolders.sort()
        below = "" if folder == top else os.path.relpath(folder, top)
        yield from (os.path.join(below, file) for file in files)


def _identity(folder: str | Path) -> tuple[int, int]:
    """The same for every path to a folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
