"""Score one checkpoint, or all of a folder, on an LMDB."""

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.evaluation_parser(__doc__)
    parser.add_argument("--num_timesteps", type=cli.positive(int), default=501, help="frames, from the clip's centre")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    options = cli.evaluation_options(arguments, levels=2, num_timesteps=arguments.num_timesteps)
    from src.evaluation import evaluate

    evaluate(options)


if __name__ == "__main__":
    cli.run(main)
