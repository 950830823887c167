"""The doctor of LMDBs: every record read and decoded, each LMDB for itself and all against each other."""

from __future__ import annotations

import functools
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from src.data.checks.findings import Findings, Problem
from src.data.checks.record import FOLDS, Facts, Limits, examine
from src.data.lmdb.fingerprint import NOTE, combined
from src.data.lmdb.notes import FileState, remember
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.utils.parallel import WorkerKilled, in_another_process, map_in_processes

CHUNK = 8  # records sent to a worker at a time; each takes a few milliseconds


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
    polyphony: Counter[int] = field(default_factory=Counter)  # labels of a clip → clips
    folds: Counter[int] = field(default_factory=Counter)  # fold → clips
    findings: Findings = field(default_factory=Findings)

    def complaints(self, severity: str) -> list[str]:
        """A line for each finding of a severity."""
        return [f"{self.path}: {finding}" for finding in self.findings if finding.severity == severity]


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
        return [line for report in self.reports for line in report.complaints("error")] + [*map(str, self.leaks)]

    @property
    def warnings(self) -> list[str]:
        """A line for each."""
        return [line for report in self.reports for line in report.complaints("warning")]

    def require_sound(self, strict: bool = False) -> None:
        """Refuse data with errors; with `strict`, data with warnings too.

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
    like others. Of a record, some 250 bytes are kept.

    Args:
        limits: what the records are held against.
        num_workers: processes.

    Raises:
        UserError: an LMDB is given twice. Whatever is wrong with one is in the result instead.
    """
    _require_different(paths)
    limits = limits or Limits()
    reports, leaks, sounds = [], [], []
    for path in paths:
        report, sound = Report(str(path)), {}
        shared = [Leak(earlier.path, report.path) for earlier in reports]
        for index, facts in _examined(report, limits, num_workers):
            _count(report, facts, index)
            _compare(report, facts, index, sound)
            for leak, earlier in zip(shared, sounds):
                if facts.sound in earlier:
                    leak.pairs.append((earlier[facts.sound][0], index))
        _conclude(report, limits)
        reports.append(report)
        sounds.append(sound)
        leaks += [leak for leak in shared if leak.pairs]
    return Check(reports, leaks)


def _require_different(paths: Sequence[str | Path]) -> None:
    seen = {}
    for path in paths:
        place = os.path.realpath(path)
        if place in seen:
            other = f", as {seen[place]} too" if str(seen[place]) != str(path) else ""
            raise UserError(f"{path}: is given twice{other}")
        seen[place] = path


class Survey(NamedTuple):
    """An LMDB before its records are read."""

    reader: LMDBReader
    num_entries: int
    problems: list[Problem]


def survey(path: str) -> Survey:
    """Open an LMDB and see whether `__keys__` and `__len__` fit each other and the number of entries."""
    reader = LMDBReader(path)
    count, entries, problems = len(reader), reader.num_entries(), []
    try:
        keys = reader.keys()
        problem = _keys_problem(keys, count)
    except UserError as error:  # it is there, but cannot be read
        keys, problem = [], str(error).removeprefix(f"{path}: ")
    if problem:
        problems.append(Problem("keys", problem))
    surplus = entries - count - 1 - (keys is not None)
    if surplus:
        what = f"{abs(surplus)} entries {'more' if surplus > 0 else 'fewer'} than __len__, {count}, says"
        problems.append(Problem("keys", f"there are {what}"))
    return Survey(reader, entries, problems)


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
    """(index, facts) of every record in turn; what concerns the whole LMDB is put into the report."""
    digests, index, name = bytearray(), -1, Path(report.path).name
    try:
        reader, num_entries, problems = in_another_process(survey, report.path, f"opening {name}")
        before = FileState.of(reader.file)
        report.num_bytes = before.size
        for problem in problems:
            report.findings.add(problem)
        records = range(min(len(reader), num_entries))  # a wild __len__ would have it look for ever
        look = functools.partial(examine, reader, limits)
        for index, facts in enumerate(
            map_in_processes(look, records, num_workers, f"checking {name}", unit="clip", chunk=CHUNK, isolate=True)
        ):
            digests += facts.digest or b""
            yield index, facts
    except WorkerKilled:
        report.findings.add(
            Problem(
                "damaged",
                f"reading it ended the process, at record {index + 1} or soon behind; or there is too little memory",
            )
        )
        return
    except UserError as error:
        report.findings.add(Problem("damaged", str(error).removeprefix(f"{report.path}: ")))
        return
    if len(digests) == 32 * len(reader):
        report.fingerprint = combined([digests])
        if FileState.of(reader.file) == before:
            remember(before, NOTE, report.fingerprint)


def _count(report: Report, facts: Facts, index: int) -> None:
    for problem in facts.problems:
        report.findings.add(problem, index)
    if facts.digest is None or any(problem.kind == "unreadable" for problem in facts.problems):
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


def _compare(report: Report, facts: Facts, index: int, sounds: dict[bytes, tuple[int, int | None]]) -> None:
    """Note a record whose audio an earlier one has, and in which fold that is."""
    if facts.sound is None:
        return
    first, fold = sounds.setdefault(facts.sound, (index, facts.fold))
    if first == index:
        return
    if fold == facts.fold:
        report.findings.add(Problem("duplicate", f"record {index}: that of record {first}"), index)
    else:
        report.findings.add(
            Problem("fold_leak", f"record {index} of fold {facts.fold}: that of record {first} of fold {fold}"), index
        )


def _conclude(report: Report, limits: Limits) -> None:
    """What only all records together show."""
    if not report.num_clips:
        if not any(finding.kind in ("damaged", "unreadable") for finding in report.findings):
            report.findings.add(Problem("no_clips", "it has no records"))
        return
    if limits.label_map is not None:
        for name in _missing(limits.label_map.names, report.clips):
            report.findings.add(Problem("unused_class", name))
    if report.folds:
        without = report.num_clips - sum(report.folds.values())
        if without:
            report.findings.add(Problem("no_fold", f"{without} of {report.num_clips}"))
        for fold in _missing(FOLDS, report.folds):
            report.findings.add(Problem("empty_fold", str(fold)))


def _missing(expected: Iterable, found: Counter) -> list:
    return [one for one in expected if not found[one]]
