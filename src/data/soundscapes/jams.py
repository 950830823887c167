"""JAMS files as Scaper writes them: JSON that says which part of which source sounds when."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.utils.folders import files_in, require_different_stems
from src.utils.text import read_json

SCAPERS_RATE = 44100  # Hz, where the file of an early Scaper does not say
RATES = range(1000, 384_001)  # Hz
NEEDED = ("protected_labels", "ref_db", "n_channels", "fade_in_len", "fade_out_len", "reverb")  # in the sandbox


@dataclass(frozen=True)
class Event:
    """A background or an event of a soundscape. Times are in seconds."""

    role: str  # "foreground" or "background"
    label: str
    onset: float
    offset: float
    source_file: str  # as written: a path on the machine that made the soundscape
    source_time: float  # where in the source the event begins
    source_duration: float  # how much of the source is used, before time stretching
    snr: float = math.nan  # dB above the background, NaN where the file does not say


@dataclass(frozen=True)
class ScaperJams:
    """What a JAMS file says."""

    tree: dict[str, Any]  # the whole file
    sandbox: dict[str, Any]  # Scaper's settings, a part of `tree`
    events: tuple[Event, ...]


def jams_files(path: Path) -> list[Path]:
    """The file itself, or the JAMS files in and below a folder, sorted."""
    if path.is_file():
        return [path]
    found = files_in(path, {".jams"}, "JAMS files", none="no JAMS files in this folder")
    require_different_stems(path, found)
    return [path / file for file in found]


def read_jams(path: str | Path) -> ScaperJams:
    """Read a JAMS file that Scaper wrote.

    Raises:
        UserError: it is not JSON, is truncated, or has no annotation of Scaper's.
    """
    try:
        tree = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: is not a JAMS file, or is truncated ({error})") from None
    try:
        found = [annotation for annotation in tree["annotations"] if annotation["namespace"] == "scaper"]
    except (KeyError, TypeError):
        raise UserError(f"{path}: is JSON, but not a JAMS file: it has no list of annotations") from None
    if not found:
        raise UserError(f"{path}: has no annotation in Scaper's namespace. Another program wrote it")
    try:
        sandbox = dict(found[0]["sandbox"]["scaper"])
        absent = [name for name in NEEDED if name not in sandbox]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: has no sandbox of Scaper's, so that nothing says how it was mixed") from None
    if absent:
        raise UserError(f"{path}: its Scaper sandbox has no '{absent[0]}'. Was it written by Scaper's generate()?")
    rate = sandbox.get("sr", SCAPERS_RATE)
    if not isinstance(rate, int) or rate not in RATES:  # of others, SoX ends the process
        raise UserError(f"{path}: its sample rate, sr, is {str(rate)[:100]}, and {RATES[0]} to {RATES[-1]} Hz are made")
    if "slice" in found[0]["sandbox"]:
        raise UserError(f"{path}: was trimmed after mixing. Only whole soundscapes can be made again")
    try:
        events = tuple(_event(observation) for observation in found[0]["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: an event in it is not as Scaper writes them ({error!r})") from None
    return ScaperJams(tree, found[0]["sandbox"]["scaper"], events)


def _event(observation: Mapping[str, Any]) -> Event:
    value, onset = observation["value"], float(observation["time"])
    offset = onset + float(observation["duration"])
    role, label, source_file = (str(value[name]) for name in ("role", "label", "source_file"))
    source_time, source_duration = (float(value[name]) for name in ("source_time", "event_duration"))
    snr = math.nan if value.get("snr") is None else float(value["snr"])
    return Event(role, label, onset, offset, source_file, source_time, source_duration, snr)


def renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """A copy of JSON data in which strings that are keys of `names` have become their values."""
    if isinstance(tree, dict):
        return {key: renamed(value, names) for key, value in tree.items()}
    if isinstance(tree, list):
        return [renamed(value, names) for value in tree]
    return names.get(tree, tree) if isinstance(tree, str) else tree
