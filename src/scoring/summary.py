"""Results tables and run folders -> settings, each with its scores' mean and spread over runs."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import UserError
from src.runs.folder import RunFolder, validation_figure
from src.scoring.published import Published, published_figure
from src.scoring.results_table import read_table

NEEDED = ("Model", "mAP", "mAUC", "dprime", "ckpt_path", "val_figure", "num_train_clips", "lmdb_path", "num_timesteps")
SCORES = {"val": "validation", "mAP": "mAP", "mAUC": "mAUC", "dprime": "d′", "accuracy": "accuracy", "top5": "top 5"}
UNTRAINED = "untrained"  # the last part of an untrained network's ckpt_path
RUN_INDEX = re.compile(r"r\d+")
FOLD = re.compile(r"fold_\d+")
NUM_FOLDS = 5  # ESC-50's


@dataclass(frozen=True)
class Setting:
    """What runs have in common that differ in their run index and fold alone."""

    experiment: str  # the cfg's folder, such as audioset
    network: str  # such as ResNet-18
    start: str  # scratch, fine-tuned or untrained
    root: str  # the folder that holds r<RUN>/
    name: str  # of the run folder, below r<RUN>/ and without the fold
    num_train_clips: int
    protocol: str
    evaluated_on: str  # LMDB and frames; empty where there are validation figures only
    arch: str = ""
    model_depth: str = ""
    num_classes: int = 0


@dataclass
class Run:
    """One training run, by its checkpoint with the best validation figure."""

    setting: Setting
    index: str  # everything above and including r<RUN>
    fold: int | None = None
    folder: Path | None = None
    finished: bool = True
    scores: dict[str, float] = field(default_factory=dict)  # by the names in SCORES
    class_ap: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A setting's scores over its runs."""

    setting: Setting
    runs: Sequence[Run]

    def values(self, score: str) -> np.ndarray:
        """(run indices,) of one score; of runs with folds, each index's mean over them."""
        groups = defaultdict(list)
        for run in self.runs:
            if math.isfinite(run.scores.get(score, math.nan)):
                groups[run.index].append(run.scores[score])
        return np.array([np.mean(group) for group in groups.values()])

    def mean(self, score: str) -> float:
        """NaN where there is no such score."""
        values = self.values(score)
        return float(values.mean()) if len(values) else math.nan

    def deviation(self, score: str) -> float:
        """Sample standard deviation over run indices; NaN for fewer than two."""
        values = self.values(score)
        return float(values.std(ddof=1)) if len(values) > 1 else math.nan

    @property
    def num_runs(self) -> int:
        """Run indices, whatever the folds."""
        return len({run.index for run in self.runs})

    @property
    def num_folds(self) -> int:
        """Folds that have a run; 0 for data without."""
        return len({run.fold for run in self.runs if run.fold is not None})

    @property
    def is_complete(self) -> bool:
        """Whether every run has ended, and every run index has a run on each of the folds, if there are any."""
        expected = self.num_runs * (NUM_FOLDS if self.num_folds else 1)
        return len(self.runs) == expected and all(run.finished for run in self.runs)

    @property
    def class_ap(self) -> dict[str, float]:
        """Class → its mean average precision over the runs."""
        found = defaultdict(list)
        for run in self.runs:
            for name, ap in run.class_ap.items():
                found[name].append(ap)
        return {name: float(np.mean(values)) for name, values in found.items()}

    @property
    def published(self) -> Published | None:
        """The published figure of this setting: same protocol, amount of data and evaluation, nothing missing."""
        setting = self.setting
        if setting.start == UNTRAINED or setting.protocol != "paper" or not self.is_complete:
            return None
        figure = published_figure(
            setting.arch,
            setting.model_depth,
            setting.start == "fine-tuned",
            setting.num_classes,
            setting.num_train_clips,
        )
        if figure is None or math.isnan(self.mean(figure.score)):
            return None
        if figure.score == "mAP" and not setting.evaluated_on.endswith(f"eval.lmdb, {figure.num_timesteps} frames"):
            return None
        return figure


def summarise(inputs: Iterable[str | Path]) -> list[Summary]:
    """Settings found in results tables (.csv) and below folders with run.json in them, sorted.

    A run that a table scores counts with its scores; one without is listed with its validation figure.

    Raises:
        UserError: an input is neither, or there is nothing in any of them.
    """
    tables, folders = [], []
    for path in map(Path, inputs):
        (folders if path.is_dir() else tables).append(path)
    runs: list[Run] = []
    for table in tables:
        runs += runs_of_table(table)
    scored = {run.folder for run in runs}
    for top in folders:
        found = sorted(file.parent for file in top.rglob("run.json"))
        if not found:
            raise UserError(f"{top}: no run folder in it (none with a run.json)")
        runs += [run for run in map(run_of_folder, found) if run and run.folder not in scored]
    if not runs:
        raise UserError(f"{', '.join(map(str, [*tables, *folders]))}: no results yet; train or score something first")
    groups = defaultdict(list)
    for run in runs:
        groups[run.setting].append(run)
    summaries = [Summary(setting, group) for setting, group in groups.items()]
    return sorted(
        summaries,
        key=lambda each: (
            each.setting.experiment,
            each.setting.num_train_clips,
            each.setting.network,
            each.setting.start,
            each.setting.name,
            each.setting.evaluated_on,
        ),
    )


