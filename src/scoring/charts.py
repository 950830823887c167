"""Pictures of a summary: curves over training-set sizes, networks, classes and epochs."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402

from src.runs.folder import RunFolder  # noqa: E402
from src.scoring.summary import UNTRAINED, Setting, Summary  # noqa: E402
from src.utils.files import whole_file  # noqa: E402

MOST_LABELS = 60  # classes whose names still fit beside their bars


def draw_all(summaries: Sequence[Summary], parameters: Mapping[Setting, int | None], folder: Path) -> list[Path]:
    """Every picture that there are figures for.

    Args:
        parameters: of each setting's network.

    Returns:
        The files.
    """
    return [
        *draw_sizes(summaries, folder),
        *draw_networks(summaries, parameters, folder),
        *draw_classes(summaries, folder),
        *draw_training(summaries, folder),
    ]


def draw_sizes(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Soundscapes v. mAP, a picture an experiment, a line a network that was trained on several sizes."""
    files = []
    for experiment, members in by_experiment(summaries).items():
        lines = defaultdict(list)
        for each in members:
            if each.setting.start != UNTRAINED:
                key = (each.setting.network, each.setting.start, each.setting.root, each.setting.evaluated_on)
                lines[key].append(each)
        lines = {key: line for key, line in lines.items() if len({each.setting.num_train_clips for each in line}) > 1}
        if not lines:
            continue
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for number, ((network, start, _, _), line) in enumerate(lines.items()):
            line.sort(key=lambda each: each.setting.num_train_clips)
            for score, name, style in (("mAP", "evaluation", "-"), ("val", "validation", ":")):
                known = [each for each in line if math.isfinite(each.mean(score))]
                if known:
                    sizes = [each.setting.num_train_clips for each in known]
                    axes.errorbar(
                        sizes,
                        [each.mean(score) for each in known],
                        yerr=spread_of(known, score),
                        marker="o",
                        capsize=3,
                        color=f"C{number}",
                        linestyle=style,
                        label=f"{network}, {start}: {name}",
                    )
        for each in members:
            if each.setting.start == UNTRAINED:
                axes.axhline(each.mean("mAP"), color="grey", linestyle="--", label=f"{each.setting.network}, untrained")
        sizes = sorted({each.setting.num_train_clips for line in lines.values() for each in line})
        axes.set(
            xscale="log",
            xlabel="training soundscapes",
            ylabel="mAP of the best validation checkpoints",
            ylim=(0, None),
            xticks=sizes,
        )
        axes.set_xticklabels(map(str, sizes), rotation=90 if len(sizes) > 5 else 0, fontsize="small")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        files.append(save(figure, folder / f"soundscapes_vs_map_{file_name(experiment)}.png"))
    return files


def draw_networks(summaries: Sequence[Summary], parameters: Mapping[Setting, int | None], folder: Path) -> list[Path]:
    """Evaluation mAP against the networks' number of parameters, a picture an experiment with several networks."""
    files = []
    for experiment, members in by_experiment(summaries).items():
        groups = defaultdict(list)  # (start, root, training clips) → settings
        for each in members:
            setting = each.setting
            if setting.start != UNTRAINED and parameters[setting] and math.isfinite(each.mean("mAP")):
                groups[setting.start, setting.root, setting.num_train_clips].append(each)
        # Of several training-set sizes or roots, the one with most networks.
        best = {
            start: max((group for key, group in groups.items() if key[0] == start), key=variety)
            for start in {start for start, _, _ in groups}
        }
        if not best or max(variety(group) for group in best.values())[0] < 2:
            continue
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for start, group in sorted(best.items()):
            millions = [parameters[each.setting] / 1e6 for each in group]
            axes.errorbar(
                millions,
                [each.mean("mAP") for each in group],
                yerr=spread_of(group, "mAP"),
                marker="o" if start == "scratch" else "s",
                linestyle="none",
                capsize=3,
                label=start,
            )
            by_height = sorted(zip(millions, group), key=lambda pair: pair[1].mean("mAP"))
            for position, (x, each) in enumerate(by_height):  # every other name below its point, for room
                axes.annotate(
                    each.setting.network,
                    (x, each.mean("mAP")),
                    xytext=(0, (7, -14)[position % 2 == 0]),
                    textcoords="offset points",
                    fontsize="x-small",
                    ha="center",
                )
        size = group[0].setting.num_train_clips
        axes.set(xlabel="parameters (millions)", ylabel="evaluation mAP", title=f"{experiment}, {size} training clips")
        axes.margins(x=0.15, y=0.15)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        files.append(save(figure, folder / f"map_by_network_{file_name(experiment)}.png"))
    return files


