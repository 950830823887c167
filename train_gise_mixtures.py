"""Train one network on soundscapes, as a .cfg file says."""

from src import cli


def main() -> None:
    options = cli.training_options(cli.training_parser(__doc__).parse_args())
    from src.training import train

    train(options)


if __name__ == "__main__":
    cli.run(main)
