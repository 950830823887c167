"""What `predict.py` does: recordings -> scores, events, tables, pictures and a page, or a stream -> lines."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.data.audio.stream import Input, opened_stream
from src.data.events import Event
from src.data.labels import nfc
from src.errors import UserError
from src.models.torch_files import digest_of
from src.preparation.annotations import read_events
from src.runs.interrupts import Interrupts
from src.tagging import tables
from src.tagging.formats import require_suffix, result_of
from src.tagging.found import decisions_of
from src.tagging.pictures import draw
from src.tagging.recordings import AudioFile, audio_files
from src.tagging.results import one_each, one_for_all
from src.tagging.stream import tell
from src.tagging.tagger import Tagged, Tagger
from src.utils.files import file_behind, is_special, require_writable
from src.utils.folders import beside
from src.utils.memory import keep_freed_memory
from src.utils.pictures import require_kind

log = logging.getLogger(__name__)

OF_ALL = "csv", "decisions", "summary", "events", "frames", "embeddings", "html"  # flags of files with all recordings


@dataclass(frozen=True)
class PredictionOptions:
    """The flags of `predict.py`, whose help says what they mean. Files that are not wanted are None."""

    ckpt_path: str
    audio: Sequence[str]
    lbl_map: str | None
    window: float  # s
    hop: float  # s
    threshold: float | None
    top_k: int
    device: str
    batch_size: int
    num_workers: int
    csv: str | None
    decisions: str | None
    summary: str | None
    events: str | None
    frames: str | None
    embeddings: str | None
    embeddings_of: str
    html: str | None
    plot: str | None
    format: str | None
    output: str | None
    output_folder: str | None
    resume: bool
    stream_rate: int | None  # Hz
    stream_channels: int | None

    def require_fitting(self) -> None:
        """Refuse flags that do not go together.

        Raises:
            UserError: with what is missing, or too much.
        """
        require_kind("--plot", self.plot)
        if self.stream_rate or self.stream_channels:
            raise UserError("--stream_rate and --stream_channels are of --stream. Of a recording, both are known")
        where = self.output or self.output_folder
        if bool(self.format) != bool(where):
            raise UserError("--format and one of --output and --output_folder need each other")
        if self.output and self.format:
            require_suffix(self.output, self.format)
        if self.resume:
            if not where:
                raise UserError("--resume: leaves out what is done of --output or --output_folder. Give one of them")
            if others := [f"--{name}" for name in (*OF_ALL, "plot") if getattr(self, name)]:
                raise UserError(f"--resume: {others[0]} would lack the recordings that are left out. Give one of them")
            if self.output and is_special(file_behind(self.output)):
                raise UserError(f"--resume: {self.output} is no plain file, and keeps nothing of an earlier run")


def predict(options: PredictionOptions) -> None:
    """Tag recordings, and write what is asked for.

    Raises:
        UserError: flags do not go together, a file cannot be written, or recordings cannot be read, in the end.
    """
    options.require_fitting()
    keep_freed_memory()
    files = audio_files(options.audio)
    outputs = (value for name, value in vars(options).items() if name in (*OF_ALL, "plot", "output"))
    require_writable(*outputs, inputs=[options.ckpt_path, options.lbl_map, *(file.path for file in files)])
    settings = options.lbl_map, options.window, options.hop, options.device, options.batch_size
    tagger = Tagger(options.ckpt_path, *settings, frames=bool(options.frames), drawn=bool(options.plot or options.html))
    alone = bool(options.output and is_special(file_behind(options.output)))  # such as on standard output
    failed = 0
    with ExitStack() as stack:
        adders = [stack.enter_context(output) for output in wanted_outputs(options, tagger)]
        keep: Callable[[int, Tagged], None] = nothing
        if options.format:
            files, keep = stack.enter_context(wanted_results(options, tagger, files))
        found = tagger.of_files([file.path for file in files], options.num_workers, at_once=keep)
        for number, tagged in enumerate(found, 1):
            if isinstance(tagged, UserError):
                log.error("%s", tagged)
                failed += 1
                continue
            if not alone:
                say(tagged, tagger, options)
            if options.plot:
                draw_picture(tagged, tagger, options, Path(options.plot), f"{number:03d}" * (len(files) > 1))
            for add in adders:
                add(tagged)
    if failed:
        raise UserError(f"{failed} of {len(files)} recordings could not be read. See above")


def nothing(number: int, tagged: Tagged) -> None:
    """What is kept of a recording where nothing is."""


def say(tagged: Tagged, tagger: Tagger, options: PredictionOptions) -> None:
    """Print a recording's strongest classes."""
    windows, decisions = len(tagged.starts), tagger.decisions if options.decisions else None
    print(f"{tagged.path}  ({tagged.ends[-1]:.1f} s, {windows} window{'s' * (windows > 1)})")
    for c in tagged.strongest(options.top_k):
        scores = tagged.scores[:, c]
        if scores.max() >= (options.threshold or 0.0):
            decided = f"{decisions.in_words(c, scores.max())}, " if decisions else ""
            strongest = f"strongest from {tagged.starts[scores.argmax()]:.1f} s"
            print(f"  {scores.max():6.3f}  {tagger.classes[c]}  ({decided}{strongest})")


