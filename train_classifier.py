"""Train one network on clips of one class each, such as VGGSound's, as a .cfg file says."""

from src import cli


def main() -> None:
    parser = cli.training_parser(__doc__, random_clip_size=300, val_clip_size=500)
    options = cli.training_options(parser.parse_args())
    from src.training import train

    train(options)


if __name__ == "__main__":
    cli.run(main)
