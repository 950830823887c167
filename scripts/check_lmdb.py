"""Check LMDBs: every record is read and decoded, and clips that two of them share are found."""

import math

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("lmdb", nargs="+", metavar="LMDB", help="LMDBs that should have no clip in common, such as train, val and eval")
    add("--lbl_map", help="label map. Without one, labels are counted and not judged")
    add("--delimiter", type=cli.text, default=",", help="between the labels of one record")
    add("--sample_rate", type=cli.positive(int), default=22050, help="Hz")
    add("--min_duration", type=cli.positive(float), help="seconds. A shorter clip is an error")
    add("--max_duration", type=cli.positive(float), help="seconds. A longer clip is an error")
    add("--silence", type=cli.finite, default=-60.0, help="dB of full scale. A clip that never reaches it is silent")
    add("--clipping", type=cli.finite, default=0.001, help="share of samples at full scale that a clip may have")
    add("--strict", action="store_true", help="warnings too end with status 1")
    add("--json", help="file to write everything to that was found")
    add("--png", help="picture to draw of the class balance")
    add("--num_workers", type=cli.positive(int), default=4, help="processes")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.data.checks.check import check
    from src.data.checks.record import Limits
    from src.data.checks.report import as_json, as_text, draw_class_balance
    from src.data.labels import LabelMap
    from src.utils.files import require_writable, write_json

    require_writable(arguments.json, arguments.png, inputs=[*arguments.lmdb, arguments.lbl_map])
    label_map = LabelMap.load(arguments.lbl_map) if arguments.lbl_map else None
    limits = Limits(
        label_map,
        arguments.delimiter,
        arguments.sample_rate,
        arguments.min_duration or 0.0,
        arguments.max_duration or math.inf,
        silence=10 ** (arguments.silence / 20),
        clipping=arguments.clipping,
    )
    found = check(arguments.lmdb, limits, arguments.num_workers)
    if arguments.json:
        write_json(arguments.json, as_json(found, label_map))
    if arguments.png:
        draw_class_balance(found, arguments.png, label_map)
    print(as_text(found, label_map))
    found.require_sound(arguments.strict)


if __name__ == "__main__":
    cli.run(main)
