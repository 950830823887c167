"""Summarised settings -> a table as Markdown, and as rows of a CSV."""

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import compress
from typing import Any

from src.scoring.summaries.summary import SCORES, UNTRAINED, Setting, Summary
from src.utils.text import markdown_table

SETTING_COLUMNS = ("start", "root", "name", "protocol", "num_train_clips", "evaluated_on")  # of summary.csv


def as_markdown(summaries: Sequence[Summary]) -> str:
    """A table with a row for each setting: means over runs, ± standard deviation where there are several."""
    shown = [score for score in SCORES if any(math.isfinite(each.mean(score)) for each in summaries)]
    with_published = any(each.published for each in summaries)
    labels = distinct_labels(summaries)
    with_held_out = any(each.setting.held_out for each in summaries)  # then it is said of each which clips chose it
    words = ["experiment", "network", "start", *["validated on"] * with_held_out]
    header = [*words, "training clips", "runs", *(SCORES[score] for score in shown)]
    rows = [header + ["published"] * with_published]
    rows.append(["---"] * len(words) + ["---:"] * (len(rows[0]) - len(words)))
    for each in summaries:
        setting, figure = each.setting, each.published
        clips = "" if setting.start == UNTRAINED else str(setting.num_train_clips)
        row = [labels[setting], setting.network, setting.start, *[each.validated_on] * with_held_out]
        row += [clips, runs_cell(each)]
        row += [score_cell(each.mean(score), each.deviation(score)) for score in shown]
        said = f"{SCORES[figure.score]} {figure.mean:.4f}, released {figure.released:.4f}" if figure else ""
        rows.append(row + [said] * with_published)
    return markdown_table(rows)


def runs_cell(summary: Summary) -> str:
    """How many runs there are, and what is missing."""
    cell = str(summary.num_runs)
    if summary.num_folds:
        cell += f" × {summary.num_expected_folds} folds"
        if len(summary.runs) < summary.num_expected:
            cell += f" ({len(summary.runs)} of {summary.num_expected})"
    return cell + (f" ({summary.num_unfinished} unfinished)" if summary.num_unfinished else "")


def score_cell(mean: float, deviation: float) -> str:
    """A mean, with its spread where there is one."""
    spread = f" ± {deviation:.3f}" if math.isfinite(deviation) else ""
    return f"{mean:.3f}{spread}" if math.isfinite(mean) else ""


def distinct_labels(summaries: Sequence[Summary]) -> dict[Setting, str]:
    """The experiment's name, and where rows would look the same, what tells them apart."""
    alike = defaultdict(list)
    for each in summaries:
        setting = each.setting
        alike[setting.experiment, setting.network, setting.start, setting.num_train_clips].append(setting)
    labels = {}
    for group in alike.values():
        details = [(each.root, each.name, each.protocol, each.evaluated_on, data_of(each, group)) for each in group]
        differs = [len(set(values)) > 1 for values in zip(*details)]
        for setting, (root, *others) in zip(group, details):
            parts = compress([os.path.basename(root), *others], differs)
            labels[setting] = " · ".join([setting.experiment, *filter(None, parts)])
    return labels


def data_of(setting: Setting, others: Sequence[Setting]) -> str:
    """The beginning of its LMDB's fingerprint, where another file was under that name when others were scored."""
    alike = {each.eval_data for each in others if each.evaluated_on == setting.evaluated_on}
    return setting.eval_data[:12] if len(alike) > 1 else ""


def as_rows(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Rows of summary.csv."""
    rows = []
    for each in summaries:
        setting, figure = each.setting, each.published
        row: dict[str, Any] = {"experiment": setting.experiment, "network": setting.network}
        row["parameters"] = setting.num_parameters or ""
        row |= {name: getattr(setting, name) for name in SETTING_COLUMNS} | {"validated_on": each.validated_on}
        row |= {"runs": each.num_runs, "folds": each.num_folds or "", "unfinished": each.num_unfinished}
        for score in SCORES:
            for end, value in (("mean", each.mean(score)), ("sd", each.deviation(score))):
                row[f"{score}_{end}"] = "" if math.isnan(value) else value
        for name in ("score", "mean", "released"):
            row[f"published_{name}"] = getattr(figure, name) if figure else ""
        rows.append(row | {"eval_data": setting.eval_data})
    return rows
