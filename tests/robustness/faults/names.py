"""Valid files and classes under odd names, and numbers of any size where a seed belongs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random

from conftest import train_command

from faults.commands import in_turn
from faults.corpus import LMDB_FLAGS, checkpoint, reading
from faults.processes import Place

ODD_NAMES = (
    "a$b",
    "$\\frac{",
    "$_{^",
    "100% {0} %s",
    "_hidden",
    "-n",
    "--help",
    "a b\tc",
    "a\nb",
    "\x1b[2J",
    "a\u202eb",
    "大鼓 Łódź",
    os.fsdecode(b"\xff\xfe"),
    "~",
    "a;b",
    "a,b",
    "a:0",
    "[ab]*?",
    "'\"`",
    "\\",
    "x" * 240,
    "..a",
)
SEEDS = ("18446744073709551615", "18446744073709551616", "1" * 5000, "-1", "1e3", "+7", "٣")


def odd_name(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A valid input under an odd name, or an odd class or seed. It is taken, or refused with a word for it."""
    name = in_turn(ODD_NAMES, turn // 7)
    which = in_turn(("recording", "LMDB", "run folder", "clips", "classes", "cfg", "seed"), turn)
    inputs, out = place.inputs, place.named
    tagging = ("predict.py", "--ckpt_path", checkpoint(corpus), "--audio")
    table, picture = out / "s.csv", out / "s.png"
    if which == "recording":
        recording = shutil.copy(corpus / "eval" / "s003.flac", inputs / f"{name}.flac")
        words = (*tagging, rng.choice([recording, inputs]), "--csv", table, "--plot", picture)
    elif which == "LMDB":
        lmdb = shutil.copy(corpus / "eval.lmdb", inputs / f"{name}.lmdb")
        evaluation = ("eval_gise_mixtures.py", *reading(corpus), "--lmdb_path", lmdb, "--ckpt_path", checkpoint(corpus))
        evaluation += ("--results_csv", table, "--per_class", "--num_workers", 0)
        check = ("scripts/check_lmdb.py", lmdb, "--png", picture, "--json", out / "c.json")
        words = rng.choice([evaluation, check, ("scripts/show_soundscape.py", f"{lmdb}:0", "--out_png", picture)])
    elif which == "run folder":
        words = rng.choice(
            [
                train_command(corpus, out / name / name),
                (*tagging, corpus / "eval" / "s003.flac", "--csv", out / name / f"{name}.csv"),
                ("scripts/summarise_results.py", corpus / "results.csv", "--out_dir", out / name),
            ]
        )
    elif which == "clips":
        folder = inputs / name
        shutil.copytree(corpus / "eval", folder)
        for file in sorted(folder.glob("s003.*")):
            file.rename(folder / f"{name}{file.suffix}")
        words = (
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            folder,
            "--lmdb_path",
            out / f"{name}.lmdb",
            *LMDB_FLAGS,
        )
    elif which == "classes":
        classes = {name: 0, f"{name} {name}"[:200]: 1, "$": 2}
        label_map = inputs / "lbl_map.json"
        label_map.write_text(json.dumps(classes))
        lmdb = shutil.copy(corpus / "eval.lmdb", inputs)  # beside which a note is kept
        words = ("scripts/check_lmdb.py", lmdb, "--lbl_map", label_map, "--png", picture)
    elif which == "cfg":
        cfg = Path(shutil.copy(corpus / "tiny.cfg", inputs / f"{name}.cfg"))
        words = train_command(corpus, out / "run", cfg=cfg)
    else:
        name = rng.choice(SEEDS)
        words = rng.choice(
            [
                train_command(corpus, out / "run", f"--seed={name}"),
                ("scripts/make_demo_corpus.py", "--out_folder", out / "demo", f"--seed={name}", "--help"),
            ]
        )
    return words, r"\w|error", f"{which}: {name[:30]!r}"
