"""Signals that ask a run to end: noted at once, obeyed after the step under way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch.distributed

from src.errors import Interrupted

# Ctrl-C, a job's end or pre-emption, SLURM's --signal=USR1@SECONDS. Each with what Python does by itself.
SIGNALS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGUSR1: signal.SIG_DFL,
}


class Interrupts:
    """Notes the first signal. A second one ends the process at once.

    An exception at any place might be swallowed by the code there, or hit a file that is being written.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._ours: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals instead of ending by them, and raise the one that came too late for any step.

        A signal that is ignored, or has a handler of its own, is left alone.
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
        """Set our handlers, again where Lightning's, which act within a step, have replaced them."""
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
        """Whether to end here. All ranks get the same answer: one that ended alone would leave the others waiting."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def exception(self) -> Interrupted:
        """To be raised where the run ends."""
        return Interrupted(self.received or signal.SIGINT)
