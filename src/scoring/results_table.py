"""Which checkpoints to score, and the rows of results.csv."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.runs.folder import best
from src.scoring.events.scores import EVENT_SCORES, EVENT_SCORES_PER_CLASS
from src.utils.files import file_behind
from src.utils.folders import files_in
from src.utils.locks import exclusive
from src.utils.tables import DIGEST, NUMBER, TIME, WHOLE_NUMBER, read_csv, write_csv

log = logging.getLogger(__name__)

KEY = ["ckpt_path", "lmdb_path", "num_timesteps"]  # what tells rows apart
SOURCES = ["eval_data", "labels_digest", "ckpt_digest"]  # what the files held that a row is of, whatever their names
FILLED = ("mAP", "mAUC", "dprime", "AP", "num_timesteps")  # columns without empty cells
KINDS = (
    dict.fromkeys(("mAP", "mAUC", "dprime", "accuracy", "top5", "val_figure", "AP", "AUC"), NUMBER)
    | dict.fromkeys(("threshold", "precision", "recall", "F1", "ece", *EVENT_SCORES, *EVENT_SCORES_PER_CLASS), NUMBER)
    | dict.fromkeys(("num_timesteps", "num_train_clips", "num_classes", "fold"), WHOLE_NUMBER)
    | {"evaluated": TIME, "weights_digest": DIGEST, "labels_digest": DIGEST, "ckpt_digest": DIGEST}
)

HELD_OUT = ("held-out training clips", "next fold")  # values of `validated_on`, where the scored clips chose nothing


def validated_on(record: Mapping[str, Any], eval_data: str) -> str:
    """Which clips chose among a run's checkpoints, in the column of that name. Empty where it is not known.

    Args:
        record: of the run.
        eval_data: fingerprint of the clips that are scored, or empty.
    """
    held_out, fold = record.get("validation") == "held_out", record.get("fold_index")
    if held_out:
        return HELD_OUT[fold is not None]
    if fold is not None:
        return "test fold"
    known = (record.get("data") or {}).get("val")
    return ("evaluation set" if known == eval_data else "validation set") if known and eval_data else ""


def find_checkpoints(exp_dir: str | Path) -> list[Path]:
    """All checkpoints of a run folder, of its `ckpts`, or of the run folders at any depth below `exp_dir`, sorted.

    Raises:
        UserError: as of `files_in`, or there are none.
    """
    files = files_in(exp_dir, {".ckpt"}, "checkpoints", others=False)
    found = [path for path in (Path(exp_dir, file) for file in files) if path.parent.name == "ckpts"]
    if not found:
        raise UserError(f"{exp_dir}: no checkpoints match ckpts/*.ckpt in it, at any depth. Is it a run folder?")
    return found


def best_of_each_run(checkpoints: Iterable[Path]) -> list[Path]:
    """Of each run folder, the first checkpoint with the highest validation figure."""
    runs = defaultdict(list)
    for checkpoint in checkpoints:
        runs[checkpoint.parent].append(checkpoint)
    return [best(run) for run in runs.values()]


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


def export_folder(export_dir: str | Path, checkpoint: Path) -> Path:
    """`<export_dir>/<two folders above ckpts/>`."""
    return Path(export_dir, *folders_above(checkpoint, 2))


def export_path(export_dir: str | Path, checkpoint: Path, mAP: float, dprime: float, num_classes: int) -> Path:  # noqa: N803
    """`<export_folder>/mAP=…_dprime=…_num_classes=….pth`."""
    return export_folder(export_dir, checkpoint) / f"mAP={mAP:.4f}_dprime={dprime:.4f}_num_classes={num_classes}.pth"


class ResultsTable:
    """A CSV of result rows, written as a whole whenever rows are added.

    Columns and rows that are in the file already are kept, and so are those that another process adds.

    Args:
        columns: to write, before those that the file has already.
        key: columns that tell measurements apart.
        part: a column that tells a measurement's rows apart, such as "class".
        needed: further columns that a file at `path` must have.

    Raises:
        UserError: the file at `path` is another kind of table, or is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str],
        key: Sequence[str] = KEY,
        part: str | None = None,
        needed: Sequence[str] = (),
    ):
        self.path, self.columns, self.needed = Path(path), list(columns), list(needed)
        self.measurement, self.key = list(key), [*key, *filter(None, [part])]
        self._read()

    def _read(self) -> None:
        self.rows = read_table(self.path, self.key, self.needed) if self.path.exists() else []
        self.columns = list(dict.fromkeys([*self.columns, *(self.rows[0] if self.rows else ())]))

    def get(self, **key: Any) -> dict[str, str] | None:
        """The first row with these cells, if there is one."""
        return next((row for row in self.rows if all(row[name] == str(key[name]) for name in key)), None)

    def put(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add all rows of a measurement, in place of its earlier ones, and write the file."""
        with exclusive(file_behind(self.path).parent):
            self._read()
            added = []
            for new in rows:
                row = self.get(**{name: new[name] for name in self.key}) or {}
                row.update({name: str(value) for name, value in new.items() if name in self.columns})
                added.append(row)
            measured = {_cells(row, self.measurement) for row in added}
            kept = [row for row in self.rows if row in added or _cells(row, self.measurement) not in measured]
            self.rows = kept + [row for row in added if row not in kept]
            write_csv(self.path, self.columns, self.rows)


def _cells(row: dict[str, str], columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(row[name] for name in columns)


def read_table(path: str | Path, key: Sequence[str] = KEY, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of a results CSV. Of several with the same key, the one evaluated last.

    Raises:
        UserError: no such file, not a table with these columns, or a cell that holds something else than it should.
    """
    rows = read_csv(path, "a results table", [*key, *needed], KINDS, FILLED)
    newest: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        former = newest.setdefault(_cells(row, key), row)
        if row.get("evaluated", "") >= former.get("evaluated", ""):
            newest[_cells(row, key)] = row
    if len(newest) < len(rows):
        log.warning("%s: %d of its rows are there twice. The one evaluated last counts", path, len(rows) - len(newest))
    return list(newest.values())
