"""The data set class that fits a storage, and the loader that makes batches of it."""

from __future__ import annotations

import os
import signal
import threading
from typing import Literal

from torch.utils.data import DataLoader

from src.config import AudioConfig, DataConfig
from src.data.batching import collate
from src.data.clip_dataset import ClipDataset
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset, LMDBDataset
from src.data.labels import LabelMap
from src.data.manifest_dataset import ManifestDataset
from src.data.sampling import EpochSampler
from src.data.transforms import Transform
from src.errors import UserError


def open_dataset(data: DataConfig, source: str, audio: AudioConfig, label_map: LabelMap,
                 target_type: Literal["multilabel", "multiclass"], transform: Transform, seed: int = 0,
                 fold: int | None = None, complement: bool = False) -> ClipDataset:
    """The data set class that fits where the clips are stored.

    Args:
        fold, complement: which records of an LMDB with folds; see `LMDBDataset`.
        The rest is `ClipDataset`'s.

    Raises:
        UserError: `source` cannot be opened, holds no clips, or has labels that the map lacks.
    """
    if data.is_lmdb:
        storage = InMemoryLMDBDataset if data.in_memory else LMDBDataset
        dataset = storage(source, audio, label_map, target_type, transform, seed, fold=fold, complement=complement)
    elif fold is None:
        dataset = ManifestDataset(source, audio, label_map, target_type, transform, seed)
    else:
        raise UserError(f"{source}: a manifest has no folds; they need data.is_lmdb: True")
    if len(dataset) == 0:
        raise UserError(f"{source}: holds no clips")
    return dataset


def loader(dataset: ClipDataset, sampler: EpochSampler, batch_size: int, num_workers: int, prefetch_factor: int = 4,
           drop_last: bool = False) -> DataLoader:
    """Batches of a data set."""
    return DataLoader(
        dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate,
        drop_last=drop_last, prefetch_factor=prefetch_factor if num_workers else None,
        persistent_workers=num_workers > 0, worker_init_fn=_leave_signals_to_the_parent,
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C, or SLURM's signals, reach every process; a loader worker that ended by it would break the step under way.

    The parent itself ends workers with SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
