"""Signals that ask a run to end: noted, and acted upon after the step that it is in."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch.distributed

from src.errors import Interrupted

# Ctrl-C; a job's end or pre-emption; SLURM's --signal=USR1@SECONDS. Each with what Python does by itself.
SIGNALS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGUSR1: signal.SIG_DFL}


class Interrupts:
    """Notes the first signal; a second one ends the process at once.

    An exception out of the blue may reach code that swallows it, or a file that is being written.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._ours: dict[int, object] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals instead of ending by them, and raise the one that came too late for any step.

        A signal that is ignored, or another's to handle, stays so.
        """
        self._ours = {signum: usual for signum, usual in SIGNALS.items() if signal.getsignal(signum) == usual}
        self.take_over()
        try:
            yield
        finally:
            self._restore()
        if self.received:
            raise self.exception()

    def take_over(self) -> None:
        """Put our handlers in place; again when Lightning's, which act within a step, have replaced them."""
        if self.received:
            self._restore()
            return
        for signum in self._ours:
            signal.signal(signum, self._note)

    def _restore(self) -> None:
        for signum, usual in self._ours.items():
            signal.signal(signum, usual)

    def _note(self, signum: int, _: object) -> None:
        self.received = signum
        if not torch.distributed.is_torchelastic_launched():  # torchrun passes on what the terminal has sent already
            self._restore()

    def wanted(self, trainer: pl.Trainer) -> bool:
        """Whether to end here: all ranks say the same, for one alone would leave the others waiting for it."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def exception(self) -> Interrupted:
        """To be raised where the run ends."""
        return Interrupted(self.received or signal.SIGINT)
