"""The record of a run, `run.json`: the one place that fills it in and writes it."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from src.data.clip_dataset import ClipDataset
from src.errors import UserError
from src.runs.folder import RunFolder, best
from src.runs.provenance import DeterminismWarnings, changes
from src.utils.files import whole_file
from src.utils.processes import is_first

log = logging.getLogger(__name__)


class RunRecord(Callback):
    """What one run is and how it went: settings, starts, data, what may keep it from being repeated, its end.

    Every checkpoint carries it as `hyper_parameters`. Of several processes, the first one alone writes the file.
    Fingerprints that take a pass through a file are waited for when the first checkpoint is written.

    Args:
        folder: of the run.
        earlier: the folder's record where the run is resumed.
        settings: what has to be the same in every start.
        start: this start, from `src.runs.provenance.provenance`.
    """

    def __init__(
        self,
        folder: RunFolder,
        earlier: Mapping[str, Any] | None,
        settings: Mapping[str, Any] | None = None,
        start: Mapping[str, Any] | None = None,
    ):
        self.folder = folder
        self.earlier = earlier or {}
        self._nondeterministic: list[str] = list(self.earlier.get("nondeterministic", []))
        self.warnings = DeterminismWarnings(self.note_nondeterminism)
        self._sets: dict[str, ClipDataset] = {}
        if earlier is None:
            self._content = {**(start or {}), **(settings or {}), "resumed": []}
        else:
            starts = [earlier, *earlier.get("resumed", []), *([start] if start else [])]
            self._content = {**earlier, "resumed": starts[1:]}
            if len(starts) > 1:
                self.note_nondeterminism(*changes(*starts[-2:]))
        self._content |= {"finished": None, "nondeterministic": self._nondeterministic}

    def note_nondeterminism(self, *causes: str) -> None:
        """Add what may keep the run from being repeated to the last bit."""
        self._nondeterministic += [cause for cause in dict.fromkeys(causes) if cause not in self._nondeterministic]

    def describe_data(self, train: ClipDataset, val: ClipDataset) -> None:
        """Note the sets' sizes, skipped records and fingerprints, as far as these are known.

        Raises:
            UserError: the run was on other records.
        """
        self._sets = {"train": train, "val": val}
        self._content["num_train_clips"] = len(train)
        self._content["skipped"] = {split: dataset.skipped for split, dataset in self._sets.items()}
        if is_first():
            self.identify({split: dataset.fingerprint(wait=False) for split, dataset in self._sets.items()})

    def identify(self, fingerprints: dict[str, str | None]) -> None:
        """Note the fingerprints of train and val, as far as they are known.

        Raises:
            UserError: the run was on other records.
        """
        for split, found in fingerprints.items():
            known = (self.earlier.get("data") or {}).get(split)
            if known and found and known != found:
                raise UserError(
                    f"{self.folder.path}: belongs to a run on other {split} data, with fingerprint {known[:12]}… "
                    f"instead of {found[:12]}…. Choose another --expdir"
                )
        self._content["data"] = fingerprints

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._sets and is_first():
            self.identify({split: dataset.fingerprint() for split, dataset in self._sets.items()})
            self._sets = {}
            self.write()
        checkpoint["hyper_parameters"] = self._content

    def finish(self, epochs: int, early: bool, seconds: float | None = None) -> dict[str, Any]:
        """Write that the run has ended, after so many epochs, by early stopping or not, and give what was written.

        Args:
            seconds: that it has trained and validated for, where that is known.
        """
        reason = f"early stopping after {epochs} epochs" if early else f"{epochs} epochs"
        finished = {"epochs": epochs, "early": early, "reason": reason, "seconds": seconds and round(seconds, 1)}
        self.write(finished)
        kept = self.folder.checkpoint_files()
        log.info("%s: finished (%s)%s", self.folder.path, reason, f". The best: {best(kept).name}" if kept else "")
        return finished

    def write(self, finished: dict[str, Any] | None = None) -> None:
        """Replace `run.json`."""
        if is_first():
            with whole_file(self.folder.record_file) as temporary:
                text = json.dumps(self._content | {"finished": finished}, indent=2, ensure_ascii=False)
                temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # as JSON escapes them
