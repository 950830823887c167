"""One soundscape, from a file or an LMDB: what it holds, drawn."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.data.audio.files import mono, read_audio
from src.data.audio.spectrogram import FeatureExtractor
from src.data.labels import split_labels
from src.data.lmdb.store import LMDBReader
from src.data.soundscapes.jams import read_jams
from src.errors import UserError
from src.preparation.annotations import read_events
from src.utils.folders import beside
from src.utils.pictures import blank_figure, draw_events, draw_spectrogram, save_figure


@dataclass(frozen=True)
class LabelledEvent:
    """An event of a soundscape. Where only its label is known, both times are NaN."""

    label: str
    onset: float = math.nan  # s
    offset: float = math.nan  # s

    def __str__(self) -> str:
        return f"{self.onset:.2f} to {self.offset:.2f} s  {self.label}" if self.is_timed else self.label

    @property
    def is_timed(self) -> bool:
        return not math.isnan(self.onset)


@dataclass(frozen=True)
class Soundscape:
    """A soundscape and what is known of it."""

    name: str
    samples: np.ndarray  # (N,) float32, several channels averaged
    sample_rate: int  # Hz
    events: tuple[LabelledEvent, ...]


def load_soundscape(source: str, delimiter: str = ",") -> Soundscape:
    """Read an audio file with the `.txt` or `.jams` beside it, or a record of an LMDB.

    Args:
        source: a file, or LMDB:INDEX. Where there is a file of that whole name, it is the file.
        delimiter: between the labels of an LMDB's record.

    Raises:
        UserError: there is no such thing, or it cannot be read.
    """
    if Path(source).is_file() and Path(source).suffix != ".lmdb":
        samples, rate = read_audio(source)  # (N, channels)
        return Soundscape(Path(source).stem, mono(samples), rate, tuple(events_beside(Path(source))))
    path, _, index = source.rpartition(":")
    if not path or not (index.isascii() and index.isdigit()):
        hint = "is an LMDB or a folder. Add :INDEX, such as :0" if Path(source).exists() else "no such file"
        raise UserError(f"{source}: {hint}")
    reader, number = LMDBReader(path), int(index)
    if number >= len(reader):
        raise UserError(f"{path}: has no record {number}. Its {len(reader)} records begin with 0")
    record = reader[number]
    samples, rate = read_audio(record.flac, reader.where(number))  # (N, channels)
    labels = split_labels(record.label, delimiter) if isinstance(record.label, str) else [f"class {record.label}"]
    all_events = reader.events()
    timed = all_events[number] if all_events else []
    events = [LabelledEvent(event.label, event.onset, event.offset) for event in timed]
    events += [LabelledEvent(label) for label in labels if all(label != event.label for event in timed)]
    return Soundscape(f"{Path(path).stem}_{number}", mono(samples), rate, tuple(events))


def events_beside(sound: Path) -> list[LabelledEvent]:
    """The events that the `.txt`, or else the `.jams`, beside an audio file lists. Without either there are none."""
    txt, jams = beside(sound, ".txt"), beside(sound, ".jams")
    if not txt.exists():
        events = [event for event in read_jams(jams).events if event.role == "foreground"] if jams.exists() else []
        return [LabelledEvent(event.label, event.onset, event.offset) for event in events]
    return [LabelledEvent(event.label, event.onset, event.offset) for event in read_events(txt)]


def draw_soundscape(path: str | Path, soundscape: Soundscape) -> None:
    """Draw the waveform, the spectrogram that networks are trained on, and the events over time, to a PNG file.

    Raises:
        UserError: the soundscape is shorter than the spectrogram's window.
    """
    rate = soundscape.sample_rate
    features = FeatureExtractor("spectrogram", n_fft=441, hop_len=220, win_len=441, sample_rate=rate)  # as published
    if len(soundscape.samples) < features.n_fft:
        raise UserError(f"{soundscape.name}: has {len(soundscape.samples)} samples. It needs {features.n_fft}")
    spectrogram = features(soundscape.samples)  # (F, T)
    timed = [event for event in soundscape.events if event.is_timed]
    rows = sorted({event.label for event in timed})
    heights = (2, 4, 0.6 + 0.4 * len(rows)) if rows else (2, 4)
    figure = blank_figure(9, 6)
    wave, image, *below = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    wave.plot(np.arange(len(soundscape.samples)) / rate, soundscape.samples, linewidth=0.3)
    wave.set(ylabel="amplitude", xlim=(0, len(soundscape.samples) / rate))
    untimed = ", ".join(event.label for event in soundscape.events if not event.is_timed)
    wave.set_title(f"{soundscape.name}: {untimed}" if untimed else soundscape.name)
    seconds = spectrogram.shape[1] * features.hop_len / rate
    draw_spectrogram(image, spectrogram, features.frequencies, seconds)
    if rows:
        draw_events(below[0], [(event.onset, event.offset, event.label) for event in timed], rows)
    figure.axes[-1].set_xlabel("time (s)")
    save_figure(figure, path, dpi=110, kind="png")
