"""Store the logits of one or several checkpoints for every clip, once, as a teacher to learn from (opt.teacher)."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    several = f"{cli.ONE_CHECKPOINT}. Of several, the mean of their logits is stored"
    add("--ckpt_path", nargs="+", required=True, metavar="PATH", help=several)
    add("--output", required=True, metavar="FILE.pt", help="file to write")
    add("--lbl_map", help=cli.LABEL_MAP)
    cli.add_storage_flags(parser)
    add("--num_timesteps", type=cli.positive(int), help=cli.FRAMES)
    cli.add_loading_flags(parser)
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.runs.folder import checkpoint_at
    from src.scoring.predictions import InferenceOptions, store_logits
    from src.utils.files import require_writable

    paths = [checkpoint_at(path) for path in arguments.ckpt_path]
    require_writable(arguments.output, inputs=(*paths, arguments.lmdb_path, arguments.manifest, arguments.lbl_map))
    options = cli.options_of(InferenceOptions, arguments, gpus=tuple(arguments.gpus), all_folds=True)
    records, classes = store_logits(paths, options, arguments.output)
    print(f"{arguments.output}: logits of {records} clips and {classes} classes, of {len(paths)} checkpoints")


if __name__ == "__main__":
    cli.run(main)
