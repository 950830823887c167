"""Malformed sounds: samples that are no numbers, encodings of every kind, cut, joined, and with tags in front."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import soundfile
from sounds import ENCODINGS, id3_tag, write

from faults import mutations
from faults.commands import in_turn, training
from faults.corpus import checkpoint
from faults.processes import Place
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter

FLOATS = [one for one in ENCODINGS if one[1] in ("FLOAT", "DOUBLE")]
NO_NUMBERS = (float("nan"), float("inf"), float("-inf"), 1e30, -3e38)
NAMED = r"case\.(wav|lmdb)|record 1"


def spoilt_samples(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A file of floats, some of which are no numbers."""
    samples = _samples(corpus).astype(np.float64)
    for _ in range(rng.choice((1, 3, 1000))):
        samples[rng.randrange(len(samples))] = rng.choice(NO_NUMBERS)
    kind, subtype = in_turn(FLOATS, turn)
    data = _encoded(place, kind, subtype, samples)
    return _command(corpus, place, data, turn), NAMED, f"no numbers in {kind} {subtype}"


def spoilt_encoding(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A file of any encoding, whole or not."""
    kind, subtype = ENCODINGS[rng.randrange(len(ENCODINGS))]
    data = _encoded(place, kind, subtype, _samples(corpus))
    changes = {
        "whole": data,
        "cut": data[: rng.randrange(1, len(data))],
        "behind a tag": id3_tag(rng.randrange(10_000)) + data,
        "joined": data + data,
        "without its start": data[rng.randrange(1, min(2000, len(data))) :],
        "with bits flipped": mutations.flip(data, rng),
    }
    what = in_turn(list(changes), turn)
    return _command(corpus, place, changes[what], turn // len(changes)), NAMED, f"{kind} {subtype} {what}"


def _samples(corpus: Path) -> np.ndarray:
    return soundfile.read(corpus / "eval" / "s003.flac", dtype="float32")[0]


def _encoded(place: Place, kind: str, subtype: str, samples: np.ndarray) -> bytes:
    path = write(place.inputs, kind, subtype, samples, "encoded")
    data = path.read_bytes()
    path.unlink()
    for resource_fork in place.inputs.glob("._*"):  # of SD2
        resource_fork.unlink()
    return data


def _command(corpus: Path, place: Place, data: bytes, turn: int) -> tuple:
    """Each command that reads audio in turn, over the sound and a good one."""
    folder, out, sources = place.inputs / "Drum", place.named / "out", corpus / "sources"
    folder.mkdir()
    (folder / "case.wav").write_bytes(data)
    soundfile.write(folder / "good.wav", _samples(corpus), 22050)
    manifest, lmdb = place.inputs / "manifest.csv", place.inputs / "case.lmdb"
    manifest.write_text(f"files,labels\n{folder}/good.wav,Harp\n{folder}/case.wav,Drum\n")
    with LMDBWriter(lmdb, 1e7) as writer:
        for audio in ((corpus / "eval" / "s003.flac").read_bytes(), data, (corpus / "eval" / "s002.flac").read_bytes()):
            writer.add(Record(audio, "Drum"))
    files = ("data.is_lmdb=False", f"data.train_manifest={corpus}/manifest.csv", f"data.val_manifest={manifest}")
    commands = [
        ("predict.py", "--ckpt_path", checkpoint(corpus), "--audio", folder, "--csv", place.named / "scores.csv"),
        ("scripts/wav2flac.py", "--src_dir", folder, "--tgt_dir", out),
        ("scripts/strip_silence_sox.py", "--src_dir", place.inputs, "--tgt_dir", out),
        (
            "scripts/show_soundscape.py",
            f"{lmdb}:1",
            "--out_png",
            place.named / "s.png",
            "--out_wav",
            place.named / "s.wav",
        ),
        ("scripts/check_lmdb.py", lmdb, "--num_workers", 1),
        training(corpus, place, *(word for one in files for word in ("--set", one))),
        training(corpus, place, "--set", f"data.val_lmdb={lmdb}"),
        ("scripts/generate_mixtures.py", "--fg_path", sources / "events", "--bg_path", folder, "--seed", turn)
        + ("--lbl_map", sources / "lbl_map.json", "--out_folder", out, "--num_soundscapes", 2),
    ]
    return in_turn(commands, turn)
