"""Summarised settings -> a table as Markdown, and as rows of a CSV."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from src.scoring.summary import NUM_FOLDS, SCORES, UNTRAINED, Setting, Summary


def cell(mean: float, deviation: float) -> str:
    """A mean, with its spread where there is one."""
    if not math.isfinite(mean):
        return ""
    return f"{mean:.3f}" + (f" ± {deviation:.3f}" if math.isfinite(deviation) else "")


def as_markdown(summaries: Sequence[Summary]) -> str:
    """A table a row a setting: means over runs, ± standard deviation where there are several."""
    shown = [score for score in SCORES if any(math.isfinite(each.mean(score)) for each in summaries)]
    with_published = any(each.published for each in summaries)
    labels = distinct_labels(summaries)
    header = ["experiment", "network", "start", "training clips", "runs", *(SCORES[score] for score in shown)]
    lines = [
        f"| {' | '.join(header + ['published'] * with_published)} |",
        "| --- | --- | --- |" + " ---: |" * (len(header) - 3 + with_published),
    ]
    for each in summaries:
        setting = each.setting
        runs = str(each.num_runs)
        if each.num_folds:
            runs += f" × {NUM_FOLDS} folds"
            if len(each.runs) < each.num_runs * NUM_FOLDS:
                runs += f" ({len(each.runs)} of {each.num_runs * NUM_FOLDS})"
        unfinished = sum(not run.finished for run in each.runs)
        cells = [
            labels[setting],
            setting.network,
            setting.start,
            str(setting.num_train_clips) if setting.start != UNTRAINED else "",
            runs + (f" ({unfinished} unfinished)" if unfinished else ""),
        ]
        cells += [cell(each.mean(score), each.deviation(score)) for score in shown]
        if with_published:
            figure = each.published
            cells.append(f"{SCORES[figure.score]} {figure.mean:.4f}, released {figure.released:.4f}" if figure else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def distinct_labels(summaries: Sequence[Summary]) -> dict[Setting, str]:
    """The experiment's name, and where rows would look the same, what tells them apart."""
    alike = defaultdict(list)
    for each in summaries:
        setting = each.setting
        alike[setting.experiment, setting.network, setting.start, setting.num_train_clips].append(setting)
    labels = {}
    for group in alike.values():
        differing = [
            key
            for key in ("root", "name", "protocol", "evaluated_on")
            if len({getattr(setting, key) for setting in group}) > 1
        ]
        for setting in group:
            parts = [
                os.path.basename(getattr(setting, key)) if key == "root" else getattr(setting, key) for key in differing
            ]
            labels[setting] = " · ".join([setting.experiment, *filter(None, parts)])
    return labels


def as_rows(summaries: Sequence[Summary], parameters: Mapping[Setting, int | None]) -> list[dict[str, Any]]:
    """Rows of summary.csv."""
    rows = []
    for each in summaries:
        setting, figure = each.setting, each.published
        row: dict[str, Any] = {
            "experiment": setting.experiment,
            "network": setting.network,
            "parameters": parameters[setting] or "",
            "start": setting.start,
            "root": setting.root,
            "name": setting.name,
            "protocol": setting.protocol,
            "num_train_clips": setting.num_train_clips,
            "evaluated_on": setting.evaluated_on,
            "runs": each.num_runs,
            "folds": each.num_folds or "",
            "unfinished": sum(not run.finished for run in each.runs),
        }
        for score in SCORES:
            row[f"{score}_mean"] = "" if math.isnan(each.mean(score)) else each.mean(score)
            row[f"{score}_sd"] = "" if math.isnan(each.deviation(score)) else each.deviation(score)
        row |= {
            "published_score": figure.score if figure else "",
            "published_mean": figure.mean if figure else "",
            "published_released": figure.released if figure else "",
        }
        rows.append(row)
    return rows
