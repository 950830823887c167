"""Train one network on four of ESC-50's folds and validate it on the fifth, as a .cfg file says."""

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.training_parser(__doc__, random_clip_size=300, val_clip_size=500)
    parser.add_argument("--fold_index", type=int, default=1, help="fold to validate on, 1 to 5")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    options = cli.training_options(arguments, fold_index=arguments.fold_index, crop_validation=False)
    from src.training import train

    train(options)


if __name__ == "__main__":
    cli.run(main)
