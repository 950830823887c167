"""Trim silence from isolated events with SoX, and tile those that are short."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--src_dir", required=True, help="isolated events, <class>/*.wav, or *.wav in a folder called like their class")
    add("--tgt_dir", required=True, help="folder for the same tree. Files already there are left alone")
    add("--min_clip", type=cli.positive(float), default=1.25, help="seconds. Shorter clips are tiled up to it")
    add("--num_workers", type=cli.positive(int), default=1, help="processes")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.silence import SHORTEST, TooShort, strip_folder

    failed = strip_folder(arguments.src_dir, arguments.tgt_dir, arguments.min_clip, arguments.num_workers)
    dropped = [error for error in failed if isinstance(error, TooShort)]
    for error in dropped:
        print(f"dropped: {error}")
    if dropped:
        print(f"{len(dropped)} clips were dropped, for fewer than {SHORTEST} samples were left")
    problems = [error for error in failed if error not in dropped]
    cli.require_all_done(problems, f"the files in {arguments.src_dir} could not be trimmed")


if __name__ == "__main__":
    cli.run(main)
