"""Everything that only a GPU shows: whether it computes what a CPU does, how much memory it takes, and how fast it is.

    benchmarks/on_gpu.sh

calls this with a limit of eight minutes. The page is written anew after each check. A check that fails is a line of it,
and the others go on. What there was no time for is named.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import _repository

from benchmarks.measuring import LBL_MAP, ROOT, SOUNDSCAPES, in_fresh_process, machine, repeat_records
from benchmarks.training import SEED, run_script, write_cfg
from src import cli
from src.config.loading import load_config
from src.config.sections import AudioConfig, AugmentConfig, Config
from src.data.batching import Batch, Samples
from src.data.clip_dataset import ClipDataset
from src.data.device_features import DeviceFeatures
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.device_cache import DeviceCache
from src.data.loading import batches_on, open_training_set
from src.data.mixup import mixup
from src.data.sampling import EpochSampler
from src.data.transforms import training_chain
from src.errors import UserError
from src.learning.normalisation import normalised
from src.learning.optim import build_optimizer
from src.learning.tasks import build_task
from src.models.checkpoint import initial_network
from src.models.registry import FAMILIES, create
from src.runs.callbacks import moving_average
from src.utils.files import require_writable, write_whole

SECONDS = 450  # for everything. on_gpu.sh ends it after 480
AIM = 0.95  # of the bare loop's speed
ROWS = 221  # of a spectrogram
PHASES = "data", "features", "forward", "backward", "step"
WAYS = {
    "--features workers": ("--features", "workers"),
    "--features device": ("--features", "device"),
    "--cache_samples device": ("--cache_samples", "device"),
}
AUDIO = {
    "spectrogram": AudioConfig(),
    "melspectrogram": AudioConfig(feature="melspectrogram"),
    "logmel": AudioConfig(feature="logmel", hop_len=441, mean=-40.0, std=16.0),
}
NETWORKS = {
    "ResNet-18": {"arch": "resnet", "depth": "18"},
    "EfficientNet-B1": {"arch": "efficientnet", "depth": "b1"},
    "efficient network": {"cfg_file": str(ROOT / "cfgs_v2/efficient/gise_mixtures_60k.cfg")},
}
EFFICIENT = "timm", "regnetx_002"
PRECISIONS = {  # name -> dtype, and the largest difference allowed, as a share of the largest logit
    "32 bits": (torch.float32, 5e-3),  # convolutions in TF32
    "channels first": (torch.float32, 5e-3),  # all other lines are channels last, as networks are made
    "16-mixed": (torch.float16, 3e-2),
    "bf16-mixed": (torch.bfloat16, 1.5e-1),
    "--compile": (torch.float32, 5e-3),
}


@dataclass(frozen=True)
class Place:
    """Where checks run, and how large they are."""

    device: torch.device
    folder: Path  # for clips and runs
    clips: int = 12_288  # of the training set
    batch_size: int = 64
    frames: int = 500
    seconds: float = 8  # that speed is measured for
    warm_up: int = 40  # batches before that
    workers: int = field(default_factory=lambda: min(16, os.cpu_count() or 1))
    networks: dict[str, dict[str, str]] = field(default_factory=lambda: NETWORKS)

    @property
    def lmdb(self) -> Path:
        """The clips, made when they are first asked for."""
        path = self.folder / "clips.lmdb"
        return path if path.exists() else repeat_records(path, self.clips)

    def cfg(self, network: str) -> Path:
        """The cfg of a network, on these clips."""
        folder = self.folder / network.replace(" ", "_")
        if not folder.exists():
            folder.mkdir()
            asked = {"cfg_file": None, "arch": None, "depth": ""} | self.networks[network]
            asked |= {"batch_size": self.batch_size, "clips": self.batch_size}
            write_cfg(folder, argparse.Namespace(**asked))
        return folder / "benchmark.cfg"

    def config(self, network: str) -> Config:
        """The same, with the training set's level measured."""
        config = load_config(str(self.cfg(network)), [f"data.train_lmdb={self.lmdb}"])
        return normalised(config, LabelMap.load(LBL_MAP), SEED, self.workers)

    @property
    def autocast(self) -> torch.autocast:
        """What --precision 16-mixed computes in: 16 bits on a GPU alone."""
        return torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")


