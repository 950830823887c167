"""Pack folders of FLAC soundscapes and their annotations into one LMDB."""

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--mixture_dir", required=True, type=cli.path_list, help="folders of NAME.flac and NAME.txt, separated by ';'")
    add("--lmdb_path", required=True, help="LMDB to write")
    add("--write_frequency", type=cli.positive(int), default=1000, help="records in one transaction")
    add("--map_size", type=cli.positive(float), default=5e9, help="bytes the LMDB may grow to at first, such as 2e10")
    add("--audio_min_duration", type=cli.positive(float), default=5.0, help="seconds. Shorter clips are tiled up to it")
    add("--sample_rate", type=cli.positive(int), default=22050, help="Hz. Clips at another rate are refused")
    add("--delimiter", type=cli.text, default=",", help="between the labels of one record")
    empty = "also pack clips whose NAME.txt lists no event: negative clips, in which no class sounds (multilabel)"
    add("--allow_empty", action="store_true", help=empty)
    add("--num_workers", type=cli.positive(int), default=1, help="processes. The records do not depend on it")
    cli.add_part_flag(parser, "all clips, for scripts/join_lmdbs.py")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.packing import pack_mixtures

    pack_mixtures(
        arguments.mixture_dir,
        arguments.lmdb_path,
        map_size=arguments.map_size,
        write_frequency=arguments.write_frequency,
        min_duration=arguments.audio_min_duration,
        sample_rate=arguments.sample_rate,
        delimiter=arguments.delimiter,
        num_workers=arguments.num_workers,
        allow_empty=arguments.allow_empty,
        part=arguments.part,
    )


if __name__ == "__main__":
    cli.run(main)
