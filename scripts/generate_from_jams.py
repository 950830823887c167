"""Make soundscapes again from their JAMS files, the isolated events and the backgrounds."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--jams_dir", required=True, help="JAMS file, or folder with JAMS files in it and in its subfolders")
    add("--fg_path", required=True, help="isolated events, <class>/*.wav")
    add("--bg_path", required=True, help="backgrounds, <kind>/*.wav or *.wav")
    add("--out_folder", required=True, help="folder for NAME.wav (or NAME.flac), NAME.txt and NAME.jams")
    add(
        "--format",
        choices=("wav", "flac"),
        default="wav",
        help="audio files to write. Both hold the same 16-bit samples",
    )
    add("--num_workers", type=cli.positive(int), default=1, help="processes")
    cli.add_part_flag(parser, "the JAMS files")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.soundscapes_from_jams import regenerate_soundscapes

    problems = regenerate_soundscapes(
        arguments.jams_dir,
        arguments.fg_path,
        arguments.bg_path,
        arguments.out_folder,
        arguments.num_workers,
        arguments.format,
        arguments.part,
    )
    cli.require_all_done(problems, f"the JAMS files in {arguments.jams_dir} gave no soundscape")


if __name__ == "__main__":
    cli.run(main)
