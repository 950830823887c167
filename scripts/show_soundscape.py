"""Draw a soundscape's waveform, spectrogram and events, and write it as WAV for listening."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("source", metavar="FILE_OR_LMDB:INDEX", help="audio file with its .txt or .jams beside it, or a record")
    add("--out_png", help="picture to write, by default NAME.png in the current folder")
    add("--out_wav", help="16-bit WAV file to write, for listening")
    add("--delimiter", default=",", help="between the labels of an LMDB's record")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.data.audio.files import encode
    from src.preparation.show import draw_soundscape, load_soundscape
    from src.utils.files import require_writable, write_whole

    require_writable(arguments.out_png, arguments.out_wav, inputs=[arguments.source])
    soundscape = load_soundscape(arguments.source, arguments.delimiter)
    picture = arguments.out_png or f"{soundscape.name}.png"
    draw_soundscape(picture, soundscape)
    if arguments.out_wav:
        write_whole(arguments.out_wav, encode(soundscape.samples, soundscape.sample_rate, "WAV"))
    print(f"{soundscape.name}: {len(soundscape.samples) / soundscape.sample_rate:.2f} s")
    for event in soundscape.events:
        print(f"  {event}")
    print("\n".join(filter(None, (picture, arguments.out_wav))))


if __name__ == "__main__":
    cli.run(main)
