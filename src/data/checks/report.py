"""What a check of LMDBs found, for people (text, a picture) and for programs (JSON)."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.data.checks.check import Check, Report
from src.data.labels import LabelMap
from src.utils.pictures import blank_figure, save_figure

MOST_CLASSES = 60  # in the table of the text


def as_text(check: Check, label_map: LabelMap | None = None) -> str:
    """A paragraph for each LMDB, a table of their classes, and a line for each leak."""
    paragraphs = ["\n".join(_paragraph(report, label_map)) for report in check.reports]
    names = class_order(check.reports, label_map)
    if 0 < len(names) <= MOST_CLASSES:
        paragraphs.append("\n".join(_class_table(check.reports, names)))
    total = f"{_number(len(check.errors), 'error')}, {_number(len(check.warnings), 'warning')}"
    paragraphs.append("\n".join([*(f"error: {leak}" for leak in check.leaks), total]))
    return "\n\n".join(paragraphs)


def class_order(reports: Sequence[Report], label_map: LabelMap | None) -> list[str]:
    """All classes: the map's in its order, behind them those that it lacks, sorted."""
    known = list(label_map.names) if label_map else []
    found = set().union(*(report.clips for report in reports))
    return known + sorted(found - set(known), key=lambda name: (int(name) if name.isdecimal() else math.inf, name))


def _paragraph(report: Report, label_map: LabelMap | None) -> list[str]:
    lines = [report.path]
    if report.num_clips:
        size = f"{report.num_bytes / 1e9:.2f} GB" if report.num_bytes >= 1e9 else f"{report.num_bytes / 1e6:.1f} MB"
        lines.append(f"  {_number(report.num_clips, 'clip')}, {sum(report.durations) / 3600:.2f} hours, {size}")
        lines += [f"  {encoding}: {_number(count, 'clip')}" for encoding, count in report.encodings.most_common()]
    if report.durations:
        shortest, median, longest = _spread(report.durations)
        lines.append(f"  shortest {shortest:.3f} s, median {median:.3f} s, longest {longest:.3f} s")
    if report.clips:
        (most, many), (least, few) = report.clips.most_common(1)[0], report.clips.most_common()[-1]
        of_map = f" of {len(label_map)}" if label_map else ""
        spread = f"from {few:,} ({least}) to {many:,} clips ({most})" if few < many else f"{few:,} clips each"
        lines.append(f"  {len(report.clips)}{of_map} classes, {spread}")
        lines.append("  labels of a clip: " + _counts(report.polyphony))
    if report.num_events is not None:
        lines.append(f"  {_number(report.num_events, 'event')} with onset and offset")
    if report.folds:
        lines.append("  clips of a fold: " + _counts(report.folds))
    lines.append(f"  fingerprint {report.fingerprint or 'none, for not all records can be read'}")
    return lines + [f"  {finding.severity}: {finding}" for finding in report.findings]


def _spread(durations: Sequence[float]) -> tuple[float, float, float]:
    """The shortest, the median and the longest."""
    return min(durations), statistics.median(durations), max(durations)


def _class_table(reports: Sequence[Report], names: Sequence[str]) -> list[str]:
    heads = [Path(report.path).stem for report in reports]
    widths = [max(len(head), 7) for head in heads]
    first = max(len("clips of a class"), *map(len, names))
    rows = [("clips of a class", heads)]
    rows += [(name, [f"{report.clips[name]:,}" for report in reports]) for name in names]
    return [
        "  ".join([f"{name:{first}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths))])
        for name, cells in rows
    ]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _counts(counter: dict[int, int]) -> str:
    return ", ".join(f"{count:,} with {key}" for key, count in sorted(counter.items()))


def as_json(check: Check, label_map: LabelMap | None = None) -> dict[str, Any]:
    """Everything that was found: of each finding all records, and the details of the first."""
    return {
        "errors": check.errors,
        "warnings": check.warnings,
        "lmdbs": [_report_json(report, label_map) for report in check.reports],
        "leaks": [{"one": leak.one, "other": leak.other, "records": leak.pairs} for leak in check.leaks],
    }


def _report_json(report: Report, label_map: LabelMap | None) -> dict[str, Any]:
    names = class_order([report], label_map)
    shortest, median, longest = _spread(report.durations) if report.durations else (None, None, None)
    return {
        "path": report.path,
        "fingerprint": report.fingerprint,
        "bytes": report.num_bytes,
        "clips": report.num_clips,
        "encodings": dict(report.encodings),
        "seconds": {"shortest": shortest, "median": median, "longest": longest, "total": sum(report.durations)},
        "classes": {name: {"clips": report.clips[name], "events": report.events[name]} for name in names},
        "events": report.num_events,
        "labels_of_a_clip": dict(sorted(report.polyphony.items())),
        "folds": dict(sorted(report.folds.items())),
        "findings": [{"severity": finding.severity} | vars(finding) for finding in report.findings],
    }


def draw_class_balance(check: Check, path: str | Path, label_map: LabelMap | None = None) -> None:
    """Clips of every class, a column an LMDB, to an image file."""
    names = class_order(check.reports, label_map)
    figure = blank_figure(3 + 3 * len(check.reports), 1 + 0.16 * len(names))  # inches: 527 names can be read as well
    columns = figure.subplots(1, len(check.reports), sharey=True, squeeze=False)
    known = set(label_map.names) if label_map else set(names)
    colours = ["tab:blue" if name in known else "tab:red" for name in names]
    for axes, report in zip(columns[0], check.reports):
        axes.barh(range(len(names)), [report.clips[name] for name in names], color=colours)
        axes.set_title(Path(report.path).stem, fontsize=9)
        axes.set(xlabel="clips")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    columns[0][0].set_yticks(range(len(names)), names, fontsize=7)
    columns[0][0].set_ylim(len(names) - 0.4, -0.6)  # the first class on top
    save_figure(figure, path, dpi=100)
