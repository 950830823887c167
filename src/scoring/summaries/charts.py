"""Pictures of a summary: curves over training-set sizes, networks, classes and epochs."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from src.runs.folder import RunFolder, figure_name
from src.scoring.summaries.summary import UNTRAINED, Summary
from src.utils.pictures import blank_figure, save_figure

MOST_LABELS = 60  # classes whose names still fit beside their bars


def draw_all(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Draw every picture that there are figures for, one of each kind for an experiment.

    Returns:
        The files.
    """
    experiments = defaultdict(list)
    for each in summaries:
        experiments[each.setting.experiment].append(each)
    files = []
    for kind, draw in (
        ("soundscapes_vs_map", draw_sizes),
        ("map_by_network", draw_networks),
        ("class_ap", draw_classes),
        ("training", draw_training),
    ):
        for experiment, members in experiments.items():
            figure = draw(members)
            if figure:
                name = re.sub(r"[^\w.-]+", "_", experiment).strip("_") or "runs"
                files.append(folder / f"{kind}_{name}.png")
                save_figure(figure, files[-1], dpi=120)
    return files


def draw_sizes(members: Sequence[Summary]) -> Figure | None:
    """Soundscapes v. mAP, with a line for each network that was trained on several sizes."""
    lines = defaultdict(list)
    for each in members:
        setting = each.setting
        if setting.start != UNTRAINED:
            lines[setting.network, setting.start, setting.root, setting.evaluated_on, setting.held_out].append(each)
    several = {key: line for key, line in lines.items() if len({each.setting.num_train_clips for each in line}) > 1}
    if not several:
        return None
    figure = blank_figure(6, 4)
    axes = figure.subplots()
    for number, ((network, start, *_), line) in enumerate(several.items()):
        line.sort(key=lambda each: each.setting.num_train_clips)
        for score, name, style in (("mAP", "evaluation", "-"), ("val", "validation", ":")):
            known = [each for each in line if math.isfinite(each.mean(score))]
            if known:
                sizes = [each.setting.num_train_clips for each in known]
                label = f"{network}, {start}: {name}"
                draw_means(axes, sizes, known, score, marker="o", color=f"C{number}", linestyle=style, label=label)
    for each in members:
        if each.setting.start == UNTRAINED:
            axes.axhline(each.mean("mAP"), color="grey", linestyle="--", label=f"{each.setting.network}, untrained")
    sizes = sorted({each.setting.num_train_clips for line in several.values() for each in line})
    axes.set(xscale="log", xlabel="training soundscapes", ylim=(0, None))
    axes.set_ylabel("mAP of the best validation checkpoints")
    axes.set_xticks(sizes, map(str, sizes), rotation=90 if len(sizes) > 5 else 0, fontsize="small")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def draw_networks(members: Sequence[Summary]) -> Figure | None:
    """Evaluation mAP against the number of parameters, of an experiment with several networks."""
    groups = defaultdict(list)  # (start, root, training clips) → (millions of parameters, summary)
    for each in members:
        setting = each.setting
        if setting.start != UNTRAINED and setting.num_parameters and math.isfinite(each.mean("mAP")):
            key = setting.start, setting.root, setting.num_train_clips
            groups[key].append((setting.num_parameters / 1e6, each))
    best = {}  # of several training-set sizes or roots, the one with most networks
    for start in sorted({start for start, _, _ in groups}):
        best[start] = max((group for key, group in groups.items() if key[0] == start), key=variety)
    if all(variety(group)[0] < 2 for group in best.values()):
        return None
    figure = blank_figure(6, 4)
    axes = figure.subplots()
    for start, group in best.items():
        marker = "o" if start == "scratch" else "s"
        millions, networks = zip(*group)
        draw_means(axes, millions, networks, "mAP", marker=marker, linestyle="none", label=start)
        by_height = sorted(group, key=lambda pair: pair[1].mean("mAP"))
        style: dict[str, Any] = {"textcoords": "offset points", "fontsize": "x-small", "ha": "center"}
        for position, (million, each) in enumerate(by_height):
            place = (0, -14 if position % 2 == 0 else 7)  # every other name below its point, for room
            axes.annotate(each.setting.network, (million, each.mean("mAP")), place, **style)
    setting = group[0][1].setting
    title = f"{setting.experiment}, {setting.num_train_clips} training clips"
    axes.set(xlabel="parameters (millions)", ylabel="evaluation mAP", title=title)
    axes.margins(x=0.15, y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def variety(group: Sequence[tuple[float, Summary]]) -> tuple[int, int]:
    """How many networks a group has, and how many training clips."""
    return len({each.setting.network for _, each in group}), group[0][1].setting.num_train_clips


def draw_classes(members: Sequence[Summary]) -> Figure | None:
    """Average precision of every class as sorted bars, of the setting with the best mAP."""
    known = [each for each in members if each.class_ap and each.setting.start != UNTRAINED]
    if not known:
        return None
    best = max(known, key=lambda each: each.mean("mAP"))
    names, values = zip(*sorted(best.class_ap.items(), key=lambda pair: pair[1]))
    labelled = len(names) <= MOST_LABELS
    figure = blank_figure(7, max(2, 0.18 * len(names)) if labelled else 8)
    axes = figure.subplots()
    axes.barh(range(len(names)), values, height=0.8 if labelled else 1.0)
    if labelled:
        axes.set_yticks(range(len(names)), names, fontsize="x-small")
    else:
        axes.set_ylabel(f"{len(names)} classes, from {names[0]} to {names[-1]}")
    axes.set(xlabel="average precision", xlim=(0, 1), ylim=(-0.6, len(names) - 0.4))
    setting = best.setting
    title = f"{setting.experiment}: {setting.network}, {setting.start}, {setting.num_train_clips} training clips"
    figure.suptitle(title, fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    return figure


def draw_training(members: Sequence[Summary]) -> Figure | None:
    """Training loss and validation figure over the epochs, a line for each run."""
    figure = blank_figure(13, max(4, 0.19 * len(members)))
    loss_axes, figure_axes = figure.subplots(1, 2)
    metric = "validation figure"
    for number, each in enumerate(members):
        setting = each.setting
        if setting.start == UNTRAINED:
            continue
        label = f"{setting.network}, {setting.start}, {setting.num_train_clips} clips"
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3], "alpha": 0.8}
        for position, run in enumerate(each.runs):
            rows = RunFolder(run.folder).epochs()
            metric = next(filter(None, map(figure_name, rows)), metric)
            for axes, name in ((loss_axes, "train_loss"), (figure_axes, metric)):
                points = [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name)]
                if points:
                    marker = "." if len(points) == 1 else None
                    axes.plot(*zip(*points), marker=marker, label=label if position == 0 else None, **style)
    if not loss_axes.lines and not figure_axes.lines:
        return None
    loss_axes.set(xlabel="epoch", ylabel="training loss", title=members[0].setting.experiment)
    figure_axes.set(xlabel="epoch", ylabel=metric)
    for axes in (loss_axes, figure_axes):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.legend(*figure_axes.get_legend_handles_labels(), loc="outside right center", fontsize="x-small")
    return figure


def draw_means(axes: Any, places: Sequence[float], group: Sequence[Summary], score: str, **style: Any) -> None:
    """Draw settings' means, with bars of a standard deviation where one has several runs."""
    deviations = np.nan_to_num([each.deviation(score) for each in group])  # (settings,)
    bars = deviations if deviations.any() else None
    axes.errorbar(places, [each.mean(score) for each in group], yerr=bars, capsize=3, **style)
