"""Where a run came from: its command, the versions of what it stands on, the git commit."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "torchaudio",
    "pytorch-lightning",
    "timm",
    "lmdb",
    "soundfile",
    "numpy",
    "scipy",
    "scikit-learn",
)


def origin() -> dict[str, Any]:
    """Of a start of a run: what was called, when, and on what it stood."""
    import torch

    return {
        "command": command_line(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
        "cpu": cpu(),
        "threads": torch.get_num_threads(),
    }


def command_line() -> str:
    """The command as it could be typed again."""
    return shlex.join([Path(sys.executable).name, *sys.argv])


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
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )


def git_commit() -> str:
    """The commit of this code, with `+changes` where files differ from it; `unknown` outside a checkout."""
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
