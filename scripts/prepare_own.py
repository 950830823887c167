"""Make a data set of your own recordings: clips, LMDBs for training, validation and evaluation, label map and cfg."""

import _repository

from src import cli


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--src", required=True, help="folder of class folders, or a table (CSV, TSV) with files and labels")
    add("--out_dir", default="my_data", help="folder for all that is made")
    add("--audio_dir", help="folder that the table's file names start from, by default the table's own")
    level = "the class is the folder at this level below --src, by default the one that holds the file"
    add("--class_level", type=cli.positive(int), metavar="N", help=level)
    add("--label_separator", type=cli.text, default=",", help="between several labels in a cell of the table")
    kinds = "one class a clip or several, by default as the labels are"
    add("--type", choices=("auto", "multiclass", "multilabel"), default="auto", help=kinds)
    shares = "shares of train, val and eval, where --src does not give the split"
    add("--split", type=cli.positive(float), nargs=3, default=(0.6, 0.2, 0.2), metavar="SHARE", help=shares)
    by = "column of the table that gives parts or folds, by default split, or else fold"
    add("--split_by", metavar="COLUMN", help=by)
    group = "keep together what has this in common: a column, folder, folder:N, or a regular expression of the path"
    add("--group_by", type=cli.text, metavar="WHAT", help=group)
    add("--folds", type=cli.positive(int), metavar="K", help="make K folds in one LMDB instead of three parts")
    add("--seed", type=cli.seed, default=1, help="of the split")
    add("--clip_seconds", type=cli.positive(float), default=5.0, help="length that longer recordings are cut into")
    add("--overlap", type=float, default=0.0, help="seconds that a clip shares with the one before")
    heard = "seconds of an event that must lie in a clip to count there, or half of a shorter event or clip"
    add("--min_overlap", type=cli.positive(float), default=0.25, help=heard)
    add("--sample_rate", type=cli.positive(int), default=22050, help="Hz, of the clips")
    add("--epochs", type=cli.positive(int), default=50, help="in the command to train that is printed")
    add("--num_workers", type=cli.positive(int), default=1, help="processes. The result does not depend on it")
    add("--map_size", type=cli.positive(float), default=5e9, help="bytes an LMDB may grow to at first, such as 2e10")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    from src.preparation.own.prepare import OwnOptions, prepare

    print(prepare(cli.options_of(OwnOptions, options)))


if __name__ == "__main__":
    cli.run(main)
