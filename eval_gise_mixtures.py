"""Score one checkpoint, or all of a folder, on an LMDB."""

from src import cli


def build_parser() -> cli.Parser:
    return cli.evaluation_parser(__doc__)


def main() -> None:
    options = cli.evaluation_options(build_parser().parse_args(), levels=2)
    from src.evaluation import evaluate

    evaluate(options)


if __name__ == "__main__":
    cli.run(main)