class Check(NamedTuple):
    """One line of the page."""

    part: str
    name: str
    seconds: float  # that a GPU may take for it: where less is left, it is left out
    run: Callable[[], Any]


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output", default="gpu.md", help="page to write")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is looked at")
    parser.add_argument("--tiny_on_cpu", action="store_true", help=argparse.SUPPRESS)  # for the tests
    arguments = parser.parse_args()
    if not (torch.cuda.is_available() or arguments.tiny_on_cpu):
        raise UserError("PyTorch finds no GPU here, and all of this is about one. Nothing was measured")
    require_writable(arguments.output)
    with tempfile.TemporaryDirectory() as folder:
        place = tiny(Path(folder)) if arguments.tiny_on_cpu else Place(torch.device("cuda", 0), Path(folder))
        failed = run_all([check for check in checks(place) if check.part in arguments.parts], place, arguments.output)
    print(f"written: {arguments.output}")
    if failed:
        raise UserError(f"{failed} checks failed. {arguments.output} names them")


def tiny(folder: Path) -> Place:
    """What a CPU does in seconds."""
    networks = {"CIFAR-ResNet-20": {"arch": "cifar_resnet", "depth": "20"}}
    return Place(torch.device("cpu"), folder, 12, 2, 64, 0.01, 2, 1, networks)


def checks(place: Place) -> Iterator[Check]:
    """All that is looked at, what matters most first."""
    for name, audio in AUDIO.items():
        yield Check("correctness", f"features: {name}", 2, functools.partial(features_differ, place, audio))
    smallest = [(arch, family.DEPTHS[0]) for arch, family in FAMILIES.items() if arch != EFFICIENT[0]]
    for network, way in itertools.product([*smallest, EFFICIENT], PRECISIONS):
        if way != "--compile":
            run = functools.partial(logits_differ, place, network, way)
            yield Check("correctness", f"logits: {network[0]} {network[1]}, {way}", 3, run)
    yield Check("correctness", "--cache_samples device: inputs", 5, functools.partial(cache_differs, place))
    group = functools.partial(in_fresh_process, group_differs, place)
    yield Check("correctness", f"{backend(place.device)} on one process", 20, group)
    yield Check("correctness", "a run killed and resumed", 90, functools.partial(resumed_differs, place))
    for network in place.networks:
        yield Check("speed", f"{network}: bare loop", 10, functools.partial(bare_loop, place, network))
        for way, flags in WAYS.items():
            run = functools.partial(through_the_scripts, place, network, flags)
            yield Check("speed", f"{network}: {way}", place.seconds + 12, run)
        yield Check("time", network, 12, functools.partial(phases, place, network))
    for network, precision in itertools.product(place.networks, ("32", "16-mixed")):
        run = functools.partial(step_memory, place, network, precision)
        yield Check("memory", f"a training step of {network}, {precision}", 8, run)
    yield Check("memory", "60,000 clips of five seconds", 1, lambda: 60_000 * 5 * 22050 * 2 / 1e9)
    for network in (smallest[0], EFFICIENT) if place.device.type == "cuda" else ():
        run = functools.partial(logits_differ, place, network, "--compile")
        yield Check("correctness", f"logits: {network[0]} {network[1]}, --compile", 60, run)


def run_all(todo: list[Check], place: Place, output: str) -> int:
    """Run checks one after the other, and write the page after each. How many failed."""
    start, found, left_out = time.monotonic(), {}, []
    for number, check in enumerate(todo):
        if time.monotonic() - start + check.seconds > SECONDS:
            left_out.append(check)
            continue
        print(f"{check.part}: {check.name}", file=sys.stderr, flush=True)
        try:
            found[check.part, check.name] = check.run()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            found[check.part, check.name] = error
        gc.collect()
        torch.cuda.empty_cache()
        write_whole(output, page(found, left_out + todo[number + 1 :], place))  # should the time limit end this
    write_whole(output, page(found, left_out, place))
    return sum(isinstance(one, BaseException) or is_wrong(key[0], one) for key, one in found.items())


# ---- correctness: (largest difference, what is allowed) ----


