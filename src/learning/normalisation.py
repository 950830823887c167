"""The mean and the deviation of a training set's log-mels, measured once for all runs on it."""

import functools
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from src.config.sections import Config
from src.data.audio.spectrogram import FeatureExtractor
from src.data.clip_dataset import ClipDataset
from src.data.labels import LabelMap
from src.data.lmdb.notes import FileState, recall, remember
from src.data.lmdb.store import data_file
from src.data.loading import open_training_set
from src.data.transforms import Compose
from src.errors import UserError
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

NOTE = "logmel"
MOST = 10_000  # clips that are measured, evenly spread


def normalised(
    config: Config,
    label_map: LabelMap,
    seed: int,
    num_workers: int,
    fold: int | None = None,
    held_out: bool = False,
    **of_lmdbs: Any,
) -> Config:
    """The configuration with `audio_config.mean` and `std`, in dB, if it is one of log-mels without them.

    They are over all bands and frames of the training clips, to 1e-4 dB. A note beside an LMDB keeps them, for each
    setting of the features and each fold.

    Args:
        seed: of soundscapes that are made anew in every epoch.
        num_workers: processes.
        fold: of `open_dataset`, and so is `held_out`. The clips that are trained on are measured.
        of_lmdbs: of `open_dataset`.

    Raises:
        UserError: the clips cannot be opened or decoded, or are all silent.
    """
    if config.audio_config.feature != "logmel" or config.audio_config.mean is not None:
        return config
    source, file = config.data.source("train"), data_file(config.data.source("train"))
    stored = config.data.is_lmdb and not config.data.isolated_events and file.is_file()
    state = FileState.of(file) if stored else None
    key = f"{FeatureExtractor.of(config.audio_config)}, fold {fold}{', held out' * held_out}"
    kept = recall(state, NOTE) if state else None
    kept = kept if isinstance(kept, dict) else {}
    with suppress(LookupError, TypeError, ValueError, OverflowError):  # of a note that somebody else wrote
        mean, std = map(float, kept[key])
        return normalised_by(config, mean, std)
    raw = replace(config, audio_config=replace(config.audio_config, precompute_features=False))
    of_lmdbs |= {"fold": fold, "held_out": held_out, "complement": True, "num_workers": num_workers}
    dataset = open_training_set(raw, label_map, Compose(()), seed, **of_lmdbs)
    mean, std = measure(dataset, num_workers)
    if not std:
        raise UserError(
            f"{source}: its clips are all silent, or all alike. Choose others, or set audio_config.mean and std"
        )
    log.info("%s: the log-mels have a mean of %g dB and a deviation of %g dB", source, mean, std)
    if state:
        remember(state, NOTE, kept | {key: [mean, std]})
    return normalised_by(config, mean, std)


def normalised_by(config: Config, mean: float | None, std: float | None) -> Config:
    """The configuration with another mean and deviation.

    Raises:
        ValueError: they are beyond the limits of the configuration.
    """
    return replace(config, audio_config=replace(config.audio_config, mean=mean, std=std))


def measure(dataset: ClipDataset, num_workers: int) -> tuple[float, float]:
    """Mean and standard deviation of the features of up to `MOST` clips, to 4 decimals."""
    clips = np.linspace(0, len(dataset) - 1, min(len(dataset), MOST)).astype(int).tolist()
    sums = map_in_processes(
        functools.partial(_sums, dataset), clips, num_workers, "level of the training clips", unit="clip", chunk=16
    )
    count, total, squares = np.sum(list(sums), axis=0)
    mean = float(total / count)
    return round(mean, 4), round(float(np.sqrt(max(squares / count - mean**2, 0))), 4)


def _sums(dataset: ClipDataset, index: int) -> tuple[int, float, float]:
    """How many values a clip's features are, their sum and that of their squares."""
    values = dataset.features.scratch(dataset.sound(0, index)[0]).astype(np.float64)
    return values.size, values.sum(), np.square(values).sum()
