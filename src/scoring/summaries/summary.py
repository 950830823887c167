"""Results tables and run folders -> settings, each with its scores' mean and spread over runs."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import UserError
from src.runs.folder import RunFolder, figure_name, lowest_if_nan, validation_figure
from src.scoring.results_table import HELD_OUT, KEY, SOURCES, read_table, validated_on
from src.scoring.summaries.published import Published, published_figure
from src.utils.folders import files_in

NEEDED = ("Model", "mAP", "mAUC", "dprime", "ckpt_path", "val_figure", "num_train_clips", "lmdb_path", "num_timesteps")
SCORES = {"val": "validation", "mAP": "mAP", "mAUC": "mAUC", "dprime": "d′", "accuracy": "accuracy", "top5": "top 5"}
UNTRAINED = "untrained"  # the last part of an untrained network's ckpt_path
NETWORKS = {"resnet": "ResNet-", "cifar_resnet": "CIFAR-style ResNet-", "densenet": "DenseNet-", "timm": ""}
RUN_INDEX = re.compile(r"r\d+")
FOLD = re.compile(r"fold_\d+")
RECIPE = "efficient"  # the folder of cfgs of another recipe than the published one
# Experiment → how many folds it has. Of others, as many as the last one that has a run.
NUM_FOLDS = {"esc50": 5, f"{RECIPE} esc50": 5}


@dataclass(frozen=True)
class Setting:
    """What runs have in common that differ in their run index and fold alone."""

    experiment: str  # the cfg's folder, such as audioset. Of another recipe, such as "efficient audioset"
    network: str  # such as ResNet-18
    start: str  # scratch, fine-tuned or untrained
    root: str  # the folder that holds r<RUN>/
    name: str  # of the run folder, below r<RUN>/ and without the fold
    num_train_clips: int
    protocol: str
    evaluated_on: str  # LMDB and frames, or empty where there are validation figures only
    eval_data: str  # fingerprint of that LMDB: another file may have been there at another time
    arch: str
    model_depth: str
    num_classes: int
    held_out: bool = False  # whether clips that are not scored chose the checkpoint, of those that may be trained on

    @cached_property
    def num_parameters(self) -> int | None:
        """Of the network, if it is in the registry."""
        from src.models.registry import count_parameters  # takes seconds

        return count_parameters(self.arch, self.model_depth, self.num_classes)


@dataclass(frozen=True)
class Run:
    """One training run, by its checkpoint with the best validation figure."""

    setting: Setting
    index: str  # everything above and including r<RUN>
    fold: int | None
    folder: Path
    finished: bool
    scores: dict[str, float]  # by the names in SCORES
    validated_on: str = ""  # of results.csv
    class_ap: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A setting's scores over its runs."""

    setting: Setting
    runs: Sequence[Run]

    def values(self, score: str) -> np.ndarray:
        """(run indices,) of one score. Of runs with folds, each index's mean over them."""
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
        """Sample standard deviation over run indices. NaN for fewer than two."""
        values = self.values(score)
        return float(values.std(ddof=1)) if len(values) > 1 else math.nan

    @property
    def num_runs(self) -> int:
        """Run indices, whatever the folds."""
        return len({run.index for run in self.runs})

    @property
    def num_folds(self) -> int:
        """Folds that have a run, or 0 for data without folds."""
        return len(self._folds)

    @property
    def num_expected_folds(self) -> int:
        """Folds that the data have, as far as runs show, or 0 for data without folds."""
        return max(*self._folds, NUM_FOLDS.get(self.setting.experiment, 0)) if self._folds else 0

    @property
    def _folds(self) -> set[int]:
        return {run.fold for run in self.runs if run.fold is not None}

    @property
    def num_expected(self) -> int:
        """Runs there would be with every fold of every run index."""
        return self.num_runs * (self.num_expected_folds or 1)

    @property
    def validated_on(self) -> str:
        """Which clips chose the checkpoints, as far as runs say."""
        return max(run.validated_on for run in self.runs)

    @property
    def num_unfinished(self) -> int:
        """Runs that have not ended."""
        return sum(not run.finished for run in self.runs)

    @property
    def class_ap(self) -> dict[str, float]:
        """Class → its mean average precision over the runs."""
        names = dict.fromkeys(name for run in self.runs for name in run.class_ap)
        values = {name: [run.class_ap[name] for run in self.runs if name in run.class_ap] for name in names}
        return {name: float(np.mean(group)) for name, group in values.items()}

    @property
    def published(self) -> Published | None:
        """The published figure of this setting: same protocol, amount of data and evaluation, nothing missing."""
        setting, complete = self.setting, len(self.runs) == self.num_expected and not self.num_unfinished
        if setting.start == UNTRAINED or setting.protocol != "paper" or setting.held_out or not complete:
            return None
        network = setting.arch, setting.model_depth, setting.start == "fine-tuned"
        figure = published_figure(*network, setting.num_classes, setting.num_train_clips)
        if figure is None or math.isnan(self.mean(figure.score)):
            return None
        if figure.score == "mAP" and not setting.evaluated_on.endswith(f"eval.lmdb, {figure.num_timesteps} frames"):
            return None
        return figure


def summarise(inputs: Iterable[str | Path]) -> list[Summary]:
    """Settings found in results tables (.csv) and below folders with run.json in them, sorted.

    A run that a table scores counts with its scores. Any other is listed with its validation figure.

    Raises:
        UserError: an input is neither, or there is nothing in any of them.
    """
    paths = sorted(map(Path, inputs), key=Path.is_dir)  # tables first
    runs: list[Run] = []
    for path in paths:
        runs += runs_below(path, {run.folder for run in runs}) if path.is_dir() else runs_of_table(path)
    if not runs:
        raise UserError(f"{', '.join(map(str, paths))}: no results yet. Train or score something first")
    groups = defaultdict(list)
    for run in runs:
        groups[run.setting].append(run)
    order = attrgetter(
        "experiment", "num_train_clips", "network", "start", "name", "evaluated_on", "eval_data", "held_out"
    )
    return [Summary(setting, groups[setting]) for setting in sorted(groups, key=order)]


