"""Tag recordings with a trained network: which classes sound, and when."""

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from src import cli
from src.errors import UserError
from src.utils.files import file_behind, is_special, require_writable

if TYPE_CHECKING:
    from src.data.events import Event
    from src.tagging.recordings import AudioFile
    from src.tagging.tagger import Tagged, Tagger

log = logging.getLogger(__name__)

OF_ALL = "csv", "decisions", "summary", "events", "frames", "embeddings", "html"  # flags of files with all recordings


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--audio", nargs="+", metavar="FILE_OR_FOLDER", help="recordings, of any rate and length")
    live = "16-bit PCM of standard input, of which each event is told in a line of JSON as it begins and as it ends"
    what.add_argument("--stream", action="store_true", help=live)
    add("--stream_rate", type=cli.positive(int), help="Hz of --stream without a header, by default the network's")
    add("--stream_channels", type=cli.positive(int), help="channels of --stream without a header, by default 1")
    add("--lbl_map", help=cli.LABEL_MAP)
    add("--top_k", type=cli.positive(int), default=5, help="classes to show of each recording")
    add("--window", type=cli.positive(float), default=5.0, help="seconds scored at a time")
    add("--hop", type=cli.positive(float), default=2.5, help="seconds from one window to the next")
    threshold = (
        "show classes whose score reaches it, and write them to --csv. Events of --format and --stream have it in place "
        "of the checkpoint's thresholds, or of 0.5 where it has none"
    )
    add("--threshold", type=cli.finite, help=threshold)
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
    formats = "audacity", "raven", "csv", "json", "parquet"
    add("--format", choices=formats, help="of --output or --output_folder: events, or windows in a row, as joined rows")
    to = parser.add_mutually_exclusive_group()
    to.add_argument("--output", metavar="FILE", help="one file to write for all recordings")
    to.add_argument("--output_folder", metavar="FOLDER", help="folder for a file for each recording")
    done = "leave out recordings that are done. Without it, all are done anew"
    add("--resume", action="store_true", help=done)
    add("--embeddings", help="file of arrays to write (.npz): what goes into the network's last layer")
    of = "a row a window, or a row a recording, the mean over its windows"
    add("--embeddings_of", choices=("windows", "recordings"), default="windows", help=of)
    page = "page to write, to look at and to listen to: one file with the sound, spectrograms and events in it"
    add("--html", metavar="FILE.html", help=page)
    add("--device", default="cpu", help="where the network runs, such as cuda or cuda:1")
    add("--batch_size", type=cli.positive(int), default=2, help="windows that the network gets at a time")
    add("--num_workers", type=cli.count, default=4, help="processes that read recordings, or 0 to read in the main one")
    add("--plot", help="picture to write. Of several recordings, one each, with the recording's name added")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    if arguments.stream:
        tell_events(arguments)
        return
    require_fitting(arguments)
    from src.tagging.recordings import audio_files
    from src.tagging.tagger import Tagger
    from src.utils.memory import keep_freed_memory

    keep_freed_memory()
    files = audio_files(arguments.audio)
    outputs = (value for name, value in vars(arguments).items() if name in (*OF_ALL, "plot", "output"))
    require_writable(*outputs, inputs=[arguments.ckpt_path, arguments.lbl_map, *(file.path for file in files)])
    settings = arguments.lbl_map, arguments.window, arguments.hop, arguments.device, arguments.batch_size
    tagger = Tagger(
        arguments.ckpt_path, *settings, frames=bool(arguments.frames), drawn=bool(arguments.plot or arguments.html)
    )
    failed = 0
    at_once: list[Callable[[int, Tagged], None]] = []
    with ExitStack() as stack:
        adders = [stack.enter_context(output) for output in wanted_outputs(arguments, tagger)]
        if arguments.format:
            files, *at_once = stack.enter_context(wanted_results(arguments, tagger, files))
        found = tagger.of_files([file.path for file in files], arguments.num_workers, *at_once)
        for number, tagged in enumerate(found, 1):
            if isinstance(tagged, UserError):
                log.error("%s", tagged)
                failed += 1
                continue
            say(tagged, tagger, arguments)
            if arguments.plot:
                draw_picture(tagged, tagger, arguments, f"{number:03d}" if len(files) > 1 else "")
            for add in adders:
                add(tagged)
    if failed:
        raise UserError(f"{failed} of {len(files)} recordings could not be read. See above")


