"""Valid input of every kind, small: what the campaign mutates, and what its undisturbed runs read."""

from __future__ import annotations

from pathlib import Path

from conftest import as_events, cfg_tree, run_script, train_command, write_cfg, write_folder, write_lbl_map
from small_sources import generate, write_sources

SPLITS = (("train", 12, 1), ("val", 6, 2), ("eval", 6, 3))  # name, clips, seed
EPOCHS = 2
LMDB_FLAGS = ("--audio_min_duration", 0.5)


def make_corpus(folder: Path) -> Path:
    """train/, val/, eval/ and their LMDBs, meta/lbl_map.json, tiny.cfg, manifest.csv, runs/, weights.pth, results.csv,
    sources/ and soundscapes/ made of them. Of events: events.ckpt, and scored/ with its tables."""
    write_lbl_map(folder / "meta" / "lbl_map.json")
    for split, count, seed in SPLITS:
        write_folder(folder / split, count, seed)
        run_script(
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            folder / split,
            "--lmdb_path",
            folder / f"{split}.lmdb",
            *LMDB_FLAGS,
            check=0,
        )
    write_cfg(folder / "tiny.cfg", cfg_tree(folder))
    files = sorted((folder / "eval").glob("*.flac"))
    (folder / "manifest.csv").write_text("files,labels\n" + "".join(f"{file},Drum\n" for file in files))
    for group in ("one", "other"):
        run_script(*train_command(folder, folder / "runs" / group / "tiny", epochs=EPOCHS), check=0)
    exports = folder / "exported"
    run_script(
        "eval_gise_mixtures.py",
        "--exp_dir",
        folder / "runs",
        *reading(folder),
        "--results_csv",
        folder / "results.csv",
        "--export_weights",
        "--export_dir",
        exports,
        "--num_workers",
        0,
        check=0,
    )
    next(exports.rglob("*.pth")).rename(folder / "weights.pth")
    as_events(checkpoint(folder), folder / "events.ckpt", medians=[1, 3, 5], thresholds=[0.3, 0.5, None])
    run_script(*scoring_events(folder, folder / "scored" / "results.csv"), check=0)
    write_sources(folder / "sources")
    generate(folder / "sources", folder / "soundscapes", count=2, check=0)
    return folder


def reading(corpus: Path) -> tuple[object, ...]:
    """The flags with which an evaluation script reads the corpus."""
    return "--lbl_map", corpus / "meta" / "lbl_map.json", "--lmdb_path", corpus / "eval.lmdb"


def scoring_events(corpus: Path, table: Path, network: Path | None = None) -> tuple[object, ...]:
    """A command that scores events into a results table and all that are beside it."""
    words = "eval_events.py", "--ckpt_path", network or corpus / "events.ckpt", *reading(corpus)
    return (*words, "--results_csv", table, "--per_class", "--slices", "--num_workers", 0)


def checkpoint(corpus: Path) -> Path:
    """A checkpoint of its runs."""
    return next((corpus / "runs" / "one").rglob("epoch=01*.ckpt"))
