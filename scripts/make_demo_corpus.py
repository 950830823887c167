"""Render a demo corpus of real, sampled sounds in the layout of isolated events."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--out_folder", required=True, help="folder for isolated_events/, noises/ and meta/lbl_map.json")
    add("--train_clips", type=cli.positive(int), default=30, help="clips of each class for training")
    add("--val_clips", type=cli.positive(int), default=10, help="clips of each class for validation")
    add("--eval_clips", type=cli.positive(int), default=10, help="clips of each class for evaluation")
    add("--seed", type=cli.seed, default=0, help="equal seeds give equal files")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.preparation.demo_corpus import build_demo_corpus

    clips = {"train": arguments.train_clips, "val": arguments.val_clips, "eval": arguments.eval_clips}
    build_demo_corpus(arguments.out_folder, clips, arguments.seed)


if __name__ == "__main__":
    cli.run(main)
