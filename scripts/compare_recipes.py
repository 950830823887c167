"""Results tables -> recipes side by side: scores, multiply-accumulates, time."""

from pathlib import Path

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="CSV_OR_JSON",
        help="results.csv of evaluated runs, or figures that --save wrote. The first one sets the target",
    )
    add("--save", metavar="FILE.json", help="keep the figures of all inputs")
    add("--note", help="what to know of the runs of tables, such as the precision")
    add("--picture", metavar="FILE.png", help="draw validation mAP over compute")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.scoring.summaries.recipes import as_markdown, draw, recipe_of, store, stored
    from src.scoring.summaries.summary import UNTRAINED, summarise
    from src.utils.files import require_writable
    from src.utils.pictures import require_kind, save_figure

    require_kind("--picture", arguments.picture)
    require_writable(arguments.save, arguments.picture, inputs=arguments.inputs)
    recipes = []
    for path in arguments.inputs:
        if Path(path).suffix == ".json":
            recipes += stored(path)
        else:
            trained = [each for each in summarise([path]) if each.setting.start != UNTRAINED]
            recipes += [recipe_of(each, arguments.note) for each in trained]
    print(as_markdown(recipes))
    if arguments.save:
        store(recipes, arguments.save)
    if arguments.picture:
        save_figure(draw(recipes), arguments.picture, dpi=120)


if __name__ == "__main__":
    cli.run(main)
