"""Convert ESC-50, as downloaded, to 22,050 Hz mono FLAC and pack it, with its folds, into one LMDB."""

from pathlib import Path

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--src_dir", required=True, help="the data set's folder, with audio/ and meta/esc50.csv")
    cli.add_preparation_flags(parser, out_dir="esc50")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.catalogues import read_esc50
    from src.preparation.clip_sets import prepare_clip_sets

    prepare_clip_sets(
        read_esc50(arguments.src_dir),
        Path(arguments.src_dir) / "audio",
        arguments.out_dir,
        arguments.num_workers,
        arguments.map_size,
    )


if __name__ == "__main__":
    cli.run(main)
