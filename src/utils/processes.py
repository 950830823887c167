"""Which of a run's processes this is, before any of them knows the others."""

import os

TIME_TO_REPORT = 3  # s for another process to say what is wrong, before a launcher ends all because this one has ended


def is_first() -> bool:
    """Whether this process is the one that logs and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"))
