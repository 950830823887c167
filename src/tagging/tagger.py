"""Recordings of any length, rate and number of channels -> scores of every window and class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from src.data.audio.opening import opened
from src.data.audio.recording import Recording
from src.data.audio.spectrogram import FeatureExtractor
from src.data.audio.windows import resampled_length, windows
from src.data.batching import rows_for
from src.data.transforms import View, evaluation_chain
from src.errors import UserError
from src.learning.tasks import build_task
from src.models.checkpoint import read_checkpoint
from src.runs.folder import checkpoint_at
from src.tagging.recordings import window_starts
from src.utils.memory import keep_freed_memory
from src.utils.progress import progress

BATCH = 2  # windows at a time: more are hardly faster on a CPU, and take more memory
PICTURE_COLUMNS = 2000  # of the spectrogram drawn, whatever the recording's length


@dataclass(frozen=True)
class Tagged:
    """The scores of one recording."""

    path: Path
    starts: np.ndarray  # (W,) s
    ends: np.ndarray  # (W,) s
    scores: np.ndarray  # (W, C) probabilities
    picture: np.ndarray  # (F, PICTURE_COLUMNS) dB, the recording's spectrogram, evenly over time

    @property
    def strongest_scores(self) -> np.ndarray:
        """(C,) each class's score in its strongest window."""
        return self.scores.max(axis=0)

    def strongest(self, top_k: int) -> np.ndarray:
        """(top_k,) indices of the classes with the highest scores of any window, the highest first."""
        return np.argsort(-self.strongest_scores, kind="stable")[:top_k]


class Tagger:
    """A checkpoint's network over windows of recordings, as in evaluation.

    Args:
        checkpoint: a `.ckpt`, or a run folder, whose best one is taken.
        lbl_map: by default the label map that the checkpoint carries.
        window, hop: seconds.

    Raises:
        UserError: the checkpoint or the label map do not fit.
    """

    def __init__(self, checkpoint: str | Path, lbl_map: str | None = None, window: float = 5.0, hop: float = 2.5):
        content = read_checkpoint(checkpoint_at(checkpoint))
        self.label_map = content.classes(lbl_map)
        audio = content.config.audio_config
        self.sample_rate = audio.sample_rate
        self.window = max(round(window * audio.sample_rate), 1)  # samples
        self.hop = max(round(hop * audio.sample_rate), 1)  # samples
        self.features = FeatureExtractor.of(audio)
        self.transform = evaluation_chain(max(self.window // audio.hop_len, 1))
        self.network = content.network().eval()
        self.task = build_task(content.config)
        self.decisions, self.temperature = content.decisions, content.temperature
        keep_freed_memory()
        try:
            self._scores([np.zeros((self.features.num_bins, 1), dtype=np.float32)])
        except RuntimeError as error:
            raise UserError(f"--window {window:g}: is too short for the network of {checkpoint} ({error})") from None

    def __call__(self, path: str | Path) -> Tagged:
        """Score one recording, a few windows at a time.

        Raises:
            UserError: it cannot be opened, or not read to its end.
        """
        with opened(path) as recording:
            return self._tagged(recording, Path(path))

    def _tagged(self, recording: Recording, path: Path) -> Tagged:
        length = resampled_length(recording, self.sample_rate)
        starts = np.array(window_starts(length, self.window, self.hop))  # samples
        # Results are laid out at once: small arrays kept from every window would fragment the memory.
        scores = np.empty((len(starts), len(self.label_map)), dtype=np.float32)
        bounds = np.append(starts, length)  # each window is drawn up to where the next one begins
        columns = np.round(bounds / length * PICTURE_COLUMNS).astype(int)
        picture = np.zeros((self.features.num_bins, PICTURE_COLUMNS), dtype=np.float32)
        samples = windows(recording, map(int, starts), self.window, self.sample_rate)
        with progress(len(starts), path.name, "window", leave=False) as bar:
            for first in range(0, len(starts), BATCH):
                batch = range(first, min(first + BATCH, len(starts)))
                spectrograms = [self.features(next(samples)) for _ in batch]
                scores[batch.start : batch.stop] = self._scores(spectrograms)
                for k, spectrogram in zip(batch, spectrograms):
                    frames = max((bounds[k + 1] - bounds[k]) // self.features.hop_len, 1)
                    drawn = slice(columns[k], columns[k + 1])
                    picture[:, drawn] = maxima(spectrogram[:, :frames], drawn.stop - drawn.start)
                bar.update(len(batch))
        ends = np.minimum(starts + self.window, length)
        return Tagged(path, starts / self.sample_rate, ends / self.sample_rate, scores, picture)

    @torch.inference_mode()
    def _scores(self, spectrograms: Sequence[np.ndarray]) -> np.ndarray:
        """(B, C) probabilities of B spectrograms, through the evaluation chain."""
        rng = np.random.default_rng(0)  # the chain draws nothing from it
        views = [self.transform.view(View.whole(*spectrogram.shape), rng) for spectrogram in spectrograms]
        rows = rows_for(views)
        for row, spectrogram, view in zip(rows.numpy(), spectrograms, views):
            view.of(spectrogram, row[0, :, : view.size])
        return self.task.probabilities(self.network(rows), self.temperature).numpy()


def maxima(spectrogram: np.ndarray, columns: int) -> np.ndarray:
    """(F, columns) of a (F, T) spectrogram, each column the maximum of the frames that it covers, at least of one."""
    return np.maximum.reduceat(spectrogram, np.arange(columns) * spectrogram.shape[1] // max(columns, 1), axis=1)
