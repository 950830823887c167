"""Limits of open files, spoilt sample caches, and weights as other programs write them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import torch
from conftest import ROOT

from faults import mutations
from faults.commands import evaluation, in_turn, packing, training
from faults.processes import Place, run

FILES, WORKERS = (24, 32, 48, 64, 128), (2, 3, 5, 8, 600)
PREFIXES = ("module.", "_orig_mod.", "net.", "model.", "a.b.")
CONTAINERS = ("state_dict", "model_state_dict", "model", "weights")

LIMITED = """\
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
sys.argv = {words}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Status 3, which no command has, where a run is refused or has other figures than the undisturbed one.
ACCEPTED = """\
import pathlib, runpy, sys
sys.argv = {words}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    sys.exit(3)
figures = {{pathlib.Path(run, "logs/metrics.csv").read_text() for run in {runs}}}
sys.exit(3 if len(figures) > 1 else 0)
"""
SHARED_MEMORY = """\
import contextlib
from hostile import SharedMemory
with contextlib.suppress(OSError):  # where no file system may be mounted, it runs as usual
    SharedMemory({kind!r})()
"""


def command(place: Place, script: str, words: tuple, **more: Any) -> tuple[object, ...]:
    """The words of a Python script that runs a command of the repository."""
    path = place.root / "command.py"
    path.write_text(script.format(words=[str(ROOT / words[0]), *map(str, words[1:])], **more))
    return (path,)


def like_undisturbed(
    corpus: Path, place: Place, words: tuple, *more: object, script: str = ACCEPTED, **values: Any
) -> tuple[object, ...]:
    """A training run that must have the figures of one with other flags, which is made here."""
    undisturbed = Place(place.root / "undisturbed")
    assert run(undisturbed, *training(corpus, undisturbed, *more)).status == 0
    runs = [str(one.named / "run") for one in (undisturbed, place)]
    return command(place, script, words, runs=runs, **values)


def other_shared_memory(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A /dev/shm that is small, full, read-only or missing. The figures are those of an undisturbed run."""
    kind = in_turn(("small", "full", "read-only", "missing"), turn)
    flags = ("--num_workers", rng.choice((1, 2)), *rng.choice(((), ("--cache_samples", place.named / "cache"))))
    script, words = SHARED_MEMORY + ACCEPTED, training(corpus, place, *flags)
    return like_undisturbed(corpus, place, words, script=script, kind=kind), "/dev/shm", f"a {kind} /dev/shm"


def limited(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A limit of open files and a number of workers, which may fit each other."""
    files, workers = rng.choice(FILES), rng.choice(WORKERS)
    words = in_turn(
        (
            packing(corpus, place, corpus / "eval"),
            ("scripts/check_lmdb.py", corpus / "eval.lmdb"),
            training(corpus, place),
            evaluation(corpus, place),
            training(corpus, place, "--cache_samples", place.named / "cache"),
            ("scripts/wav2flac.py", "--src_dir", corpus / "soundscapes", "--tgt_dir", place.named / "flac"),
        ),
        turn,
    )
    what = f"{files} open files, {workers} workers, {words[0]}"
    return command(place, LIMITED, (*words, "--num_workers", workers), files=files), "--num_workers", what


def spoilt_cache(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A file of --cache_samples spoilt."""
    more = ("--cache_samples", place.named / "cache", "--num_workers", turn % 3)
    words = like_undisturbed(corpus, place, training(corpus, place, *more), *more)
    path = in_turn(sorted((place.named / "cache").iterdir()), turn)
    mutate = in_turn(mutations.BYTES, turn)
    path.write_bytes(mutate(path.read_bytes(), rng))
    return words, "samples", f"bytes of the {path.name.split('-')[0]} cache: {mutate.__name__}"


def foreign_weights(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """Weights under prefixes and in dicts, as often without batch norm's counters."""
    state: dict[str, Any] = torch.load(corpus / "weights.pth", weights_only=True)
    if turn % 2:
        state = {name: value for name, value in state.items() if "num_batches" not in name}
    prefix = "".join(rng.sample(PREFIXES, rng.randrange(4)))
    content: dict[str, Any] = {prefix + name: value for name, value in state.items()}
    containers = rng.sample(CONTAINERS, rng.randrange(3))
    for name in containers:
        content = {"epoch": 3, name: content, "optimizer": {"lr": 0.1}}
    path = place.inputs / "case.pth"
    torch.save(content, path)
    words = training(corpus, place, "--pretrained", path)
    what = f"prefix '{prefix}', within {containers}{', no counters' * (turn % 2)}"
    return like_undisturbed(corpus, place, words, "--pretrained", corpus / "weights.pth"), r"case\.pth", what