def clips_of(place: Place, audio: AudioConfig, cache: str | None = None) -> ClipDataset:
    """The tests' soundscapes, with every augmentation."""
    augment = AugmentConfig(roll=True, gain=6.0 * (audio.feature == "logmel"), freq_shift=10, mask_prob=0.8)
    chain, labels = training_chain(place.frames, augment), LabelMap.load(LBL_MAP)
    dataset = LMDBDataset(str(SOUNDSCAPES), audio, labels, "multilabel", chain, SEED, cache_samples=cache)
    dataset.wave_mix = 0.5
    return dataset


def features_differ(place: Place, audio: AudioConfig) -> tuple[float, float]:
    """Of the device's features and the CPU's, where they are within 80 dB of a clip's loudest."""
    dataset = clips_of(place, audio)
    dataset.on_device = True
    samples = dataset.__getitems__([(0, index) for index in range(16)]).inputs
    assert isinstance(samples, Samples)
    make, there = DeviceFeatures(dataset.features), samples._replace(samples=samples.samples.to(place.device))
    expected, found = make(samples), make(there).cpu()
    strong = expected > expected.amax(dim=(1, 2, 3), keepdim=True) - 80 / (audio.std or 1)
    return (found - expected).abs()[strong].max().item(), 0.05


@torch.no_grad()
def logits_differ(place: Place, network: tuple[str, int | str], way: str) -> tuple[float, float]:
    """Of the device's logits in one way and the CPU's in 32 bits, as a share of the largest."""
    dtype, limit = PRECISIONS[way]
    torch.manual_seed(SEED)
    on_cpu, inputs = create(*network, 51, ROWS), torch.randn(4, 1, ROWS, min(place.frames, 200))
    for layer in on_cpu.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # one batch gives its statistics: without them, activations vanish or overflow
    on_cpu(inputs)
    expected = on_cpu.eval()(inputs)
    there = copy.deepcopy(on_cpu).to(place.device)
    if way == "channels first":
        there = there.to(memory_format=torch.contiguous_format)
    if way == "--compile":
        there.compile()
    with torch.autocast(place.device.type, dtype, enabled=dtype != torch.float32):
        found = there(inputs.to(place.device)).float().cpu()
    return ((found - expected).abs().max() / expected.abs().max()).item(), limit


def cache_differs(place: Place) -> tuple[float, float]:
    """Of a network's inputs with clips in the device's memory and without."""
    both = []
    for cache in ("device", None):
        dataset = clips_of(place, AudioConfig(), cache)
        make, sampler = DeviceFeatures(dataset.features), EpochSampler(len(dataset), SEED, True)
        batches = itertools.islice(batches_on(place.device, dataset, sampler, 8, 0, "device"), 3)
        both.append(torch.cat([make(to(place.device, batch).inputs) for batch in batches]))
        if (dataset.held is None) != (cache is None):
            raise UserError("there is no room for 48 clips on the device")
    return (both[0] - both[1]).abs().max().item(), 0.0


def backend(device: torch.device) -> str:
    """PyTorch's library between processes with such a device."""
    return "nccl" if device.type == "cuda" else "gloo"


