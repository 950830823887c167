"""What became of somebody's recordings, as text and as JSON."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from src.data.checks.check import Check
from src.data.checks.report import as_json, as_text
from src.data.labels import LabelMap
from src.errors import listed
from src.preparation.own.listing import Recording, Side
from src.preparation.own.sources import Source

MUCH = 0.01  # share of a recording's energy, from which on a loss is told
MOST_LINES = 20  # of one kind, in the text


@dataclass
class Report:
    """What was found, decided and left out. What the LMDBs hold is checked apart."""

    notes: list[str]  # how source and flags were understood
    left_out: dict[str, str]  # recording → reason
    sample_rate: int  # Hz, of the clips
    clip_seconds: float  # of the clips, but for shorter ones
    recordings: int = 0  # that can be read
    kind: str = ""  # multiclass or multilabel, with the reason
    split: str = ""
    units: int = 0  # groups of recordings that stay together, where the split is made here
    too_small: dict[str, int] = field(default_factory=dict)  # class → units that have it, fewer than there are sides
    unlabelled: int = 0  # clips left out
    clips: int = 0
    cut: int = 0  # recordings that gave several clips
    short: int = 0  # clips shorter than `clip_seconds`
    seconds_left_out: float = 0.0  # at the ends of recordings
    doubles: list[list[str]] = field(default_factory=list)  # recordings of equal audio
    warnings: list[str] = field(default_factory=list)
    lost: dict[str, float] = field(default_factory=dict)  # recording → share of its energy, the largest first

    def count(self, sources: Sequence[Source], sides: Mapping[Recording, Side], classes: Collection[str]) -> None:
        """Look through the sources of all clips.

        Args:
            classes: all that the source lists.
        """
        alike, groups, trained = defaultdict(list), defaultdict(set), set()
        for source in sources:
            recording, facts, clips = source.recording, source.facts, source.clips
            side = sides[recording]
            alike[facts.sound].append(recording)
            groups[recording.group].add(side)
            self.clips += len(clips)
            self.cut += len(clips) > 1
            self.short += sum(clip.length < int(self.clip_seconds * self.sample_rate) for clip in clips)
            self.seconds_left_out += max(facts.length - source.end, 0) / self.sample_rate
            trained |= source.classes if side == "train" else set()
            if facts.lost > MUCH:
                self.lost[recording.name] = facts.lost
            if unheard := {event.label for event in recording.events} - source.classes:
                self.warnings.append(f"{recording.name}: {listed(sorted(unheard))} is heard in no clip")
        self.lost = dict(sorted(self.lost.items(), key=lambda item: -item[1]))
        for same in (same for same in alike.values() if len(same) > 1):
            self.doubles.append([recording.name for recording in same])
            if len({sides[recording] for recording in same}) > 1:
                places = ", ".join(f"{recording.name} ({sides[recording]})" for recording in same)
                self.warnings.append(f"equal audio in different parts: {places}")
            if len({frozenset(recording.events) for recording in same}) > 1:
                self.warnings.append(f"equal audio with different labels: {listed(self.doubles[-1])}")
        torn = sorted(group for group, found in groups.items() if len(found) > 1)
        if torn:
            self.warnings.append(f"the given split has recordings of one group in different parts: {listed(torn)}")
        heard = {label for source in sources for label in source.classes}
        if gone := sorted(set(classes) - heard):
            self.warnings.append(f"classes without a readable clip, which the label map lacks: {listed(gone)}")
        if "train" in sides.values() and (untrained := sorted(heard - trained)):
            self.warnings.append(f"classes without a training clip: {listed(untrained)}")
        for label, number in self.too_small.items():
            found = "1 recording or group" if number == 1 else f"{number} recordings or groups"
            self.warnings.append(f"class {label}: is too small to split, with {found}")

    def as_text(self, check: Check, label_map: LabelMap) -> str:
        """For people."""
        lines = [f"{self.recordings:,} recordings, {self.clips:,} clips, {len(self.left_out):,} files left out"]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  type: {self.kind}", f"  split: {self.split}"]
        lines += [f"  {self.cut:,} recordings are cut into several clips"] * (self.cut > 0)
        if self.seconds_left_out:
            lines.append(f"  {self.seconds_left_out:.1f} s at the ends of recordings are left out")
        repeated = f"are shorter than {self.clip_seconds:g} s, and are repeated up to it in the LMDBs"
        lines += [f"  {self.short:,} clips {repeated}"] * (self.short > 0)
        lines += [f"  {self.unlabelled:,} clips without a class are left out"] * (self.unlabelled > 0)
        lines += shortened([f"equal audio: {' = '.join(names)}" for names in self.doubles])
        if self.lost:
            worst, share = next(iter(self.lost.items()))
            limit = f"more than {MUCH:.0%} of their energy, above {self.sample_rate // 2} Hz"
            lines.append(f"  recordings that lose {limit}: {len(self.lost):,}. The most: {share:.0%} of {worst}")
        lines += shortened([f"warning: {warning}" for warning in self.warnings])
        lines += shortened([f"left out: {name}: {reason}" for name, reason in self.left_out.items()])
        return "\n".join(lines) + "\n\n" + as_text(check, label_map)

    def as_json(self, check: Check, label_map: LabelMap) -> dict[str, Any]:
        """For programs, with all that `check_lmdb.py --json` gives."""
        return vars(self) | {"check": as_json(check, label_map)}


def shortened(lines: Sequence[str]) -> list[str]:
    """The first of some lines, and how many more report.json has."""
    more = [f"  … and {len(lines) - MOST_LINES:,} more such lines, see report.json"] * (len(lines) > MOST_LINES)
    return [f"  {line}" for line in lines[:MOST_LINES]] + more
