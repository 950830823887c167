"""One record of an LMDB -> what it holds, and what is wrong with it."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from src.data.audio.opening import opened
from src.data.audio.recording import NotFinite
from src.data.checks.findings import Problem
from src.data.events import Event
from src.data.labels import LabelMap, split_labels
from src.data.lmdb import fingerprint
from src.data.lmdb.store import LMDBReader, Record
from src.errors import UserError, listed

FULL_SCALE = 1 - 2**-15  # the largest sample of 16 bits
TOLERANCE = 1e-3  # s that an event may reach past the clip: many tools write times in whole ms


@dataclass(frozen=True)
class Limits:
    """What records are held against."""

    label_map: LabelMap | None = None  # without one, labels are counted and not judged
    delimiter: str = ","  # between the labels of one record
    sample_rate: int = 22050  # Hz
    min_duration: float = 0.0  # s
    max_duration: float = math.inf  # s
    silence: float = 1e-3  # of full scale (-60 dB): a clip that never reaches it is silent
    clipping: float = 1e-3  # share of samples at full scale, above which a clip is clipped


class Facts(NamedTuple):
    """What is kept of a record."""

    digest: bytes | None = None  # SHA-256 as stored, 32 bytes
    sound: bytes | None = None  # hash of the decoded samples, 16 bytes
    duration: float = math.nan  # s
    encoding: str = ""  # such as "FLAC PCM_16, 22050 Hz, 1 channel"
    names: tuple[str, ...] = ()  # of its classes, as often as its label has them
    fold: int | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def is_readable(self) -> bool:
        """Whether the record is there, with a label."""
        return self.digest is not None and all(problem.kind != "unreadable" for problem in self.problems)


def examine(reader: LMDBReader, limits: Limits, index: int) -> Facts:
    """Read and decode one record."""
    where, digest = f"record {index}", None
    try:
        digest = fingerprint.digest(reader.stored(index))
        record = reader[index]
    except UserError as error:
        return Facts(digest, problems=(Problem("unreadable", str(error).removeprefix(f"{reader.path}, ")),))
    finally:
        reader.release_pages()
    names = class_names(record.label, limits)
    problems = [*_label_problems(record, limits, where)]
    try:
        with opened(record.flac, where) as recording:
            samples, rate = recording.read(), recording.samplerate  # (N, channels), Hz
    except UserError as error:
        kind = "not_finite" if isinstance(error, NotFinite) else "undecodable"
        return Facts(digest, names=names, fold=record.fold, problems=(*problems, Problem(kind, str(error))))
    channels = samples.shape[1]
    stored_as = f"{recording.encoding}, {rate} Hz, {channels} channel{'s' * (channels > 1)}"
    problems += _audio_problems(samples, rate, limits, where)
    return Facts(digest, sound_hash(samples), len(samples) / rate, stored_as, names, record.fold, tuple(problems))


def with_events(facts: Facts, events: Sequence[Event], where: str) -> Facts:
    """What is known of a record, with what is wrong with its events."""
    problems = _event_problems(events, facts, where) if facts.is_readable else ()
    return facts._replace(problems=(*facts.problems, *problems))


def class_names(label: str | int, limits: Limits) -> tuple[str, ...]:
    """The classes of a label field. A class index without a name is called by its digits."""
    if isinstance(label, str):
        return tuple(split_labels(label, limits.delimiter))
    names = limits.label_map.names if limits.label_map else ()
    return (names[label] if 0 <= label < len(names) else str(label),)


def sound_hash(samples: np.ndarray) -> bytes:
    """Equal for equal (N, channels) float32 samples, from whatever format."""
    no_minus_zero = np.ascontiguousarray(samples) + np.float32(0)  # -0 becomes 0, which it equals
    return hashlib.blake2b(no_minus_zero.data, digest_size=16).digest()


def _label_problems(record: Record, limits: Limits, where: str) -> Iterator[Problem]:
    if isinstance(record.label, str):
        if not record.label:
            yield Problem("negative", where)
            return
        if not split_labels(record.label, limits.delimiter):
            yield Problem("no_label", f"{where}: has no label")
            return
        if "" in record.label.split(limits.delimiter):
            yield Problem("empty_name", f"{where}: {record.label!r}")
    if limits.label_map is not None:
        try:
            limits.label_map.indices(record.label, limits.delimiter, where)
        except UserError as error:
            yield Problem("unknown_label", str(error))
    if record.fold is not None and record.fold < 1:
        yield Problem("fold", f"{where}: fold {record.fold}")


def _audio_problems(samples: np.ndarray, rate: int, limits: Limits, where: str) -> Iterator[Problem]:
    if rate != limits.sample_rate:
        yield Problem("sample_rate", f"{where}: {rate} Hz, not {limits.sample_rate} Hz")
    if samples.shape[1] != 1:
        yield Problem("channels", f"{where}: {samples.shape[1]} channels, where mono is needed")
    if len(samples) < limits.min_duration * rate:
        yield Problem("too_short", f"{where}: {len(samples) / rate:.3f} s")
    if len(samples) > limits.max_duration * rate:
        yield Problem("too_long", f"{where}: {len(samples) / rate:.3f} s")
    magnitudes = np.abs(samples)
    peak, clipped = magnitudes.max(), np.mean(magnitudes >= FULL_SCALE)
    if peak < limits.silence:
        level = f"peaks {-20 * math.log10(peak):.0f} dB below full scale" if peak else "all samples are 0"
        yield Problem("silent", f"{where}: {level}")
    if clipped > limits.clipping:
        yield Problem("clipped", f"{where}: {100 * clipped:.2g} % of its samples are at full scale")


def _event_problems(events: Sequence[Event], facts: Facts, where: str) -> Iterator[Problem]:
    """One of each kind, of however many events."""
    end = facts.duration + TOLERANCE  # NaN where nothing could be decoded: no time is beyond it
    lasts = f". The clip lasts {facts.duration:.3f} s"
    backwards, outside, beyond, unknown = [], [], [], []
    for event in events:
        if event.onset > event.offset:
            backwards.append(event)
        elif event.onset > end or event.offset < -TOLERANCE:
            outside.append(event)
        elif event.onset < -TOLERANCE or event.offset > end:
            beyond.append(event)
        if event.label not in facts.names:
            unknown.append(event)
    kinds = ("event_order", backwards, ""), ("event_outside", outside, lasts), ("event_beyond", beyond, lasts)
    for kind, wrong, more in (*kinds, ("event_label", unknown, "")):
        if wrong:
            spans = [f"{label} {onset:g} to {offset:g} s" for onset, offset, label in wrong]
            yield Problem(kind, f"{where}: {listed(spans, 3)}{more}")
    lasting = {event.label for event in events if event.onset != event.offset}
    unheard = [name for name in dict.fromkeys(facts.names) if name not in lasting]
    if unheard:
        yield Problem("no_event", f"{where}: {listed(unheard, 3)}")