def group_differs(place: Place) -> tuple[float, float]:
    """In a process group of one: of what is summed and exchanged over it, and of a step with DDP and without."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    device = place.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.use_deterministic_algorithms(True, warn_only=True)
    dist.init_process_group(backend(device), f"file://{place.folder / 'group'}", rank=0, world_size=1)
    values = torch.arange(8.0, device=device)
    dist.all_reduce(total := values.clone())
    lengths = np.array([5, 3, 4])
    cache = DeviceCache(lengths, np.arange(3), device)
    for index, length in enumerate(lengths):
        cache.put(index, np.arange(1, 1 + length, dtype=np.int16).tobytes())
    cache._group = dist.new_group(backend="gloo")
    asked = np.array([2, 0, 2])
    exchanged = (cache._exchanged(asked, 5) - cache._rows(asked, 5)).abs().max().item()
    torch.manual_seed(SEED)
    plain = create("cifar_resnet", 20, 51).to(device)
    inputs, parallel = torch.randn(4, 1, ROWS, 64, device=device), DistributedDataParallel(copy.deepcopy(plain))
    for network in (plain, parallel):
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        network(inputs).square().mean().backward()
        optimizer.step()
    weights = [(a - b).abs().max().item() for a, b in zip(plain.parameters(), parallel.parameters())]
    dist.destroy_process_group()
    return max((total - values).abs().max().item(), exchanged, *weights), 1e-5


def resumed_differs(place: Place) -> tuple[float, float]:
    """Of the weights of a run that was killed and resumed, and of an undisturbed one."""
    cfg, folders = place.cfg(next(iter(place.networks))), [place.folder / name for name in ("undisturbed", "killed")]
    lmdb = repeat_records(place.folder / "few.lmdb", 24)

    def start(folder: Path) -> subprocess.Popen:
        few = f"data.train_lmdb={lmdb}", f"data.val_lmdb={lmdb}", "opt.batch_size=4"
        flags = "--epochs 2 --use_mixup --checkpoint_every_n_steps 1 --num_workers 1 --cache_samples device --seed 1"
        words = "--cfg_file", cfg, "-e", folder, *flags.split(), *frames_and_device(place)
        words += tuple(word for one in few for word in ("--set", one))
        command = [sys.executable, str(ROOT / "train_gise_mixtures.py"), *map(str, words)]
        with open(f"{folder}.log", "ab") as messages:
            return subprocess.Popen(command, stdout=messages, stderr=messages, stdin=subprocess.DEVNULL)

    def finish(process: subprocess.Popen, folder: Path) -> None:
        if process.wait(120):
            raise UserError(f"training failed: {Path(f'{folder}.log').read_text().strip().splitlines()[-1]}")

    undisturbed, killed = folders
    running = [start(undisturbed), start(killed)]
    while running[1].poll() is None and not (killed / "resume.ckpt").exists():
        time.sleep(0.005)
    running[1].send_signal(signal.SIGKILL)
    if running[1].wait() != -signal.SIGKILL:
        raise UserError("the run ended before it was killed")
    finish(start(killed), killed)
    finish(running[0], undisturbed)
    (one, other) = (sorted((folder / "ckpts").iterdir())[-1] for folder in folders)
    states = [torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in (one, other)]
    if one.name != other.name or states[0].keys() != states[1].keys():
        raise UserError(f"the runs end with {one.name} and {other.name}")
    return max((states[0][key] - states[1][key]).abs().max().item() for key in states[0]), 0.0


# ---- speed and memory ----


def frames_and_device(place: Place) -> tuple[Any, ...]:
    """A training script's flags for this place."""
    where = ("--accelerator", "cpu") if place.device.type == "cpu" else ("--gpus", place.device.index or 0)
    return "--random_clip_size", place.frames, "--val_clip_size", place.frames, *where


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to(device: torch.device, batch: Batch) -> Batch:
    """A loader's batch, as Lightning puts it on the device."""
    from pytorch_lightning.utilities import move_data_to_device

    return move_data_to_device(batch, device)


