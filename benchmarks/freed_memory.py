"""What it gains on a CPU that a process keeps the memory which it frees: networks with it and without it, in turns.

    python benchmarks/freed_memory.py

Each figure is of a new process, in which a network trains on one batch, or runs on it, again and again.
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import _repository

from benchmarks.measuring import in_fresh_process, in_turns, machine, print_table
from src import cli

NETWORKS = "cifar_resnet-20", "resnet-18", "efficientnet-b0"
CLASSES, ROWS = 51, 221
TRAINING = {"inference": False, "training": True}
KEEPING = {"as by default": False, "kept": True}


class Steps(NamedTuple):
    """What one process found."""

    seconds: float  # a step, the median
    peak: float  # bytes of memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--networks", nargs="+", default=NETWORKS, help=f"ARCH-DEPTH ({' '.join(NETWORKS)})")
    add("--batch_size", type=cli.positive(int), default=32, help="clips in a batch (32)")
    add("--frames", type=cli.positive(int), default=500, help="frames of a clip (500)")
    add("--steps", type=cli.positive(int), default=3, help="counted steps of each process (3)")
    add("--rounds", type=cli.positive(int), default=3, help="of which medians are taken (3)")
    arguments = parser.parse_args()
    print(
        f"{machine()}\n{arguments.batch_size} clips of {ROWS} x {arguments.frames}, medians of {arguments.rounds} "
        f"rounds of {arguments.steps} steps"
    )
    work = {
        (network, task, way): functools.partial(
            in_fresh_process,
            steps,
            network,
            TRAINING[task],
            KEEPING[way],
            arguments.batch_size,
            arguments.frames,
            arguments.steps,
        )
        for network in arguments.networks
        for task in TRAINING
        for way in KEEPING
    }
    print_table(
        ("network", "", "freed memory", "ms a step", "range", "times as fast", "peak memory, MB"),
        rows_of(in_turns(work, arguments.rounds)),
    )


def steps(network: str, training: bool, keep: bool, batch_size: int, frames: int, count: int) -> Steps:
    """Take steps, after two that warm up."""
    import torch

    from src.learning.losses import multilabel_loss
    from src.models.registry import create
    from src.utils.memory import keep_freed_memory

    if keep:
        keep_freed_memory()
    arch, _, depth = network.partition("-")
    torch.manual_seed(0)
    net = create(arch, int(depth) if depth.isdigit() else depth, CLASSES, ROWS).train(training)
    net.to(memory_format=torch.channels_last)  # as the scripts do
    optimizer, loss = torch.optim.Adam(net.parameters()), multilabel_loss(focal=False)
    inputs, targets = torch.randn(batch_size, 1, ROWS, frames), torch.ones(batch_size, CLASSES)

    def step() -> None:
        with torch.inference_mode(not training):
            value = loss(net(inputs), targets)
        if training:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    times = []
    for _ in range(2 + count):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return Steps(statistics.median(times[2:]), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def rows_of(found: dict[tuple[str, str, str], list[Steps]]) -> Iterator[tuple[str, ...]]:
    """Medians. How much faster is to the row above."""
    base = 0.0
    for (network, task, way), runs in found.items():
        times = [1000 * run.seconds for run in runs]
        middle = statistics.median(times)
        base = base if KEEPING[way] else middle
        yield (
            network,
            task,
            way,
            f"{middle:.0f}",
            f"{min(times):.0f} … {max(times):.0f}",
            f"{base / middle:.2f}",
            f"{statistics.median(run.peak for run in runs) / 1e6:.0f}",
        )


if __name__ == "__main__":
    cli.run(main)
