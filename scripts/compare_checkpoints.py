"""Compare two checkpoints on the same clips: 95 % intervals, and p of a two-sided paired bootstrap test."""

import math

import _repository

from src import cli

UNDEFINED = "undefined"


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    add("--other_ckpt_path", required=True, help="the second one, in the same way")
    add("--lbl_map", help=cli.LABEL_MAP)
    cli.add_storage_flags(parser)
    add("--num_timesteps", type=cli.positive(int), help=cli.FRAMES)
    add(
        "--bootstrap",
        type=cli.positive(int),
        default=1000,
        metavar="R",
        help="resamples of the clips, for intervals and p",
    )
    add("--seed", type=cli.seed, default=0, help="of the resamples")
    add("--json", help="file to write the figures to, null for undefined ones")
    cli.add_loading_flags(parser)
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.scoring.comparison import compare
    from src.scoring.differences import TEST
    from src.scoring.predictions import InferenceOptions
    from src.utils.files import require_writable, write_json

    clips = arguments.lmdb_path, arguments.manifest, arguments.lbl_map
    require_writable(arguments.json, inputs=(arguments.ckpt_path, arguments.other_ckpt_path, *clips))
    options = cli.options_of(InferenceOptions, arguments, gpus=tuple(arguments.gpus))
    found = compare(arguments.ckpt_path, arguments.other_ckpt_path, options, arguments.bootstrap, arguments.seed)
    if arguments.json:
        write_json(arguments.json, [row.as_dict() for row in found])
    print("| score | first | second | second - first | 95 % interval | p |\n| --- |" + " ---: |" * 5)
    for row in found:
        difference, low, high = (shown(value, "+.4f") for value in (row.difference, row.low, row.high))
        scores = f"{row.first:.4f} | {row.second:.4f}".replace("nan", UNDEFINED)
        print(f"| {row.name} | {scores} | {difference} | {low} … {high} | {shown(row.p, '.3g')} |")
    resamples = arguments.bootstrap
    hypothesis = f"{TEST}, of the hypothesis that the difference is 0"
    print(f"p: {hypothesis}, by {resamples} resamples, {2 / (resamples + 1):.2g} at least")


def shown(value: float, form: str) -> str:
    """A figure, or a word where it is no finite number."""
    return f"{value:{form}}" if math.isfinite(value) else UNDEFINED


if __name__ == "__main__":
    cli.run(main)
