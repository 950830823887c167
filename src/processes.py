"""Which of a run's processes this is, before any of them knows the others."""

import os


def is_first() -> bool:
    """Whether this process is the one, of those that torchrun, SLURM or Lightning start, that speaks and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
