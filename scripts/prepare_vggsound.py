"""Convert VGGSound's clips to 22,050 Hz mono FLAC and pack each split into an LMDB."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--vggsound_csv", required=True, help="official vggsound.csv")
    add("--clips_dir", required=True, help="folder of the clips' audio files, in subfolders or not")
    add("--splits", nargs="+", choices=("train", "test"), default=("train", "test"), help="LMDBs to make")
    cli.add_preparation_flags(parser, out_dir="vggsound")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.catalogues import read_vggsound
    from src.preparation.clip_sets import prepare_clip_sets

    prepare_clip_sets(
        read_vggsound(arguments.vggsound_csv, arguments.splits),
        arguments.clips_dir,
        arguments.out_dir,
        arguments.num_workers,
        arguments.map_size,
    )


if __name__ == "__main__":
    cli.run(main)
