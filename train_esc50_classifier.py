"""Train one network on all folds but one of ESC-50 or of other data, and validate it on that one."""

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.training_parser(__doc__, random_clip_size=300, val_clip_size=500)
    parser.add_argument("--fold_index", type=int, default=1, help="fold to validate on: of ESC-50, 1 to 5")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    options = cli.training_options(arguments, fold_index=arguments.fold_index, crop_validation=False)
    from src.training import train

    train(options)


if __name__ == "__main__":
    cli.run(main)
