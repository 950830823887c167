"""Train the same network on several LMDBs, one run each, into <expdir>/<LMDB name>/."""

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.training_parser(__doc__)
    parser.add_argument("--lmdbs_list", required=True, type=cli.path_list, help="training LMDBs, separated by ';'")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    options = cli.training_options(arguments)
    from src.training import train_on_each

    train_on_each(options, arguments.lmdbs_list)


if __name__ == "__main__":
    cli.run(main)
