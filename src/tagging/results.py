"""Events of recordings, written as soon as each recording is done: a file each, or what one file for all is made of."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from src.errors import UserError
from src.models.torch_files import digest_of
from src.tagging.formats import FORMATS, Result, as_json, from_json
from src.tagging.recordings import AudioFile
from src.utils import locks
from src.utils.files import claim_folder, file_behind, is_special, write_whole

log = logging.getLogger(__name__)

NOTE = "recipe.json"  # of `claim_folder`


class Results(NamedTuple):
    """What is still to do, and where it goes."""

    todo: list[AudioFile]
    add: Callable[[int, Result], None]  # which of these, and its events


@contextmanager
def one_each(
    output_folder: str, files: Sequence[AudioFile], name: str, recipe: Mapping[str, Any], resume: bool
) -> Iterator[Results]:
    """A file for each recording, named after it.

    Args:
        name: of the format.
        recipe: what results depend on. A folder with results of another recipe is refused.
        resume: leave out recordings whose file is there and no older than they are.

    Raises:
        UserError: two recordings would have the same file, or one is there that is none of this command's.
    """
    suffix, _, content = FORMATS[name]
    folder = Path(output_folder)
    places: dict[Path, AudioFile] = {}
    for file in files:
        place = folder / file.name.with_name(file.name.stem + suffix)
        if place in places or place == folder / NOTE:
            other = places[place].path if place in places else f"the note {NOTE}"
            raise UserError(f"{file.path}: its results would be {place}, as those of {other}. Give their common folder")
        places[place] = file
    if not (folder / NOTE).exists() and (there := next((place for place in places if place.exists()), None)):
        raise UserError(f"{there}: is there, and this command did not write it: choose another --output_folder")
    claim_folder(folder, {**recipe, "format": name}, "results", "--output_folder")
    yield _results(list(places), files, content, resume)


@contextmanager
def one_for_all(
    output: str, files: Sequence[AudioFile], name: str, recipe: Mapping[str, Any], resume: bool
) -> Iterator[Results]:
    """One file, made when the block ends. Until then there is a folder beside it with a file for each recording.

    Args:
        name, recipe: as of `one_each`.
        resume: leave out recordings that are in this folder, and keep it in the end.

    Raises:
        UserError: the folder is of another recipe, or another run works in it.
    """
    target = file_behind(output)
    with ExitStack() as stack:
        if is_special(target):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = target.with_name(f".{target.name}.parts")
            stack.enter_context(_alone(folder, output))
            if not resume and (folder / NOTE).exists():
                for part in folder.glob("*.json"):
                    part.unlink()
        claim_folder(folder, recipe, "results", "--output")
        places = [folder / f"{digest_of(str(file.path.absolute()))}.json" for file in files]
        todo, add = _results(places, files, as_json, resume)
        done = set(files) - set(todo)

        def add_and_note(number: int, result: Result) -> None:
            add(number, result)
            done.add(todo[number])

        yield Results(todo, add_and_note)
        parts = [place.read_bytes() for place, file in zip(places, files) if file in done]
        write_whole(output, FORMATS[name].content([result for part in parts for result in from_json(part)]))
        if not resume:
            shutil.rmtree(folder)


@contextmanager
def _alone(folder: Path, output: str) -> Iterator[None]:
    """Keep other runs out of the folder, where its file system has locks."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = locks.take(folder, folder=True)
    except BlockingIOError:
        raise UserError(f"{output}: another run is writing it. Wait until it has ended") from None
    except OSError as error:
        if error.errno not in locks.UNSUPPORTED:
            raise
        yield
        return
    try:
        yield
    finally:
        locks.release(descriptor)


def _results(
    places: Sequence[Path], files: Sequence[AudioFile], content: Callable[[Sequence[Result]], bytes], resume: bool
) -> Results:
    todo = {file: place for file, place in zip(files, places) if not (resume and _is_done(place, file.path))}
    if len(todo) < len(files):
        log.info("%d of %d recordings are done already", len(files) - len(todo), len(files))
    targets = list(todo.values())
    return Results(list(todo), lambda number, result: write_whole(targets[number], content([result])))


def _is_done(place: Path, recording: Path) -> bool:
    """Whether the results are there, and no older than the recording."""
    try:
        return place.stat().st_mtime >= recording.stat().st_mtime
    except OSError:
        return False
