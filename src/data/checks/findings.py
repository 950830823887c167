"""What can be wrong with an LMDB, and how bad each of it is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]

# Errors end a training or an evaluation, or make its figures worthless. Warnings may be meant.
KINDS: dict[str, tuple[Severity, str]] = {
    "damaged": ("error", "the file cannot be read"),
    "no_clips": ("error", "no clips"),
    "keys": ("error", "__keys__ and __len__ do not fit the records"),
    "events": ("error", "events that cannot be read"),
    "groups": ("error", "groups that cannot be read"),
    "unreadable": ("error", "missing or unreadable"),
    "undecodable": ("error", "audio that cannot be decoded"),
    "sample_rate": ("error", "another sample rate"),
    "channels": ("error", "several channels"),
    "not_finite": ("error", "samples that are no finite numbers"),
    "too_short": ("error", "too short"),
    "too_long": ("error", "too long"),
    "no_label": ("error", "nothing but empty names for labels"),
    "unknown_label": ("error", "a label that the map does not have"),
    "event_order": ("error", "events that end before they begin"),
    "event_outside": ("error", "events outside the clip"),
    "event_label": ("error", "events of classes that the label lacks"),
    "fold": ("error", "a fold below 1"),
    "no_fold": ("error", "no fold, though others have one"),
    "fold_leak": ("error", "the audio of a record of another fold"),
    "silent": ("warning", "silence"),
    "clipped": ("warning", "clipping"),
    "duplicate": ("warning", "the audio of an earlier record"),
    "negative": ("warning", "no label, as of a negative clip"),
    "event_beyond": ("warning", "events that reach past an end of the clip"),
    "no_event": ("warning", "classes of the label without an event that lasts"),
    "empty_name": ("warning", "an empty name among the labels"),
    "unused_class": ("warning", "classes without a clip"),
    "empty_fold": ("warning", "folds without a clip"),
}


class Problem(NamedTuple):
    """One thing that is wrong, at one place."""

    kind: str  # of KINDS
    detail: str


@dataclass
class Finding:
    """All problems of one kind in an LMDB."""

    KEPT, SHOWN = 20, 3  # details, of however many

    kind: str
    count: int = 0
    records: list[int] = field(default_factory=list)  # which, where the problem is one of records
    details: list[str] = field(default_factory=list)  # the first ones

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    def __str__(self) -> str:
        number = f" ({len(self.records)} record{'s' * (len(self.records) > 1)})" if self.records else ""
        more = f"; and {self.count - self.SHOWN} more" if self.count > self.SHOWN else ""
        return f"{KINDS[self.kind][1]}{number}: {'; '.join(self.details[: self.SHOWN])}{more}"


class Findings:
    """What was found in one LMDB, by kind."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Finding] = {}

    def add(self, kind: str, detail: str, record: int | None = None) -> None:
        """Note a problem, of a record or of the whole."""
        assert kind in KINDS, kind
        finding = self._by_kind.setdefault(kind, Finding(kind))
        finding.count += 1
        if record is not None:
            finding.records.append(record)
        if len(finding.details) < Finding.KEPT:
            finding.details.append(detail)

    def __iter__(self) -> Iterator[Finding]:
        """Errors first."""
        return (self._by_kind[kind] for kind in KINDS if kind in self._by_kind)
