"""Train and score a linear classifier on a network's embeddings of the clips of an LMDB, fold by fold."""

from dataclasses import asdict

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    add("--lmdb_path", required=True, help="clips with folds, or to train on where there is --eval_lmdb")
    add("--eval_lmdb", help="clips to score on, in place of folds")
    add("--lbl_map", help="label map of the clips, by default the classes that their labels name or number")
    add("--delimiter", type=cli.text, help="between the labels of one clip, by default the checkpoint's")
    add("--untrained", action="store_true", help="take the network as it was before its training")
    add("--num_timesteps", type=cli.positive(int), help=cli.FRAMES)
    add("--bootstrap", type=cli.positive(int), default=1000, metavar="R", help="resamples of the clips")
    add("--seed", type=cli.seed, default=0, help="of the resamples")
    add("--json", help="file to write the figures to")
    cli.add_loading_flags(parser)
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.scoring.predictions import InferenceOptions
    from src.scoring.probe import ProbeOptions, linear_probe
    from src.utils.files import require_writable, write_json

    inputs = arguments.ckpt_path, arguments.lmdb_path, arguments.eval_lmdb, arguments.lbl_map
    require_writable(arguments.json, inputs=inputs)
    options = cli.options_of(InferenceOptions, arguments, gpus=tuple(arguments.gpus))
    found = linear_probe(cli.options_of(ProbeOptions, arguments), options)
    if arguments.json:
        write_json(arguments.json, asdict(found))
    print(f"| fold | clips | C | {found.score} |\n| --- |" + " ---: |" * 3)
    for fold in found.folds:
        print(f"| {fold.name} | {fold.clips} | {fold.strength:g} | {fold.score:.4f} |")
    if found.std is not None:
        print(f"\n{found.score} over folds: {found.mean:.4f} ± {found.std:.4f} (standard deviation)")
    print(f"{found.score} of all clips: {found.pooled:.4f}, 95 % interval {found.low:.4f} … {found.high:.4f}")


if __name__ == "__main__":
    cli.run(main)
