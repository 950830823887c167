"""A command in a process where something was changed before it began: a limit, a file system, a function."""

import contextlib
import ctypes
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from conftest import ROOT, _as_main, fork
from faults.processes import orphans

LONGEST = 120  # s
CLONE_NEWNS, MS_BIND, MS_PRIVATE = 0x20000, 0x1000, 0x44000  # the last one for all mounts below
DEVICES = ("null", "zero", "random", "urandom")


def run_changed(change, *words):
    """Run a script of the repository in a forked process, after `change()`. It must end and leave no process behind.

    Returns:
        As `run_script` of conftest.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [str(ROOT / words[0]), *map(str, words[1:])]
        process = fork(_changed, change, words, folder)
        process.join(LONGEST)
        ended = not process.is_alive()
        deadline = time.monotonic() + 10
        while ended and list(orphans(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [other.cmdline() for other in orphans(process.pid)] if ended else ["itself"]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        out, err = ((Path(folder) / name).read_text(errors="replace") for name in ("out", "err"))
        assert not left, (left, err[-2000:])
        return subprocess.CompletedProcess(words, process.exitcode, out, err)


def _changed(change, words, folder):
    os.setpgid(0, 0)
    change()
    _as_main(words, str(ROOT), f"{folder}/out", f"{folder}/err", dict(os.environ))


def few_open_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))


class FewProcesses:
    """From the n-th one on, the system starts no more."""

    def __init__(self, number, error):
        self.left = number
        self.error = error

    def __call__(self):
        self._fork, os.fork = os.fork, self._counted

    def _counted(self):
        if self.left == 0:
            raise OSError(self.error, os.strerror(self.error))
        self.left -= 1
        return self._fork()


class SharedMemory:
    """Another /dev/shm: of "small", "full", "read-only" or "missing"."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self):
        libc = ctypes.CDLL(None, use_errno=True)

        def done(result):
            if result:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        def mount(source, target, kind, flags, data=None):
            done(libc.mount(source.encode(), str(target).encode(), kind, flags, data))

        done(libc.unshare(CLONE_NEWNS))
        mount("none", "/", None, MS_PRIVATE)
        if self.kind != "missing":
            options = {"small": b"size=1m", "full": b"size=4k", "read-only": b"ro"}[self.kind]
            mount("tmpfs", "/dev/shm", b"tmpfs", int(self.kind == "read-only"), options if options != b"ro" else None)
            if self.kind == "full":
                Path("/dev/shm/x").write_bytes(bytes(4096))
            return
        with tempfile.TemporaryDirectory() as empty:
            mount("tmpfs", empty, b"tmpfs", 0)
            for name in DEVICES:
                (Path(empty) / name).touch()
                mount(f"/dev/{name}", Path(empty) / name, None, MS_BIND)
            mount(empty, "/dev", None, MS_BIND | 0x4000)
            libc.umount2(empty.encode(), 2)


def may_mount():
    """Whether a process here may have another /dev/shm."""
    process = fork(SharedMemory("small"))
    process.join()
    return process.exitcode == 0
