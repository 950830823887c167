"""Recordings of any length, rate and number of channels -> scores of every window and class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.data.audio.opening import opened
from src.data.audio.recording import Recording
from src.data.audio.spectrogram import FeatureExtractor
from src.data.audio.windows import resampled_length, windows
from src.data.batching import rows_for
from src.data.transforms import View, evaluation_chain
from src.errors import UserError
from src.learning.events.clips import FrameScores
from src.learning.tasks import build_task
from src.models.checkpoint import read_checkpoint
from src.models.frames import FrameNetwork
from src.models.last_layer import Embedder
from src.runs.folder import checkpoint_at
from src.tagging.frames import JoinedFrames, aligned_starts, with_frames
from src.tagging.recordings import in_memory, window_starts
from src.utils.progress import progress

BATCH = 2  # windows at a time: more are hardly faster on a CPU, and take more memory
Samples = np.ndarray | torch.Tensor | Sequence[Any]
PICTURE_COLUMNS = 2000  # of the spectrogram drawn, whatever the recording's length
UNUSED = np.random.default_rng(0)  # the evaluation chain draws nothing


@dataclass(frozen=True)
class Tagged:
    """The scores of one recording."""

    path: Path
    starts: np.ndarray  # (W,) s
    ends: np.ndarray  # (W,) s
    scores: np.ndarray  # (W, C) probabilities
    embeddings: np.ndarray  # (W, D) what went into the network's last layer
    picture: np.ndarray  # (F, PICTURE_COLUMNS) dB, the recording's spectrogram, evenly over time
    frames: FrameScores | None = None  # of the whole recording, by a network of events

    @property
    def strongest_scores(self) -> np.ndarray:
        """(C,) each class's score in its strongest window."""
        return self.scores.max(axis=0)

    def strongest(self, top_k: int) -> np.ndarray:
        """(top_k,) indices of the classes with the highest scores of any window, the highest first."""
        return np.argsort(-self.strongest_scores, kind="stable")[:top_k]