def draw_picture(tagged: Tagged, tagger: Tagger, options: PredictionOptions, picture: Path, number: str) -> None:
    """Draw a recording. The picture of one of several has its number and its name behind its own."""
    if number:
        name = os.fsencode(f"{picture.stem}_{number}_{tagged.path.stem}")[: 255 - len(picture.suffix)]  # bytes
        picture = picture.with_name(os.fsdecode(name) + picture.suffix)
    true = true_events(tagged.path) if tagger.event_decisions and tagged.frames else []
    draw(picture, tagged, tagger.features.frequencies, tagger.classes, options.top_k, tagger.event_decisions, true)


def true_events(recording: Path) -> list[Event]:
    """The events that the `.txt` beside a recording lists, if there is one that does."""
    listed = beside(recording, ".txt")
    try:
        found = read_events(listed) if listed.exists() else []
    except UserError as error:
        log.warning("%s. It is not drawn", error)
        return []
    return [event._replace(label=nfc(event.label)) for event in found]


@contextmanager
def wanted_results(
    options: PredictionOptions, tagger: Tagger, files: Sequence[AudioFile]
) -> Iterator[tuple[list[AudioFile], Callable[[int, Tagged], None]]]:
    """What of the files is still to do for --format, and what keeps each one's events.

    Raises:
        UserError: as of `src.tagging.results`.
    """
    if tagger.inputs.stride:
        tagger.require_frames()
    decisions = decisions_of(tagger, options.threshold)
    recipe = {"checkpoint": tagger.digest, "classes": digest_of(tagger.classes), "frames": bool(options.frames)}
    recipe |= {name: getattr(options, name) for name in ("window", "hop", "threshold")}
    make, where = (one_for_all, options.output) if options.output else (one_each, options.output_folder)
    assert where and options.format, "as require_fitting has seen to"
    with make(where, files, options.format, recipe, options.resume) as (todo, add):
        yield todo, lambda number, tagged: add(number, result_of(tagged, tagger, decisions))


def wanted_outputs(
    options: PredictionOptions, tagger: Tagger
) -> Iterator[AbstractContextManager[Callable[[Tagged], None]]]:
    """The files that are asked for, each of which gives what adds a recording.

    Raises:
        UserError: the checkpoint has no thresholds, a class's name is a column's, or the network has no embeddings.
    """
    names, decisions = tagger.classes, tagger.decisions
    if options.csv:
        yield tables.table(options.csv, tables.SCORES, tables.score_rows(names, options.threshold or 0.0))
    if options.decisions:
        if decisions is None:
            mend = "Choose them on validation clips with scripts/calibrate.py"
            if options.frames:
                mend = "Those of a tagger are not of the scores that --frames makes: leave it out"
            raise UserError(f"--decisions: {options.ckpt_path} has no thresholds to decide by. {mend}")
        yield tables.table(options.decisions, tables.DECISIONS, tables.decision_rows(names, decisions))
    if options.summary:
        columns = tables.columns_of_classes("--summary", tables.SCORES[:1], names)
        yield tables.table(options.summary, columns, tables.summary_rows)
    if options.events:
        tagger.require_frames()
        if tagger.event_decisions is None:
            mend = "Training a network of events chooses them, and so does scripts/calibrate.py"
            raise UserError(f"--events: {options.ckpt_path} has no thresholds of events. {mend}")
        yield tables.table(options.events, tables.EVENTS, tables.event_rows(names, tagger.event_decisions), "\t")
    if options.frames:
        tagger.require_frames()
        columns = tables.columns_of_classes("--frames", tables.FRAMES, names)
        yield tables.table(options.frames, columns, tables.frame_rows, "\t")
    if options.embeddings:
        tagger.require_embeddings()
        of_windows = options.embeddings_of == "windows"
        yield tables.embedding_file(options.embeddings, tagger.embedding_size, of_windows)
    if options.html:
        from src.tagging.page import page

        yield page(options.html, tagger, options.top_k, options.threshold)


def tell_events(options: PredictionOptions, source: Input) -> None:
    """Tell the events of an input as they come. A signal ends it as the input's end does.

    Raises:
        UserError: it is no sound, or the network's windows leave frames out.
    """
    keep_freed_memory()
    tagger = Tagger(options.ckpt_path, options.lbl_map, options.window, options.hop, options.device)
    interrupts = Interrupts()
    source.stopped = lambda: interrupts.received is not None
    stream = opened_stream(source, tagger.sample_rate, options.stream_rate, options.stream_channels)
    with interrupts.listening():
        tell(stream, tagger, decisions_of(tagger, options.threshold))
