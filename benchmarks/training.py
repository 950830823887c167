"""A training epoch through the scripts against a bare PyTorch loop over the same batches.

    python benchmarks/training.py

The loop has the same network, loader, mixup, loss and optimiser, and clips gradients and averages weights where a cfg
asks for it. It has nothing else: no Lightning, no logs, no figures. With --cfg_file it is a cfg's recipe, as
of a tagger: these clips have no events.
The last row is the loop once more, with the one thing that the scripts do to be faster than it: the process keeps the
memory that it frees (src/utils/memory.py). All run in new processes, in turns, with all cores. The clock runs from the
end of the first batch to the end of the last one. All do the same arithmetic: the mean losses say so.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import yaml

import _repository

from benchmarks.measuring import (
    LBL_MAP,
    ROOT,
    in_fresh_process,
    in_turns,
    machine,
    print_table,
    repeat_records,
)
from src import cli
from src.data.labels import LabelMap
from src.errors import UserError
from src.utils.strict_yaml import parse_yaml
from src.utils.text import read_text

SEED = 1
VAL_CLIPS = 16


class Epoch(NamedTuple):
    """One epoch of training, its first batch left out."""

    seconds: float
    cpu: float  # s of the training process, all its threads
    loss: float  # mean over all batches


class Clock:
    """Runs from the end of the first batch to that of the last one."""

    def __init__(self):
        self._start = self._now = None

    def batch_ended(self) -> None:
        self._now = time.perf_counter(), time.process_time()
        self._start = self._start or self._now

    def epoch(self, loss: float) -> Epoch:
        return Epoch(self._now[0] - self._start[0], self._now[1] - self._start[1], loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cfg_file", help="whose network, features, augmentation and optimisation are taken. By default the published")
    add("--arch", default="resnet", help="of the network (resnet)")
    add("--depth", default="18", help="of the network, such as 34 or b0 (18)")
    add("--frames", type=cli.positive(int), default=500, help="of a training clip (500)")
    add("--batch_size", type=cli.positive(int), default=16, help="clips in a batch (16)")
    add("--clips", type=cli.positive(int), default=160, help="in an epoch (160)")
    add("--num_workers", type=cli.count, default=2, help="loader processes (2)")
    add("--rounds", type=cli.positive(int), default=3, help="of which medians are taken (3)")
    arguments = parser.parse_args()
    if arguments.clips < 2 * arguments.batch_size:
        raise UserError(
            f"--clips {arguments.clips}: two batches of --batch_size {arguments.batch_size} are needed: "
            "the first one is not timed"
        )
    what = arguments.cfg_file or f"{arguments.arch} {arguments.depth}"
    print(
        f"{machine()}\n{what} on {arguments.frames} frames, {arguments.clips} clips in "
        f"batches of {arguments.batch_size}, {arguments.num_workers} workers, medians of {arguments.rounds}"
    )
    with tempfile.TemporaryDirectory() as folder:
        cfg = write_cfg(Path(folder), arguments)
        settings = str(cfg), arguments.frames, arguments.num_workers
        work = {
            "bare loop": (bare_loop, False),
            "scripts": (through_the_scripts,),
            "bare loop, freed memory kept": (bare_loop, True),
        }
        found = in_turns(
            {
                name: functools.partial(in_fresh_process, function, *settings, *more)
                for name, (function, *more) in work.items()
            },
            arguments.rounds,
        )
    print_table(("training epoch", "seconds", "range", "ratio", "CPU seconds", "ratio", "mean loss"), rows_of(found))


def write_cfg(folder: Path, arguments: argparse.Namespace) -> Path:
    """A configuration, and its data beside it."""
    lmdbs = {
        f"{split}_lmdb": str(repeat_records(folder / f"{split}.lmdb", count))
        for split, count in (("train", arguments.clips), ("val", VAL_CLIPS))
    }
    depth = int(arguments.depth) if arguments.depth.isdigit() else arguments.depth
    tree = {
        "model": {"arch": arguments.arch, "model_depth": depth, "pool": "avgpool", "type": "multilabel"},
        "opt": {"optimizer": "Adam", "lr": 1e-3, "scheduler": "reduce"},
        "audio_config": {"feature": "spectrogram"},
    }
    if arguments.cfg_file:
        tree = parse_yaml(read_text(arguments.cfg_file, "a cfg file"), arguments.cfg_file)
    tree["model"] |= {"num_classes": len(LabelMap.load(LBL_MAP)), "type": "multilabel", "head": "linear"}
    tree["opt"]["batch_size"] = arguments.batch_size
    tree["data"] = {"label_map": str(LBL_MAP), "is_lmdb": True, "in_memory": True} | lmdbs
    cfg = folder / "benchmark.cfg"
    cfg.write_text(yaml.safe_dump(tree))
    return cfg


def through_the_scripts(cfg: str, frames: int, num_workers: int) -> Epoch:
    """One epoch of train_gise_mixtures.py, in this process, with one more callback."""
    import pytorch_lightning as pl

    clock = Clock()

    class Timing(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            clock.batch_ended()

    class TimedTrainer(pl.Trainer):
        def __init__(self, *, callbacks: list[pl.Callback], **more: object):
            super().__init__(callbacks=[*callbacks, Timing()], **more)

    with tempfile.TemporaryDirectory(dir=Path(cfg).parent) as expdir:
        run_script(
            "train_gise_mixtures.py",
            "--cfg_file",
            cfg,
            "--expdir",
            expdir,
            "--epochs",
            1,
            "--use_mixup",
            "--random_clip_size",
            frames,
            "--val_clip_size",
            frames,
            "--num_workers",
            num_workers,
            "--seed",
            SEED,
            trainer=TimedTrainer,
        )
        with open(Path(expdir) / "logs" / "metrics.csv", newline="", encoding="utf-8") as stream:
            (row,) = csv.DictReader(stream)
        return clock.epoch(float(row["train_loss"]))


def run_script(script: str, *words: object, trainer: type) -> None:
    """Run a training script in this process, with another Trainer. Its messages are kept for the case that it fails."""
    messages = tempfile.TemporaryFile("w+")
    with (
        mock.patch("pytorch_lightning.Trainer", trainer),
        mock.patch.object(sys, "argv", [script, *map(str, words)]),
        contextlib.redirect_stderr(messages),
        contextlib.redirect_stdout(messages),
    ):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            if end.code:
                messages.seek(0)
                raise UserError(f"{script} failed: {end.code} {messages.read()[-500:]}") from None


def bare_loop(cfg: str, frames: int, num_workers: int, keep: bool) -> Epoch:
    """The same epoch, without anything around it. With `keep`, freed memory is kept."""
    import torch

    from src.config.loading import load_config
    from src.data.loading import loader, open_training_set
    from src.data.mixup import mixup
    from src.data.sampling import EpochSampler, network_seed
    from src.data.transforms import training_chain
    from src.learning.normalisation import normalised
    from src.learning.optim import build_optimizer, build_schedule
    from src.learning.tasks import build_task
    from src.models.checkpoint import initial_network
    from src.runs.callbacks import moving_average
    from src.utils.memory import keep_freed_memory

    if keep:
        keep_freed_memory()
    label_map = LabelMap.load(LBL_MAP)
    config = normalised(load_config(cfg), label_map, SEED, num_workers)
    chain = training_chain(frames, config.augment, config.audio_config.std or 1.0)
    dataset = open_training_set(config, label_map, chain, SEED)
    dataset.wave_mix = config.augment.wave_mix
    batches = loader(
        dataset, EpochSampler(len(dataset), SEED, training=True), config.opt.batch_size, num_workers, drop_last=True
    )
    network, task = initial_network(config, SEED), build_task(config)
    optimizer = build_optimizer(config.opt, network.parameters())
    number = 0
    schedule = build_schedule(config.opt, optimizer, lambda: (number, len(batches)))
    average = None if config.opt.ema_decay is None else moving_average(network, config.opt.ema_decay)
    network.train()
    torch.use_deterministic_algorithms(True, warn_only=True)  # as --seed asks for
    clock, losses = Clock(), []
    for number, batch in enumerate(batches):
        if config.opt.by_step and number:
            schedule.step()
        torch.manual_seed(network_seed(SEED, 0, number, 0))
        mixed = mixup(batch.inputs, config.protocol, SEED, 0, number, augment=config.augment)
        loss = task.training_loss(network, batch, mixed)
        optimizer.zero_grad()
        loss.backward()
        if config.opt.clip_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.opt.clip_norm)
        optimizer.step()
        if average:
            average.update_parameters(network)
        losses.append(loss.detach())
        clock.batch_ended()
    return clock.epoch(float(torch.stack(losses).mean()))


def rows_of(found: dict[str, list[Epoch]]) -> Iterator[tuple[str, ...]]:
    """Medians. Ratios are to the first row's."""
    base = None
    for name, epochs in found.items():
        seconds, cpu, loss = (statistics.median(part) for part in zip(*epochs))
        base = base or (seconds, cpu)
        spread = f"{min(epoch.seconds for epoch in epochs):.2f} … {max(epoch.seconds for epoch in epochs):.2f}"
        yield (
            name,
            f"{seconds:.2f}",
            spread,
            f"{seconds / base[0]:.3f}",
            f"{cpu:.2f}",
            f"{cpu / base[1]:.3f}",
            f"{loss:.6f}",
        )


if __name__ == "__main__":
    cli.run(main)