class Tagger:
    """A trained network over windows of recordings, as in evaluation.

    Args:
        checkpoint: a `.ckpt`, of this project or released in 2021, or a run folder, whose best one is taken.
        lbl_map: by default the label map that the checkpoint carries.
        window, hop: seconds.
        device: where the network runs, as PyTorch calls it, such as "cuda" or "cuda:1".
        batch_size: windows that the network gets at a time. Another number may change the last bits of a score.
        frames: make a network of events of a tagger, which scores every frame without having learnt to.

    Attributes:
        classes: the C classes' names.
        sample_rate: Hz, of the network's input. Recordings of other rates are resampled.
        embedding_size: D. It is 0 where the logits are not the output of one linear layer.

    Raises:
        UserError: the checkpoint or the label map do not fit, a number is out of range, or there is no such device.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        lbl_map: str | Path | None = None,
        window: float = 5.0,
        hop: float = 2.5,
        device: str | torch.device = "cpu",
        batch_size: int = BATCH,
        frames: bool = False,
    ):
        for name, value in (("window", window), ("hop", hop), ("batch_size", batch_size)):
            if not isinstance(value, Real) or not 0 < value < math.inf:
                raise UserError(f"{name}: is {value!r}. A number above 0 was expected")
        self.device, self.batch_size = usable_device(device), math.ceil(batch_size)
        content = read_checkpoint(checkpoint_at(checkpoint))
        if frames:
            content = with_frames(content)
        self.label_map = content.classes(lbl_map)
        audio = content.config.audio_config
        self.classes, self.sample_rate = self.label_map.names, audio.sample_rate
        self.window = max(round(window * audio.sample_rate), 1)  # samples
        self.hop = max(round(hop * audio.sample_rate), 1)  # samples
        self.features = FeatureExtractor.of(audio)
        self.transform = evaluation_chain(frames_seen(self.features, self.window))
        with torch.random.fork_rng(devices=[]):  # to make a network is to draw weights, which take no part
            network = content.network().eval().to(self.device)
        self.network, self.task = Embedder(network), build_task(content.config)
        self.decisions, self.temperature = content.decisions, content.temperature
        self.event_decisions = content.event_decisions
        self.frame_stride = network.stride if isinstance(network, FrameNetwork) else None
        if self.frame_stride:  # windows begin where a frame does, and no further apart than a frame if that is more
            step = self.frame_stride * audio.hop_len
            if self.window < step:
                lasts = f"A frame of this network lasts {step / audio.sample_rate:.3g} s, and a window no less"
                raise UserError(f"window: is {window:g} s. {lasts}")
            self.hop = max(self.hop // step, 1) * step  # samples
        try:
            empty = self.outputs([np.zeros((self.features.num_bins, 1), dtype=np.float32)])
        except RuntimeError as error:
            raise UserError(f"window: {window:g} s do not suit the network of {checkpoint} ({error})") from None
        self.embedding_size = empty[1].shape[1]

    def scores(self, samples: Samples, sample_rate: int) -> Any:
        """Scores of a recording's windows, equal to those that `predict.py` gives its file.

        Args:
            samples: (N,), (N, channels) or (channels, N), a NumPy array or a tensor. Channels, the shorter axis, are
                averaged. Full scale is 1 for floats, and the type's range for integers. Or a list of such recordings.
            sample_rate: Hz. Any rate is resampled to the network's.

        Returns:
            (W, C) float32 probabilities, a row a window of `window_times`, a column a class of `classes`. For a list, a
            list of these.

        Raises:
            UserError: the samples are empty, not finite, of another shape or no real numbers, or the rate is none.
        """
        return self._of_each("scores", samples, sample_rate)

    def embeddings(self, samples: Samples, sample_rate: int) -> Any:
        """What goes into the network's last layer, for each window of a recording.

        Arguments and errors are those of `scores`.

        Returns:
            (W, D) float32 numbers. For a list of recordings, a list of these.

        Raises:
            UserError: the network's logits are not the output of one linear layer.
        """
        self.require_embeddings()
        return self._of_each("embeddings", samples, sample_rate)

    def window_times(self, num_samples: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """(W,) starts and (W,) ends, in s, of the windows of a recording of so many samples of a channel."""
        length = resampled_length(num_samples, sample_rate, self.sample_rate)
        starts = self._starts(length)
        return starts / self.sample_rate, np.minimum(starts + self.window, length) / self.sample_rate

    def require_embeddings(self) -> None:
        """Refuse a network without a last layer.

        Raises:
            UserError: it has none.
        """
        if not self.embedding_size:
            raise UserError("this network has no embeddings: its logits are not the output of one linear layer")

    def require_frames(self) -> None:
        """Refuse a network without frames, and windows that leave some out.

        Raises:
            UserError: it is a tagger, or the hop is longer than the window.
        """
        if not self.frame_stride:
            raise UserError("this network is a tagger, and scores no frames. --frames makes it do so")
        if self.hop > self.window:
            raise UserError("the hop is longer than the window, and frames between two windows would have no score")

    def __call__(self, path: str | Path) -> Tagged:
        """Score one file, a few windows at a time.

        Raises:
            UserError: it cannot be opened, or not read to its end.
        """
        with opened(path) as recording:
            return self._tagged(recording, Path(path))

    def _of_each(self, what: str, samples: Samples, sample_rate: int) -> Any:
        """A field of `Tagged` for one recording in memory, or for each of a list."""
        if isinstance(samples, list | tuple):
            return [self._of_each(what, each, sample_rate) for each in samples]
        return getattr(self._tagged(in_memory(samples, sample_rate), Path("samples"), disable=True), what)

    def _tagged(self, recording: Recording, path: Path, **of_bar: Any) -> Tagged:
        length = resampled_length(recording.frames, recording.samplerate, self.sample_rate)
        starts = self._starts(length)  # samples
        # Results are laid out at once: small arrays kept from every window would fragment the memory.
        scores = np.empty((len(starts), len(self.label_map)), dtype=np.float32)
        embeddings = np.empty((len(starts), self.embedding_size), dtype=np.float32)
        bounds = np.append(starts, length)  # each window is drawn up to where the next one begins
        columns = np.round(bounds / length * PICTURE_COLUMNS).astype(int)
        picture = np.zeros((self.features.num_bins, PICTURE_COLUMNS), dtype=np.float32)
        samples = windows(recording, map(int, starts), self.window, self.sample_rate)
        joined = self._joined(length, len(starts))
        with progress(len(starts), path.name, "window", leave=False, **of_bar) as bar:
            for first in range(0, len(starts), self.batch_size):
                batch = range(first, min(first + self.batch_size, len(starts)))
                spectrograms = [self.features(self._filled(next(samples), len(starts))) for _ in batch]
                outputs = self.outputs(spectrograms)
                scores[batch.start : batch.stop], embeddings[batch.start : batch.stop], frames = outputs
                for k, spectrogram in zip(batch, spectrograms):
                    if joined:
                        joined.add(starts[k] // (joined.stride * self.features.hop_len), frames[k - first])
                    size = max((bounds[k + 1] - bounds[k]) // self.features.hop_len, 1)
                    drawn = slice(columns[k], columns[k + 1])
                    picture[:, drawn] = maxima(spectrogram[:, :size], drawn.stop - drawn.start)
                bar.update(len(batch))
        times = self.window_times(recording.frames, recording.samplerate)
        found = joined.whole(self.features.hop_len / self.sample_rate, times[1][-1]) if joined else None
        return Tagged(path, *times, scores, embeddings, picture, found)

    def _starts(self, length: int) -> np.ndarray:
        """(W,) where the windows of so many samples begin, in samples."""
        if self.frame_stride:
            return np.array(aligned_starts(length, self.window, self.hop, self.frame_stride * self.features.hop_len))
        return np.array(window_starts(length, self.window, self.hop))

    def _joined(self, length: int, num_windows: int) -> JoinedFrames | None:
        """Where the frame scores of so many samples come together, if the network has any and none is left out."""
        if not self.frame_stride or self.hop > self.window:
            return None
        view = View.whole(self.features.num_bins, self.features.num_frames(length))
        if num_windows == 1:
            view = self.transform.view(view, UNUSED)
        return JoinedFrames((view.first, view.size, view.num_frames), self.frame_stride, len(self.label_map))

    def _filled(self, samples: np.ndarray, num_windows: int) -> np.ndarray:
        """A window's samples. What the last one of several may lack to begin with a frame is silent."""
        return np.pad(samples, (0, self.window - len(samples) if self.frame_stride and num_windows > 1 else 0))

    @torch.inference_mode()
    def outputs(self, spectrograms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, C) probabilities, (B, D) embeddings and (B, J, C) frame probabilities of B spectrograms.

        They go through the evaluation chain. J is 0 for taggers.
        """
        views = [self.transform.view(View.whole(*spectrogram.shape), UNUSED) for spectrogram in spectrograms]
        rows = rows_for(views)
        for row, spectrogram, view in zip(rows.numpy(), spectrograms, views):
            view.of(spectrogram, row[0, :, : view.size])
        inputs = rows.to(self.device)
        said, embeddings = self.network.both(inputs)
        frames = said.sigmoid() if self.frame_stride else said[:, None, :0]
        probabilities = self.task.probabilities(self.task.clip_logits(said), self.temperature)
        return probabilities.cpu().numpy(), embeddings.cpu().numpy(), frames.cpu().numpy()


def frames_seen(features: FeatureExtractor, num_samples: int) -> int:
    """Frames that a network sees of so many samples: of log-mels all, of others those that the published one scores."""
    whole = features.num_frames(num_samples) if features.feature == "logmel" else num_samples // features.hop_len
    return max(whole, 1)


def usable_device(device: str | torch.device) -> torch.device:
    """A device as PyTorch calls it.

    Raises:
        UserError: there is none of that name here.
    """
    try:
        torch.zeros(1, device=device).cpu()  # which PyTorch's device "meta" cannot do
        return torch.device(device)
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device: PyTorch cannot use {str(device)!r} here ({reason}). 'cpu' is always there") from None


def maxima(spectrogram: np.ndarray, columns: int) -> np.ndarray:
    """(F, columns) of a (F, T) spectrogram, each column the maximum of the frames that it covers, at least of one."""
    return np.maximum.reduceat(spectrogram, np.arange(columns) * spectrogram.shape[1] // max(columns, 1), axis=1)
