"""Tag recordings with a trained network: which classes sound, and when."""

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import cli
from src.errors import UserError
from src.utils.files import require_writable

if TYPE_CHECKING:
    from src.tagging.tagger import Tagger

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
    add("--threshold", type=float, default=0.0, help="show classes whose score reaches it, and write them to --csv")
    add("--csv", help="table to write, a row a window and class")
    by = "table to write, each recording's classes as present or absent, by the checkpoint's thresholds"
    add("--decisions", help=by)
    add("--summary", help="table to write, a row a recording and a column a class")
    add("--plot", help="picture to write. Of several recordings, one each, with the recording's name added")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.utils.pictures import require_kind

    require_kind("--plot", arguments.plot)
    require_writable(arguments.csv, arguments.decisions, arguments.summary, arguments.plot)
    from src.tagging.pictures import draw
    from src.tagging.recordings import audio_files
    from src.tagging.tables import table
    from src.tagging.tagger import Tagger

    files = audio_files(arguments.audio)
    tagger = Tagger(arguments.ckpt_path, arguments.lbl_map, arguments.window, arguments.hop)
    names, decisions = tagger.label_map.names, tagger.decisions
    failed = 0
    with ExitStack() as stack:
        add_rows = [stack.enter_context(table(*each)) for each in wanted_tables(arguments, tagger)]
        for number, file in enumerate(files, 1):
            try:
                tagged = tagger(file)
            except UserError as error:
                log.error("%s", error)
                failed += 1
                continue
            print(f"{file}  ({tagged.ends[-1]:.1f} s, {len(tagged.starts)} windows)")
            present = decisions.present(tagged.strongest_scores) if arguments.decisions else None
            for c in tagged.strongest(arguments.top_k):
                scores = tagged.scores[:, c]
                if scores.max() >= arguments.threshold:
                    start = tagged.starts[scores.argmax()]
                    decided = "" if present is None else "present, " if present[c] else "absent, "
                    print(f"  {scores.max():6.3f}  {names[c]}  ({decided}strongest from {start:.1f} s)")
            if arguments.plot:
                picture = Path(arguments.plot)
                if len(files) > 1:
                    name = os.fsencode(f"{picture.stem}_{number:03d}_{file.stem}")[: 255 - len(picture.suffix)]  # bytes
                    picture = picture.with_name(os.fsdecode(name) + picture.suffix)
                draw(picture, tagged, tagger.features.frequencies, names, arguments.top_k)
            for add in add_rows:
                add(tagged)
    if failed:
        raise UserError(f"{failed} of {len(files)} recordings could not be read. See above")


def wanted_tables(arguments: argparse.Namespace, tagger: "Tagger") -> Iterator[tuple[Any, ...]]:
    """Path, columns and rows of the tables that are asked for.

    Raises:
        UserError: the checkpoint has no thresholds, or a class's name is a column's.
    """
    from src.tagging import tables

    names, decisions = tagger.label_map.names, tagger.decisions
    if arguments.csv:
        yield arguments.csv, tables.SCORES, tables.score_rows(names, arguments.threshold)
    if arguments.decisions:
        if decisions is None:
            mend = "Choose them on validation clips with scripts/calibrate.py"
            raise UserError(f"--decisions: {arguments.ckpt_path} has no thresholds to decide by. {mend}")
        yield arguments.decisions, tables.DECISIONS, tables.decision_rows(names, decisions)
    if arguments.summary:
        yield arguments.summary, tables.summary_columns(names), tables.summary_rows


if __name__ == "__main__":
    cli.run(main)