def runs_of_table(path: Path) -> Iterator[Run]:
    """A table's runs, each by its row with the best validation figure; several of them if scored on several sets."""
    best: dict[Any, dict[str, str]] = {}
    for number, row in enumerate(read_table(path, NEEDED), 2):
        require_numbers(row, f"{path}, line {number}")
        untrained = Path(row["ckpt_path"]).name == UNTRAINED
        # Runs of one seed begin with one untrained network, scored once for each: it counts once.
        who = (UNTRAINED, row["mAP"]) if untrained else os.path.abspath(Path(row["ckpt_path"]).parent)
        key = (who, os.path.abspath(row["lmdb_path"]), row["num_timesteps"])
        if key not in best or figure_of(row) > figure_of(best[key]):
            best[key] = row
    class_table = path.with_name(f"{path.stem}_per_class.csv")
    classes = read_table(class_table, ("class", "AP", "ckpt_path")) if class_table.exists() else []
    for row in best.values():
        yield run_of_row(
            row,
            {
                each["class"]: float(each["AP"])
                for each in classes
                if all(each[name] == row[name] for name in ("ckpt_path", "lmdb_path", "num_timesteps"))
            },
        )


def require_numbers(row: Mapping[str, str], where: str) -> None:
    """Refuse a row with something else than a number, or nothing, where a number belongs."""
    for name in (*SCORES, "val_figure", "num_train_clips", "num_classes", "fold"):
        try:
            float(row.get(name) or 0)
        except ValueError:
            raise UserError(f"{where}: {name} is {row[name]!r}; a number was expected") from None


def run_of_row(row: Mapping[str, str], class_ap: dict[str, float]) -> Run:
    """The run whose best checkpoint a row is of."""
    folder = Path(os.path.abspath(Path(row["ckpt_path"]).parent.parent))
    untrained = Path(row["ckpt_path"]).name == UNTRAINED
    index, name = split_at_run_index(folder)
    setting = Setting(
        experiment=Path(row.get("cfg_file") or "-").parent.name or "-",
        network=network_name(row.get("arch", ""), row.get("model_depth", "")) or row["Model"],
        start=UNTRAINED if untrained else "fine-tuned" if row.get("pretrained") else "scratch",
        root="" if untrained else os.path.dirname(index),
        name="" if untrained else name,
        num_train_clips=0 if untrained else int(row["num_train_clips"] or 0),
        protocol=row.get("protocol") or "paper",
        evaluated_on=f"{os.path.abspath(row['lmdb_path'])}, {row['num_timesteps']} frames",
        arch=row.get("arch", ""),
        model_depth=row.get("model_depth", ""),
        num_classes=int(row.get("num_classes") or 0),
    )
    scores = {score: float(row[score]) for score in SCORES if row.get(score)} | {"val": figure_of(row)}
    record = record_of(folder)
    return Run(
        setting,
        index,
        int(row["fold"]) if row.get("fold") else None,
        folder,
        record is None or bool(record["finished"]),
        scores,
        class_ap,
    )


def run_of_folder(folder: Path) -> Run | None:
    """A run that no table scores; None where it has no checkpoint yet."""
    record = record_of(folder)
    figures = validation_figures(folder)
    if record is None or not figures:
        return None
    folder = Path(os.path.abspath(folder))
    index, name = split_at_run_index(folder)
    model = record["cfg"]["model"]
    arch, depth = str(model.get("arch")), str(model.get("model_depth"))
    setting = Setting(
        experiment=Path(record.get("cfg_file", "-")).parent.name or "-",
        network=network_name(arch, depth),
        start="fine-tuned" if model.get("pretrained") else "scratch",
        root=os.path.dirname(index),
        name=name,
        num_train_clips=int(record.get("num_train_clips", 0)),
        protocol=record.get("protocol", "paper"),
        evaluated_on="",
        arch=arch,
        model_depth=depth,
        num_classes=int(model.get("num_classes", 0)),
    )
    return Run(setting, index, record.get("fold_index"), folder, bool(record["finished"]), {"val": max(figures)})


def record_of(folder: Path) -> dict[str, Any] | None:
    """A run folder's record, if it is here and has one."""
    return RunFolder(folder).record()


def validation_figures(folder: Path) -> list[float]:
    """Of every epoch, with all digits from metrics.csv, else as checkpoint names give them."""
    epochs = RunFolder(folder).epochs()
    logged = [float(row[name]) for row in epochs for name in ("val_mAP", "val_acc") if row.get(name)]
    named = [validation_figure(file) for file in RunFolder(folder).checkpoint_files()]
    return [figure for figure in logged or named if math.isfinite(figure)]


def split_at_run_index(folder: Path) -> tuple[str, str]:
    """(what runs of one index share, the rest without the fold): `…/exp/r1` and `mixup/resnet_18`."""
    parts = folder.parts
    for position in range(len(parts) - 1, 0, -1):
        if RUN_INDEX.fullmatch(parts[position]):
            rest = [part for part in parts[position + 1 :] if not FOLD.fullmatch(part)]
            return os.path.join(*parts[: position + 1]), "/".join(rest)
    return str(folder), folder.name


def figure_of(row: Mapping[str, str]) -> float:
    """A row's validation figure; lowest where there is none."""
    figure = float(row["val_figure"] or "nan")
    return -math.inf if math.isnan(figure) else figure


def network_name(arch: str, depth: str) -> str:
    """ResNet-18 and so on; empty for an unknown one."""
    names = {
        "resnet": "ResNet-",
        "cifar_resnet": "CIFAR-style ResNet-",
        "densenet": "DenseNet-",
        "efficientnet": "EfficientNet-",
        "timm": "",
    }
    return f"{names.get(arch, arch + ' ')}{depth.upper() if arch == 'efficientnet' else depth}" if arch else ""
