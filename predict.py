"""Tag recordings with a trained network: which classes sound, and when."""

import logging
import os
from contextlib import ExitStack
from pathlib import Path

from src import cli
from src.errors import UserError
from src.utils.files import require_writable

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
    add("--threshold", type=float, default=0.0, help="show classes whose score reaches it")
    add("--csv", help="table to write, a row a window and class")
    add("--embeddings", help="file of arrays to write (.npz): what goes into the network's last layer")
    of = "a row a window, or a row a recording, the mean over its windows"
    add("--embeddings_of", choices=("windows", "recordings"), default="windows", help=of)
    add("--device", default="cpu", help="where the network runs, such as cuda or cuda:1")
    add("--plot", help="picture to write. Of several recordings, one each, with the recording's name added")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    kinds = (".png", ".pdf", ".svg", ".jpg")
    if arguments.plot and Path(arguments.plot).suffix.lower() not in kinds:
        raise UserError(f"--plot {arguments.plot}: a picture ends in {', '.join(kinds)}")
    require_writable(arguments.csv, arguments.embeddings, arguments.plot)
    from src.tagging.pictures import draw
    from src.tagging.recordings import audio_files
    from src.tagging.tables import embedding_file, score_table
    from src.tagging.tagger import Tagger
    from src.utils.memory import keep_freed_memory

    keep_freed_memory()
    files = audio_files(arguments.audio)
    tagger = Tagger(arguments.ckpt_path, arguments.lbl_map, arguments.window, arguments.hop, arguments.device)
    names = tagger.label_map.names
    failed = 0
    with ExitStack() as outputs:
        add_rows = arguments.csv and outputs.enter_context(score_table(arguments.csv, names))
        if arguments.embeddings:
            tagger.require_embeddings()
            of = tagger.embedding_size, arguments.embeddings_of == "windows"
            add_embeddings = outputs.enter_context(embedding_file(arguments.embeddings, *of))
        for number, file in enumerate(files, 1):
            try:
                tagged = tagger(file)
            except UserError as error:
                log.error("%s", error)
                failed += 1
                continue
            print(f"{file}  ({tagged.ends[-1]:.1f} s, {len(tagged.starts)} windows)")
            for c in tagged.strongest(arguments.top_k):
                scores = tagged.scores[:, c]
                if scores.max() >= arguments.threshold:
                    start = tagged.starts[scores.argmax()]
                    print(f"  {scores.max():6.3f}  {names[c]}  (strongest from {start:.1f} s)")
            if arguments.plot:
                picture = Path(arguments.plot)
                if len(files) > 1:
                    name = os.fsencode(f"{picture.stem}_{number:03d}_{file.stem}")[: 255 - len(picture.suffix)]  # bytes
                    picture = picture.with_name(os.fsdecode(name) + picture.suffix)
                draw(picture, tagged, names, arguments.top_k)
            if add_rows:
                add_rows(tagged)
            if arguments.embeddings:
                add_embeddings(tagged)
    if failed:
        raise UserError(f"{failed} of {len(files)} recordings could not be read. See above")


if __name__ == "__main__":
    cli.run(main)
