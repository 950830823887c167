"""Which devices to compute on, in how many processes, and at which precision."""

import logging
import os
import shutil
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from src.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Devices:
    """What one training run computes on. Each process has one device, a GPU or the CPU."""

    gpus: tuple[int, ...] = ()  # indices, the same on every node, none for the CPU
    per_node: int = 1  # processes on each node
    num_nodes: int = 1
    precision: str = "32"  # as asked for: 32, 16-mixed or bf16-mixed
    compile: bool = False  # have torch.compile make the network's kernels
    sync_batchnorm: bool = False  # take batch norm's statistics over all processes

    @property
    def on_gpu(self) -> bool:
        return bool(self.gpus)

    @property
    def num_processes(self) -> int:
        """Ranks of the run, on all nodes together."""
        return self.per_node * self.num_nodes

    def arguments(self) -> dict[str, Any]:
        """Lightning's words for these devices."""
        return {
            "accelerator": "gpu" if self.on_gpu else "cpu",
            "devices": list(self.gpus) or self.per_node,
            "num_nodes": self.num_nodes,
            "strategy": "ddp" if self.num_processes > 1 else "auto",
            "precision": lightning_precision(self.precision, self.on_gpu),
        }


def lightning_precision(precision: str, on_gpu: bool) -> str:
    """Lightning's name of a precision. 16-bit mixed precision becomes 32 bits on a CPU."""
    return "32-true" if precision == "32" or (precision == "16-mixed" and not on_gpu) else precision


def choose_devices(
    gpus: Sequence[int] | None = None,
    accelerator: str = "auto",
    devices: int | None = None,
    num_nodes: int = 1,
    precision: str = "32",
    compile: bool = False,
    sync_batchnorm: bool = False,
) -> Devices:
    """The devices that a training script's flags ask for, of those that are here.

    Args:
        gpus: indices of --gpus, if given.
        accelerator: "auto", "cpu" or "gpu".
        devices: processes on each node, if given.
        num_nodes: nodes.
        precision: "32", "16-mixed" or "bf16-mixed".
        compile: compile the network.
        sync_batchnorm: take batch norm's statistics over all processes.

    Raises:
        UserError: flags that contradict each other, the hardware, or what torchrun or SLURM has started.
    """
    found = chosen_gpus(gpus, accelerator, devices)
    if precision == "16-mixed" and not found:
        log.warning("--precision 16-mixed (--fp16): 16-bit mixed precision needs a GPU. Training in 32 bits")
    if compile and not found:
        require_compiler()
    if sync_batchnorm and not found:
        raise UserError("--sync_batchnorm: PyTorch's works on GPUs alone, and this run is on the CPU. Leave it out")
    chosen = Devices(found, len(found) or devices or 1, num_nodes, precision, compile, sync_batchnorm)
    require_processes(chosen)
    return chosen


def chosen_gpus(gpus: Sequence[int] | None, accelerator: str, devices: int | None) -> tuple[int, ...]:
    """Indices of the GPUs to use, none for the CPU. The arguments are `choose_devices`'s."""
    names = ", ".join(map(str, gpus or ()))
    if gpus and devices not in (None, len(gpus)):
        raise UserError(f"--devices {devices}: --gpus names {len(gpus)} ({names}). Leave one of the two flags out")
    here = 0 if accelerator == "cpu" else torch.cuda.device_count()
    if accelerator == "gpu" and not here:
        raise UserError("--accelerator gpu: PyTorch finds no GPU here. Leave it out to train on the CPU")
    if devices is None and accelerator == "auto":
        return tuple(present_gpus(gpus or (0,)))
    if not here:
        return ()
    wanted = tuple(gpus or range(devices or 1))
    if max(wanted) >= here:
        flag = f"--gpus {names}" if gpus else f"--devices {devices}"
        raise UserError(f"{flag}: only {here} GPUs are here, with the indices from 0 to {here - 1}")
    return wanted


def present_gpus(wanted: Sequence[int]) -> list[int]:
    """Those of the wanted GPU indices that are there. An empty list stands for the CPU. Says what is missing."""
    present = [index for index in wanted if index < torch.cuda.device_count()]
    names = ", ".join(map(str, wanted))
    if not present:
        log.info("no such GPU here (--gpus %s), running on the CPU", names)
    elif len(present) < len(wanted):
        log.warning(
            "--gpus %s: of these only %s are here. The batch over all devices of a new run shrinks with their number",
            names,
            ", ".join(map(str, present)),
        )
    return present


def require_processes(devices: Devices) -> None:
    """Refuse a number of processes other than that which a launcher has started."""
    for launcher, variable, hint in (
        ("torchrun", "WORLD_SIZE", "They are --nproc_per_node and --nnodes"),
        ("SLURM", "SLURM_NTASKS", "They are --ntasks-per-node and --nodes of the job"),
    ):
        if launcher == started_by() and int(os.environ[variable]) != devices.num_processes:
            raise UserError(
                f"--devices {devices.per_node} and --num_nodes {devices.num_nodes}: {launcher} has started "
                f"{os.environ[variable]} processes, not {devices.num_processes}. {hint}"
            )
    if started_by() == "SLURM" and int(os.environ.get("SLURM_NTASKS_PER_NODE", devices.per_node)) != devices.per_node:
        raise UserError(
            f"--devices {devices.per_node}: SLURM starts {os.environ['SLURM_NTASKS_PER_NODE']} processes "
            "on each node (--ntasks-per-node of the job)"
        )


def started_by() -> str | None:
    """Who has started this process as one of several: "torchrun", "SLURM", "us", or nobody."""
    if torch.distributed.is_torchelastic_launched():
        return "torchrun"
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return "SLURM"
    return "us" if "LOCAL_RANK" in os.environ else None


def require_compiler() -> None:
    """Refuse to compile for a CPU without the compiler and the headers that it takes."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise UserError(
            f"--compile: on a CPU it needs a C++ compiler, and there is no {compiler}. "
            "Install g++, name another in $CXX, or leave --compile out"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise UserError(
            "--compile: on a CPU it needs Python's headers (the package python3-dev). "
            "Install them, or leave --compile out"
        )
