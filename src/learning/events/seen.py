"""What a network said of clips, and what they hold, as far as it saw them."""

from collections.abc import Sequence

import numpy as np
import torch

from src.data.clip_dataset import ClipDataset
from src.data.events import Event
from src.learning.events.clips import EventTruth, FrameScores


def seen(outputs: torch.Tensor, spans: torch.Tensor, dataset: ClipDataset) -> tuple[FrameScores, EventTruth]:
    """Scores over time, and the true events, from the first to the last moment of each clip that its view had.

    Where a view repeats a clip, to fill itself, each moment is taken once.

    Args:
        outputs: (N, J, C) of every clip of the data set, probabilities or logits.
        spans: (N, 3), as in `Batch`.

    Raises:
        UserError: the data set has no events.
    """
    hop, stride = dataset.features.hop_len / dataset.features.sample_rate, dataset.frame_stride
    assert stride is not None
    scores, edges, events = [], [], []
    for index, (frames, (first, size, length)) in enumerate(zip(outputs.numpy(), spans.tolist())):
        shown, times = times_of_frames((first, size, length), len(frames), stride, hop)
        scores.append(frames[shown])
        edges.append(times - times[0])
        events.append(cut(dataset.events(0, index), times[0], times[-1]))
    names = dataset.label_map.names
    return FrameScores.of(scores, edges), EventTruth.of(events, [each[-1] for each in edges], names)


def times_of_frames(span: tuple[int, int, int], count: int, stride: int, hop: float) -> tuple[np.ndarray, np.ndarray]:
    """Which of J frames of a view show something of the clip for the first time, and the borders of these.

    Args:
        span: as in `Batch`.
        count: J. What lies behind these frames is a part of the last one.
        stride: columns of a frame.
        hop: s of a column.

    Returns:
        (J,) mask of K frames, and their (K + 1,) borders in s.
    """
    begin, end = _shown(*span)
    borders = np.clip(span[0] + stride * np.arange(count + 1), begin, end)  # (J + 1,)
    shown = np.diff(borders) > 0
    return shown, times_of_columns(np.append(borders[:-1][shown], end), hop)


def heard(spans: torch.Tensor, dataset: ClipDataset) -> list[np.ndarray]:
    """Which events of each clip, an (E,) mask, are in the truth that `seen` gives for (N, 3) spans, in this order."""
    hop, masks = dataset.features.hop_len / dataset.features.sample_rate, []
    for index, span in enumerate(spans.tolist()):
        start, end = times_of_columns(np.array(_shown(*span)), hop)
        masks.append(np.array([bool(cut([event], start, end)) for event in dataset.events(0, index)], dtype=bool))
    return masks


def _shown(first: int, size: int, length: int) -> tuple[int, int]:
    """A clip's first frame in a view, of its own frames, and the one behind its last."""
    return max(first, 0), min(first + size, length)


def times_of_columns(columns: np.ndarray, hop: float) -> np.ndarray:
    """When columns of a spectrogram, of `hop` s, begin, in s. The first is centred at 0."""
    return np.maximum((columns - 0.5) * hop, 0)


def cut(events: Sequence[Event], start: float, end: float) -> list[Event]:
    """What sounds from `start` to `end`, in s from `start` on."""
    inside = [Event(max(onset, start) - start, min(offset, end) - start, label) for onset, offset, label in events]
    return [event for event in inside if event.offset > event.onset]
