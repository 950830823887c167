"""Which device to compute on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

log = logging.getLogger(__name__)


def present_gpus(wanted: Sequence[int]) -> list[int]:
    """Those of the wanted GPU indices that are there; an empty list stands for the CPU. Says what is missing."""
    present = [index for index in wanted if index < torch.cuda.device_count()]
    names = ", ".join(map(str, wanted))
    if not present:
        log.info("--gpus %s: no such GPU here; running on the CPU", names)
    elif len(present) < len(wanted):
        log.warning("--gpus %s: of these only %s are here; the batch over all devices shrinks with their number",
                    names, ", ".join(map(str, present)))
    return present
