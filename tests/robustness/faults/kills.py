"""Kills at any moment of long work: nothing is lost, and the same command then ends as if undisturbed."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from conftest import train_command

from faults.corpus import LMDB_FLAGS, reading
from faults.processes import Place, kill, orphans, outcome, run, start, wait_until
from faults.verdicts import broken, same_tensors, snapshot
from src.runs.folder import RunFolder

LONGEST = 120  # s that a command may take
ORPHANS_END = 30  # s after which no process of a killed command may be left
ATTEMPTS = 20  # kills that came too late are drawn again, so often
GROWING = ("events.out.tfevents.*",)  # files that grow line by line, and may end anywhere


class Work(ABC):
    """A command to kill, in a folder of its own.

    Args:
        corpus: what it reads.
        folder: for the undisturbed run.
    """

    def __init__(self, corpus: Path, folder: Path):
        self.corpus = corpus
        self.folder = folder

    @abstractmethod
    def prepare(self, place: Place) -> None:
        """Put what is there before into a place."""

    @abstractmethod
    def words(self, place: Place, rng: Random) -> tuple[object, ...]:
        """The command. What it is to make must not depend on the draws."""

    def damage(self, place: Place) -> list[str]:
        """What is wrong after a kill, besides files that are not whole."""
        return []

    @abstractmethod
    def differences(self, place: Place) -> list[str]:
        """In what the result differs from the undisturbed one."""

    @cached_property
    def undisturbed(self) -> Place:
        """A place in which the command ran to its end."""
        place = Place(self.folder / "undisturbed")
        self.prepare(place)
        process = start(place, *self.words(place, Random(0)))
        began = begun(process, place)
        process.join(LONGEST)
        if process.exitcode != 0:
            raise RuntimeError(f"the undisturbed run ended with {process.exitcode}: {place.error_output()[-2000:]}")
        self.duration = time.monotonic() - began
        return place


def begun(process, place: Place) -> float:
    """Wait until a command has printed something or writes a file: it has begun its work. Returns when that was."""
    known, log = partials(place), place.logs / "err"
    wait_until(lambda: bool(log.exists() and log.stat().st_size) or bool(partials(place) - known), process)
    return time.monotonic()


class Packing(Work):
    """Of more soundscapes, over an LMDB that is there."""

    def prepare(self, place: Place) -> None:
        shutil.copy(self.corpus / "val.lmdb", place.named / "a.lmdb")

    def words(self, place: Place, rng: Random) -> tuple[object, ...]:
        folders = ";".join([str(self.corpus / split) for split in ("train", "val", "eval")] * 6)
        return (
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            folders,
            "--lmdb_path",
            place.named / "a.lmdb",
            *LMDB_FLAGS,
            "--write_frequency",
            5,
            "--num_workers",
            rng.choice([1, 2]),
        )

    def damage(self, place: Place) -> list[str]:
        whole = [path.read_bytes() for path in (self.corpus / "val.lmdb", self.undisturbed.named / "a.lmdb")]
        found = (place.named / "a.lmdb").read_bytes()
        return [] if found in whole else ["a.lmdb is neither the old one nor the new one"]

    def differences(self, place: Place) -> list[str]:
        same = (place.named / "a.lmdb").read_bytes() == (self.undisturbed.named / "a.lmdb").read_bytes()
        return [] if same else ["a.lmdb differs"]


class PackingBehindALink(Packing):
    """The same, into the folder that a link leads to."""

    def prepare(self, place: Place) -> None:
        (place.named / "far").mkdir()
        super().prepare(place)
        (place.named / "a.lmdb").rename(place.named / "far" / "b.lmdb")
        (place.named / "a.lmdb").symlink_to("far/b.lmdb")

    def damage(self, place: Place) -> list[str]:
        return super().damage(place) + ["a.lmdb is no link any more"] * (not (place.named / "a.lmdb").is_symlink())


class Training(Work):
    """Of a small network, some epochs."""

    def prepare(self, place: Place) -> None:
        pass

    def words(self, place: Place, rng: Random) -> tuple[object, ...]:
        return train_command(
            self.corpus,
            place.named / "run",
            "--use_mixup",
            "--num_workers",
            rng.choice([0, 0, 2]),
            "--checkpoint_every_n_steps",
            rng.choice([0, 1, 2]),
            epochs=4,
        )

    def differences(self, place: Place) -> list[str]:
        ours, theirs = (RunFolder(each.named / "run") for each in (place, self.undisturbed))
        files, expected = ({file.name: file for file in run.checkpoint_files()} for run in (ours, theirs))
        if files.keys() != expected.keys():
            return [f"checkpoints {', '.join(files)} instead of {', '.join(expected)}"]
        found = [f"the weights in {name} differ" for name in files if not same_tensors(files[name], expected[name])]
        if ours.metrics_file.read_text() != theirs.metrics_file.read_text():
            found.append("metrics.csv differs")
        return found if (ours.record() or {}).get("finished") else [*found, "run.json does not say that it is finished"]


class Evaluation(Work):
    """Of several checkpoints, into a table that has rows of another LMDB."""

    def prepare(self, place: Place) -> None:
        with open(self.corpus / "results.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        with open(place.named / "results.csv", "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(row | {"lmdb_path": "another.lmdb"} for row in rows)

    def words(self, place: Place, rng: Random) -> tuple[object, ...]:
        return (
            "eval_gise_mixtures.py",
            "--exp_dir",
            self.corpus / "runs",
            *reading(self.corpus),
            "--results_csv",
            place.named / "results.csv",
            "--batch_size",
            1,
            "--num_workers",
            rng.choice([0, 0, 2]),
            "--per_class",
        )

    def rows(self, place: Place) -> list[dict[str, str]]:
        """The table's rows without the time at which they were made."""
        with open(place.named / "results.csv", newline="") as stream:
            rows = [row | {"evaluated": ""} for row in csv.DictReader(stream)]
        return sorted(rows, key=lambda row: (row["lmdb_path"], row["ckpt_path"]))

    def damage(self, place: Place) -> list[str]:
        expected, found = self.rows(self.undisturbed), self.rows(place)
        lost = [row for row in expected if row["lmdb_path"] == "another.lmdb" and row not in found]
        return [f"{len(lost)} rows that were there are lost"] * bool(lost) + [
            f"a row of {row['ckpt_path']} is not as undisturbed" for row in found if row not in expected
        ]

    def differences(self, place: Place) -> list[str]:
        return [] if self.rows(place) == self.rows(self.undisturbed) else ["results.csv differs"]