def draw_classes(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Average precision of every class as sorted bars, of each experiment's setting with the best mAP."""
    files = []
    for experiment, members in by_experiment(summaries).items():
        known = [each for each in members if each.class_ap and each.setting.start != UNTRAINED]
        if not known:
            continue
        best = max(known, key=lambda each: each.mean("mAP"))
        classes = sorted(best.class_ap.items(), key=lambda pair: pair[1])
        labelled = len(classes) <= MOST_LABELS
        figure, axes = plt.subplots(figsize=(7, max(2, 0.18 * len(classes)) if labelled else 8), layout="constrained")
        axes.barh(range(len(classes)), [ap for _, ap in classes], height=0.8 if labelled else 1.0)
        if labelled:
            axes.set_yticks(range(len(classes)), [name for name, _ in classes], fontsize="x-small")
        else:
            axes.set_ylabel(f"{len(classes)} classes, from {classes[0][0]} to {classes[-1][0]}")
        axes.set(xlabel="average precision", xlim=(0, 1), ylim=(-0.6, len(classes) - 0.4))
        figure.suptitle(
            f"{experiment}: {best.setting.network}, {best.setting.start}, "
            f"{best.setting.num_train_clips} training clips",
            fontsize="medium",
        )
        axes.grid(axis="x", alpha=0.3)
        files.append(save(figure, folder / f"class_ap_{file_name(experiment)}.png"))
    return files


def draw_training(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Training loss and validation figure over the epochs, a picture an experiment, a line a run."""
    files = []
    for experiment, members in by_experiment(summaries).items():
        figure, (loss_axes, figure_axes) = plt.subplots(
            1, 2, figsize=(13, max(4, 0.19 * len(members))), layout="constrained"
        )
        metric = "validation figure"
        for number, each in enumerate(members):
            for position, run in enumerate(each.runs):
                rows = RunFolder(run.folder).epochs() if each.setting.start != UNTRAINED else []
                label = f"{each.setting.network}, {each.setting.start}, {each.setting.num_train_clips} clips"
                for axes, names in ((loss_axes, ("train_loss",)), (figure_axes, ("val_mAP", "val_acc"))):
                    points = [
                        (int(row["epoch"]) + 1, float(row[name])) for row in rows for name in names if row.get(name)
                    ]
                    if points:
                        axes.plot(
                            *zip(*points),
                            color=f"C{number % 10}",
                            linestyle=("-", "--", ":")[number // 10 % 3],
                            marker="." if len(points) == 1 else None,
                            alpha=0.8,
                            label=label if position == 0 else None,
                        )
                metric = next((name for row in rows for name in ("val_mAP", "val_acc") if row.get(name)), metric)
        if not loss_axes.lines and not figure_axes.lines:
            plt.close(figure)
            continue
        loss_axes.set(xlabel="epoch", ylabel="training loss", title=experiment)
        figure_axes.set(xlabel="epoch", ylabel=metric)
        for axes in (loss_axes, figure_axes):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
        figure.legend(*figure_axes.get_legend_handles_labels(), loc="outside right center", fontsize="x-small")
        files.append(save(figure, folder / f"training_{file_name(experiment)}.png"))
    return files


def spread_of(group: Sequence[Summary], score: str) -> list[float] | None:
    """Standard deviations for error bars; None where no setting has several runs."""
    spread = [0 if math.isnan(each.deviation(score)) else each.deviation(score) for each in group]
    return spread if any(spread) else None


def variety(group: Sequence[Summary]) -> tuple[int, int]:
    """How many networks a group has, and how many training clips."""
    return len({each.setting.network for each in group}), group[0].setting.num_train_clips


def by_experiment(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Summaries in groups."""
    groups = defaultdict(list)
    for each in summaries:
        groups[each.setting.experiment].append(each)
    return groups


def file_name(experiment: str) -> str:
    """An experiment's name without what a file name should not hold."""
    return re.sub(r"[^\w.-]+", "_", experiment).strip("_") or "runs"


def save(figure, path: Path) -> Path:
    """Write a figure as PNG and close it."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    return path