def runs_of_table(path: Path) -> Iterator[Run]:
    """A table's runs, each by its row with the best validation figure. On several sets, a run is several."""
    best: dict[Any, dict[str, str]] = {}
    for row in read_table(path, needed=NEEDED):
        checkpoint = Path(row["ckpt_path"])
        # Runs of one seed begin with one untrained network, scored once for each: it counts once.
        who = (UNTRAINED, row["mAP"]) if checkpoint.name == UNTRAINED else os.path.abspath(checkpoint.parent)
        key = (who, os.path.abspath(row["lmdb_path"]), row.get("eval_data"), row["num_timesteps"])
        if key not in best or figure_of(row) > figure_of(best[key]):
            best[key] = row
    class_table = path.with_name(f"{path.stem}_per_class.csv")
    classes = read_table(class_table, [*KEY, "class"], ["AP"]) if class_table.exists() else []
    for row in best.values():
        rows = [
            each
            for each in classes
            if all(each.get(name) == row.get(name) for name in [*KEY, *SOURCES] if name in each)
        ]
        yield run_of(row, {each["class"]: float(each["AP"]) for each in rows})


def runs_below(top: Path, scored: set[Path]) -> Iterator[Run]:
    """Runs below a folder that no table scores, without those that have no checkpoint yet."""
    none = "no run folder in it (none with a run.json)"
    for file in files_in(top, {"/run.json"}, "runs", none=none, others=False):
        folder = (top / file).parent
        figures = validation_figures(folder)
        record = RunFolder(folder).record()
        if record is None or not figures or Path(os.path.abspath(folder)) in scored:
            continue
        model = record["cfg"]["model"]
        row = {"ckpt_path": folder / "ckpts" / "best", "val_figure": max(figures), "fold": record.get("fold_index")}
        row["validated_on"] = validated_on(record, "")
        row |= {name: record.get(name) for name in ("cfg_file", "num_train_clips", "protocol")}
        row |= {name: model.get(name) for name in ("arch", "model_depth", "num_classes", "pretrained")}
        yield run_of({name: "" if value is None else str(value) for name, value in row.items()}, {})


def run_of(row: Mapping[str, str], class_ap: dict[str, float]) -> Run:
    """The run whose best checkpoint a row is of. Where the row has no `lmdb_path`, it was only validated."""
    checkpoint = Path(os.path.abspath(row["ckpt_path"]))
    folder, untrained = checkpoint.parent.parent, checkpoint.name == UNTRAINED
    index, name = split_at_run_index(folder)
    arch, depth = row.get("arch", ""), row.get("model_depth", "")
    lmdb_path, fold = row.get("lmdb_path"), int(row["fold"]) if row.get("fold") else None
    validated = row.get("validated_on") or "test fold" * (fold is not None)  # all that earlier versions did with folds
    setting = Setting(
        experiment=experiment_of(row.get("cfg_file")),
        network=network_name(arch, depth) or row.get("Model", ""),
        start=UNTRAINED if untrained else "fine-tuned" if row.get("pretrained") else "scratch",
        root="" if untrained else os.path.dirname(index),
        name="" if untrained else name,
        num_train_clips=0 if untrained else int(row["num_train_clips"] or 0),
        protocol=row.get("protocol") or "paper",
        evaluated_on=f"{os.path.abspath(lmdb_path)}, {row['num_timesteps']} frames" if lmdb_path else "",
        eval_data=row.get("eval_data", ""),
        arch=arch,
        model_depth=depth,
        num_classes=int(row.get("num_classes") or 0),
        held_out=validated in HELD_OUT,
    )
    record = RunFolder(folder).record()
    scores = {score: float(row[score]) for score in SCORES if row.get(score)} | {"val": figure_of(row)}
    finished = record is None or bool(record["finished"])
    return Run(setting, index, fold, folder, finished, scores, "" if untrained else validated, class_ap)


def experiment_of(cfg_file: str | None) -> str:
    """What a cfg's place says."""
    path = Path(cfg_file or "-")
    return f"{RECIPE} {path.stem}" if path.parent.name == RECIPE else path.parent.name or "-"


def validation_figures(folder: Path) -> list[float]:
    """Of every epoch, with all digits from metrics.csv, else as checkpoint names give them."""
    run = RunFolder(folder)
    logged = [float(row[name]) for row in run.epochs() if (name := figure_name(row))]
    named = [validation_figure(file) for file in run.checkpoint_files()]
    return [figure for figure in logged or named if math.isfinite(figure)]


def split_at_run_index(folder: Path) -> tuple[str, str]:
    """(what runs of one index share, the rest without the fold): `…/exp/r1` and `mixup/resnet_18`."""
    for parent in (folder, *folder.parents):
        if RUN_INDEX.fullmatch(parent.name):
            below = folder.relative_to(parent).parts
            return str(parent), "/".join(part for part in below if not FOLD.fullmatch(part))
    return str(folder), folder.name


def figure_of(row: Mapping[str, str]) -> float:
    """A row's validation figure, the lowest number where there is none."""
    return lowest_if_nan(float(row["val_figure"] or "nan"))


def network_name(arch: str, depth: str) -> str:
    """ResNet-18 and so on, or empty if no arch is known."""
    if arch == "efficientnet":
        return f"EfficientNet-{depth.upper()}"
    return f"{NETWORKS.get(arch, f'{arch} ')}{depth}" if arch else ""
