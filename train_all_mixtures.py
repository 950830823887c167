"""Train the same network on several LMDBs, one run each, into <expdir>/<LMDB name>/."""

from src import cli


def main() -> None:
    parser = cli.training_parser(__doc__)
    parser.add_argument("--lmdbs_list", required=True, type=cli.path_list, help="training LMDBs, separated by ';'")
    arguments = parser.parse_args()
    options = cli.training_options(arguments)
    from src.training import train_on_each

    train_on_each(options, arguments.lmdbs_list)


if __name__ == "__main__":
    cli.run(main)
