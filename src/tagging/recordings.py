"""Recordings: which files, and where windows of them begin."""

import os
from collections.abc import Sequence
from pathlib import Path

from src.data.audio.files import AUDIO_SUFFIXES
from src.errors import UserError
from src.utils.folders import files_in


def audio_files(paths: Sequence[str]) -> list[Path]:
    """The files given, and of folders and their subfolders all files of a kind that soundfile reads, sorted.

    Raises:
        UserError: a path is not there, or a folder holds no audio files.
    """
    found = []
    for path in map(Path, paths):
        try:
            os.lstat(path)
        except OSError as error:
            reason = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
            raise UserError(f"{path}: {reason}") from None
        if path.is_dir() or not path.exists():  # a link to nothing gets the walk's words
            none = "no audio files in this folder"
            found += [path / file for file in files_in(path, AUDIO_SUFFIXES, "recordings", none=none)]
        else:
            found.append(path)
    return found


def window_starts(length: int, window: int, hop: int) -> list[int]:
    """Where windows begin, in samples. The last one ends with the recording."""
    last = max(length - window, 0)
    return [*range(0, last, hop), last]
