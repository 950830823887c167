"""Events found in recordings, as files that other programs read: Audacity, Raven, spreadsheets, pandas, R."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from src.errors import UserError
from src.models.decisions import EventDecisions
from src.tagging.found import found_in
from src.tagging.tagger import Tagged, Tagger
from src.utils.text import NAMES


class Row(NamedTuple):
    """One event."""

    start: float  # s from the recording's start
    end: float  # s
    label: str
    score: float


@dataclass(frozen=True)
class Result:
    """The events of one recording."""

    file: str
    duration: float  # s
    high: float  # Hz, up to which the network hears
    events: Sequence[Row]


def result_of(tagged: Tagged, tagger: Tagger, decisions: EventDecisions) -> Result:
    """The events found in a recording."""
    duration = tagged.length.frames / tagged.length.sample_rate
    high = min((tagger.features.f_max or tagger.sample_rate / 2), tagged.length.sample_rate / 2)
    events = (event._replace(offset=min(event.offset, duration)) for event in found_in(tagged, decisions))
    rows = [Row(event.onset, event.offset, tagger.classes[event.label], event.confidence) for event in events]
    return Result(str(tagged.path), duration, high, rows)


class Format(NamedTuple):
    """How results become a file."""

    suffix: str  # of a file for each recording
    others: tuple[str, ...]  # that a file for all may have as well
    content: Callable[[Sequence[Result]], bytes]


def audacity(results: Sequence[Result]) -> bytes:
    """A label track: start, end and label, without a head (Audacity's manual, Importing and Exporting Labels).

    Of several recordings, times count on from one to the next, as in a project where they lie end to end.
    """
    rows = (
        (f"{before + row.start:.6f}", f"{before + row.end:.6f}", row.label) for before, _, row in _laid_out(results)
    )
    return _tabs(rows)


RAVEN = (
    "Selection, View, Channel, Begin Time (s), End Time (s), Low Freq (Hz), High Freq (Hz), Class, Confidence, "
    "File Offset (s), Begin Path"
).split(", ")


def raven(results: Sequence[Result]) -> bytes:
    """A selection table (Raven Pro's manual, Selection Tables). Times count on from one recording to the next."""
    rows: list[Sequence[str]] = [RAVEN]
    for number, (before, result, row) in enumerate(_laid_out(results), 1):
        box = f"{before + row.start:.6f}", f"{before + row.end:.6f}", "0.0", f"{result.high:.1f}"
        found = row.label, f"{row.score:.6f}", f"{row.start:.6f}", os.path.abspath(result.file)
        rows.append((str(number), "Spectrogram 1", "1", *box, *found))
    return _tabs(rows)


COLUMNS = "file", "start", "end", "class", "score"


def comma_separated(results: Sequence[Result]) -> bytes:
    """A row an event, below the names of the columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for _, result, row in _laid_out(results):
        writer.writerow((result.file, f"{row.start:.6f}", f"{row.end:.6f}", row.label, f"{row.score:.6f}"))
    return text.getvalue().encode(errors=NAMES)


def as_json(results: Sequence[Result]) -> bytes:
    """An object a recording: file, duration, high, and its events, each with the other columns of the tables."""
    plain = [vars(result) | {"events": [dict(zip(COLUMNS[1:], row)) for row in result.events]} for result in results]
    return (json.dumps(plain, indent=1) + "\n").encode()


def from_json(content: bytes) -> list[Result]:
    """What `as_json` was made of."""
    return [
        Result(**each | {"events": [Row(*(row[name] for name in COLUMNS[1:])) for row in each["events"]]})
        for each in json.loads(content)
    ]


def parquet(results: Sequence[Result]) -> bytes:
    """A row an event, with columns of text and of 64-bit floats."""
    import pyarrow
    import pyarrow.parquet

    rows = [(as_utf8(result.file), *row) for _, result, row in _laid_out(results)]
    kinds = (pyarrow.string(), pyarrow.float64(), pyarrow.float64(), pyarrow.string(), pyarrow.float64())
    schema = pyarrow.schema(list(zip(COLUMNS, kinds)))
    table = pyarrow.table({name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}, schema)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def as_utf8(name: str) -> str:
    """A file's name, of which bytes that are no UTF-8 are written as escapes."""
    return name.encode(errors=NAMES).decode(errors="backslashreplace")


FORMATS = {
    "audacity": Format(".txt", (".tsv",), audacity),
    "raven": Format(".selections.txt", (".txt", ".tsv"), raven),
    "csv": Format(".csv", (), comma_separated),
    "json": Format(".json", (), as_json),
    "parquet": Format(".parquet", (".pq",), parquet),
}


def _laid_out(results: Sequence[Result]) -> Iterator[tuple[float, Result, Row]]:
    """Each event, with how long the recordings before its own last, in s."""
    before = 0.0
    for result in results:
        for row in result.events:
            yield before, result, row
        before += result.duration


def _tabs(rows: Iterable[Sequence[str]]) -> bytes:
    """Lines of cells. What would end a cell or a line becomes a space: these programs know no quotes."""
    plain = ([" ".join(cell.splitlines()).replace("\t", " ") for cell in row] for row in rows)
    return "".join("\t".join(row) + "\n" for row in plain).encode(errors=NAMES)


def require_suffix(path: str, name: str) -> None:
    """Refuse a file whose suffix means another format.

    Raises:
        UserError: it does.
    """
    suffixes = {each: (each, *rest) for each, rest, _ in FORMATS.values()}
    own = suffixes[FORMATS[name].suffix]
    known = sorted({each for those in suffixes.values() for each in those}, key=len, reverse=True)
    found = next((suffix for suffix in known if path.lower().endswith(suffix)), None)
    if found and found not in own:
        raise UserError(f"--output {path}: {found} means another format than {name}, which has {' or '.join(own)}")
