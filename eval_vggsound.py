"""Score one checkpoint, or all of a folder, on clips of ten seconds and one class each."""

from src import cli


def build_parser() -> cli.Parser:
    return cli.evaluation_parser(__doc__)


def main() -> None:
    arguments = build_parser().parse_args()
    options = cli.evaluation_options(arguments, levels=2, num_timesteps=1001)
    from src.evaluation import evaluate

    evaluate(options)


if __name__ == "__main__":
    cli.run(main)
