"""Convert the clips of one of AudioSet's segment files to 22,050 Hz mono FLAC and pack them into one LMDB."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--segments_csv", required=True, help="official segment file, such as balanced_train_segments.csv")
    add("--class_labels", required=True, help="official class_labels_indices.csv")
    add("--clips_dir", required=True, help="folder of the clips' audio files, in subfolders or not")
    add(
        "--ids",
        help="file of ids, <YouTube id>_<start second>, one a line, as fetch_id_lists.py writes. Only these clips",
    )
    add("--name", help="of the LMDB, by default that of --segments_csv, without _segments")
    cli.add_preparation_flags(parser, out_dir="audioset")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.catalogues import read_audioset
    from src.preparation.clip_sets import prepare_clip_sets

    catalogue = read_audioset(arguments.segments_csv, arguments.class_labels, arguments.name, arguments.ids)
    prepare_clip_sets(catalogue, arguments.clips_dir, arguments.out_dir, arguments.num_workers, arguments.map_size)


if __name__ == "__main__":
    cli.run(main)
