"""Fetch the published lists of AudioSet clip ids from the original release's repository, and check them."""

from pathlib import Path

import _repository

from src import cli
from src.preparation.download import fetch_text
from src.utils.files import require_writable

HERE = Path(__file__).resolve().parent
FOLDER = "SarthakYadav/GISE-51-pytorch/2cf816ed14db27d468b44a88702f0386f7c733c1/data/audioset"
BASE_URL = f"https://raw.githubusercontent.com/{FOLDER}"
LISTS = {  # name -> SHA-256, lines
    "balanced_train.txt": ("874713f25f65741025791e9617f7812ae178c907af3f167855fd28d1ea4d3468", 19_253),
    "evaluation.txt": ("de718a78f16b10081468d4c355c7c3996ea5830d9fd9da9771cbf4d6c189db97", 17_498),
}


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--out_dir", default=HERE, help=f"folder for {' and '.join(LISTS)}")
    add("--base_url", default=BASE_URL, help="address of the folder that has them")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    paths = {name: Path(arguments.out_dir) / name for name in LISTS}
    require_writable(*paths.values())
    for name, (sha256, num_lines) in LISTS.items():
        fetch_text(f"{arguments.base_url}/{name}", sha256, num_lines, paths[name])
        print(paths[name])


if __name__ == "__main__":
    cli.run(main)
