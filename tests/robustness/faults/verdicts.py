"""What counts as a failure: of a command that was given something malformed, and of files left behind."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch

from faults.processes import Outcome, Place
from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.models.safe_loading import read_torch_file

LONGEST_LINE = 2000  # characters of an error message that somebody will still read
LIBRARIES_CACHES = re.compile(r"/(\.cache|\.config|\.(cache|config)/matplotlib.*|torchinductor_[^/]*)$")
NOTES = re.compile(r"\..*\.(fingerprint|labels)\.json")  # kept beside an LMDB that was read


def snapshot(folder: Path) -> dict[Path, str]:
    """Path → hash of the content, for all below a folder. Folders and links have words instead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = f"link to {path.readlink()}"
        elif path.is_file():
            found[path] = hashlib.blake2b(path.read_bytes()).hexdigest()
        else:
            found[path] = "folder" if path.is_dir() else "special"
    return found


def changed(before: Mapping[Path, str], after: Mapping[Path, str]) -> list[str]:
    """What existed before and is gone or different."""
    return [
        f"{path} is {'changed' if path in after else 'gone'}"
        for path, found in before.items()
        if after.get(path) != found
    ]


def replaced(before: Mapping[Path, str], after: Mapping[Path, str]) -> list[tuple[Path, str]]:
    """Links and devices that something else was put in the place of. A link under a note's name is not followed."""
    odd = ((path, found) for path, found in before.items() if found.startswith(("link to", "special")))
    return [(path, found) for path, found in odd if after.get(path) != found and not NOTES.fullmatch(path.name)]


def stale_rows(corpus: Path, place: Place) -> list[str]:
    """Rows of results.csv that are not of the files under their names, as far as the corpus tells what those score."""
    table = place.named / "results.csv"
    if not table.is_file():
        return []
    known = {Path(row["ckpt_path"]).read_bytes(): row["mAP"] for row in rows_of(corpus / "results.csv")}
    found = []
    for row in rows_of(table):
        network, clips = Path(row["ckpt_path"]), Path(row["lmdb_path"])
        if network.parent != place.inputs or not clips.exists():
            continue
        if row["eval_data"] != records_of(clips):
            found.append(f"{table}: a row is of other clips than {clips} holds")
        elif clips.read_bytes() == (corpus / "eval.lmdb").read_bytes():
            expected = known.get(network.read_bytes(), row["mAP"])
            found += [f"{table}: mAP is {row['mAP']}, and {network} scores {expected}"] * (expected != row["mAP"])
    return found


