"""Choose a checkpoint's thresholds on validation clips, and keep them in it. --temperature fits one too."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    cli.add_storage_flags(parser)
    add("--lbl_map", help=cli.LABEL_MAP)
    add("--precision", type=cli.fraction, metavar="P", help="precision to reach, such as 0.9, by default the best F1")
    add("--temperature", action="store_true", help="also fit the number that logits are divided by")
    add("--num_timesteps", type=cli.positive(int), help=cli.FRAMES)
    add("--output", metavar="FILE.ckpt", help="write a copy, and leave the checkpoint as it is")
    add("--plot", help="picture of the reliability to write")
    add("--json", help="file to write the figures to")
    cli.add_loading_flags(parser)
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.runs.folder import checkpoint_at
    from src.scoring.calibration import calibrate, draw_reliability
    from src.scoring.predictions import InferenceOptions
    from src.utils.files import require_writable, write_json
    from src.utils.pictures import require_kind

    require_kind("--plot", arguments.plot)
    path = checkpoint_at(arguments.ckpt_path)
    inputs = [path] * bool(arguments.output) + [arguments.lmdb_path, arguments.manifest, arguments.lbl_map]
    require_writable(arguments.output or path, arguments.plot, arguments.json, inputs=inputs)
    options = cli.options_of(InferenceOptions, arguments, gpus=tuple(arguments.gpus))
    found = calibrate(path, options, arguments.precision, arguments.temperature, arguments.output)
    rows = list(found.rows())
    if arguments.json:
        ece = {"ece_before": found.before.ece, "ece": found.after.ece}
        write_json(arguments.json, found.decisions.as_dict() | ece | {"classes": rows})
    if arguments.plot:
        draw_reliability(arguments.plot, found.curves, path.name)
    print(f"| {' | '.join(rows[0])} |\n| --- |" + " ---: |" * (len(rows[0]) - 1))
    for name, clips, *figures in (row.values() for row in rows):
        cells = " | ".join("" if figure is None else f"{figure:.4g}" for figure in figures)
        name = name.replace("|", r"\|")
        print(f"| {name} | {clips} | {cells} |")
    print()
    for name, curve in found.curves.items() if arguments.temperature or arguments.plot else ():
        print(f"expected calibration error {curve.ece:.4f} ({name})")
    print(f"thresholds for {found.decisions.by}: {arguments.output or path}")


if __name__ == "__main__":
    cli.run(main)
