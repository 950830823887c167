"""Commands of the repository in a place of their own, where what they write and whom they call is noted."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from conftest import ROOT, _as_main, fork

MEMORY = 8 << 30  # bytes a command may allocate: a mad number must not take the machine along
CLONE_NEWNET = 0x40000000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Place:
    """Where one command runs: its current folder, its home and its temporary folder are its own, and empty."""

    root: Path

    def __post_init__(self) -> None:
        for folder in (self.inputs, self.named, *self.unnamed, self.logs):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def inputs(self) -> Path:
        """What the command gets to read, besides the corpus."""
        return self.root / "inputs"

    @property
    def named(self) -> Path:
        """Where flags tell it to write."""
        return self.root / "out"

    @property
    def unnamed(self) -> tuple[Path, Path, Path]:
        """Current folder, home and temporary folder."""
        return self.root / "cwd", self.root / "home", self.root / "tmp"

    @property
    def logs(self) -> Path:
        """Standard output and error, and what the command did that it should not."""
        return self.root / "logs"

    def error_output(self) -> str:
        """What the command wrote on standard error."""
        path = self.logs / "err"
        return path.read_text(encoding="utf-8", errors="backslashreplace") if path.exists() else ""

    def clear_logs(self) -> None:
        """Forget an earlier command's output."""
        for file in self.logs.iterdir():
            file.unlink()


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int | None  # None: it had not ended when its time was up. Negative: by a signal
    out: str
    err: str
    misdeeds: str  # calls into the net, and files opened for writing outside its place


def start(place: Place, *words: object, umask: int = 0o022) -> BaseProcess:
    """A script of the repository in a forked process, the leader of a group of its own."""
    place.clear_logs()
    return fork(_in_place, [str(ROOT / str(words[0])), *map(str, words[1:])], place, umask)


def run(place: Place, *words: object, umask: int = 0o022, timeout: float = 60) -> Outcome:
    """Run a script to its end, or to the end of its time."""
    process = start(place, *words, umask=umask)
    process.join(timeout)
    status = process.exitcode
    if status is None:
        kill(process, signal.SIGKILL, whole_group=True)
    return outcome(place, status)


def outcome(place: Place, status: int | None) -> Outcome:
    """What a command that ended in a place left in its logs."""
    texts = [
        path.read_text(encoding="utf-8", errors="backslashreplace") if path.exists() else ""
        for path in (place.logs / name for name in ("out", "err", "misdeeds"))
    ]
    return Outcome(status, *texts)


def kill(process: BaseProcess, signal_number: int, whole_group: bool) -> None:
    """Send a signal to a process of `start`, or to it and all that it started, and wait for its end."""
    (os.killpg if whole_group else os.kill)(process.pid, signal_number)
    process.join(60)


def wait_until(reached: Callable[[], bool], process: BaseProcess, timeout: float = 60) -> None:
    """Wait for something to happen while a process is alive."""
    deadline = time.monotonic() + timeout
    while process.is_alive() and not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {process.pid} did not get on in {timeout} s")
        time.sleep(0.001)


def orphans(group: int) -> Iterator[psutil.Process]:
    """Living processes of a process group."""
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass


def _in_place(words: list[str], place: Place, umask: int) -> None:
    os.setpgid(0, 0)
    os.umask(umask)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).unshare(CLONE_NEWNET)  # takes the network away, if we may. The hook notes who misses it
    sys.dont_write_bytecode = True
    cwd, home, temporary = map(str, place.unnamed)
    environment = dict(os.environ, HOME=home, TMPDIR=temporary, OMP_NUM_THREADS="1")
    tempfile.tempdir = None  # as the server found it
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    sys.addaudithook(_watcher(place))
    _as_main(words, cwd, str(place.logs / "out"), str(place.logs / "err"), environment)


def _watcher(place: Place) -> Callable:
    """An audit hook that notes network connections and files written outside the place."""
    notes = os.open(place.logs / "misdeeds", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    allowed = (f"{place.root}/", "/dev/", "/proc/")

    def watch(event: str, arguments: tuple) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
            address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
            if event == "socket.getaddrinfo" or isinstance(address, tuple):
                os.write(notes, f"{event} {address}\n".encode())
                raise PermissionError(f"{event} {address}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & WRITING:
            written(arguments[0])
        elif event == "os.mkdir":
            written(arguments[0])
        elif event in ("os.rename", "os.link", "os.symlink"):
            written(arguments[1])

    def written(path: str | bytes) -> None:
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(allowed) and path != str(place.root):
            os.write(notes, f"wrote {path}\n".encode(errors="backslashreplace"))

    return watch
