"""Write lists of AudioSet clip ids, one <YouTube id>_<start second> a line, from the official segment files."""

import logging
from pathlib import Path

import _repository

from src import cli
from src.errors import UserError
from src.preparation.catalogues import read_segments, set_name
from src.preparation.clip_sets import find_files
from src.utils.files import whole_file

log = logging.getLogger(__name__)
HERE = Path(__file__).resolve().parent


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--segments_csv", required=True, nargs="+", help="such as balanced_train_segments.csv eval_segments.csv")
    add("--clips_dir", help="list only the clips that have a file in this folder")
    add("--out_dir", default=HERE, help="folder for balanced_train_ids.txt and so on")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    for segments_csv in arguments.segments_csv:
        clips = read_segments(segments_csv)
        files = find_files(arguments.clips_dir, clips) if arguments.clips_dir else None
        ids = [clip.id for clip in clips if files is None or clip.id in files]
        path = Path(arguments.out_dir) / f"{set_name(segments_csv)}_ids.txt"
        write_ids(path, ids)
        log.info("%s: %d of the %d clips in %s", path, len(ids), len(clips), segments_csv)


def write_ids(path: Path, ids: list[str]) -> None:
    """Write a list, unless there is another one by that name: it may be one that cannot be made again."""
    text = "".join(f"{clip_id}\n" for clip_id in ids)
    if not ids:
        raise UserError(f"{path}: would be empty, for none of the clips has a file. Is --clips_dir the right one?")
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path}: is there already, with other ids. Move it, or choose another --out_dir")
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
