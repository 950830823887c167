"""Listed recordings -> those that can be read, each with its clips, and the kind of labels that they have."""

import dataclasses
import functools
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from src.errors import UserError, listed
from src.preparation.own.clips import Clip, Cutting, Facts, examine
from src.preparation.own.listing import Recording
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

LONGEST_NAME = 200  # bytes of a clip's name, of 255 that file systems allow


@dataclass(frozen=True)
class Source:
    """A readable recording with its clips."""

    recording: Recording
    facts: Facts
    clips: tuple[Clip, ...]
    end: int  # samples of it that are in clips

    @functools.cached_property
    def classes(self) -> set[str]:
        """Those of its clips."""
        return {label for clip in self.clips for label in clip.classes}


def read_sources(
    recordings: Sequence[Recording], cutting: Cutting, num_workers: int
) -> tuple[list[Source], dict[str, str]]:
    """The recordings that can be read to their end, and what is wrong with the others, by name.

    Raises:
        UserError: none can be read.
    """
    look = functools.partial(examine, cutting.sample_rate)
    facts: dict[Recording, Facts] = {}
    broken: dict[str, str] = {}
    found = map_in_processes(look, recordings, num_workers, "reading recordings")
    for known, recording in zip(found, recordings):
        if isinstance(known, UserError):
            log.warning("left out: %s", known)
            broken[recording.name] = str(known)
        else:
            facts[recording] = known
    if not facts:
        raise UserError(f"none of {len(recordings)} recordings can be read, such as: {next(iter(broken.values()))}")

    def cut(recording: Recording, name: str) -> Source:
        clips = cutting.clips(name, facts[recording].length, recording.events)
        return Source(recording, facts[recording], tuple(clips), clips[-1].start + clips[-1].length)

    sources = [cut(recording, flat_name(recording.name)) for recording in facts]
    times = Counter(clip.name for source in sources for clip in source.clips)
    for index, source in enumerate(sources):
        if any(times[clip.name] > 1 for clip in source.clips):
            sources[index] = cut(source.recording, flat_name(source.recording.name, unique=True))
    return sources, broken


def flat_name(path: str, unique: bool = False) -> str:
    """What clips of a recording are called, in a folder without subfolders. `a/b.wav` becomes `a__b`."""
    name = os.path.splitext(path)[0].replace(os.sep, "__").lstrip(".")
    if not unique and len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    cut = os.fsdecode(os.fsencode(name)[:LONGEST_NAME])
    return f"{cut}-{hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()}"


def kind_of(sources: Sequence[Source], wanted: str) -> tuple[str, str]:
    """`multiclass` or `multilabel`, and the reason.

    Args:
        wanted: one of these, or `auto`.

    Raises:
        UserError: `multiclass` is wanted, and a clip has several classes.
    """
    clips = [clip for source in sources for clip in source.clips]
    several = next((clip for clip in clips if len(clip.classes) > 1), None)
    if several and wanted == "multiclass":
        classes = listed(sorted(several.classes))
        raise UserError(f"--type multiclass: clip {several.name} has the classes {classes}. Leave --type out")
    if wanted != "auto":
        return wanted, "as --type says"
    if several:
        return "multilabel", f"for clip {several.name} has {len(several.classes)} classes"
    without = sum(not clip.classes for clip in clips)
    if without:
        return "multilabel", f"for {without} of {len(clips)} clips have no class"
    return "multiclass", "for each clip has one class"


def labelled(sources: Sequence[Source]) -> list[Source]:
    """Without the clips that have no class."""
    kept = (
        dataclasses.replace(source, clips=tuple(clip for clip in source.clips if clip.classes)) for source in sources
    )
    return [source for source in kept if source.clips]