class Exporting(Evaluation):
    """Of several checkpoints' weights."""

    def words(self, place: Place, rng: Random) -> tuple[object, ...]:
        return (*super().words(place, rng), "--export_weights", "--export_dir", place.named / "weights")

    def differences(self, place: Place) -> list[str]:
        names = [
            {str(file.relative_to(each.named)) for file in each.named.rglob("*.pth")}
            for each in (place, self.undisturbed)
        ]
        if names[0] != names[1]:
            return [f"exported {', '.join(sorted(names[0]))} instead of {', '.join(sorted(names[1]))}"]
        return super().differences(place) + [
            f"{name} differs"
            for name in sorted(names[0])
            if not same_tensors(place.named / name, self.undisturbed.named / name)
        ]


class Predicting(Work):
    """Of when classes sound, over tables that are there."""

    tables = "events.tsv", "frames.tsv", "raven.tsv"

    def prepare(self, place: Place) -> None:
        for name in self.tables:
            (place.named / name).write_text("filename\tonset\toffset\nold.wav\t0.000\t0.010\n")

    def words(self, place: Place, rng: Random) -> tuple[object, ...]:
        return (
            "predict.py",
            "--ckpt_path",
            self.corpus / "events.ckpt",
            "--audio",
            *(self.corpus / split for split in ("train", "val", "eval")),
            *("--window", 0.2, "--hop", 0.02),
            *("--events", place.named / "events.tsv", "--frames", place.named / "frames.tsv"),
            *("--format", "raven", "--output", place.named / "raven.tsv"),
        )

    def damage(self, place: Place) -> list[str]:
        old = Place(self.folder / "old")
        self.prepare(old)
        return [
            f"{name} is neither the old one nor the new one"
            for name in self.tables
            if (place.named / name).read_bytes()
            not in [(each.named / name).read_bytes() for each in (old, self.undisturbed)]
        ]

    def differences(self, place: Place) -> list[str]:
        return [
            f"{name} differs"
            for name in self.tables
            if (place.named / name).read_bytes() != (self.undisturbed.named / name).read_bytes()
        ]


