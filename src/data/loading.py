"""The data set class that fits a storage, and the loader that makes batches of it."""

import functools
import gc
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from src.config.sections import Config
from src.data.batching import Batch, message_of, unchanged
from src.data.clip_dataset import ClipDataset
from src.data.device_features import Features, makes_features
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset, LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.fingerprint import known_fingerprint
from src.data.lmdb.store import data_file
from src.data.manifest_dataset import ManifestDataset
from src.data.sampling import EpochSampler
from src.data.shared_buffers import SharedBuffers
from src.data.soundscapes.dataset import SoundscapeDataset, known_source_fingerprint
from src.data.transforms import Transform
from src.errors import UserError
from src.utils.limits import KILLED, starting, usable_workers
from src.utils.memory import keep_freed_memory


def open_dataset(
    config: Config,
    source: str,
    label_map: LabelMap,
    transform: Transform,
    seed: int = 0,
    *,
    is_lmdb: bool | None = None,
    **of_lmdbs: Any,
) -> ClipDataset:
    """The data set class that fits where the clips are stored.

    Args:
        source: an LMDB or a manifest.
        is_lmdb: which of them it is, by default as `data.is_lmdb` says.
        of_lmdbs: fold, held_out, complement, skip_bad_records, cache_samples, num_workers of `LMDBDataset`.
        The rest is `ClipDataset`'s.

    Raises:
        UserError: `source` cannot be opened, holds no clips, or has labels that the map lacks.
    """
    common = source, config.audio_config, label_map, config.model.type, transform, seed
    if config.data.is_lmdb if is_lmdb is None else is_lmdb:
        dataset = (InMemoryLMDBDataset if config.data.in_memory else LMDBDataset)(*common, **of_lmdbs)
        if len(dataset) == 0:
            raise UserError(f"{source}: holds no clips")
        return dataset
    _require_lmdb_for(of_lmdbs, f"{source}: is a manifest", " (data.is_lmdb: True)")
    return ManifestDataset(*common)


def open_training_set(
    config: Config, label_map: LabelMap, transform: Transform, seed: int = 0, *, num_workers: int = 1, **of_lmdbs: Any
) -> ClipDataset:
    """What a configuration trains on: stored clips, as `open_dataset` opens them, or new soundscapes in every epoch.

    Raises:
        UserError: as of `open_dataset`, or of `SoundscapeDataset`.
    """
    source = config.data.source("train")
    if not config.data.isolated_events:
        return open_dataset(config, source, label_map, transform, seed, num_workers=num_workers, **of_lmdbs)
    _require_lmdb_for(of_lmdbs, f"{source}: clips are mixed of it")
    common = config.audio_config, label_map, config.model.type, transform, seed
    return SoundscapeDataset(config.data, *common, num_workers=num_workers)


def known_data(config: Config) -> dict[str, str | None]:
    """Split -> fingerprint of its clips, of those that are stored in LMDBs, as far as notes beside these say."""
    data = config.data
    files = {split: data_file(data.source(split)) for split in ("train", "val")} if data.is_lmdb else {}
    known = {split: known_fingerprint(file) for split, file in files.items() if file.is_file()}
    if data.isolated_events:
        known["train"] = known_source_fingerprint(data, config.audio_config.sample_rate)
    return known


def _require_lmdb_for(of_lmdbs: dict[str, Any], why_not: str, more: str = "") -> None:
    names = {"fold": "folds", "held_out": "--protocol held_out"}
    for option in "fold", "held_out", "skip_bad_records", "cache_samples":
        if of_lmdbs.get(option) not in (None, False):
            name = names.get(option, f"--{option}")
            raise UserError(f"{why_not}, and {name} are for LMDBs{more}")


DESCRIPTORS = 4  # that each worker keeps open in the main process


class Workers(_MultiProcessingDataLoaderIter):
    """PyTorch's loader workers, of which all start or none."""

    def __init__(self, loader: DataLoader):
        try:
            with starting(f"--num_workers {loader.num_workers}"):
                super().__init__(loader)
        except BaseException:
            self._shutdown = True  # or PyTorch would look for those that it did not start, and print a traceback
            raise

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except (ConnectionError, EOFError) as error:
            if str(error).startswith("Caught "):  # in the worker, where PyTorch makes text of it
                raise
            raise UserError(KILLED) from error  # while it was sending


class Loader(DataLoader):
    """PyTorch's loader with these workers. What a device holds is chosen one batch ahead, in a thread."""

    def _get_iterator(self) -> Any:
        if self.num_workers:
            return Workers(self)
        batches = super()._get_iterator()
        return batches if getattr(self.dataset, "held", None) is None else one_ahead(batches)


def one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, batches, None)
            yield batch


def batches_on(
    device: torch.device,
    dataset: ClipDataset,
    sampler: EpochSampler,
    batch_size: int,
    num_workers: int,
    features: Features,
    **more: Any,
) -> DataLoader:
    """A loader for a network on a device, where the data set's samples may come to lie.

    Args:
        features: where spectrograms are made.
        more: arguments of `loader`.

    Raises:
        UserError: samples are to lie on the device, and spectrograms to be made or kept elsewhere. Or as of `loader`.
    """
    if dataset.cache_on_device:
        precomputed = dataset.audio.precompute_features
        if features == "workers" or precomputed:
            other = "audio_config.precompute_features" if precomputed else "--features workers"
            raise UserError(
                f"--cache_samples device: spectrograms are made there, and not as {other} says. Leave one out"
            )
        assert isinstance(dataset, LMDBDataset)
        dataset.hold(device, sampler, num_workers)
    dataset.on_device = makes_features(device, features, dataset.audio.precompute_features)
    return loader(dataset, sampler, batch_size, num_workers, device=device, **more)


def loader(
    dataset: ClipDataset,
    sampler: Any,
    batch_size: int,
    num_workers: int,
    prefetch_factor: int = 4,
    drop_last: bool = False,
    device: torch.device | None = None,
) -> DataLoader:
    """Batches of a data set, in memory that a GPU copies from without waiting where `device` is one.

    Raises:
        CannotStart: the system does not allow so many workers.
    """
    held = getattr(dataset, "held", None) is not None
    pin_memory = not held and device is not None and device.type == "cuda"
    if held or not usable_workers(num_workers, DESCRIPTORS):
        return Loader(
            dataset, batch_size, sampler=sampler, drop_last=drop_last, collate_fn=unchanged, pin_memory=pin_memory
        )
    buffers = SharedBuffers(num_workers)
    return Loader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=drop_last,
        collate_fn=functools.partial(message_of, buffers),
        prefetch_factor=prefetch_factor,
        persistent_workers=True,
        worker_init_fn=functools.partial(start_worker, buffers),
        pin_memory=pin_memory,
    )


def start_worker(buffers: SharedBuffers, worker: int) -> None:
    """What each loader worker does first."""
    _leave_signals_to_the_parent()
    buffers.start_worker(worker)
    gc.freeze()  # looking through all that was imported, again and again, takes time and makes copies of shared pages
    keep_freed_memory()


def _leave_signals_to_the_parent() -> None:
    """Ctrl-C, or SLURM's signals, reach every process. A loader worker that ended by it would break the step under way.

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