def rows_of(table: Path) -> list[dict[str, str]]:
    """Of a results table."""
    with open(table, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def records_of(path: Path) -> str:
    """The SHA-256 of the SHA-256 of every record, and of the events and groups behind them."""
    whole, reader = hashlib.sha256(), LMDBReader(path)
    for index in range(len(reader)):
        whole.update(hashlib.sha256(reader.stored(index)).digest())
    for entry in reader.stored_beside():
        whole.update(hashlib.sha256(entry).digest())
    reader.unmap()
    return whole.hexdigest()


def created(before: Mapping[Path, str], after: Mapping[Path, str]) -> list[Path]:
    """What is there now and was not before."""
    return [path for path in after if path not in before]


@dataclass(frozen=True)
class Before:
    """What there was before a command."""

    corpus: Mapping[Path, str]
    inputs: Mapping[Path, str]
    named: Mapping[Path, str]

    @classmethod
    def of(cls, corpus: Path, place: Place) -> Before:
        return cls(snapshot(corpus), snapshot(place.inputs), snapshot(place.named))


def failures(
    outcome: Outcome,
    corpus: Path,
    place: Place,
    before: Before,
    umask: int,
    faulty: re.Pattern[str],
    cwd_is_named: bool = False,
) -> list[str]:
    """What is wrong with how a command dealt with malformed input. Nothing if all is well.

    Args:
        faulty: what the message must mention: the file, key or flag at fault.
        cwd_is_named: whether the command may write into the current folder.
    """
    after = Before.of(corpus, place)
    found = [*_status_failures(outcome), *_message_failures(outcome, faulty)]
    found += changed(before.corpus, after.corpus) + changed(before.inputs, after.inputs)
    if outcome.status != 0:
        found += changed(before.named, after.named)
    cwd, home, temporary = place.unnamed
    for folder in (home, temporary) if cwd_is_named else place.unnamed:
        found += [f"left {path}" for path in folder.rglob("*") if not LIBRARIES_CACHES.search(str(path))]
    new_inputs = created(before.corpus | before.inputs, after.corpus | after.inputs)
    found += [f"wrote {path} among the inputs" for path in new_inputs if not NOTES.fullmatch(path.name)]
    new = created(before.named, after.named) + (list(cwd.rglob("*")) if cwd_is_named else [])
    found += [f"left {path}" for path in new if path.name.endswith(".partial")]
    found += [problem for path in new for problem in _rights_failures(path, umask)]
    if outcome.status == 0:
        found += [problem for path in new if path.is_file() for problem in broken(path)]
        found += [f"{path} is no {what} any more" for path, what in replaced(before.named, after.named)]
        found += stale_rows(corpus, place)
    return found + outcome.misdeeds.splitlines()


def _status_failures(outcome: Outcome) -> list[str]:
    if outcome.status is None:
        return ["did not end in time"]
    return [] if outcome.status in (0, 1, 2) else [f"ended with status {outcome.status}"]


def _message_failures(outcome: Outcome, faulty: re.Pattern[str]) -> list[str]:
    text = outcome.out + outcome.err
    if "Traceback" in text:
        return [f"a traceback: {text.strip().splitlines()[-1]}"]
    if outcome.status not in (1, 2):
        return []
    lines = outcome.err.replace("\r", "\n").strip().splitlines()
    errors = [line for line in lines if ": error: " in line]
    if len(errors) != 1 or errors[0] != lines[-1]:
        return [f"{len(errors)} error lines, and the last line is: {lines[-1] if lines else ''}"]
    if outcome.status == 1 and len(errors[0]) > LONGEST_LINE:  # argparse, with status 2, quotes what was typed
        return [f"an error line of {len(errors[0])} characters"]
    named = lines if "see above" in errors[0].lower() else errors
    return [] if any(map(faulty.search, named)) else [f"does not name what is at fault: {errors[0]}"]


def _rights_failures(path: Path, umask: int) -> list[str]:
    if path.is_symlink():
        return []
    mode = stat.S_IMODE(path.stat().st_mode)
    expected = (0o777 if path.is_dir() else 0o666) & ~umask
    return [] if mode == expected else [f"{path} has mode {mode:o}, and {expected:o} is what the umask leaves"]


def broken(path: Path) -> list[str]:
    """Why a file under its final name is not whole. Nothing if it is, or if it grows line by line."""
    check = CHECKS.get(path.suffix)
    try:
        problem = check(path) if check else None
    except (UserError, ValueError, KeyError, RuntimeError) as error:
        problem = str(error) or repr(error)
    return [f"{path} is broken: {problem}"] if problem else []


def _broken_lmdb(path: Path) -> None:
    reader = LMDBReader(path)
    for index in range(len(reader)):
        reader[index]
    reader.events()
    reader.unmap()


def _broken_torch_file(path: Path) -> None:
    read_torch_file(path, "a whole file")


def _broken_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _broken_sound(path: Path) -> None:
    soundfile.read(io.BytesIO(path.read_bytes()))  # which takes no name that is not UTF-8


def _broken_csv(path: Path) -> str | None:
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        return "its last line has no end"
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
    if any(None in row or None in row.values() for row in rows):
        return "a row has another number of columns"
    for row in rows:
        for name in ("mAP", "val_mAP"):
            if name in row and not (math.isfinite(float(row[name])) and 0 <= float(row[name]) <= 1):
                return f"{name} is {row[name]}"
    return None


CHECKS = {
    ".lmdb": _broken_lmdb,
    ".ckpt": _broken_torch_file,
    ".pth": _broken_torch_file,
    ".json": _broken_json,
    ".jams": _broken_json,
    ".csv": _broken_csv,
    ".tsv": _broken_csv,
    ".flac": _broken_sound,
    ".wav": _broken_sound,
}


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two files of torch.save hold the same state dict, bit by bit."""
    states = [read_torch_file(path, "a whole file") for path in (one, other)]
    first, second = (state.get("state_dict", state) for state in states)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