WORKS: dict[str, Callable[[Path, Path], Work]] = {
    "packing": Packing,
    "packing behind a link": PackingBehindALink,
    "training": Training,
    "evaluation": Evaluation,
    "exporting": Exporting,
    "predicting": Predicting,
}


@dataclass(frozen=True)
class Killed:
    """What came of one kill."""

    landed: int  # kills that met the command at work
    attempts: int
    failures: list[str]


def run_case(seed: int, number: int, work: Work, place: Place) -> Killed:
    """Kill a command once or twice, start it again, and compare with the undisturbed run."""
    rng = Random(f"{seed} kill {number}")
    work.undisturbed  # noqa: B018 - its duration is what moments are drawn from
    work.prepare(place)
    corpus, landed, attempts = snapshot(work.corpus), 0, 0
    wanted = 2 if rng.random() < 0.25 else 1
    while landed < wanted and attempts < ATTEMPTS:
        attempts += 1
        if not strike(work, place, rng):
            if landed:
                break  # it went on behind the first kill, and ended
            shutil.rmtree(place.named)
            place.named.mkdir()
            work.prepare(place)
            continue
        landed += 1
        problems = left_behind(work, place)
        if problems:
            return Killed(landed, attempts, problems)
    result = run(place, *work.words(place, rng), timeout=LONGEST)
    if result.status != 0:
        return Killed(landed, attempts, [f"the same command then ended with {result.status}: {result.err[-500:]}"])
    problems = work.differences(place) + left_behind(work, place) + result.misdeeds.splitlines()
    if snapshot(work.corpus) != corpus:
        problems.append("what it only reads has changed")
    return Killed(landed, attempts, problems)


def strike(work: Work, place: Place, rng: Random) -> bool:
    """Start the command and kill it at a moment that is drawn. Returns whether it was still at work then."""
    process = start(place, *work.words(place, rng))
    whole_group, at_a_file = rng.random() < 0.7, rng.random() < 0.4
    began = begun(process, place)
    if at_a_file:  # while one is being written
        known = partials(place)
        wait_until(lambda: partials(place) - known, process)
        time.sleep(rng.choice([0, 0.0005, 0.005]))
    else:
        time.sleep(max(0.0, began + rng.random() * work.duration - time.monotonic()))
    if not process.is_alive():
        process.join()
        return False
    kill(process, signal.SIGKILL, whole_group)
    if process.exitcode != -signal.SIGKILL:
        return False
    deadline = time.monotonic() + ORPHANS_END
    while left := list(orphans(process.pid)):
        if time.monotonic() > deadline:
            for orphan in left:
                orphan.kill()
            raise RuntimeError(f"{len(left)} processes outlived the command by {ORPHANS_END} s")
        time.sleep(0.05)
    return True


def partials(place: Place) -> set[tuple[Path, int]]:
    """Files that are being written, by name and inode."""
    found = set()
    for folder, _, names in os.walk(place.named):
        for name in names:
            if name.endswith(".partial"):
                path = Path(folder, name)
                try:
                    found.add((path, path.stat().st_mtime_ns))
                except FileNotFoundError:
                    pass
    return found


def left_behind(work: Work, place: Place) -> list[str]:
    """What a command left that is not whole, or not there any more."""
    files = [path for path in place.named.rglob("*") if path.is_file() and not path.name.endswith(".partial")]
    found = [problem for path in files if not any(map(path.match, GROWING)) for problem in broken(path)]
    return found or work.damage(place) + outcome(place, None).misdeeds.splitlines()
