"""Fetch archives of the published data and checkpoints from Zenodo, check and unpack them."""

from pathlib import Path

import _repository

from src import cli
from src.errors import UserError
from src.preparation.download import API, RECORD, choose, fetch, list_archives, unpack
from src.utils.files import require_writable


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--archives", nargs="+", metavar="NAME", help="such as train_5k val eval meta. Without it, they are listed")
    add("--out_folder", default=".", help="folder for the archives and what is in them")
    add("--no_unpack", action="store_true", help="leave the archives packed")
    add("--record", type=cli.positive(int), default=RECORD, help="number of the Zenodo record")
    add("--api", default=API, help="address of the records")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    if arguments.archives:
        require_writable(Path(arguments.out_folder) / "archive")
    archives = list_archives(arguments.api, arguments.record)
    if not arguments.archives:
        for archive in archives:
            print(f"{archive.size / 1e9:8.2f} GB  {archive.name}")
        return
    Path(arguments.out_folder).mkdir(parents=True, exist_ok=True)
    problems = []
    chosen = choose(archives, arguments.archives)
    for archive in chosen:
        try:
            path = fetch(archive, arguments.out_folder)
            print(path)
            if not arguments.no_unpack and archive.name.endswith((".tar.gz", ".tgz", ".tar")):
                for entry in unpack(path, arguments.out_folder):
                    print(entry)
        except UserError as error:
            problems.append(error)
    cli.require_all_done(problems, f"{len(chosen)} archives could not be fetched and unpacked")


if __name__ == "__main__":
    cli.run(main)
