"""Join the LMDBs of all parts, of pack_mixtures_into_lmdb.py --part, into the one that packing all at once gives."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--parts", required=True, nargs="+", metavar="LMDB", help="of all parts, in any order")
    add("--lmdb_path", required=True, help="LMDB to write")
    add("--write_frequency", type=cli.positive(int), default=1000, help="records in one transaction")
    add("--map_size", type=cli.positive(float), default=5e9, help="bytes the LMDB may grow to at first, such as 2e10")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.joining import join_parts

    join_parts(
        arguments.parts,
        arguments.lmdb_path,
        map_size=arguments.map_size,
        write_frequency=arguments.write_frequency,
    )


if __name__ == "__main__":
    cli.run(main)
