"""Recordings of any length, rate and number of channels -> scores of every window and class."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

from src.data.audio.files import AUDIO_SUFFIXES, LONGEST, resampled
from src.data.audio.spectrogram import FeatureExtractor
from src.data.batching import rows_for
from src.data.labels import LabelMap
from src.data.transforms import View, evaluation_chain
from src.errors import UserError
from src.learning.tasks import build_task
from src.models.checkpoint import Checkpoint, read_checkpoint
from src.utils.files import whole_file
from src.utils.memory import keep_freed_memory
from src.utils.progress import progress

log = logging.getLogger(__name__)

BATCH = 2  # windows at a time: more are hardly faster on a CPU, and take more memory
MARGIN = 0.05  # s around a window, for the resampling filter
PICTURE_COLUMNS = 2000  # of the spectrogram drawn, whatever the recording's length


@dataclass(frozen=True)
class Tagged:
    """The scores of one recording."""

    path: Path
    starts: np.ndarray  # (W,) s
    ends: np.ndarray  # (W,) s
    scores: np.ndarray  # (W, C) probabilities
    picture: np.ndarray  # (F, PICTURE_COLUMNS) dB, the recording's spectrogram, evenly over time

    def strongest(self, names: Sequence[str], top_k: int, threshold: float) -> list[tuple[str, float, float]]:
        """(class, highest score, when in s) of the top_k classes that reach the threshold."""
        peaks = self.scores.max(axis=0)  # (C,)
        order = np.argsort(-peaks, kind="stable")[:top_k]
        return [
            (names[c], float(peaks[c]), float(self.starts[self.scores[:, c].argmax()]))
            for c in order
            if peaks[c] >= threshold
        ]


class Tagger:
    """A checkpoint's network over windows of recordings, as in evaluation.

    Args:
        checkpoint: a `.ckpt`.
        lbl_map: needed where the checkpoint carries no label map.
        window, hop: seconds.

    Raises:
        UserError: the checkpoint or the label map do not fit.
    """

    def __init__(self, checkpoint: str | Path, lbl_map: str | None = None, window: float = 5.0, hop: float = 2.5):
        content: Checkpoint = read_checkpoint(checkpoint)
        if lbl_map is None and content.label_map is None:
            raise UserError(f"{checkpoint}: carries no label map; give the one it was trained with as --lbl_map")
        self.label_map = LabelMap.load(lbl_map) if lbl_map else content.label_map
        content.require_label_map(self.label_map)
        audio = content.config.audio_config
        self.sample_rate = audio.sample_rate
        self.window = max(round(window * audio.sample_rate), 1)  # samples
        self.hop = max(round(hop * audio.sample_rate), 1)  # samples
        self.features = FeatureExtractor.of(audio)
        self.transform = evaluation_chain(max(self.window // audio.hop_len, 1))
        self.network: nn.Module = content.network().eval()
        self.task = build_task(content.config)
        keep_freed_memory()
        try:
            self._scores([np.zeros((self.features.num_bins, 1), dtype=np.float32)])
        except RuntimeError as error:
            raise UserError(f"--window {window:g}: is too short for the network of {checkpoint} ({error})") from None

    @torch.inference_mode()
    def __call__(self, path: str | Path) -> Tagged:
        """Score one recording, a few windows at a time.

        Raises:
            UserError: it cannot be read, or is empty.
        """
        path = Path(path)
        try:
            with soundfile.SoundFile(path) as file:
                length = resampled_length(file, self.sample_rate, path)
                starts = window_starts(length, self.window, self.hop)
                # Results are laid out at once: small arrays kept from every window would fragment the memory.
                scores = np.empty((len(starts), len(self.label_map)), dtype=np.float32)
                own = np.append(starts, length)  # from where on each window is drawn, up to the next one
                columns = np.round(own / length * PICTURE_COLUMNS).astype(int)
                picture = np.zeros((self.features.num_bins, PICTURE_COLUMNS), dtype=np.float32)
                with progress(len(starts), path.name, "window", leave=False) as bar:
                    for first in range(0, len(starts), BATCH):
                        batch = range(first, min(first + BATCH, len(starts)))
                        spectrograms = [
                            self.features(read_window(file, starts[k], self.window, self.sample_rate)) for k in batch
                        ]
                        scores[batch.start : batch.stop] = self._scores(spectrograms)
                        for k, spectrogram in zip(batch, spectrograms):
                            frames = max((own[k + 1] - own[k]) // self.features.hop_len, 1)
                            draw_into(picture[:, columns[k] : columns[k + 1]], spectrogram[:, :frames])
                        bar.update(len(batch))
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a raw file, of no known format
            raise UserError(f"{path}: is not audio, or is truncated ({str(error).rstrip('.')})") from None
        ends = np.minimum(np.add(starts, self.window), length)
        return Tagged(path, np.array(starts) / self.sample_rate, ends / self.sample_rate, scores, picture)

    @torch.inference_mode()
    def _scores(self, spectrograms: Sequence[np.ndarray]) -> np.ndarray:
        """(B, C) probabilities of B spectrograms, through the evaluation chain."""
        rng = np.random.default_rng(0)  # the chain draws nothing from it
        views = [self.transform.view(View.whole(*spectrogram.shape), rng) for spectrogram in spectrograms]
        rows = rows_for(views)
        for row, spectrogram, view in zip(rows.numpy(), spectrograms, views):
            view.of(spectrogram, row[0, :, : view.size])
        return self.task.probabilities(self.network(rows)).numpy()


def window_starts(length: int, window: int, hop: int) -> list[int]:
    """Where windows begin, in samples; the last one ends with the recording."""
    if length <= window:
        return [0]
    starts = list(range(0, length - window + 1, hop))
    if starts[-1] + window < length:
        starts.append(length - window)
    return starts


def resampled_length(file: soundfile.SoundFile, sample_rate: int, path: Path) -> int:
    """Samples of a recording at another rate."""
    if file.frames == 0:
        raise UserError(f"{path}: is empty, it has no samples")
    if file.frames > LONGEST:
        raise UserError(f"{path}: does not say how long it is; was it written to a pipe? Encode it again")
    return math.ceil(file.frames * sample_rate / file.samplerate)


def read_window(file: soundfile.SoundFile, start: int, length: int, sample_rate: int) -> np.ndarray:
    """(≤ length,) mono float32 samples at `sample_rate` from `start` on, as if the whole file were resampled."""
    common = math.gcd(file.samplerate, sample_rate)
    old, new = file.samplerate // common, sample_rate // common
    margin = math.ceil(MARGIN * common) if old != new else 0
    # Samples coincide at both rates every `old` and every `new` samples: reading begins there.
    first = max(start // new - margin, 0)
    last = -(-(start + length) // new) + margin
    begin, end = min(first * old, file.frames), min(last * old, file.frames)
    file.seek(begin)
    samples = file.read(end - begin, dtype="float32", always_2d=True).mean(axis=1)  # (N,)
    if len(samples) < end - begin:
        raise UserError(f"{file.name}: is truncated: it ends after {begin + len(samples)} of {file.frames} samples")
    if old != new:
        samples = resampled(samples, old, new)
    offset = start - first * new
    return samples[offset : offset + length]


def draw_into(columns: np.ndarray, spectrogram: np.ndarray) -> None:
    """Fill (F, columns), each with the maximum of the (F, T) frames that it stands for."""
    count = columns.shape[1]
    for c in range(count):
        first = c * spectrogram.shape[1] // count
        last = max((c + 1) * spectrogram.shape[1] // count, first + 1)
        columns[:, c] = spectrogram[:, first:last].max(axis=1)


def audio_files(paths: Sequence[str]) -> list[Path]:
    """The files given, and of folders all files of a kind that soundfile reads, sorted.

    Raises:
        UserError: a path is not there, or a folder holds no audio files.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file()
            )
            if not inside:
                raise UserError(f"{path}: no audio files in this folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return found


COLUMNS = ("file", "start", "end", "class", "score")


def rows_of(tagged: Tagged, names: Sequence[str]) -> Iterator[dict[str, str]]:
    """A CSV row for every window and class."""
    for start, end, scores in zip(tagged.starts, tagged.ends, tagged.scores):
        for name, score in zip(names, scores):
            yield {
                "file": str(tagged.path),
                "start": f"{start:.3f}",
                "end": f"{end:.3f}",
                "class": name,
                "score": f"{score:.6f}",
            }


def draw(path: str | Path, tagged: Tagged, names: Sequence[str], top_k: int) -> None:
    """A picture: the spectrogram above, the strongest classes' activity over time below."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    chosen = np.argsort(-tagged.scores.max(axis=0), kind="stable")[:top_k]
    end = float(tagged.ends[-1])
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9, 5.5), sharex=True, layout="constrained", height_ratios=(3, max(2, 0.35 * len(chosen)))
    )
    above.imshow(tagged.picture, origin="lower", aspect="auto", extent=(0, end, 0, 1), cmap="magma")
    above.set(title=tagged.path.name, ylabel="frequency", yticks=())
    centres = (tagged.starts + tagged.ends) / 2
    edges = np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [end]])  # halfway between windows' centres
    mesh = below.pcolormesh(
        edges, np.arange(len(chosen) + 1), tagged.scores[:, chosen].T, vmin=0, vmax=1, cmap="viridis"
    )
    below.set(
        xlabel="time (s); each window around its centre",
        yticks=np.arange(len(chosen)) + 0.5,
        yticklabels=[names[c] for c in chosen],
        xlim=(0, end),
    )
    below.invert_yaxis()
    figure.colorbar(mesh, ax=below, label="score")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format=Path(path).suffix.lstrip(".") or "png")
    plt.close(figure)