class Training:
    """A network's training step as the scripts make it, with nothing around it."""

    def __init__(self, place: Place, network: str, precision: str = "16-mixed"):
        self.place, self.config = place, place.config(network)
        self.task, self.network = build_task(self.config), initial_network(self.config, SEED).to(place.device).train()
        self.optimizer = build_optimizer(self.config.opt, self.network.parameters())
        decay, self.mixed = self.config.opt.ema_decay, precision != "32"
        self.average = None if decay is None else moving_average(self.network, decay)
        on_gpu = place.device.type == "cuda" and self.mixed
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=on_gpu)

    def forward(self, batch: Batch, number: int) -> torch.Tensor:
        """The loss of a batch, which is mixed first."""
        mixed = mixup(batch.inputs, self.config.protocol, SEED, 0, number, augment=self.config.augment)
        if not self.mixed:
            return self.task.training_loss(self.network, batch, mixed)
        with self.place.autocast:
            return self.task.training_loss(self.network, batch, mixed)

    def backward(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()

    def step(self) -> None:
        if self.config.opt.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.opt.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update_parameters(self.network)

    def batches(self, cache: str | None) -> tuple[Iterator[Batch], DeviceFeatures]:
        """The training clips, and what makes inputs of them on the device."""
        augment, place = self.config.augment, self.place
        chain = training_chain(place.frames, augment, self.config.audio_config.std or 1.0)
        of_lmdbs = {"cache_samples": cache, "num_workers": place.workers}
        dataset = open_training_set(self.config, LabelMap.load(LBL_MAP), chain, SEED, **of_lmdbs)
        sampler, size = EpochSampler(len(dataset), SEED, True), place.batch_size
        workers = 0 if cache is None else place.workers
        loader = batches_on(place.device, dataset, sampler, size, workers, "device", drop_last=True)
        return iter(loader), DeviceFeatures(dataset.features)

    def a_batch(self) -> Batch:
        """One whose inputs lie in the device's memory."""
        batches, make = self.batches(None)
        batch = to(self.place.device, next(batches))
        return batch._replace(inputs=make(batch.inputs))

    def steps(self, batch: Batch, count: int) -> None:
        """So many on one batch."""
        for number in range(count):
            self.backward(self.forward(batch, number))
            self.step()


def bare_loop(place: Place, network: str) -> float:
    """Clips a second of training steps on a batch that lies in the device's memory."""
    training = Training(place, network)
    batch, block = training.a_batch(), 5
    training.steps(batch, place.warm_up)
    wait_for(place.device)
    start, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < place.seconds / 2 or not done:
        training.steps(batch, block)
        wait_for(place.device)
        done += block
    return done * place.batch_size / elapsed


def step_memory(place: Place, network: str, precision: str) -> float:
    """GB that PyTorch takes on the device at most for training steps, network and batch included. 0 on a CPU."""
    if place.device.type != "cuda":
        Training(place, network, precision).steps(Training(place, network).a_batch(), 1)
        return 0.0
    torch.cuda.reset_peak_memory_stats(place.device)
    training = Training(place, network, precision)
    training.steps(training.a_batch(), 3)
    return torch.cuda.max_memory_allocated(place.device) / 1e9


class Enough(Exception):
    """As much of a run as is needed."""


def through_the_scripts(place: Place, network: str, flags: tuple[str, ...]) -> float:
    """Clips a second of train_gise_mixtures.py, from the end of the warm-up on."""
    import pytorch_lightning as pl

    start = found = None

    class Timing(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: object, outputs: object, batch: object, number: int):
            nonlocal start, found
            done = number + 1 - place.warm_up
            if done < 0:
                return
            if done == 0:
                wait_for(place.device)
                start = time.perf_counter()
            elif time.perf_counter() - start > place.seconds or number + 1 == trainer.num_training_batches:
                wait_for(place.device)
                found = done * place.batch_size / (time.perf_counter() - start)
                raise Enough

    class TimedTrainer(pl.Trainer):
        def __init__(self, *, callbacks: list[pl.Callback], **more: object):
            super().__init__(callbacks=[*callbacks, Timing()], **more)

    words = "--cfg_file", place.cfg(network), "--epochs", 1, "--use_mixup", "--num_workers", place.workers
    words += "--precision", "16-mixed", "--set", f"data.train_lmdb={place.lmdb}", *frames_and_device(place), *flags
    with tempfile.TemporaryDirectory(dir=place.folder) as expdir:
        try:
            run_script("train_gise_mixtures.py", *words, "-e", expdir, trainer=TimedTrainer)
        except Enough:
            pass
    if found is None:
        raise UserError("training ended before its speed was known")
    return found


def phases(place: Place, network: str) -> dict[str, float]:
    """Shares of the time of training steps with clips on the device, by torch.profiler. Each phase is waited for."""
    from torch.profiler import ProfilerActivity, profile, record_function

    training = Training(place, network)
    batches, make = training.batches("device")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (place.device.type == "cuda")

    def waited(name: str, function: Callable[[], Any]) -> Any:
        with record_function(name):
            result = function()
            wait_for(place.device)
            return result

    def one(number: int) -> None:
        batch = waited("data", lambda: gathered(to(place.device, next(batches))))
        batch = batch._replace(inputs=waited("features", lambda: make(batch.inputs)))
        loss = waited("forward", lambda: training.forward(batch, number))
        waited("backward", lambda: training.backward(loss))
        waited("step", training.step)

    for number in range(place.warm_up // 2):
        one(number)
    with profile(activities=activities) as profiler:
        for number in range(place.warm_up // 2):
            one(number)
    spent = dict.fromkeys(PHASES, 0.0)
    for each in profiler.key_averages():
        if each.key in spent:  # a range has another line for the GPU, of no CPU time
            spent[each.key] = max(spent[each.key], each.cpu_time_total)
    return {name: spent[name] / sum(spent.values()) for name in PHASES}


def gathered(batch: Batch) -> Batch:
    """A batch with its samples, where a device holds them."""
    return batch._replace(inputs=batch.inputs.samples()) if hasattr(batch.inputs, "gather") else batch


# ---- the page ----


def is_wrong(part: str, found: Any) -> bool:
    """Whether a difference is larger than allowed, or no number."""
    return part == "correctness" and not found[0] <= found[1]


def page(found: dict[tuple[str, str], Any], left_out: list[Check], place: Place) -> str:
    """The page as Markdown."""
    parts = [f"# On a GPU\n\n{machine()}\n{card(place.device)}\n"]
    for part, (title, columns, row) in PARTS.items():
        rows = [(name, one) for (own, name), one in found.items() if own == part]
        if rows:
            lines = [f"| {name} | {' | '.join(cells(part, columns, row, name, one, found))} |" for name, one in rows]
            head = f"| {' | '.join(columns)} |\n| --- |{' ---: |' * (len(columns) - 1)}"
            parts.append("\n".join([f"## {title}\n", head, *lines]) + "\n")
    if left_out:
        names = "\n".join(f"- {check.part}: {check.name}" for check in left_out)
        parts.append(f"## Left out, for want of time\n\n{names}\n")
    return "\n".join(parts)


def cells(part: str, columns: tuple[str, ...], row: Callable, name: str, one: Any, found: dict) -> list[str]:
    """A line behind its name. A check that failed says why in its last cell."""
    if isinstance(one, BaseException):
        said = " ".join(str(one).split()).replace("|", "/")[:200]
        return [""] * (len(columns) - 2) + [f"**failed**: {type(one).__name__} {said}"]
    return row(name, one, found)


def card(device: torch.device) -> str:
    """The device, its driver and CUDA."""
    if device.type != "cuda":
        return "**No GPU: a try of the parts on a CPU, whose figures say nothing**"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.split()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        driver = "unknown"
    free, total = torch.cuda.mem_get_info(device)
    name, cuda, cudnn = torch.cuda.get_device_name(device), torch.version.cuda, torch.backends.cudnn.version()
    return f"{name}, {total / 1e9:.0f} GB ({free / 1e9:.0f} free), driver {driver}, CUDA {cuda}, cuDNN {cudnn}"


def difference_row(name: str, one: tuple[float, float], found: dict) -> list[str]:
    return [f"{one[0]:.2g}", f"{one[1]:g}", "**failed**" if is_wrong("correctness", one) else "passed"]


def speed_row(name: str, one: float, found: dict) -> list[str]:
    bare = found.get(("speed", f"{name.partition(':')[0]}: bare loop"))
    return [f"{one:,.0f}", f"{one / bare:.2f}" if isinstance(bare, float) else ""]


PARTS: dict[str, tuple[str, tuple[str, ...], Callable[[str, Any, dict], list[str]]]] = {
    "correctness": ("Correctness", ("check", "largest difference", "allowed", "result"), difference_row),
    "speed": (
        f"Speed of training in 16-mixed (aim: {AIM} of the bare loop)",
        ("network and way", "clips/s", "of the bare loop"),
        speed_row,
    ),
    "time": (
        "Where the time goes with --cache_samples device, each part waited for",
        ("network", *PHASES),
        lambda name, one, found: [f"{100 * one[phase]:.0f} %" for phase in PHASES],
    ),
    "memory": ("Memory", ("of what", "GB"), lambda name, one, found: [f"{one:.1f}"]),
}


if __name__ == "__main__":
    cli.run(main)
