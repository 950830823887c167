"""What each option of the training flags gains or costs: a training step with it and without it, in turn."""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable

import torch

import _repository

from benchmarks.measuring import machine
from src import cli
from src.config.sections import OptConfig
from src.errors import UserError
from src.learning.losses import multilabel_loss
from src.learning.optim import build_optimizer
from src.models.registry import create
from src.runs.devices import require_compiler
from src.utils.memory import keep_freed_memory

CLASSES, ROWS = 51, 221


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to train."""

    channels_last: bool = False
    fused: bool = False
    compile: bool = False
    bf16: bool = False


WAYS = {
    "plain": Way(),
    "channels_last": Way(channels_last=True),
    "fused optimiser": Way(fused=True),
    "--compile": Way(compile=True),
    "--precision bf16-mixed": Way(bf16=True),
    "all of them": Way(True, True, True, True),
}


def main() -> None:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--arch", default="resnet", help="network")
    add("--model_depth", default="18", help="its depth")
    add("--batch_size", type=cli.positive(int), default=8, help="clips in a batch")
    add("--frames", type=cli.positive(int), default=500, help="frames of a clip")
    add("--steps", type=cli.positive(int), default=5, help="steps timed together")
    add("--rounds", type=cli.positive(int), default=5, help="times that each way has its turn. The median counts")
    add("--accelerator", choices=("auto", "cpu"), default="auto", help="auto: the first GPU, if there is one")
    arguments = parser.parse_args()
    gpu = arguments.accelerator == "auto" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    ways = dict(WAYS)
    try:
        if not gpu:
            require_compiler()
    except UserError as error:
        print(f"without --compile here ({error})", file=sys.stderr)
        ways = {name: way for name, way in ways.items() if not way.compile}
    if not gpu:
        keep_freed_memory()  # as in training
    print(
        f"{machine()}\n{torch.cuda.get_device_name() if gpu else f'CPU, {torch.get_num_threads()} threads'}: "
        f"{arguments.arch} {arguments.model_depth}, {arguments.batch_size} clips of {ROWS} x {arguments.frames}\n"
    )
    report(measured({name: stepper(way, arguments, device) for name, way in ways.items()}, arguments, device))


def stepper(way: Way, arguments: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """A training step in this way, on a batch that stays where it is."""
    torch.manual_seed(0)
    depth = int(arguments.model_depth) if arguments.model_depth.isdigit() else arguments.model_depth
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    network = create(arguments.arch, depth, CLASSES, ROWS).to(device, memory_format=layout)
    if way.compile:
        network.compile()
    opt = OptConfig(optimizer="Adam", lr=1e-3, batch_size=arguments.batch_size)
    optimizer = build_optimizer(opt, network.parameters())
    for group in optimizer.param_groups:
        group["fused"] = way.fused or None
    loss = multilabel_loss(focal=False)
    inputs = torch.randn(arguments.batch_size, 1, ROWS, arguments.frames, device=device)
    targets = torch.randint(0, 2, (arguments.batch_size, CLASSES), device=device).float()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=way.bf16):
            value = loss(network(inputs), targets)
        value.backward()
        optimizer.step()

    return step


def measured(
    steppers: dict[str, Callable[[], None]], arguments: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Seconds a step, one figure a round. The ways take turns, so that other work on the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    for step in steppers.values():  # compiling, and choosing kernels
        step()
        step()
    for _ in range(arguments.rounds):
        for name, step in steppers.items():
            _wait(device)
            start = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            _wait(device)
            seconds[name].append((time.perf_counter() - start) / arguments.steps)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def report(seconds: dict[str, list[float]]) -> None:
    """A table of medians and of plain's median over each."""
    print("| way | ms a step (median, range) | times as fast as plain |\n| --- | ---: | ---: |")
    plain = statistics.median(seconds["plain"])
    for name, times in seconds.items():
        median, low, high = (1000 * value for value in (statistics.median(times), min(times), max(times)))
        print(f"| {name} | {median:.1f} ({low:.1f} … {high:.1f}) | {1000 * plain / median:.2f} |")


if __name__ == "__main__":
    cli.run(main)
