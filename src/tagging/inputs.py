"""Recordings of any length and rate -> what a network gets of their windows, made here or in workers beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from src.data.audio.opening import opened
from src.data.audio.recording import Recording
from src.data.audio.spectrogram import FeatureExtractor
from src.data.audio.windows import resampled_length, windows
from src.data.batching import rows_for
from src.data.shared_buffers import Message, SharedBuffers
from src.data.transforms import Transform, View, evaluation_chain
from src.errors import UserError
from src.tagging.frames import aligned_starts
from src.tagging.recordings import window_starts
from src.utils.limits import usable_workers

PICTURE_COLUMNS = 2000  # of the spectrogram drawn, whatever the recording's length
UNUSED = np.random.default_rng(0)  # the evaluation chain draws nothing
AHEAD = 8  # pieces that each worker prepares


class Length(NamedTuple):
    """How long a recording is, before anything of it is read."""

    frames: int  # samples of a channel
    sample_rate: int  # Hz


class Piece(NamedTuple):
    """A few windows of a recording, one after the other."""

    inputs: torch.Tensor  # (B, 1, F, T) float32
    pictures: list[np.ndarray]  # of each window (F, columns) dB, what is drawn of it


@dataclass(frozen=True)
class Inputs:
    """How recordings are cut into windows, and what a network sees of these: what it sees in evaluation.

    Args:
        features: of the network's sample rate.
        window, hop: samples at this rate.
        batch_size: windows in a piece.
        stride: columns of a frame of events. Windows begin where a frame does then. None for taggers.
        drawn: whether what is drawn of the spectrograms is wanted.
    """

    features: FeatureExtractor
    window: int
    hop: int
    batch_size: int
    stride: int | None = None
    drawn: bool = True

    @property
    def step(self) -> int:
        """Samples of a frame."""
        return (self.stride or 1) * self.features.hop_len

    @cached_property
    def transform(self) -> Transform:
        """As in evaluation: all frames of log-mels, and of others those that the published evaluation scores."""
        features = self.features
        whole = features.num_frames(self.window) if features.feature == "logmel" else self.window // features.hop_len
        return evaluation_chain(max(whole, 1))

    def num_samples(self, length: Length) -> int:
        """N of a recording at the network's sample rate."""
        return resampled_length(length.frames, length.sample_rate, self.features.sample_rate)

    def starts(self, num_samples: int) -> np.ndarray:
        """(W,) where the windows of so many samples begin, in samples. The last one ends with the recording."""
        if self.stride:
            return np.array(aligned_starts(num_samples, self.window, self.hop, self.step))
        return np.array(window_starts(num_samples, self.window, self.hop))

    def times(self, length: Length) -> tuple[np.ndarray, np.ndarray]:
        """(W,) starts and (W,) ends of a recording's windows, in s."""
        num_samples, rate = self.num_samples(length), self.features.sample_rate
        starts = self.starts(num_samples)
        return starts / rate, np.minimum(starts + self.window, num_samples) / rate

    def pieces(self, recording: Recording) -> Iterator[Piece]:
        """All windows of a recording, a few at a time.

        Raises:
            UserError: as of `Recording`.
        """
        num_samples, hop_len = self.num_samples(Length(recording.frames, recording.samplerate)), self.features.hop_len
        starts = self.starts(num_samples)
        bounds = np.append(starts, num_samples)  # each window is drawn up to where the next one begins
        columns = np.round(bounds / num_samples * PICTURE_COLUMNS).astype(int)
        samples = windows(recording, map(int, starts), self.window, self.features.sample_rate)
        for first in range(0, len(starts), self.batch_size):
            here = range(first, min(first + self.batch_size, len(starts)))
            spectrograms = [self.features(self._filled(next(samples), len(starts))) for _ in here]
            pictures = [
                maxima(spectrogram[:, : max((bounds[k + 1] - bounds[k]) // hop_len, 1)], columns[k + 1] - columns[k])
                for k, spectrogram in zip(here, spectrograms)
                if self.drawn
            ]
            yield Piece(self.seen(spectrograms), pictures)

    def seen_of_window(self, samples: np.ndarray) -> torch.Tensor:
        """(1, 1, F, T) of the (≤ window,) samples of one of several windows."""
        return self.seen([self.features(self._filled(samples, num_windows=2))])

    def _filled(self, samples: np.ndarray, num_windows: int) -> np.ndarray:
        """A window's samples. What the last one of several may lack to begin with a frame is silent."""
        return np.pad(samples, (0, self.window - len(samples) if self.stride and num_windows > 1 else 0))

    def seen(self, spectrograms: Sequence[np.ndarray]) -> torch.Tensor:
        """(B, 1, F, T) of B spectrograms, through the evaluation chain."""
        views = [self.transform.view(View.whole(*spectrogram.shape), UNUSED) for spectrogram in spectrograms]
        rows = rows_for(views)
        for row, spectrogram, view in zip(rows.numpy(), spectrograms, views):
            view.of(spectrogram, row[0, :, : view.size])
        return rows


class _Files(IterableDataset):
    """Of each file its number with, one after the other, its length, its pieces and None, or what is wrong with it."""

    def __init__(self, inputs: Inputs, files: Sequence[Path]):
        self.inputs, self.files = inputs, files

    def __iter__(self) -> Iterator[tuple[int, Length | Piece | UserError | None]]:
        worker = get_worker_info()
        for number in range(worker.id if worker else 0, len(self.files), worker.num_workers if worker else 1):
            try:
                with opened(self.files[number]) as recording:
                    yield number, Length(recording.frames, recording.samplerate)
                    for piece in self.inputs.pieces(recording):
                        yield number, piece
                yield number, None
            except UserError as error:
                yield number, error


def pieces_of_files(
    inputs: Inputs, files: Sequence[Path], num_workers: int
) -> Iterator[tuple[int, Length | Piece | UserError | None]]:
    """What `_Files` gives of every file. Each worker has a file of its own in work, and they take turns.

    Args:
        num_workers: processes, or 0 to read in this one.

    Raises:
        CannotStart: the system does not allow so many.
    """
    if not num_workers:
        return iter(_Files(inputs, files))
    from src.data.loading import DESCRIPTORS, Loader, start_worker  # which need lmdb, and one file does not

    workers = min(usable_workers(num_workers, DESCRIPTORS), len(files))
    if not workers:
        return iter(_Files(inputs, files))
    buffers = SharedBuffers(workers)
    return iter(
        Loader(
            _Files(inputs, files),
            batch_size=None,
            num_workers=workers,
            collate_fn=partial(_sent, buffers),
            prefetch_factor=AHEAD,
            worker_init_fn=partial(start_worker, buffers),
        )
    )


def _sent(buffers: SharedBuffers, item: tuple[int, Any]) -> tuple[int, Any]:
    """In a worker: what it sends of an item."""
    number, what = item
    return number, Message(Piece, (buffers.message(what.inputs), what.pictures)) if isinstance(what, Piece) else what


def maxima(spectrogram: np.ndarray, columns: int) -> np.ndarray:
    """(F, columns) of a (F, T) spectrogram, each column the maximum of the frames that it covers, at least of one."""
    return np.maximum.reduceat(spectrogram, np.arange(columns) * spectrogram.shape[1] // max(columns, 1), axis=1)
