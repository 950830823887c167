"""Results tables and run folders -> one table of means over runs, as Markdown and CSV, and pictures."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="CSV_OR_FOLDER", help="results.csv of an evaluation, or a folder with runs in it")
    add("--out_dir", default="summary", help="folder for summary.md, summary.csv and the pictures")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.scoring.summary import summarise
    from src.scoring.summary_table import as_markdown, as_rows

    summaries = summarise(arguments.inputs)
    print(as_markdown(summaries))
    from src.models.registry import count_parameters
    from src.scoring.charts import draw_all
    from src.utils.files import whole_file, write_csv

    out_dir = Path(arguments.out_dir)
    parameters = {
        each.setting: count_parameters(each.setting.arch, each.setting.model_depth, each.setting.num_classes)
        for each in summaries
    }
    rows = as_rows(summaries, parameters)
    write_csv(out_dir / "summary.csv", list(rows[0]), rows)
    pictures = draw_all(summaries, parameters, out_dir)
    with whole_file(out_dir / "summary.md") as temporary:
        shown = "".join(f"\n![{picture.stem}]({picture.name})\n" for picture in pictures)
        temporary.write_text(f"{as_markdown(summaries)}\n{shown}", encoding="utf-8")
    for path in (out_dir / "summary.md", out_dir / "summary.csv", *pictures):
        print(path)


if __name__ == "__main__":
    cli.run(main)
