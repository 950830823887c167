"""JAMS files, isolated events and backgrounds -> the soundscapes that the JAMS files describe."""

import functools
import io
import json
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from src.data.soundscapes.jams import SCAPERS_RATE, Event, ScaperJams, jams_files, read_jams, renamed
from src.data.soundscapes.sources import require_source
from src.errors import UserError
from src.preparation.soundscapes import import_scaper, is_complete, mixing, write_soundscape
from src.utils.files import claim_folder
from src.utils.folders import require_folder
from src.utils.parallel import make_all
from src.utils.processes import Part

TOLERANCE = 1e-3  # s by which an event may end after its source


def regenerate_soundscapes(
    jams_path: str | Path,
    fg_path: str | Path,
    bg_path: str | Path,
    out_folder: str | Path,
    num_workers: int = 1,
    audio_format: str = "wav",
    part: Part | None = None,
) -> list[UserError]:
    """Make soundscapes again, each with its `.txt` and a copy of its `.jams`, in the JAMS files' own tree.

    Those that are there already are left alone. Audio files are written last.

    Args:
        jams_path: a JAMS file, or a folder of them and of folders of them.
        fg_path, bg_path: where the isolated events and the backgrounds are on this machine.
        part: of the JAMS files, by default all.

    Returns:
        What is wrong with each JAMS file that gives no soundscape.

    Raises:
        UserError: a folder is not there, or `out_folder` holds something else.
    """
    jams_path, fg_path, bg_path, out_folder = map(Path, (jams_path, fg_path, bg_path, out_folder))
    for folder, what in ((fg_path, "isolated events"), (bg_path, "backgrounds")):
        require_folder(folder, what)
    files = part.take(jams_files(jams_path)) if part else jams_files(jams_path)
    root = jams_path if jams_path.is_dir() else jams_path.parent
    claim_folder(out_folder, {"made_from": "JAMS files"}, "soundscapes")
    items = [(file, out_folder / file.relative_to(root).with_suffix(f".{audio_format}")) for file in files]
    make = functools.partial(_make, fg_path, bg_path)
    return list(make_all(make, items, num_workers, out_folder, "soundscapes", _is_made).values())


def find_source(root: Path, event: Event) -> Path:
    """A source on this machine, by as many of the last folders in its path as there are below `root`.

    The path may be one of Windows, or of a system that writes accents as characters of their own.
    An event is at least in the folder of its class. A background may also lie in `root` itself.

    Raises:
        UserError: there is none of that name.
    """
    fewest = 2 if event.role == "foreground" else 1
    name = event.source_file
    for spelling in dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))):
        for path in (PurePosixPath(spelling), PureWindowsPath(spelling)):
            parts = [part for part in path.parts if part not in (path.anchor, "..")]
            for first in range(max(len(parts) - fewest, 0) + 1):
                if (root / Path(*parts[first:])).is_file():
                    return root / Path(*parts[first:])
    raise UserError(f"its source {'/'.join(parts[-2:])} is not in {root} (it was made from {name})")


def _is_made(item: tuple[Path, Path]) -> bool:
    file, sound = item
    return is_complete(sound) and sound.with_suffix(".jams").read_bytes() == file.read_bytes()


def _make(fg_path: Path, bg_path: Path, item: tuple[Path, Path]) -> None:
    """Make the soundscape (JAMS file, audio file to write)."""
    file, sound = item
    jams = read_jams(file)
    content, copy = file.read_bytes(), sound.with_suffix(".jams")
    try:
        if copy.exists() and copy.read_bytes() != content:
            raise UserError(f"{copy} is there already and says something else. Choose another folder")
        sources = _sources(jams, fg_path, bg_path)
        with mixing(list(sources.values())):
            # Scaper itself looks a source up as <folder>/<file>, and so in the wrong place where backgrounds lie in
            # `bg_path` itself: it gets the sources that were found, in the JAMS file's own words.
            jams.sandbox.update(fg_path=str(fg_path), bg_path=str(bg_path))
            found = io.StringIO(json.dumps(renamed(jams.tree, sources)))
            audio, _, lines, _ = import_scaper().generate_from_jams(found)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    write_soundscape(sound, audio, jams.sandbox.get("sr", SCAPERS_RATE), lines, content)


def _sources(jams: ScaperJams, fg_path: Path, bg_path: Path) -> dict[str, str]:
    """Source as written in the JAMS file → its path here."""
    sources = {}
    for event in jams.events:
        source = find_source(fg_path if event.role == "foreground" else bg_path, event)
        seconds, end = require_source(source), event.source_time + event.source_duration
        tiled = event.role == "background" and event.source_time == 0  # Scaper repeats one that is too short
        if end > seconds + TOLERANCE and not tiled:
            raise UserError(f"needs {source} up to {end:.2f} s, but it lasts {seconds:.2f} s. Is it another release?")
        sources[event.source_file] = str(source)
    if not sources:
        raise UserError("has no events, and no background")
    return sources
