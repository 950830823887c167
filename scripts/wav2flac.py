"""Convert a folder of WAV files to 16-bit mono FLAC."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--src_dir", required=True, help="folder of WAV files")
    add("--tgt_dir", required=True, help="folder for the FLAC files. Those already there are left alone")
    add("--tgt_sample_rate", type=cli.positive(int), default=22050, help="Hz")
    add("--move_txt", action="store_true", help="copy each file's .txt along")
    add("--move_jams", action="store_true", help="copy each file's .jams along")
    add("--num_workers", type=cli.positive(int), default=1, help="processes")
    cli.add_part_flag(parser, "the WAV files")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.flac_conversion import convert_folder

    annotations = [".txt"] * arguments.move_txt + [".jams"] * arguments.move_jams
    problems = convert_folder(
        arguments.src_dir,
        arguments.tgt_dir,
        arguments.tgt_sample_rate,
        annotations,
        arguments.num_workers,
        arguments.part,
    )
    cli.require_all_done(problems, f"the files in {arguments.src_dir} could not be converted")


if __name__ == "__main__":
    cli.run(main)
