"""Outputs that are no plain files or cannot be written, tables that are spoilt, and rows that are of other files."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from random import Random

from faults import mutations
from faults.commands import evaluation, in_turn, spoil_file
from faults.corpus import LMDB_FLAGS, checkpoint, reading
from faults.processes import Place


def writers(corpus: Path, folder: Path) -> list[tuple[Path, tuple]]:
    """What is written, and the command that does."""
    network, clip = ("--ckpt_path", checkpoint(corpus)), corpus / "eval" / "s003.flac"
    score = (*network, *reading(corpus), "--num_workers", 0)
    table = folder / "out.csv"
    return [
        (table, ("predict.py", *network, "--audio", clip, "--csv", table)),
        (
            folder / "out.lmdb",
            (
                "pack_mixtures_into_lmdb.py",
                *("--mixture_dir", corpus / "eval", "--lmdb_path", folder / "out.lmdb", *LMDB_FLAGS),
            ),
        ),
        (table, ("eval_gise_mixtures.py", *score, "--results_csv", table)),
        (
            folder / "out.json",
            ("scripts/check_lmdb.py", corpus / "eval.lmdb", "--json", folder / "out.json", "--num_workers", 1),
        ),
        (folder / "out_per_class.csv", ("eval_gise_mixtures.py", *score, "--results_csv", table, "--per_class")),
        (
            folder / "out.wav",
            (
                "scripts/show_soundscape.py",
                *(clip, "--out_wav", folder / "out.wav", "--out_png", folder / "out.png"),
            ),
        ),
        (
            folder / "out" / "summary.csv",
            ("scripts/summarise_results.py", corpus / "results.csv", "--out_dir", folder / "out"),
        ),
        (
            folder / "out.tsv",
            (
                *("predict.py", "--ckpt_path", corpus / "events.ckpt", "--audio", clip),
                *("--window", 0.5, "--hop", 0.25, "--events", folder / "out.tsv"),
            ),
        ),
    ]


def odd_output(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A link, a device or a folder in an output's place, or a place that cannot be written."""
    target, words = in_turn(writers(corpus, place.named), turn)
    how = in_turn(
        (
            "link",
            "link to nothing",
            "link to no folder",
            "circle",
            "/dev/null",
            "/dev/full",
            "folder",
            "file above",
            "side",
        ),
        turn // 8 + turn,
    )
    target.parent.mkdir(exist_ok=True)
    far = place.named / "far" / target.name
    if how.startswith("link"):
        if how != "link to no folder":
            far.parent.mkdir()
        if how == "link":
            valid = {".lmdb": corpus / "val.lmdb", ".csv": corpus / "results.csv"}.get(target.suffix)
            if valid and "per_class" not in target.name:
                shutil.copy(valid, far)
        target.symlink_to(rng.choice([far, os.path.relpath(far, target.parent)]))
    elif how == "circle":
        target.symlink_to(target)
    elif how.startswith("/dev"):
        target.symlink_to(how)
    elif how == "folder":
        target.mkdir()
    elif how == "file above":
        shutil.rmtree(place.named)
        place.named.write_text("in the way")
    else:  # what is kept or half done beside it
        (place.named / "precious").write_text("nobody else has this")
        for name in (f"{target.name}.partial", f".{target.name}.labels.json"):
            (target.parent / name).symlink_to(place.named / "precious")
    return words, r"out\b|out[._/]|far", f"{target.name}: {how}"


def spoilt_rows(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A results table that an evaluation is to add to, with its bytes or a cell spoilt."""
    words = evaluation(corpus, place, *(() if turn % 3 else ("--per_class",)))
    table = place.named / "results.csv"
    data = table.read_bytes()
    if turn % 2:
        with open(table, newline="") as stream:
            rows = list(csv.DictReader(stream))
        column = in_turn(list(rows[0]), turn // 2)
        rng.choice(rows)[column] = value = rng.choice(["", "x", "nan", "-1", "1e999", "yesterday", "0,5", "9" * 5000])
        with open(table, "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return words, r"results\.csv", f"{column} is {value[:20]!r}"
    how = in_turn(("BOM", "bytes", "row twice"), turn // 2)
    if how == "BOM":
        table.write_bytes(b"\xef\xbb\xbf" + data)
    elif how == "row twice":
        table.write_bytes(data + data.splitlines(keepends=True)[-1])
    else:
        table.unlink()
        valid = corpus / "results.csv"
        how = spoil_file(valid, table, rng, turn // 6 % len(mutations.BYTES))
    return words, r"results\.csv", how


def stale_row(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A table with the row of another checkpoint or LMDB that was under the same name, and is older or not."""
    network, clips, table = place.inputs / "case.ckpt", place.inputs / "case.lmdb", place.named / "results.csv"
    known = sorted((corpus / "runs").rglob("*.ckpt"))
    now, then = rng.choice(known), str(rng.choice(known))
    with open(corpus / "results.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["ckpt_path"] == then]
    with open(table, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerow(rows[0] | {"ckpt_path": network, "lmdb_path": clips})
    split = rng.choice(("eval", "val"))
    shutil.copy(now, network)
    shutil.copy(corpus / f"{split}.lmdb", clips)
    for file in (network, clips):
        if rng.random() < 0.7:
            os.utime(file, (1, 1))
    words = ("eval_gise_mixtures.py", "--ckpt_path", network, *reading(corpus), "--lmdb_path", clips)
    what = f"{now.name} over {Path(then).name}, {split}.lmdb over eval.lmdb"
    return (*words, "--results_csv", table, "--num_workers", 0), r"case\.", what
