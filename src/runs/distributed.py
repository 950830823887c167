"""The processes ("ranks") of one run: how they start, what they share, and how the error of one ends all.

Where torchrun or SLURM has not started them, the first process of a node starts the others with its own
command. From then on they are one process group of torch.distributed, in which Lightning trains.
"""

import atexit
import functools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from src.errors import UserError
from src.runs.devices import Devices, started_by
from src.utils.limits import CannotStart, starting
from src.utils.processes import TIME_TO_REPORT, is_first

T = TypeVar("T")

FIRST_ENDED = "gise/first_ended"  # key in the group's store: which rank failed first, or INTERRUPTED
INTERRUPTED = "interrupted"
GRACE = 20  # s that the processes of a node have to end after the first of them did
LOST = re.compile("connection (closed|reset) by peer|broken pipe|connection was likely closed", re.IGNORECASE)

_others: list[subprocess.Popen] = []  # the processes that this one has started


def join(devices: Devices) -> None:
    """Make this process one of the run's group, and start the others if nobody has. Waits for all of them."""
    if devices.num_processes == 1 or dist.is_initialized():
        return
    if started_by() is None:
        _start_others(devices)
    Fabric(**devices.arguments()).launch()


def is_joined() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def from_rank_zero(devices: Devices, make: Callable[[], T]) -> T:
    """What rank 0 alone makes, on every rank."""
    made: Any = [make() if is_first() else None]
    join(devices)
    if is_joined():
        dist.broadcast_object_list(made)
    return made[0]


def gather_objects(own: Any) -> list[Any]:
    """Every rank's object, by rank."""
    if not is_joined():
        return [own]
    found: list = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def gather_over_ranks(share: torch.Tensor) -> torch.Tensor:
    """The whole set's (N, …) tensor from each rank's share, records rank, rank + ranks, …, of it."""
    shares = gather_objects(share.numpy())
    if len(shares) == 1:
        return share
    whole = np.empty((sum(map(len, shares)), *share.shape[1:]), dtype=shares[0].dtype)
    for rank, part in enumerate(shares):
        whole[rank :: len(shares)] = part
    return torch.from_numpy(whole)


def sharing_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator for a function of options with `devices`: the error of one rank ends all, and is said once."""

    @functools.wraps(function)
    def shared(options, *more) -> None:
        with _ending_together(options.devices):
            function(options, *more)

    return shared


@contextmanager
def _ending_together(devices: Devices) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if devices.num_processes == 1 or started_by() is None:
            raise
        join(devices)  # after an error before all had met, the others wait there
        own = str(dist.get_rank())
        first = _first_ended(own)
        if first not in (own, INTERRUPTED):
            time.sleep(TIME_TO_REPORT)
        for other in _others:
            other.kill()
        if first == INTERRUPTED:
            raise KeyboardInterrupt from None
        if first != own:
            sys.exit(1)  # this error is only a consequence
        if LOST.search(str(error)):
            raise UserError(
                "another process of this run has ended without a message. Was it killed, for too little memory? "
                "The same command resumes from the last checkpoint"
            ) from None
        raise
    except KeyboardInterrupt:
        if is_joined():
            _first_ended(INTERRUPTED)
        raise


def _first_ended(own: str) -> str:
    """What the first rank to end early has noted, which may be this one."""
    try:
        return dist.distributed_c10d._get_default_store().compare_set(FIRST_ENDED, "", own).decode()
    except RuntimeError:
        return "0"  # rank 0 holds the store, and has ended


def _start_others(devices: Devices) -> None:
    """Start this node's further processes. None may be left behind, or waited for without end."""
    defaults = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "NODE_RANK": "0"}
    os.environ |= defaults | {name: os.environ[name] for name in defaults if name in os.environ}
    os.environ |= {"LOCAL_RANK": "0", "WORLD_SIZE": str(devices.num_processes)}
    atexit.register(_wait_for_others)
    try:
        with starting(f"--devices {devices.per_node}"):
            for local_rank in range(1, devices.per_node):
                environment = os.environ | {"LOCAL_RANK": str(local_rank)}
                _others.append(subprocess.Popen([sys.executable, *sys.argv], env=environment, stdin=subprocess.DEVNULL))
                threading.Thread(target=_end_with, args=(_others[-1],), daemon=True).start()
    except CannotStart:
        for other in _others:
            other.kill()
        del os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"]  # there is no group that could be waited for
        raise


def _wait_for_others() -> None:
    """Wait for the processes started here, and end those that are stuck."""
    deadline = time.monotonic() + GRACE
    for other in _others:
        try:
            other.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.kill()


def _end_with(other: subprocess.Popen) -> None:
    """End this process when another has failed: on a GPU it could wait for that one without end."""
    if other.wait() != 0:
        time.sleep(GRACE)
        os._exit(1)
