"""Malformed inputs of two kinds: folders as the world makes them, and text as editors and other tools write it."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random

import yaml
from conftest import cfg_tree

from faults.commands import evaluation, in_turn, packing, training
from faults.corpus import checkpoint
from faults.processes import Place

BOM = b"\xef\xbb\xbf"


def other_case(folder: Path, file: Path) -> None:
    file.rename(file.with_suffix(file.suffix.upper()))


def both_cases(folder: Path, file: Path) -> None:
    shutil.copy(file, file.with_suffix(file.suffix.upper()))


def dot_files(folder: Path, file: Path) -> None:
    (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


def loop(folder: Path, file: Path) -> None:
    (folder / "round").symlink_to(folder)


def link_to_itself(folder: Path, file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def link_to_nothing(folder: Path, file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def folder_in_its_place(folder: Path, file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(folder: Path, file: Path) -> None:
    os.mkfifo(file.with_name(f"pipe{file.suffix}"))


def linked_folder(folder: Path, file: Path) -> None:
    shutil.move(folder, folder.with_name("moved"))
    folder.symlink_to(folder.with_name("moved"))


def no_utf_8(folder: Path, file: Path) -> None:
    file.rename(file.with_name(os.fsdecode(b"s\xff") + file.suffix))


def empty(folder: Path, file: Path) -> None:
    for found in folder.rglob("*"):
        if found.is_file():
            found.unlink()


TREES: list[Callable[[Path, Path], None]] = [
    other_case,
    both_cases,
    dot_files,
    loop,
    link_to_itself,
    link_to_nothing,
    folder_in_its_place,
    pipe,
    linked_folder,
    no_utf_8,
    empty,
]


def odd_folder(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A folder of clips, events or JAMS files made odd, for each command that reads one."""
    folder, out, sources = place.inputs / "case", place.named, corpus / "sources"
    clips, sounds = corpus / "eval", sources / "events"
    trim = ("scripts/strip_silence_sox.py", "--src_dir", folder, "--tgt_dir", out / "trimmed")
    mix = ("--out_folder", out / "mix", "--num_soundscapes", 2, "--lbl_map", sources / "lbl_map.json")
    again = ("--jams_dir", folder, "--fg_path", sounds, "--bg_path", sources / "noises", "--out_folder", out / "mix")
    valid, suffix, words = in_turn(
        (
            (clips, "flac", packing(corpus, place, folder)),
            (clips, "flac", ("predict.py", "--ckpt_path", checkpoint(corpus), "--audio", folder)),
            (sounds, "wav", trim),
            (sources / "flat", "wav", ("scripts/wav2flac.py", "--src_dir", folder, "--tgt_dir", out / "flac")),
            (sounds, "wav", ("scripts/generate_mixtures.py", "--fg_path", folder, "--bg_path", sources / "flat", *mix)),
            (corpus / "soundscapes", "jams", ("scripts/generate_from_jams.py", *again)),
        ),
        turn,
    )
    shutil.copytree(valid, folder)
    change = in_turn(TREES, turn // 6 + turn)
    file = rng.choice(sorted(folder.rglob(f"*.{suffix}")))
    change(folder, file)
    return words, r"case", f"{Path(words[0]).name}: {change.__name__}"


LINES = (
    "onset\toffset\tevent_label",
    "0\t1\tDrum\t0.87",
    "\\\t5000.0\t8000.0",
    "0\t1\t5000.0",
    "0,0\t1,0\tDrum",
    "# a comment",
    "",
    "0\t1\tDr\u0308um",
)


def odd_text(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A text file as an editor or another tool writes it."""
    which = in_turn(("s003.txt", "case.json", "manifest.csv", "case.cfg"), turn)
    clips = place.inputs / "mix"
    shutil.copytree(corpus / "eval", clips)
    files = sorted(clips.glob("*.flac"))
    valid = {
        "s003.txt": "0\t0.1\tDrum\n0.1\t0.2\tHarp\n",
        "case.json": '{"Drum": 0, "Harp": 1, "Organ": 2}',
        "manifest.csv": "files,labels\n" + "".join(f"{file},Drum\n" for file in files),
        "case.cfg": yaml.safe_dump(cfg_tree(corpus)),
    }[which]
    path = clips / which if which == "s003.txt" else place.inputs / which
    how = rng.choice(("mark", "windows", "utf-16", "latin-1", "decomposed", "line"))
    if how == "line":
        line = rng.choice(LINES)
        valid, how = (valid + line + "\n", f"the line {line!r}") if which == "s003.txt" else (valid, "unchanged")
    elif how == "decomposed":
        valid = unicodedata.normalize("NFD", valid.replace("Drum", "Trömmel"))
    elif how == "latin-1":
        valid = valid.replace("Drum", "Trömmel")
    encoding = how if how in ("utf-16", "latin-1") else "utf-8"
    text = valid.replace("\n", "\r\n") if how == "windows" else valid
    path.write_bytes(BOM * (how in ("mark", "windows")) + text.encode(encoding))
    manifests = ("--set", f"data.train_manifest={path}", "--set", f"data.val_manifest={path}")
    words = {
        "s003.txt": packing(corpus, place, clips),
        "case.json": evaluation(corpus, place, "--lbl_map", path),
        "manifest.csv": training(corpus, place, "--set", "data.is_lmdb=False", *manifests),
        "case.cfg": training(corpus, place, cfg=path),
    }[which]
    return words, rf"{which}|label map", f"{which}: {how}"
