"""Train one network on clips of one class each, such as VGGSound's, as a .cfg file says."""

from src import cli


def build_parser() -> cli.Parser:
    return cli.training_parser(__doc__, random_clip_size=300, val_clip_size=500)


def main() -> None:
    options = cli.training_options(build_parser().parse_args())
    from src.training import train

    train(options)


if __name__ == "__main__":
    cli.run(main)
