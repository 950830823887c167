"""What sound event scores are computed of: true events, and scores over time, of the same clips in the same order."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

TOLERANCE = 1e-6  # s: times, and lengths that they add up to, are compared no finer than this


@dataclass(frozen=True)
class EventTruth:
    """The E true events of N clips, clip after clip. Those of one class may overlap."""

    clip: np.ndarray  # (E,) index of the clip, not falling
    onset: np.ndarray  # (E,) s from the clip's start
    offset: np.ndarray  # (E,) s. It may lie behind the clip's end
    label: np.ndarray  # (E,) class index
    scored: np.ndarray  # (E,) whether it is to be found
    durations: np.ndarray  # (N,) s
    num_classes: int

    @classmethod
    def of(
        cls,
        events: Sequence[Iterable[tuple[float, float, Hashable]]],
        durations: Sequence[float],
        classes: Sequence[Hashable],
    ) -> "EventTruth":
        """The truth of each clip's (onset, offset, label) triples, with the clips' durations, all in s.

        Args:
            classes: the labels, in the order of the scores' columns.

        Raises:
            ValueError: an event without length, before its clip's start, behind its end or of an unknown class.
        """
        index = {label: number for number, label in enumerate(classes)}
        rows = [(clip, *event) for clip, inside in enumerate(events) for event in inside]
        unknown = {label for *_, label in rows} - set(index)
        if unknown:
            raise ValueError(f"events of unknown classes: {sorted(map(str, unknown))}")
        if len(events) != len(durations):
            raise ValueError(f"{len(events)} clips have events and {len(durations)} have durations")
        clip, label = (np.array(each, dtype=np.int32) for each in ([r[0] for r in rows], [index[r[3]] for r in rows]))
        onset, offset = (np.array([row[which] for row in rows], dtype=np.float64) for which in (1, 2))
        lasting = np.asarray(durations, dtype=np.float64)
        wrong = ~((onset >= 0) & (offset > onset) & (onset < lasting[clip]))
        if wrong.any():
            number, *event = rows[int(wrong.argmax())]
            raise ValueError(f"clip {number}, of {lasting[number]:g} s, cannot have the event {tuple(event)}")
        return cls(clip, onset, offset, label, np.ones(len(rows), dtype=bool), lasting, len(index))

    def only(self, scored: np.ndarray) -> "EventTruth":
        """With only some events, an (E,) mask, to be found. The others count neither as missed nor as found.

        What is detected of the others is not false. False positives are those of all events.
        """
        return replace(self, scored=scored)

    @property
    def num_clips(self) -> int:
        """N."""
        return len(self.durations)

    @property
    def length(self) -> np.ndarray:
        """(E,) s."""
        return self.offset - self.onset

    @property
    def seconds(self) -> np.ndarray:
        """(N, C) s of each class's events in each clip. Those that overlap count each."""
        cell = self.clip * self.num_classes + self.label
        found = np.bincount(cell, self.length, self.num_clips * self.num_classes)
        return found.reshape(self.num_clips, self.num_classes)

    @property
    def each_clip_once(self) -> np.ndarray:
        """(1, N) weights."""
        return np.ones((1, self.num_clips))

    def of_class(self, c: int) -> np.ndarray:
        """Indices of one class's events, rising."""
        return np.flatnonzero(self.label == c)


@dataclass(frozen=True)
class FrameScores:
    """Scores of N clips over time, all F frames one clip after the other, a row for each class.

    Within a clip, each frame begins where the one before ends.
    """

    values: np.ndarray  # (C, F) floats
    starts: np.ndarray  # (N + 1,) each clip's first frame, and F
    clip: np.ndarray  # (F,) index of the clip
    onset: np.ndarray  # (F,) s from the clip's start
    offset: np.ndarray  # (F,) s

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], frames: float | Sequence[np.ndarray]) -> "FrameScores":
        """The scores of clips, one (T, C) array of floats each. T may differ.

        Args:
            frames: s that every frame lasts, or for each clip the (T + 1,) boundaries of its frames, in s.

        Raises:
            ValueError: no clip, one without frames, with other columns or boundaries, or scores that are not finite.
        """
        if len(scores) == 0:
            raise ValueError("there are no clips to score")
        starts = np.append(0, np.cumsum([len(each) for each in scores]))
        values = np.empty((scores[0].shape[1], starts[-1]), dtype=np.result_type(*{each.dtype for each in scores}))
        onset, offset = np.empty((2, starts[-1]))
        for number, each in enumerate(scores):
            edges = np.arange(len(each) + 1) * frames if isinstance(frames, float | int) else frames[number]
            whole = len(each) > 0 and each.shape[1] == len(values) and len(edges) == len(each) + 1
            if not whole or (np.diff(edges) <= 0).any():
                raise ValueError(
                    f"clip {number}: scores {each.shape} must be (T, {len(values)}), T at least 1, "
                    f"and its {len(edges)} boundaries T + 1 rising ones"
                )
            here = slice(starts[number], starts[number + 1])
            values[:, here], onset[here], offset[here] = each.T, edges[:-1], edges[1:]
        if not np.isfinite(values).all():
            raise ValueError("scores are not all finite. Did the network diverge?")
        return cls(values, starts, np.repeat(np.arange(len(scores), dtype=np.int32), np.diff(starts)), onset, offset)

    def highest(self, c: int) -> np.ndarray:
        """(N,) each clip's highest score of a class."""
        return np.maximum.reduceat(self.values[c], self.starts[:-1])


def require_same_clips(scores: FrameScores, truth: EventTruth) -> None:
    """Refuse scores and events of other numbers of clips or classes."""
    found, due = (len(scores.starts) - 1, len(scores.values)), (truth.num_clips, truth.num_classes)
    if found != due:
        raise ValueError(f"scores are of {found} clips and classes, events of {due}")
