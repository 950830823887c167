"""Which checkpoints to score, and the rows of results.csv."""

import csv
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.runs.folder import validation_figure
from src.utils.files import write_csv
from src.utils.locks import exclusive


def find_checkpoints(exp_dir: str | Path, levels: int) -> list[Path]:
    """All checkpoints `levels` folders below `exp_dir`, sorted.

    Raises:
        UserError: no such folder, or none in it.
    """
    exp_dir = Path(exp_dir)
    if not exp_dir.is_dir():
        raise UserError(f"{exp_dir}: no such experiment folder")
    pattern = "/".join(["*"] * levels + ["ckpts", "*.ckpt"])
    found = sorted(exp_dir.glob(pattern))
    if not found:
        raise UserError(f"{exp_dir}: no checkpoints match {pattern} in it. Is it the folder of one run index (…/r1)?")
    return found


def best_of_each_run(checkpoints: Iterable[Path]) -> list[Path]:
    """Of each run folder, the first checkpoint with the highest validation figure."""
    runs = defaultdict(list)
    for checkpoint in checkpoints:
        runs[checkpoint.parent].append(checkpoint)
    return [max(run, key=lambda checkpoint: lowest_if_nan(validation_figure(checkpoint))) for run in runs.values()]


def lowest_if_nan(figure: float) -> float:
    """The figure, or the lowest number for NaN, which compares with nothing."""
    return -math.inf if math.isnan(figure) else figure


def folders_above(checkpoint: Path, count: int) -> tuple[str, ...]:
    """Names of the folders above `ckpts/`, the nearest last. Empty where there are fewer.

    A link's own name counts, not its target's.
    """
    folders = Path(os.path.abspath(checkpoint)).parts[1:-2]
    return (("",) * count + folders)[-count:]


def row_name(checkpoint: Path, levels: int) -> dict[str, str]:
    """The columns of results.csv that say which run a checkpoint is of.

    With two levels (`<run>/<group>/<model>/ckpts`) `Model` is the run's own folder. With three
    (`<run>/<group>/<model>/<train set>/ckpts`) it is `<run>/<model>/<train set>`.
    """
    run, _, model, train_set = folders_above(checkpoint, 4)
    if levels == 2:
        return {"Model": train_set}
    return {"Model": "/".join((run, model, train_set)), "run": run, "train_set": train_set}


def export_path(export_dir: str | Path, checkpoint: Path, mAP: float, dprime: float, num_classes: int) -> Path:  # noqa: N803
    """`<export_dir>/<two folders above ckpts/>/mAP=…_dprime=…_num_classes=….pth`."""
    group, run = folders_above(checkpoint, 2)
    return Path(export_dir) / group / run / f"mAP={mAP:.4f}_dprime={dprime:.4f}_num_classes={num_classes}.pth"


class ResultsTable:
    """A CSV of result rows, told apart by `key`, and written as a whole whenever rows are added.

    Columns and rows that are in the file already are kept, and so are those that another process adds.

    Raises:
        UserError: the file at `path` is another kind of table.
    """

    def __init__(self, path: str | Path, columns: Sequence[str], key: Sequence[str]):
        self.path, self.key, self.columns = Path(path), list(key), list(columns)
        self._read()

    def _read(self) -> None:
        self.rows = read_table(self.path, self.key) if self.path.exists() else []
        self.columns = list(dict.fromkeys([*self.columns, *(self.rows[0] if self.rows else ())]))

    def get(self, **key: Any) -> dict[str, str] | None:
        """The row with that key, if there is one."""
        return next((row for row in self.rows if all(row[name] == str(key[name]) for name in self.key)), None)

    def put(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows, in place of those with the same key, and write the file."""
        with exclusive(self.path.parent):
            self._read()
            for new in rows:
                row = self.get(**{name: new[name] for name in self.key})
                if row is None:
                    row = {}
                    self.rows.append(row)
                row.update({name: str(value) for name, value in new.items() if name in self.columns})
            write_csv(self.path, self.columns, self.rows)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Rows of a results CSV.

    Raises:
        UserError: no such file, or not a table with these columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            found = reader.fieldnames or []
    except FileNotFoundError:
        raise UserError(f"{path}: no such results table") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV table ({error})") from None
    missing = [name for name in columns or () if name not in found]
    if missing:
        raise UserError(f"{path}: is a table without the column '{missing[0]}'. Choose another file")
    ragged = [number for number, row in enumerate(rows, 1) if None in row or None in row.values()]
    if ragged:
        raise UserError(f"{path}: its row {ragged[0]} has another number of columns than its head. Is it damaged?")
    return rows
