"""Tag recordings with a trained network: which classes sound, and when."""

import argparse
import logging
from pathlib import Path

from src import cli
from src.errors import UserError

log = logging.getLogger(__name__)


def main() -> None:
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
    arguments = parser.parse_args()
    from src.prediction import Tagger, audio_files, draw, write_scores

    files = audio_files(arguments.audio)
    tagger = Tagger(arguments.ckpt_path, arguments.lbl_map, arguments.window, arguments.hop)
    names = tagger.label_map.names
    recordings = []
    for file in files:
        try:
            tagged = tagger(file)
        except UserError as error:
            log.error("%s", error)
            continue
        recordings.append(tagged)
        print(f"{file}  ({tagged.ends[-1]:.1f} s, {len(tagged.starts)} windows)")
        for name, score, start in tagged.strongest(names, arguments.top_k, arguments.threshold):
            print(f"  {score:6.3f}  {name}  (strongest from {start:.1f} s)")
        if arguments.plot:
            picture = Path(arguments.plot)
            if len(files) > 1:
                picture = picture.with_name(f"{picture.stem}_{len(recordings):03d}_{file.stem}{picture.suffix}")
            draw(picture, tagged, names, arguments.top_k)
    if arguments.csv and recordings:
        write_scores(arguments.csv, recordings, names)
    if len(recordings) < len(files):
        raise UserError(f"{len(files) - len(recordings)} of {len(files)} recordings could not be read; see above")


if __name__ == "__main__":
    cli.run(main)
