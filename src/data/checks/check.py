"""LMDBs checked: every record is read and decoded, and clips that two LMDBs share are found."""

import functools
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from src.data.checks.findings import Findings, Problem
from src.data.checks.record import Facts, Limits, examine, with_events
from src.data.events import Event
from src.data.lmdb.fingerprint import NOTE, combined, digest
from src.data.lmdb.notes import FileState, remember
from src.data.lmdb.store import PART, LMDBReader
from src.errors import UserError
from src.utils.limits import CannotStart
from src.utils.parallel import WorkerKilled, in_another_process, map_in_processes

CHUNK = 8  # records sent to a worker at a time, of a few milliseconds each


@dataclass
class Report:
    """What one LMDB holds, and what is wrong with it."""

    path: str
    num_bytes: int = 0  # of the file
    num_clips: int = 0  # that could be read
    fingerprint: str | None = None  # None where a record is missing
    durations: array = field(default_factory=lambda: array("d"))  # s, of the clips that could be decoded
    encodings: Counter[str] = field(default_factory=Counter)  # format, rate and channels → clips
    clips: Counter[str] = field(default_factory=Counter)  # class → clips that have it
    events: Counter[str] = field(default_factory=Counter)  # class → how often labels have it
    num_events: int | None = None  # with their times. None where it has none, or they cannot be read
    polyphony: Counter[int] = field(default_factory=Counter)  # labels of a clip → clips
    folds: Counter[int] = field(default_factory=Counter)  # fold → clips
    sounds: dict[bytes, tuple[int, int | None]] = field(default_factory=dict)  # hash → its first record, with the fold
    findings: Findings = field(default_factory=Findings)


@dataclass
class Leak:
    """Clips that two LMDBs share."""

    one: str
    other: str
    pairs: list[tuple[int, int]] = field(default_factory=list)  # record of one, record of other

    def __str__(self) -> str:
        few = ", ".join(f"{first} = {second}" for first, second in self.pairs[:5])
        more = ", …" * (len(self.pairs) > 5)
        clips = f"{len(self.pairs)} clip{'s' * (len(self.pairs) > 1)}"
        return f"{self.one} and {self.other} share {clips} (records {few}{more})"


@dataclass(frozen=True)
class Check:
    """What `check` found."""

    reports: list[Report]
    leaks: list[Leak]

    @property
    def errors(self) -> list[str]:
        """A line for each."""
        return self._findings("error") + [str(leak) for leak in self.leaks]

    @property
    def warnings(self) -> list[str]:
        """A line for each."""
        return self._findings("warning")

    def _findings(self, severity: str) -> list[str]:
        found = ((report.path, finding) for report in self.reports for finding in report.findings)
        return [f"{path}: {finding}" for path, finding in found if finding.severity == severity]

    def require_sound(self, strict: bool = False) -> None:
        """Refuse data with errors. With `strict`, refuse data with warnings too.

        Raises:
            UserError: with the first of them.
        """
        found = self.errors + (self.warnings if strict else [])
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise UserError(found[0] + more)


def check(paths: Sequence[str | Path], limits: Limits | None = None, num_workers: int = 1) -> Check:
    """Read and decode every record of some LMDBs that should have no clip in common.

    It works in processes of its own, so that a file that is damaged enough to kill its reader is a finding
    like others. Of a record, some 250 bytes are kept, and of an event some 170 until its LMDB is through.

    Args:
        limits: what the records are held against.
        num_workers: processes.

    Raises:
        UserError: an LMDB is given twice. Whatever is wrong with one is in the result instead.
    """
    _require_different(paths)
    limits = limits or Limits()
    reports: list[Report] = []
    leaks: list[Leak] = []
    for path in paths:
        report = Report(str(path))
        shared = [Leak(earlier.path, report.path) for earlier in reports]
        for index, facts in _examined(report, limits, num_workers):
            _count(report, facts, index)
            if facts.sound is None:
                continue
            _compare(report, facts.sound, facts.fold, index)
            for leak, earlier in zip(shared, reports):
                if facts.sound in earlier.sounds:
                    leak.pairs.append((earlier.sounds[facts.sound][0], index))
        _conclude(report, limits)
        reports.append(report)
        leaks += [leak for leak in shared if leak.pairs]
    return Check(reports, leaks)


def _require_different(paths: Sequence[str | Path]) -> None:
    seen: dict[str, str | Path] = {}
    for path in paths:
        place = os.path.realpath(path)
        if place in seen:
            other = f", as {seen[place]} too" if str(seen[place]) != str(path) else ""
            raise UserError(f"{path}: is given twice{other}")
        seen[place] = path


class Survey(NamedTuple):
    """What is known of an LMDB before its records are read."""

    reader: LMDBReader
    num_entries: int
    events: list[list[Event]] | None
    digests: bytes  # of events and groups, as far as it has them
    problems: list[Problem]  # where what is stored beside the records does not fit them or their number


