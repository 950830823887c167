"""Results tables and run folders -> one table of means over runs, as Markdown and CSV, and pictures."""

from pathlib import Path

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="CSV_OR_FOLDER", help="results.csv of an evaluation, or a folder with runs in it")
    add("--out_dir", default="summary", help="folder for summary.md, summary.csv and the pictures")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.scoring.summaries.summary import summarise
    from src.scoring.summaries.table import as_markdown, as_rows
    from src.utils.files import require_writable, write_whole
    from src.utils.tables import write_csv

    out_dir = Path(arguments.out_dir)
    require_writable(out_dir / "summary.csv", out_dir / "summary.md")
    summaries = summarise(arguments.inputs)
    table = as_markdown(summaries)
    from src.scoring.summaries.charts import draw_all

    rows = as_rows(summaries)
    write_csv(out_dir / "summary.csv", list(rows[0]), rows)
    pictures = draw_all(summaries, out_dir)
    shown = "".join(f"\n![{picture.stem}]({picture.name})\n" for picture in pictures)
    write_whole(out_dir / "summary.md", f"{table}\n{shown}")
    print(table)
    for path in (out_dir / "summary.md", out_dir / "summary.csv", *pictures):
        print(path)


if __name__ == "__main__":
    cli.run(main)
