"""What a run's figures depend on besides its settings: command, versions, machine, kernels."""

import logging
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = "torch torchvision torchaudio pytorch-lightning timm lmdb soundfile numpy scipy scikit-learn".split()
CIRCUMSTANCES = ("cpu", "threads", "devices", "accumulate", "versions", "git_commit")  # of a start, see `provenance`


def provenance() -> dict[str, Any]:
    """One start of a run: the command, the time, the versions and the machine."""
    import torch

    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
        "cpu": cpu(),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Python's and the main packages' versions."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def cpu() -> str:
    """The processor's name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def git_commit() -> str:
    """The commit of this code, with `+changes` where files differ from it, or `unknown` outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30)
        return result.stdout.strip() if result.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (commit + ("+changes" if changed else "")) or "unknown"


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How a start differs from the one before it, as far as that may change the run's figures."""
    before, after = _circumstances(earlier), _circumstances(now)
    return [
        f"resumed with {name} {after[name]!r} instead of {before[name]!r}"
        for name in after
        if name in before and after[name] != before[name]
    ]


def _circumstances(start: Mapping[str, Any]) -> dict[str, Any]:
    """The circumstances of a start, each package's version by itself."""
    found = {name: start[name] for name in CIRCUMSTANCES if name in start}
    packages = found.pop("versions", {})
    return found | packages


class DeterminismWarnings(logging.Handler):
    """Hands on PyTorch's warnings of operations that have no deterministic form."""

    def __init__(self, hand_on: Callable[[str], None]) -> None:
        super().__init__()
        self._hand_on = hand_on

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "deterministic" in message:
            self._hand_on(message.split(". ")[0].strip())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect the warnings that `logging.captureWarnings` passes on."""
        warnings = logging.getLogger("py.warnings")
        warnings.addHandler(self)
        try:
            yield
        finally:
            warnings.removeHandler(self)
