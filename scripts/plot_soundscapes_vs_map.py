"""Print the table and draw the curve "soundscapes v. mAP" of train_all_mixtures.py's runs."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli  # noqa: E402
from src.reporting import as_markdown, draw_curve, points  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--results_csv", required=True, type=cli.path_list, help="tables of eval_all_mixtures.py, separated by ';'")
    add("--out_png", default="soundscapes_vs_map.png", help="image to write")
    arguments = parser.parse_args()
    found = points(arguments.results_csv)
    print(as_markdown(found))
    if len(found) > 1 and not found[0].soundscapes:
        ratio = found[-1].mAP.mean() / found[0].mAP.mean()
        print(f"{found[-1].soundscapes} soundscapes: {ratio:.1f} times the untrained network's mAP")
    draw_curve(found, arguments.out_png)
    print(f"curve: {arguments.out_png}")


if __name__ == "__main__":
    cli.run(main)
