"""The SNR of a data set's events, from the JAMS files of its soundscapes."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from src.data.events import Event
from src.data.labels import nfc
from src.data.soundscapes.jams import jams_files, read_jams
from src.errors import UserError
from src.utils.progress import progress

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  # s between a time in a JAMS file and in the data set, which a `.txt` may round
TIE = 1e-6  # s within which two JAMS files are as near to a clip, and dB within which they say the same

Soundscape = tuple[list[Event], np.ndarray]  # E events, and the (E,) SNR of each


def snr_of_events(folder: str | Path, dataset_events: Sequence[Sequence[Event]]) -> list[np.ndarray]:
    """The SNR of each clip's events in their order, an (E,) array in dB for each clip.

    A clip's JAMS file lists the same labels at the same times, and of several such files it is the nearest. The SNR is
    NaN where the file has none, or where several are as near and differ in it.

    Args:
        folder: has JAMS files in it or in its subfolders. Those of other clips do no harm.
        dataset_events: the events of each clip. Those of a clip that was tiled match no file.

    Raises:
        UserError: a clip with events has no JAMS file, there are none at all, or one is damaged.
    """
    clips = [_composed(events) for events in dataset_events]
    soundscapes = _soundscapes(Path(folder), {_labels(events) for events in clips if events})
    found, missing = [], []
    for number, events in enumerate(clips):
        snr = _snr(events, *soundscapes[_labels(events)]) if events else np.empty(0)
        if snr is None:
            missing.append(number)
        else:
            found.append(snr)
    if missing:
        lacking = f"has no JAMS file for {len(missing):,} of {len(clips):,} clips, such as clip {missing[0]}"
        why = f"None lists its labels at its times, to {TOLERANCE} s. Is it the folder of another set"
        raise UserError(f"{folder}: {lacking}. {why}, or were short clips repeated when they were packed?")
    unknown = sum(int(np.isnan(snr).sum()) for snr in found)
    if unknown:
        why = "Their JAMS files have none, or several fit a clip and differ"
        log.warning("%s: the SNR of %d of %d events is unknown. %s", folder, unknown, sum(map(len, found)), why)
    return found


def _soundscapes(
    folder: Path, wanted: set[tuple[str, ...]]
) -> dict[tuple[str, ...], tuple[np.ndarray, list[Soundscape]]]:
    """What K JAMS files list with each wanted tuple of labels, behind the (K, 2, E) times of `_sorted_times`."""
    found: dict[tuple[str, ...], list[Soundscape]] = {labels: [] for labels in wanted}
    files = jams_files(folder)
    with progress(len(files), "reading JAMS files", "file") as bar:
        for file in files:
            heard = [event for event in read_jams(file).events if event.role == "foreground"]
            events = _composed(Event(event.onset, event.offset, event.label) for event in heard)
            if _labels(events) in wanted:
                found[_labels(events)].append((events, np.array([event.snr for event in heard])))
            bar.update()
    return {
        labels: (np.array([_sorted_times(events) for events, _ in some]).reshape(-1, 2, len(labels)), some)
        for labels, some in found.items()
    }


def _snr(events: Sequence[Event], times: np.ndarray, soundscapes: Sequence[Soundscape]) -> np.ndarray | None:
    """(E,) SNR of a clip's events, which `snr_of_events` describes, or None if no soundscape is this clip."""
    near = (np.abs(times - _sorted_times(events)) <= TOLERANCE).all(axis=(1, 2))  # (K,)
    matched = [_matched(events, *soundscapes[k]) for k in np.flatnonzero(near).tolist()]
    nearest = min((apart for apart, _ in matched), default=np.inf)
    if nearest > TOLERANCE:
        return None
    alike = np.array([snr for apart, snr in matched if apart <= nearest + TIE])
    return np.where(np.ptp(alike, axis=0) <= TIE, alike[0], np.nan)


def _composed(events: Iterable[Event]) -> list[Event]:
    """The events with their labels as label maps spell them."""
    return [event._replace(label=nfc(event.label)) for event in events]


def _labels(events: Iterable[Event]) -> tuple[str, ...]:
    return tuple(sorted(event.label for event in events))


def _sorted_times(events: Sequence[Event]) -> np.ndarray:
    """(2, E) onsets and offsets, each sorted within a label.

    Rounding may change the order of events. These times differ by no more than those of the events do.
    """
    return np.array([[time for _, time in sorted((each.label, each[which]) for each in events)] for which in (0, 1)])


def _matched(events: Sequence[Event], listed: Sequence[Event], snr: np.ndarray) -> tuple[float, np.ndarray]:
    """How many s matched events are apart at most, and the (E,) SNR of the clip's events."""
    times, theirs = (np.array([each[:2] for each in some]) for some in (events, listed))  # (E, 2)
    labels, their_labels = (np.array([each.label for each in some]) for some in (events, listed))
    apart = np.abs(times[:, None] - theirs).max(axis=2)  # (E, E)
    apart[labels[:, None] != their_labels] = np.inf
    # One pair beyond the tolerance costs more than all within it: it is matched only if there is no other way.
    rows, columns = linear_sum_assignment(np.where(apart <= TOLERANCE, apart, len(events)))
    return float(apart[rows, columns].max()), snr[columns]
