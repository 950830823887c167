"""Compare two checkpoints on the same clips, with 95 % intervals from paired resamples of the clips."""

import json
from dataclasses import asdict

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    add("--other_ckpt_path", required=True, help="the second one, in the same way")
    add("--lbl_map", help=cli.LABEL_MAP)
    cli.add_storage_flags(parser)
    frames = "frames, from the clip's centre, by default as published: 501 of clips up to 5 s, 1001 of longer ones"
    add("--num_timesteps", type=cli.positive(int), help=frames)
    add("--bootstrap", type=cli.positive(int), default=1000, metavar="R", help="resamples of the clips")
    add("--seed", type=cli.seed, default=0, help="of the resamples")
    add("--json", help="file to write the figures to")
    cli.add_loading_flags(parser)
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.scoring.comparison import compare
    from src.scoring.predictions import InferenceOptions
    from src.utils.files import require_writable, write_whole

    require_writable(arguments.json)
    options = cli.options_of(InferenceOptions, arguments, gpus=tuple(arguments.gpus))
    found = compare(arguments.ckpt_path, arguments.other_ckpt_path, options, arguments.bootstrap, arguments.seed)
    if arguments.json:
        write_whole(arguments.json, json.dumps([asdict(row) for row in found], indent=2) + "\n")
    print("| score | first | second | second - first | 95 % interval | p |\n| --- |" + " ---: |" * 5)
    for row in found:
        print(
            f"| {row.name} | {row.first:.4f} | {row.second:.4f} | {row.difference:+.4f} "
            f"| {row.low:+.4f} … {row.high:+.4f} | {row.p:.3g} |"
        )


if __name__ == "__main__":
    cli.run(main)
