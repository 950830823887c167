"""The events of a recording that goes on, told as they begin and end."""

import json
import logging
from collections.abc import Iterator
from itertools import tee
from time import monotonic
from typing import NamedTuple

import numpy as np

from src.data.audio.stream import Stream
from src.data.audio.windows import read_ahead, windows
from src.models.decisions import EventDecisions
from src.tagging.found import FoundEvent, found_in
from src.tagging.frames import FramesSoFar, Slot
from src.tagging.inputs import Inputs, Length
from src.tagging.tagger import Tagger

log = logging.getLogger(__name__)

JUDGED = 10.0  # s of sound or of scoring, over which they are compared
SILENT = 60.0  # s between two warnings


class Told(NamedTuple):
    """What is known of an event."""

    ended: bool
    event: FoundEvent  # up to now


class Bounds(NamedTuple):
    """What a stream takes at most."""

    begins: float  # s of sound from where an event begins to where it is told
    ends: float  # s, the same of its end
    memory: int  # bytes of sound that are kept


def bounds_of(tagger: Tagger, stream: Stream, decisions: EventDecisions) -> Bounds:
    """How late events are told, without the time that scoring takes, and how much sound is kept."""
    inputs = tagger.inputs
    window, hop = inputs.window / tagger.sample_rate, inputs.hop / tagger.sample_rate
    ahead = read_ahead(stream.samplerate, tagger.sample_rate) + 1 / stream.samplerate
    as_come, averaged = 2 * stream.channels * max(window, hop), 4 * (window + 2 * ahead)  # bytes × s
    memory = round(stream.samplerate * (as_come + averaged) + tagger.sample_rate * 4 * (window + ahead))
    if not inputs.stride:
        return Bounds(window + ahead, hop + ahead, memory)
    column = inputs.features.hop_len / tagger.sample_rate
    filtered = (max(decisions.medians) // 2 * inputs.stride + 0.5) * column  # a column is centred at its time
    late = window + hop + ahead + filtered
    return Bounds(late, late, memory)


def tell(stream: Stream, tagger: Tagger, decisions: EventDecisions) -> None:
    """Print a line of JSON for each event as it begins, and one as it ends.

    Raises:
        UserError: windows of a network of events leave frames out, or the stream cannot be read.
    """
    if tagger.inputs.stride:
        tagger.require_frames()
    begins, ends, memory = bounds_of(tagger, stream, decisions)
    log.info(
        "%s: %d Hz, %d channel%s. Events are told within %.2f s of sound after they begin, and %.2f s after they end. "
        "Scoring a window adds its time. At most %.1f MB of sound are kept",
        *(stream.where, stream.samplerate, stream.channels, "s" * (stream.channels > 1), begins, ends, memory / 1e6),
    )
    for ended, event in told_of(stream, tagger, decisions):
        numbers = {"start": event.onset} | ({"end": event.offset} if ended else {})
        numbers |= {"score": event.confidence, "at": stream.seconds}
        line = {"event": "ends" if ended else "begins", "class": tagger.classes[event.label]}
        print(json.dumps(line | {name: round(value, 6) for name, value in numbers.items()}), flush=True)
    if stream.cut:
        log.warning("%s: ends within a sample, of which %d bytes are left out", stream.where, stream.cut)


def told_of(stream: Stream, tagger: Tagger, decisions: EventDecisions) -> Iterator[Told]:
    """Each event twice, as it begins and as it ends. At the end they are those of `found_in`, but for last bits."""
    if not _continues_behind(tagger.inputs.window, stream, tagger.inputs):  # one window, which is scored as it is
        for event in found_in(tagger.of_recording(stream), decisions):
            yield from (Told(False, event), Told(True, event))
        return
    events = OpenEvents(decisions.limits)
    for slot in _slots(stream, tagger, decisions):
        yield from events.add(*slot)
    yield from events.end()


class OpenEvents:
    """Events of scores that come one after the other, as `found_in` has them of all.

    Args:
        limits: (C,) thresholds.
    """

    def __init__(self, limits: np.ndarray):
        self._limits, self._until = limits, 0.0
        self._open: dict[int, FoundEvent] = {}

    def add(self, scores: np.ndarray, onset: float, offset: float) -> Iterator[Told]:
        """What (C,) scores from `onset` to `offset`, in s, begin and end."""
        above = scores >= self._limits
        for c in list(self._open):
            if not above[c] or onset > self._until:
                yield Told(True, self._open.pop(c))
        self._until = offset
        for c in map(int, np.flatnonzero(above)):
            score, before = float(scores[c]), self._open.get(c)
            if before:
                self._open[c] = before._replace(offset=offset, confidence=max(before.confidence, score))
            else:
                self._open[c] = FoundEvent(onset, offset, c, score)
                yield Told(False, self._open[c])

    def end(self) -> Iterator[Told]:
        """All events end."""
        while self._open:
            yield Told(True, self._open.pop(min(self._open)))


def _slots(stream: Stream, tagger: Tagger, decisions: EventDecisions) -> Iterator[Slot]:
    """The scores of each window, or each frame's once no later window changes them."""
    inputs, rate = tagger.inputs, tagger.sample_rate
    joined = FramesSoFar(inputs.stride, inputs.features.hop_len / rate, decisions.medians) if inputs.stride else None
    pace = None
    starts, read = tee(_starts(stream, inputs))
    for samples, start in zip(windows(stream, read, inputs.window, rate), starts):
        (scores,), _, (frames,) = tagger.outputs(inputs.seen_of_window(samples))
        if joined:
            yield from joined.add(start // inputs.step, frames)
        else:
            yield scores, start / rate, (start + inputs.window) / rate
        if pace:
            pace.look()
        else:
            pace = Pace(stream)  # now: the first window takes longer
    if joined:
        length = inputs.num_samples(Length(stream.frames, stream.samplerate))
        yield from joined.end(inputs.features.num_frames(length), length / rate)


def _starts(stream: Stream, inputs: Inputs) -> Iterator[int]:
    """Where windows begin, in samples at the network's rate, of a stream longer than one window."""
    start = 0
    while _continues_behind(start + inputs.window, stream, inputs):
        yield start
        start += inputs.hop
    start -= inputs.hop  # behind the last one that ends before the stream does, one more window reaches its end
    yield start + int(inputs.starts(inputs.num_samples(Length(stream.frames, stream.samplerate)) - start)[-1])


def _continues_behind(length: int, stream: Stream, inputs: Inputs) -> bool:
    """Whether there are more than `length` samples at the network's rate, which are waited for."""
    return stream.reaches(length * stream.samplerate // inputs.features.sample_rate + 1)


class Pace:
    """Says when scoring takes longer than the sound lasts, so that its writer has to wait."""

    def __init__(self, stream: Stream):
        self._stream, self._silent_until = stream, -np.inf
        self._begin()

    def _begin(self) -> None:
        self._sound, self._time, self._waited = self._stream.seconds, monotonic(), self._stream.source.waited

    def look(self) -> None:
        """Compare them, since the last comparison."""
        now, waited = monotonic(), self._stream.source.waited - self._waited
        sound, busy = self._stream.seconds - self._sound, now - self._time - waited
        if max(sound, busy) < JUDGED:
            return
        if busy > sound > 0 and now >= self._silent_until:
            log.warning(
                "%s: scoring takes %.1f times as long as the sound lasts, which waits meanwhile. Choose a longer --hop "
                "or a smaller network",
                *(self._stream.where, busy / sound),
            )
            self._silent_until = now + SILENT
        self._begin()