def require_fitting(arguments: argparse.Namespace) -> None:
    """Refuse flags that do not go together.

    Raises:
        UserError: with what is missing, or too much.
    """
    from src.tagging.formats import require_suffix
    from src.utils.pictures import require_kind

    require_kind("--plot", arguments.plot)
    if arguments.stream_rate or arguments.stream_channels:
        raise UserError("--stream_rate and --stream_channels are of --stream. Of a recording, both are known")
    where = arguments.output or arguments.output_folder
    if bool(arguments.format) != bool(where):
        raise UserError("--format and one of --output and --output_folder need each other")
    if arguments.output:
        require_suffix(arguments.output, arguments.format)
    if arguments.resume:
        if not where:
            raise UserError("--resume: leaves out what is done of --output or --output_folder. Give one of them")
        if others := [f"--{name}" for name in (*OF_ALL, "plot") if getattr(arguments, name)]:
            raise UserError(f"--resume: {others[0]} would lack the recordings that are left out. Give one of them")
        if arguments.output and is_special(file_behind(arguments.output)):
            raise UserError(f"--resume: {arguments.output} is no plain file, and keeps nothing of an earlier run")


def say(tagged: "Tagged", tagger: "Tagger", arguments: argparse.Namespace) -> None:
    """Print a recording's strongest classes."""
    windows, decisions = len(tagged.starts), tagger.decisions if arguments.decisions else None
    print(f"{tagged.path}  ({tagged.ends[-1]:.1f} s, {windows} window{'s' * (windows > 1)})")
    for c in tagged.strongest(arguments.top_k):
        scores = tagged.scores[:, c]
        if scores.max() >= (arguments.threshold or 0.0):
            decided = f"{decisions.in_words(c, scores.max())}, " if decisions else ""
            strongest = f"strongest from {tagged.starts[scores.argmax()]:.1f} s"
            print(f"  {scores.max():6.3f}  {tagger.classes[c]}  ({decided}{strongest})")


def draw_picture(tagged: "Tagged", tagger: "Tagger", arguments: argparse.Namespace, number: str) -> None:
    """Draw a recording, to --plot, or one of several to a file beside it."""
    from src.tagging.pictures import draw

    picture = Path(arguments.plot)
    if number:
        name = os.fsencode(f"{picture.stem}_{number}_{tagged.path.stem}")[: 255 - len(picture.suffix)]  # bytes
        picture = picture.with_name(os.fsdecode(name) + picture.suffix)
    true = true_events(tagged.path) if tagger.event_decisions and tagged.frames else []
    draw(picture, tagged, tagger.features.frequencies, tagger.classes, arguments.top_k, tagger.event_decisions, true)


def tell_events(arguments: argparse.Namespace) -> None:
    """Tell the events of standard input as they come. A signal ends it as the input's end does."""
    used = "ckpt_path lbl_map window hop threshold device stream stream_rate stream_channels".split()
    usual = build_parser().get_default
    if others := [f"--{name}" for name, value in vars(arguments).items() if name not in used and value != usual(name)]:
        raise UserError(f"{', '.join(others)}: cannot be had with --stream")
    from src.data.audio.stream import Input, opened_stream

    source = Input(0)  # first: what comes while the network is made is kept in the pipe
    from src.runs.interrupts import Interrupts
    from src.tagging.found import decisions_of
    from src.tagging.stream import tell
    from src.tagging.tagger import Tagger
    from src.utils.memory import keep_freed_memory

    keep_freed_memory()
    tagger = Tagger(arguments.ckpt_path, arguments.lbl_map, arguments.window, arguments.hop, arguments.device)
    interrupts = Interrupts()
    source.stopped = lambda: interrupts.received is not None
    stream = opened_stream(source, tagger.sample_rate, arguments.stream_rate, arguments.stream_channels)
    with interrupts.listening():
        tell(stream, tagger, decisions_of(tagger, arguments.threshold))


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


@contextmanager
def wanted_results(
    arguments: argparse.Namespace, tagger: "Tagger", files: "Sequence[AudioFile]"
) -> "Iterator[tuple[list[AudioFile], Callable[[int, Tagged], None]]]":
    """What of the files is still to do for --format, and what keeps each one's events.

    Raises:
        UserError: as of `src.tagging.results`.
    """
    from src.models.torch_files import digest_of
    from src.tagging.formats import result_of
    from src.tagging.found import decisions_of
    from src.tagging.results import one_each, one_for_all

    if tagger.inputs.stride:
        tagger.require_frames()
    decisions = decisions_of(tagger, arguments.threshold)
    recipe = {"checkpoint": tagger.digest, "classes": digest_of(tagger.classes), "frames": bool(arguments.frames)}
    recipe |= {name: getattr(arguments, name) for name in ("window", "hop", "threshold")}
    make, where = (one_for_all, arguments.output) if arguments.output else (one_each, arguments.output_folder)
    with make(where, files, arguments.format, recipe, arguments.resume) as (todo, add):
        yield todo, lambda number, tagged: add(number, result_of(tagged, tagger, decisions))


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
        yield tables.table(arguments.csv, tables.SCORES, tables.score_rows(names, arguments.threshold or 0.0))
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

        yield page(arguments.html, tagger, arguments.top_k, arguments.threshold)


if __name__ == "__main__":
    cli.run(main)
