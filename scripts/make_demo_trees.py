"""Make small trees in the layouts of ESC-50, AudioSet and VGGSound from the demo corpus's sounds."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--corpus", required=True, help="folder of scripts/make_demo_corpus.py")
    add("--out_folder", required=True, help="folder for ESC-50/, AudioSet/ and VGGSound/")
    add("--clips", type=cli.positive(int), default=2, help="clips of each class in each split or fold")
    add("--classes", type=cli.positive(int), help="the first so many of the corpus's classes, by default all")
    add("--seed", type=cli.seed, default=0, help="equal seeds give equal files")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.demo_trees import build_demo_trees

    build_demo_trees(arguments.corpus, arguments.out_folder, arguments.clips, arguments.classes, arguments.seed)


if __name__ == "__main__":
    cli.run(main)
