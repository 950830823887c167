"""Mix soundscapes from isolated events and backgrounds with Scaper. (generate_mixtures.sh packs them into LMDBs.)"""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--fg_path", required=True, help="isolated events of one split, <class>/*.wav")
    add("--bg_path", required=True, help="backgrounds, <kind>/*.wav or *.wav")
    add("--out_folder", required=True, help="folder for NAME.wav (or NAME.flac), NAME.txt and NAME.jams")
    add("--num_soundscapes", type=cli.positive(int), default=5000, help="how many")
    add("--max_events", type=cli.positive(int), default=3, help="1 to so many events in a soundscape")
    add("--duration", type=cli.positive(float), default=5.0, help="seconds of a soundscape")
    add("--lbl_map", default="meta/lbl_map.json", help="label map. Its classes and the folders' must be the same")
    add("--cw", help="file with a tensor of class weights (torch.save). By default classes are as likely")
    add("--proc_idx", type=cli.count, default=0, help="soundscapes from proc_idx · num_soundscapes on")
    add("--seed", type=cli.seed, default=0, help="soundscape i depends on the seed and i alone")
    add(
        "--format",
        choices=("wav", "flac"),
        default="wav",
        help="audio files to write. Both hold the same 16-bit samples",
    )
    add("--num_workers", type=cli.positive(int), default=1, help="processes")
    cli.add_part_flag(parser, "these soundscapes")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.data.labels import LabelMap
    from src.preparation.soundscapes import Recipe, generate_soundscapes

    label_map = LabelMap.load(arguments.lbl_map)
    weights = None
    if arguments.cw:
        from src.models.checkpoint import load_class_weights

        weights = load_class_weights(arguments.cw, len(label_map)).tolist()
    recipe = Recipe(arguments.fg_path, arguments.bg_path, arguments.seed, arguments.duration, arguments.max_events)
    first = arguments.proc_idx * arguments.num_soundscapes
    numbers = range(first, first + arguments.num_soundscapes)
    if arguments.part:
        numbers = arguments.part.take(numbers)
    problems = generate_soundscapes(
        recipe,
        arguments.out_folder,
        numbers,
        label_map,
        weights,
        arguments.num_workers,
        arguments.format,
    )
    cli.require_all_done(problems, f"{len(numbers)} soundscapes could not be mixed")


if __name__ == "__main__":
    cli.run(main)
