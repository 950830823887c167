"""Which records a run stands on: found out while it trains, and compared before anything is kept of it."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from src.data.datamodule import ClipDataModule
from src.runs.folder import RunFolder, require_same_data


class DataIdentity(Callback):
    """Puts the fingerprints of the training and validation sets into the run's record.

    Those that take a pass through a file are found in the background, and waited for when the first checkpoint is
    written; the rest at once.

    Args:
        folder: of the run.
        earlier: the record of the run that goes on, if one does.
        record: the run's; filled in, and written to the folder.
        data: the sets.

    Raises:
        UserError: at once or with the first checkpoint, for other records than the earlier run's.
    """

    def __init__(self, folder: RunFolder, earlier: dict[str, Any] | None, record: dict[str, Any], data: ClipDataModule):
        self.folder, self.earlier, self.record = folder, earlier, record
        self.sets = {"train": data.train_set, "val": data.val_set}
        self.complete = False
        self._compare({split: dataset.known_fingerprint() for split, dataset in self.sets.items()})

    def _compare(self, found: dict[str, str | None]) -> None:
        require_same_data(self.folder, self.earlier, {split: one for split, one in found.items() if one})
        self.record["data"] = found

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero and not self.complete:
            self._compare({split: dataset.fingerprint() for split, dataset in self.sets.items()})
            self.complete = True
            self.folder.write_record(self.record)
