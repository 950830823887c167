"""Tag recordings with a trained network: which classes sound, and when."""

import argparse
import logging
from pathlib import Path

from src import cli
from src.errors import UserError
from src.utils.files import write_csv

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--ckpt_path", required=True, help="checkpoint, of this project or released in 2021")
    add("--audio", required=True, nargs="+", metavar="FILE_OR_FOLDER", help="recordings, of any rate and length")
    add("--lbl_map", help="label map, where the checkpoint carries none")
    add("--top_k", type=cli.positive(int), default=5, help="classes to show of each recording")
    add("--window", type=cli.positive(float), default=5.0, help="seconds scored at a time")
    add("--hop", type=cli.positive(float), default=2.5, help="seconds from one window to the next")
    add("--threshold", type=float, default=0.0, help="show classes whose score reaches it")
    add("--csv", help="table to write, a row a window and class")
    add("--plot", help="picture to write; of several recordings, one each, with the recording's name added")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    for path, kinds in ((arguments.csv, ()), (arguments.plot, (".png", ".pdf", ".svg", ".jpg"))):
        if path and Path(path).is_dir():
            raise UserError(f"{path}: is a folder; a file was expected")
        if path and kinds and Path(path).suffix.lower() not in kinds:
            raise UserError(f"--plot {path}: a picture ends in {', '.join(kinds)}")
    from src.tagging.tagger import COLUMNS, Tagger, audio_files, rows_of

    files = audio_files(arguments.audio)
    tagger = Tagger(arguments.ckpt_path, arguments.lbl_map, arguments.window, arguments.hop)
    scored: list[Path] = []
    rows = (row for tagged in tag(tagger, files, arguments, scored) for row in rows_of(tagged, tagger.label_map.names))
    if arguments.csv:
        write_csv(arguments.csv, COLUMNS, rows)
    else:
        for _ in rows:
            pass
    if len(scored) < len(files):
        raise UserError(f"{len(files) - len(scored)} of {len(files)} recordings could not be read; see above")


def tag(tagger, files: list[Path], arguments: argparse.Namespace, scored: list[Path]):
    """Score recordings in turn, show each and hand it on; note in `scored` those that could be read."""
    from src.tagging.tagger import draw

    names = tagger.label_map.names
    for number, file in enumerate(files, 1):
        try:
            tagged = tagger(file)
        except UserError as error:
            log.error("%s", error)
            continue
        scored.append(file)
        print(f"{file}  ({tagged.ends[-1]:.1f} s, {len(tagged.starts)} windows)")
        for name, score, start in tagged.strongest(names, arguments.top_k, arguments.threshold):
            print(f"  {score:6.3f}  {name}  (strongest from {start:.1f} s)")
        if arguments.plot:
            picture = Path(arguments.plot)
            if len(files) > 1:
                picture = picture.with_name(f"{picture.stem}_{number:03d}_{file.stem}{picture.suffix}")
            draw(picture, tagged, names, arguments.top_k)
        yield tagged


if __name__ == "__main__":
    cli.run(main)
