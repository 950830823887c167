"""Run by tests/runs/test_several_devices.py as each rank of a run: one training step and one validation, written down.

Usage: ranks_script.py CFG FOLDER PROCESSES CLIPS_A_RANK. The networks' batch norms are in evaluation mode, for their
statistics in training are those of a rank's own clips. Arithmetic is in double precision.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from src.config.loading import load_config
from src.data.datamodule import ClipDataModule
from src.data.labels import LabelMap
from src.data.sampling import Dealing
from src.learning.recognizer import Recognizer
from src.learning.tasks import build_task
from src.models.checkpoint import initial_network
from src.runs.devices import Devices
from src.runs.distributed import from_rank_zero, gather_over_ranks, join

SEED = 3


class Witness(Recognizer):
    """Writes down the gradients and the loss of every step, and the clips."""

    def on_train_epoch_start(self):
        self.net.apply(lambda layer: layer.eval() if isinstance(layer, torch.nn.BatchNorm2d) else None)
        self.steps = []

    def on_after_backward(self):
        self.gradients = {name: parameter.grad.clone() for name, parameter in self.net.named_parameters()}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        loss = torch.stack(list(gather_over_ranks(outputs["loss"].detach().reshape(1)))).mean()
        inputs = gather_over_ranks(batch[0])
        self.steps.append({"loss": loss, "gradients": self.gradients, "inputs": inputs})


def main():
    cfg, folder, processes, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    devices = Devices(per_node=processes)
    join(devices)
    rank = torch.distributed.get_rank() if processes > 1 else 0
    told = from_rank_zero(devices, lambda: f"rank {rank}")
    shares = [gather_over_ranks(torch.arange(rank, count, processes)).tolist() for count in (2, 3, 7, 8)]

    config = load_config(cfg, [f"opt.batch_size={batch}"])
    label_map = LabelMap.load(config.data.label_map_path())
    recognizer = Witness(
        initial_network(config, SEED), build_task(config), label_map, config.opt, config.protocol, SEED
    )
    data = ClipDataModule(config, label_map, 64, 64, num_workers=0, seed=SEED)
    data.deal(Dealing(processes, 1, processes))
    trainer = pl.Trainer(
        **devices.arguments() | {"precision": "64-true"},
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    trainer.fit(recognizer, datamodule=data)
    torch.save(
        {"told": told, "shares": shares, "steps": recognizer.steps, "figures": dict(trainer.callback_metrics)},
        folder / f"rank_{rank}_of_{processes}.pt",
    )


if __name__ == "__main__":
    main()