def survey(path: str) -> Survey:
    """Open an LMDB, and read what it holds beside its records."""
    reader = LMDBReader(path)
    count, entries, problems = len(reader), reader.num_entries(), []
    try:
        keys = reader.keys()
        problem = _keys_problem(keys, count)
    except UserError as error:  # it is there, but cannot be read
        keys, problem = [], str(error).removeprefix(f"{path}: ")
    if problem:
        problems.append(Problem("keys", problem))
    stored, events = reader.stored_beside(), None
    try:
        events = reader.events()
    except UserError as error:
        problems.append(Problem("events", str(error).removeprefix(f"{path}: ")))
    try:
        reader.groups()
    except UserError as error:
        problems.append(Problem("groups", str(error).removeprefix(f"{path}: ")))
    surplus = entries - count - 1 - (keys is not None) - len(stored) - (reader.entry(PART) is not None)
    if surplus:
        what = f"{abs(surplus)} entries {'more' if surplus > 0 else 'fewer'} than __len__, {count}, says"
        problems.append(Problem("keys", f"there are {what}"))
    return Survey(reader, entries, events, b"".join(map(digest, stored)), problems)


def _keys_problem(keys: object, count: int) -> str | None:
    if keys is None:
        return "there is no __keys__ entry"
    if not isinstance(keys, list):
        return f"__keys__ is of type {type(keys).__name__}, not a list"
    if len(keys) != count:
        return f"__keys__ lists {len(keys)} records, __len__ is {count}"
    for index, key in enumerate(keys):
        if key != str(index).encode():
            return f"entry {index} of __keys__ is {key!r}, not {str(index).encode()!r}"
    return None


def _examined(report: Report, limits: Limits, num_workers: int) -> Iterator[tuple[int, Facts]]:
    """(index, facts) of every record in turn. What concerns the whole LMDB is put into the report."""
    digests, index, name = bytearray(), -1, Path(report.path).name
    try:
        known = in_another_process(survey, report.path, f"opening {name}")
        reader, events = known.reader, known.events
        before = FileState.of(reader.file)
        report.num_bytes = before.size
        report.num_events = None if events is None else sum(map(len, events))
        for problem in known.problems:
            report.findings.add(*problem)
        records = range(min(len(reader), known.num_entries))  # a wild __len__ would have it look for ever
        look = functools.partial(examine, reader, limits)
        bar = f"checking {name}"
        found = map_in_processes(look, records, num_workers, bar, unit="clip", chunk=CHUNK, isolate=True)
        for index, facts in enumerate(found):
            digests += facts.digest or b""
            yield index, facts if events is None else with_events(facts, events[index], f"record {index}")
    except CannotStart:
        raise
    except UserError as error:
        killed = f"reading it ended the process, near record {index + 1}. Or is there too little memory?"
        reason = killed if isinstance(error, WorkerKilled) else str(error).removeprefix(f"{report.path}: ")
        report.findings.add("damaged", reason)
        return
    if len(digests) == 32 * len(reader):
        report.fingerprint = combined([digests, known.digests])
        if FileState.of(reader.file) == before:
            remember(before, NOTE, report.fingerprint)


def _count(report: Report, facts: Facts, index: int) -> None:
    for problem in facts.problems:
        report.findings.add(*problem, index)
    if not facts.is_readable:
        return
    report.num_clips += 1
    report.clips.update(set(facts.names))
    report.events.update(facts.names)
    report.polyphony[len(facts.names)] += 1
    if facts.fold is not None:
        report.folds[facts.fold] += 1
    if facts.sound is not None:
        report.durations.append(facts.duration)
        report.encodings[facts.encoding] += 1


def _compare(report: Report, sound: bytes, fold: int | None, index: int) -> None:
    """Note a record whose audio an earlier one has, and in which fold that is."""
    first, its_fold = report.sounds.setdefault(sound, (index, fold))
    if first == index:
        return
    if fold == its_fold:
        report.findings.add("duplicate", f"record {index}: that of record {first}", index)
    else:
        detail = f"record {index} of fold {fold}: that of record {first} of fold {its_fold}"
        report.findings.add("fold_leak", detail, index)


def _conclude(report: Report, limits: Limits) -> None:
    """What only all records together show."""
    if not report.num_clips:
        if not any(finding.kind in ("damaged", "unreadable") for finding in report.findings):
            report.findings.add("no_clips", "it has no records")
        return
    for name in limits.label_map.names if limits.label_map else ():
        if not report.clips[name]:
            report.findings.add("unused_class", name)
    without = report.num_clips - report.folds.total()
    if report.folds and without:
        report.findings.add("no_fold", f"{without} of {report.num_clips}")
    for fold in range(1, max(report.folds, default=0)):
        if not report.folds[fold]:
            report.findings.add("empty_fold", str(fold))
