"""Run by tests/runs/test_changing_size.py as each process of a run: it trains and writes down every step.

Usage: resized_script.py NOTES LAST_STEP FLAGS... of train_gise_mixtures.py. It ends itself after LAST_STEP, if not 0,
as a signal does. Arithmetic is in double precision, so that only an error can make a difference that is seen.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from pytorch_lightning import Callback

from src import cli, training
from src.run_plan import RunPlan
from src.runs import devices
from train_gise_mixtures import main

NOTES, LAST_STEP = Path(sys.argv[1]), int(sys.argv[2])


class Witness(Callback):
    """Writes down each step's logged loss, and of each batch where it came from, its records and its loss."""

    def __init__(self):
        self.batches, self.logged, self.asked = [], {}, False

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step + 1 == LAST_STEP and trainer.is_global_zero and not self.asked:
            self.asked = True
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        origin = trainer.datamodule.origin(batch_idx, trainer.global_rank)
        records = trainer.datamodule.records_of_batch(trainer.current_epoch, batch_idx, trainer.global_rank)
        if origin:
            loss = outputs["loss"].item() * trainer.accumulate_grad_batches  # Lightning divides it
            self.batches.append([trainer.current_epoch, *origin, records, loss])
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or batch_idx + 1 == trainer.num_training_batches:
            self.logged[trainer.global_step] = trainer.logged_metrics["train_loss_step"].item()
        torch.save([self.batches, self.logged], NOTES / f"{LAST_STEP}_{trainer.world_size}_{trainer.global_rank}.pt")


def with_witness(*arguments):
    return [Witness(), *callbacks_of_a_run(*arguments)]


callbacks_of_a_run, training.run_callbacks = training.run_callbacks, with_witness
build_trainer = training.build_trainer
training.build_trainer = lambda *arguments, **more: logging_every_step(build_trainer(*arguments, **more))
devices.lightning_precision = lambda *_: "64-true"
network_of_a_run = RunPlan.network
RunPlan.network = lambda plan: network_of_a_run(plan).double()  # before its average is taken


def logging_every_step(trainer):
    trainer.log_every_n_steps = 1
    return trainer


if __name__ == "__main__":
    del sys.argv[1:3]
    cli.run(main)
