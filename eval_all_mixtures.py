"""Score all checkpoints of a folder, the runs of train_all_mixtures.py, on an LMDB."""

from src import cli


def build_parser() -> cli.Parser:
    return cli.evaluation_parser(__doc__)


def main() -> None:
    options = cli.evaluation_options(build_parser().parse_args(), levels=3)
    from src.evaluation import evaluate

    evaluate(options)


if __name__ == "__main__":
    cli.run(main)
