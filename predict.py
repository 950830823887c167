"""Tag recordings with a trained network: which classes sound, and when."""

from src import cli
from src.errors import UserError


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--audio", nargs="+", metavar="FILE_OR_FOLDER", help="recordings, of any rate and length")
    live = "16-bit PCM of standard input, of which each event is told in a line of JSON as it begins and as it ends"
    what.add_argument("--stream", action="store_true", help=live)
    add("--stream_rate", type=cli.positive(int), help="Hz of --stream without a header, by default the network's")
    add("--stream_channels", type=cli.positive(int), help="channels of --stream without a header, by default 1")
    add("--lbl_map", help=cli.LABEL_MAP)
    add("--top_k", type=cli.positive(int), default=5, help="classes to show of each recording")
    add("--window", type=cli.positive(float), default=5.0, help="seconds scored at a time")
    add("--hop", type=cli.positive(float), default=2.5, help="seconds from one window to the next")
    threshold = (
        "show classes whose score reaches it, and write them to --csv. For --format, --html and --stream it takes the "
        "place of the checkpoint's thresholds, or of 0.5 where it has none"
    )
    add("--threshold", type=cli.finite, help=threshold)
    add("--csv", help="table to write, a row a window and class")
    by = "table to write, each recording's classes as present or absent, by the checkpoint's thresholds"
    add("--decisions", help=by)
    add("--summary", help="table to write, a row a recording and a column a class")
    events = "table to write (.tsv), a row an event, as DESED has it. It takes a network of events"
    add("--events", metavar="FILE.tsv", help=events)
    frames = (
        "table to write (.tsv), a row a frame and a column a class. A tagger scores frames without being trained to"
    )
    add("--frames", metavar="FILE.tsv", help=frames)
    formats = "audacity", "raven", "csv", "json", "parquet"
    add("--format", choices=formats, help="of --output or --output_folder: events, or windows in a row, as joined rows")
    to = parser.add_mutually_exclusive_group()
    to.add_argument("--output", metavar="FILE", help="one file to write for all recordings")
    to.add_argument("--output_folder", metavar="FOLDER", help="folder for a file for each recording")
    done = "leave out recordings that are done. Without it, all are done anew"
    add("--resume", action="store_true", help=done)
    add("--embeddings", help="file of arrays to write (.npz): what goes into the network's last layer")
    of = "a row a window, or a row a recording, the mean over its windows"
    add("--embeddings_of", choices=("windows", "recordings"), default="windows", help=of)
    page = "page to write, to look at and to listen to: one file with the sound, spectrograms and events in it"
    add("--html", metavar="FILE.html", help=page)
    add("--device", default="cpu", help="where the network runs, such as cuda or cuda:1")
    add("--batch_size", type=cli.positive(int), default=2, help="windows that the network gets at a time")
    add("--num_workers", type=cli.count, default=4, help="processes that read recordings, or 0 to read in the main one")
    add("--plot", help="picture to write. Of several recordings, one each, with the recording's name added")
    return parser


def main() -> None:
    parser = build_parser()
    arguments = parser.parse_args()
    if arguments.stream:
        used = "ckpt_path lbl_map window hop threshold device stream stream_rate stream_channels".split()
        given = {name for name, value in vars(arguments).items() if value != parser.get_default(name)}
        if others := sorted(given - set(used)):
            raise UserError(f"--{', --'.join(others)}: cannot be had with --stream")
        from src.data.audio.stream import Input

        source = Input(0)  # first: what comes while the network is made is kept in the pipe
    from src.prediction import PredictionOptions, predict, tell_events

    options = cli.options_of(PredictionOptions, arguments)
    if arguments.stream:
        tell_events(options, source)
    else:
        predict(options)


if __name__ == "__main__":
    cli.run(main)
