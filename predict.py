"""Tag recordings with a trained network: which classes sound, and when."""

import argparse
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from src import cli
from src.errors import UserError
from src.utils.files import require_writable

if TYPE_CHECKING:
    from src.data.events import Event
    from src.tagging.tagger import Tagged, Tagger

log = logging.getLogger(__name__)


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    add("--audio", required=True, nargs="+", metavar="FILE_OR_FOLDER", help="recordings, of any rate and length")
    add("--lbl_map", help=cli.LABEL_MAP)
    add("--top_k", type=cli.positive(int), default=5, help="classes to show of each recording")
    add("--window", type=cli.positive(float), default=5.0, help="seconds scored at a time")
    add("--hop", type=cli.positive(float), default=2.5, help="seconds from one window to the next")
    add(
        "--threshold", type=cli.finite, default=0.0, help="show classes whose score reaches it, and write them to --csv"
    )
    add("--csv", help="table to write, a row a window and class")
    by = "table to write, each recording's classes as present or absent, by the checkpoint's thresholds"
    add("--decisions", help=by)
    add("--summary", help="table to write, a row a recording and a column a class")
    events = "table to write (.tsv), a row an event, as DESED has it. It takes a network of events"
    add("--events", metavar="FILE.tsv", help=events)
    frames = (
        "table to write (.tsv), a row a frame and a column a class. A tagger scores frames without being trained to"
    )
    add("--frames", metavar="FILE.tsv", help=frames)
    add("--embeddings", help="file of arrays to write (.npz): what goes into the network's last layer")
    of = "a row a window, or a row a recording, the mean over its windows"
    add("--embeddings_of", choices=("windows", "recordings"), default="windows", help=of)
    page = "page to write, to look at and to listen to: one file with the sound, spectrograms and events in it"
    add("--html", metavar="FILE.html", help=page)
    add("--device", default="cpu", help="where the network runs, such as cuda or cuda:1")
    add("--plot", help="picture to write. Of several recordings, one each, with the recording's name added")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.utils.pictures import require_kind

    require_kind("--plot", arguments.plot)
    from src.tagging.pictures import draw
    from src.tagging.recordings import audio_files
    from src.tagging.tagger import Tagger
    from src.utils.memory import keep_freed_memory

    keep_freed_memory()
    files = audio_files(arguments.audio)
    outputs = arguments.csv, arguments.decisions, arguments.summary, arguments.embeddings, arguments.plot
    outputs += arguments.events, arguments.frames, arguments.html
    require_writable(*outputs, inputs=[arguments.ckpt_path, arguments.lbl_map, *files])
    settings = arguments.lbl_map, arguments.window, arguments.hop, arguments.device
    tagger = Tagger(arguments.ckpt_path, *settings, frames=bool(arguments.frames))
    names, decisions = tagger.classes, tagger.decisions
    failed = 0
    with ExitStack() as stack:
        adders = [stack.enter_context(output) for output in wanted_outputs(arguments, tagger)]
        for number, file in enumerate(files, 1):
            try:
                tagged = tagger(file)
            except UserError as error:
                log.error("%s", error)
                failed += 1
                continue
            windows = len(tagged.starts)
            print(f"{file}  ({tagged.ends[-1]:.1f} s, {windows} window{'s' * (windows > 1)})")
            for c in tagged.strongest(arguments.top_k):
                scores = tagged.scores[:, c]
                if scores.max() >= arguments.threshold:
                    start = tagged.starts[scores.argmax()]
                    decided = f"{decisions.in_words(c, scores.max())}, " if decisions and arguments.decisions else ""
                    print(f"  {scores.max():6.3f}  {names[c]}  ({decided}strongest from {start:.1f} s)")
            if arguments.plot:
                picture = Path(arguments.plot)
                if len(files) > 1:
                    name = os.fsencode(f"{picture.stem}_{number:03d}_{file.stem}")[: 255 - len(picture.suffix)]  # bytes
                    picture = picture.with_name(os.fsdecode(name) + picture.suffix)
                true = true_events(file) if tagger.event_decisions and tagged.frames else []
                look = tagger.features.frequencies, names, arguments.top_k, tagger.event_decisions, true
                draw(picture, tagged, *look)
            for add in adders:
                add(tagged)
    if failed:
        raise UserError(f"{failed} of {len(files)} recordings could not be read. See above")


def true_events(recording: Path) -> "list[Event]":
    """The events that the `.txt` beside a recording lists, if there is one that does."""
    from src.data.labels import nfc
    from src.preparation.annotations import read_events
    from src.utils.folders import beside

    listed = beside(recording, ".txt")
    try:
        found = read_events(listed) if listed.exists() else []
    except UserError as error:
        log.warning("%s. It is not drawn", error)
        return []
    return [event._replace(label=nfc(event.label)) for event in found]


def wanted_outputs(
    arguments: argparse.Namespace, tagger: "Tagger"
) -> Iterator[AbstractContextManager[Callable[["Tagged"], None]]]:
    """The files that are asked for, each of which gives what adds a recording.

    Raises:
        UserError: the checkpoint has no thresholds, a class's name is a column's, or the network has no embeddings.
    """
    from src.tagging import tables

    names, decisions = tagger.classes, tagger.decisions
    if arguments.csv:
        yield tables.table(arguments.csv, tables.SCORES, tables.score_rows(names, arguments.threshold))
    if arguments.decisions:
        if decisions is None:
            mend = "Choose them on validation clips with scripts/calibrate.py"
            if arguments.frames:
                mend = "Those of a tagger are not of the scores that --frames makes: leave it out"
            raise UserError(f"--decisions: {arguments.ckpt_path} has no thresholds to decide by. {mend}")
        yield tables.table(arguments.decisions, tables.DECISIONS, tables.decision_rows(names, decisions))
    if arguments.summary:
        columns = tables.columns_of_classes("--summary", tables.SCORES[:1], names)
        yield tables.table(arguments.summary, columns, tables.summary_rows)
    if arguments.events:
        tagger.require_frames()
        if tagger.event_decisions is None:
            mend = "Training a network of events chooses them, and so does scripts/calibrate.py"
            raise UserError(f"--events: {arguments.ckpt_path} has no thresholds of events. {mend}")
        yield tables.table(arguments.events, tables.EVENTS, tables.event_rows(names, tagger.event_decisions), "\t")
    if arguments.frames:
        tagger.require_frames()
        columns = tables.columns_of_classes("--frames", tables.FRAMES, names)
        yield tables.table(arguments.frames, columns, tables.frame_rows, "\t")
    if arguments.embeddings:
        tagger.require_embeddings()
        of_windows = arguments.embeddings_of == "windows"
        yield tables.embedding_file(arguments.embeddings, tagger.embedding_size, of_windows)
    if arguments.html:
        from src.tagging.page import page

        yield page(arguments.html, tagger, arguments.top_k)


if __name__ == "__main__":
    cli.run(main)
