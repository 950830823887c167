"""Recordings of any length, rate and number of channels -> scores of every window and class."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.data.audio.recording import Recording
from src.data.audio.spectrogram import FeatureExtractor
from src.data.transforms import View
from src.errors import UserError
from src.learning.events.clips import FrameScores
from src.learning.tasks import build_task
from src.models.checkpoint import read_checkpoint
from src.models.frames import FrameNetwork
from src.models.last_layer import Embedder
from src.runs.folder import checkpoint_at
from src.tagging.frames import JoinedFrames, with_frames
from src.tagging.inputs import PICTURE_COLUMNS, UNUSED, Inputs, Length, Piece, pieces_of_files
from src.tagging.recordings import in_memory
from src.utils.progress import progress

BATCH = 2  # windows at a time: more are hardly faster on a CPU, and take more memory
Samples = np.ndarray | torch.Tensor | Sequence[Any]


@dataclass(frozen=True)
class Tagged:
    """The scores of one recording."""

    path: Path
    length: Length
    starts: np.ndarray  # (W,) s
    ends: np.ndarray  # (W,) s
    scores: np.ndarray  # (W, C) probabilities
    embeddings: np.ndarray  # (W, D) what went into the network's last layer
    picture: np.ndarray  # (F, PICTURE_COLUMNS) dB, the recording's spectrogram, evenly over time, or (F, 0)
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
        drawn: keep a picture of each recording's spectrogram.

    Attributes:
        classes: the C classes' names.
        sample_rate: Hz, of the network's input. Recordings of other rates are resampled.
        digest: of the checkpoint's file.
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
        drawn: bool = True,
    ):
        for name, value in (("window", window), ("hop", hop), ("batch_size", batch_size)):
            if not isinstance(value, Real) or not 0 < value < math.inf:
                raise UserError(f"{name}: is {value!r}. A number above 0 was expected")
        self.device = usable_device(device)
        content = read_checkpoint(checkpoint_at(checkpoint))
        if frames:
            content = with_frames(content)
        self.label_map, self.digest = content.classes(lbl_map), content.digest
        audio = content.config.audio_config
        self.classes, self.sample_rate = self.label_map.names, audio.sample_rate
        with torch.random.fork_rng(devices=[]):  # to make a network is to draw weights, which take no part
            network = content.network().eval().to(self.device)
        self.network, self.task = Embedder(network), build_task(content.config)
        self.decisions, self.temperature = content.decisions, content.temperature
        self.event_decisions = content.event_decisions
        stride = network.stride if isinstance(network, FrameNetwork) else None
        samples, apart = (max(round(seconds * audio.sample_rate), 1) for seconds in (window, hop))
        if stride:  # windows begin where a frame does, and no further apart than a frame if that is more
            step = stride * audio.hop_len
            if samples < step:
                lasts = f"A frame of this network lasts {step / audio.sample_rate:.3g} s, and a window no less"
                raise UserError(f"window: is {window:g} s. {lasts}")
            apart = max(apart // step, 1) * step
        self.inputs = Inputs(FeatureExtractor.of(audio), samples, apart, math.ceil(batch_size), stride, drawn)
        try:
            silence = np.zeros((self.features.num_bins, 1), dtype=np.float32)
            empty = self.outputs(self.inputs.seen([silence]))
        except RuntimeError as error:
            raise UserError(f"window: {window:g} s do not suit the network of {checkpoint} ({error})") from None
        self.embedding_size = empty[1].shape[1]

    @property
    def features(self) -> FeatureExtractor:
        """What makes spectrograms."""
        return self.inputs.features

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
        return self.inputs.times(Length(num_samples, sample_rate))

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
        if not self.inputs.stride:
            raise UserError("this network is a tagger, and scores no frames. --frames makes it do so")
        if self.inputs.hop > self.inputs.window:
            raise UserError("the hop is longer than the window, and frames between two windows would have no score")

    def __call__(self, path: str | Path) -> Tagged:
        """Score one file, a few windows at a time.

        Raises:
            UserError: it cannot be opened, or not read to its end.
        """
        (found,) = self.of_files([Path(path)])
        if isinstance(found, UserError):
            raise found
        return found

    def of_files(
        self, files: Sequence[Path], num_workers: int = 0, at_once: Callable[[int, Tagged], None] = lambda *_: None
    ) -> Iterator[Tagged | UserError]:
        """Score files, in their order. Of one that cannot be read, what is wrong with it.

        Args:
            num_workers: processes that read files while the network runs here, or 0. The scores do not depend on it.
            at_once: is called with each file's number and scores as soon as they are there, in any order.
        """
        waiting: dict[int, Tagged | UserError] = {}
        due = 0
        for number, found in self._as_done(files, num_workers):
            if isinstance(found, Tagged):
                at_once(number, found)
            waiting[number] = found
            while due in waiting:
                yield waiting.pop(due)
                due += 1

    def _as_done(self, files: Sequence[Path], num_workers: int) -> Iterator[tuple[int, Tagged | UserError]]:
        """Files' numbers with their scores, each as soon as it is done."""
        under_way: dict[int, Tagging] = {}
        several = len(files) != 1
        total, what, unit = (len(files), "recordings", "recording") if several else (None, files[0].name, "window")
        with progress(total, what, unit, leave=several) as bar:
            for number, found in pieces_of_files(self.inputs, files, num_workers):
                if isinstance(found, Length):
                    under_way[number] = tagging = Tagging(self, files[number], found)
                    if not several:
                        bar.reset(tagging.num_windows)
                elif isinstance(found, Piece):
                    under_way[number].add(found)
                    bar.update(0 if several else len(found.inputs))
                else:
                    ended = under_way.pop(number, None)
                    yield number, found or ended.done()  # type: ignore[union-attr]  # what has ended has begun
                    bar.update(several)

    def of_recording(self, recording: Recording) -> Tagged:
        """Score one recording, a few windows at a time.

        Raises:
            UserError: it cannot be read to its end.
        """
        tagging = Tagging(self, Path(recording.where), Length(recording.frames, recording.samplerate))
        for piece in self.inputs.pieces(recording):
            tagging.add(piece)
        return tagging.done()

    def _of_each(self, what: str, samples: Samples, sample_rate: int) -> Any:
        """A field of `Tagged` for one recording in memory, or for each of a list."""
        if isinstance(samples, list | tuple):
            return [self._of_each(what, each, sample_rate) for each in samples]
        return getattr(self.of_recording(in_memory(samples, sample_rate)), what)

    @torch.inference_mode()
    def outputs(self, inputs: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, C) probabilities, (B, D) embeddings and (B, J, C) frame probabilities of (B, 1, F, T) inputs.

        J is 0 for taggers.
        """
        said, embeddings = self.network.both(inputs.to(self.device))
        frames = said.sigmoid() if self.inputs.stride else said[:, None, :0]
        probabilities = self.task.probabilities(self.task.clip_logits(said), self.temperature)
        return probabilities.cpu().numpy(), embeddings.cpu().numpy(), frames.cpu().numpy()


class Tagging:
    """What a network has said so far of a recording, of which it gets one piece after the other."""

    def __init__(self, tagger: Tagger, path: Path, length: Length):
        self.tagger, self.path, self.length = tagger, path, length
        inputs = tagger.inputs
        self.starts = inputs.starts(inputs.num_samples(length))
        # Results are laid out at once: small arrays kept from every window would fragment the memory.
        self.scores = np.empty((self.num_windows, len(tagger.classes)), dtype=np.float32)
        self.embeddings = np.empty((self.num_windows, tagger.embedding_size), dtype=np.float32)
        self.picture = np.zeros((inputs.features.num_bins, PICTURE_COLUMNS * inputs.drawn), dtype=np.float32)
        self.joined = self._joined()
        self.done_windows = self.drawn = 0

    @property
    def num_windows(self) -> int:
        """W."""
        return len(self.starts)

    def _joined(self) -> JoinedFrames | None:
        """Where the frame scores of windows come together, if the network has any and none is left out."""
        inputs = self.tagger.inputs
        if not inputs.stride or inputs.hop > inputs.window:
            return None
        view = View.whole(inputs.features.num_bins, inputs.features.num_frames(inputs.num_samples(self.length)))
        if self.num_windows == 1:
            view = inputs.transform.view(view, UNUSED)
        return JoinedFrames((view.first, view.size, view.num_frames), inputs.stride, len(self.tagger.classes))

    def add(self, piece: Piece) -> None:
        """Score the next windows."""
        here = slice(self.done_windows, self.done_windows + len(piece.inputs))
        self.scores[here], self.embeddings[here], frames = self.tagger.outputs(piece.inputs)
        self.done_windows = here.stop
        if self.joined:
            for start, of_window in zip(self.starts[here], frames):
                self.joined.add(start // self.tagger.inputs.step, of_window)
        for columns in piece.pictures:
            self.picture[:, self.drawn : self.drawn + columns.shape[1]] = columns
            self.drawn += columns.shape[1]

    def done(self) -> Tagged:
        """The scores of the whole recording."""
        inputs, times = self.tagger.inputs, self.tagger.inputs.times(self.length)
        hop = inputs.features.hop_len / inputs.features.sample_rate
        frames = self.joined.whole(hop, times[1][-1]) if self.joined else None
        return Tagged(self.path, self.length, *times, self.scores, self.embeddings, self.picture, frames)


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
