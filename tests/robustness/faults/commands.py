"""What the makers of malformed inputs share: choices in turn, spoilt files, and the commands that read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from conftest import train_command

from faults import mutations
from faults.corpus import LMDB_FLAGS, checkpoint, reading
from faults.processes import Place

Maker = Callable[[Path, Place, Random, int], tuple[tuple, str, str]]  # -> words, what must be named, what was done


def in_turn(choices: Any, turn: int) -> Any:
    """Each choice in turn, so that none is left out."""
    return choices[turn % len(choices)]


def spoil_file(valid: Path, target: Path, rng: Random, turn: int) -> str:
    """Write a valid file's bytes spoilt, or put a folder, a link to itself or nothing in its place."""
    special = rng.random()
    if special < 0.06:
        target.mkdir()
        return "a folder in its place"
    if special < 0.12:
        target.symlink_to(target)
        return "a link to itself"
    if special < 0.16:
        return "it is missing"
    mutate = in_turn(mutations.BYTES, turn)
    target.write_bytes(mutate(valid.read_bytes(), rng))
    return f"bytes: {mutate.__name__}"


def training(corpus: Path, place: Place, *more: object, cfg: Path | None = None) -> tuple:
    """A short training run."""
    return train_command(corpus, place.named / "run", *more, cfg=cfg)


def evaluation(corpus: Path, place: Place, *more: object) -> tuple:
    """An evaluation into a table that has rows already."""
    table = place.named / "results.csv"
    shutil.copy(corpus / "results.csv", table)
    return (
        "eval_gise_mixtures.py",
        *reading(corpus),
        "--ckpt_path",
        checkpoint(corpus),
        "--results_csv",
        table,
        "--num_workers",
        0,
        "--overwrite",
        *more,
    )


def packing(corpus: Path, place: Place, folder: Path, *more: object) -> tuple:
    """A packing over an LMDB that is there already."""
    target = place.named / "packed.lmdb"
    shutil.copy(corpus / "val.lmdb", target)
    return ("pack_mixtures_into_lmdb.py", "--mixture_dir", folder, "--lmdb_path", target, *LMDB_FLAGS, *more)
