"""The folder of one training run: what is in it, and which run may use it."""

import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.utils.tables import NUMBER, WHOLE_NUMBER, read_csv
from src.utils.text import read_json

log = logging.getLogger(__name__)

CHECKPOINT_NAME = re.compile(
    r"epoch=(?P<epoch>\d+)_train_loss=(?P<train_loss>[^_]+)_val_(?:psds|mAP|acc)=(?P<figure>.+?)(?:-v\d+)?\.ckpt"
)
FIGURES = ("val_psds", "val_mAP", "val_acc")  # of validation. The first that a run has chooses its best checkpoint
COLUMNS = ("epoch", "step", "lr", "train_loss", "val_loss", *FIGURES)  # of metrics.csv
KINDS = dict.fromkeys(COLUMNS, NUMBER) | {"epoch": WHOLE_NUMBER}
PLACES = {
    f"cfg.data.{name}"
    for name in (
        "label_map",
        "isolated_events",
        "backgrounds",
        *(f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("lmdb", "manifest")),
    )
} | {"cfg.model.pretrained", "cfg.opt.teacher"}


@dataclass(frozen=True)
class RunFolder:
    """`<expdir>/` of one training run: `ckpts/`, `logs/` and the run's record, `run.json`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "ckpts"

    @property
    def resume_file(self) -> Path:
        """The state within an epoch, or of one whose checkpoint `--keep` does not keep."""
        return self.path / "resume.ckpt"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    def record(self) -> dict[str, Any] | None:
        """What `run.json` says, or None in a new folder."""
        try:
            if self.record_file.exists() and not self.record_file.is_file():  # a FIFO would be waited for
                raise ValueError("it is no plain file")
            record = read_json(self.record_file)
            if not all(isinstance(record[name], kind) for name, kind in (("cfg", dict), ("seed", int))):
                raise TypeError("cfg or seed is of another type")
            if not 0 <= record["seed"] < 2**64:
                raise ValueError("its seed is outside 0 to 2^64 - 1")
            for name, kind in (("finished", dict), ("data", dict), ("resumed", list)):
                if not isinstance(record.get(name) or kind(), kind):
                    raise TypeError(f"{name} is of another type")
            before = {"finished": None, "validation": "published", "sync_batchnorm": False}  # where it does not say
            return before | record
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.record_file}: is not a run's record ({error}). Choose another --expdir") from None

    @property
    def metrics_file(self) -> Path:
        return self.logs / "metrics.csv"

    def epochs(self) -> list[dict[str, str]]:
        """Rows of metrics.csv, if there is one."""
        if not self.metrics_file.exists():
            return []
        rows = read_csv(self.metrics_file, "a run's table of epochs", COLUMNS[:5], KINDS, ("epoch",))
        for name in rows[0] if rows else ():
            if name not in COLUMNS:
                raise UserError(f"{self.metrics_file}: has a column '{name}', which no run's table of epochs has")
        return rows

    def checkpoint_files(self) -> list[Path]:
        """Checkpoints under their published names, by epoch."""
        found = [file for file in self.checkpoints.glob("*.ckpt") if CHECKPOINT_NAME.fullmatch(file.name)]
        return sorted(found, key=lambda file: (epoch_of(file), file.name))


def epoch_of(checkpoint: Path) -> int | None:
    """The epoch in a checkpoint's name."""
    match = CHECKPOINT_NAME.fullmatch(checkpoint.name)
    return int(match["epoch"]) if match else None


def validation_figure(checkpoint: Path) -> float:
    """A checkpoint's validation figure: from its run's metrics.csv, else the rounded one in its name, else NaN."""
    match = CHECKPOINT_NAME.fullmatch(checkpoint.name)
    if not match:
        return math.nan
    for row in RunFolder(checkpoint.parent.parent).epochs():
        if int(row["epoch"]) == int(match["epoch"]):
            name = figure_name(row)
            return float(row[name]) if name else math.nan
    try:
        return float(match["figure"])
    except ValueError:
        return math.nan


def figure_name(row: Mapping[str, str]) -> str | None:
    """The validation figure of an epoch that chooses the best checkpoint, if the row has any."""
    return next((name for name in FIGURES if row.get(name)), None)


def best(checkpoints: Iterable[Path]) -> Path:
    """The first of a run's checkpoints with the highest validation figure."""
    return max(checkpoints, key=lambda checkpoint: lowest_if_nan(validation_figure(checkpoint)))


def lowest_if_nan(figure: float) -> float:
    """The figure, or the lowest number for NaN, which compares with nothing."""
    return -math.inf if math.isnan(figure) else figure


def checkpoint_at(path: str | Path) -> Path:
    """The checkpoint that a path means: a run folder's best one, or the file itself.

    Raises:
        UserError: a folder without a run's checkpoints.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = RunFolder(path.parent if path.name == "ckpts" else path).checkpoint_files()
    if not found:
        raise UserError(f"{path}: is a folder without checkpoints, ckpts/epoch=….ckpt. Is it a run folder?")
    chosen = best(found)
    log.info("%s: its best checkpoint is %s", path, chosen.name)
    return chosen


def require_same_run(folder: RunFolder, earlier: dict[str, Any] | None, settings: dict[str, Any]) -> None:
    """Refuse a folder that belongs to a run of other settings.

    Args:
        earlier: the folder's record, if it has one.
        settings: what of a record must be the same.
    """
    folder.epochs()  # a damaged table is refused now, not after an epoch
    if earlier is None:
        if folder.checkpoint_files():
            raise UserError(
                f"{folder.checkpoints}: holds checkpoints, but no {folder.record_file.name} beside it says "
                "of which run. Choose another --expdir"
            )
        return
    now = without_folders(flattened(settings))
    then = without_folders(flattened({name: earlier[name] for name in settings if name in earlier}))
    for name in ["validation", *sorted(now)]:  # which decides other settings too
        if name in then and now.get(name) != then[name]:
            raise UserError(
                f"{folder.path}: belongs to another run, with {name.removeprefix('cfg.')} "
                f"{then.get(name)!r} instead of {now.get(name)!r}. Choose another --expdir"
            )


def without_folders(flat: dict[str, Any]) -> dict[str, Any]:
    """Settings with the names of data files alone: data may be moved while a run is under way."""
    return {
        name: os.path.basename(value) if name in PLACES and isinstance(value, str) else value
        for name, value in flat.items()
        if name != "cfg.data.meta_root"
    }


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
