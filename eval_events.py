"""Score when events sound: one checkpoint of events, or all of a folder, on an LMDB with events."""

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.evaluation_parser(__doc__)
    of = "also every score by the events' overlap and length, and by their SNR with a folder of their .jams"
    parser.add_argument("--slices", nargs="?", const=False, metavar="FOLDER_OF_JAMS", help=of)
    return parser


def main() -> None:
    options = cli.evaluation_options(build_parser().parse_args(), levels=2, events=True)
    from src.evaluation import evaluate

    evaluate(options)


if __name__ == "__main__":
    cli.run(main)
