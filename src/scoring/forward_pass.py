"""Networks over clips: however many networks there are, every clip is decoded and transformed once.

Batches are kept as they are read, up to a budget of bytes. All networks run on what is kept, one after the other,
before more is read. Where all clips fit, that makes the networks the outer loop, and each one's outputs are known as
soon as its turn is over.
"""

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from src.data.batching import Held, Samples
from src.data.clip_dataset import ClipDataset
from src.data.device_features import DeviceFeatures, Features
from src.data.loading import batches_on
from src.data.sampling import EpochSampler
from src.utils.memory import available_memory
from src.utils.progress import progress

MOST_KEPT = 4 * 2**30  # bytes of batches …
SHARE_KEPT = 1 / 4  # … or this much of the memory that is there, if that is less

Run = Callable[[nn.Module, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ClipBatch:
    """Clips as networks take them."""

    inputs: torch.Tensor  # (B, 1, F, T) float32, where the networks are
    targets: torch.Tensor  # (B, C) or (B,), on the CPU
    spans: torch.Tensor | None = None  # (B, 3), as in `Batch`

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.targets.nbytes


@dataclass(frozen=True)
class Outputs:
    """What a network says of all clips."""

    logits: torch.Tensor  # (N, C) float32 of clips, or (N, J, C) of their frames, on the CPU
    targets: np.ndarray  # (N, C) of 0 and 1, or (N,) class indices
    spans: torch.Tensor | None  # (N, 3), as in `Batch`


def most_to_keep(device: torch.device) -> int:
    """Bytes of batches that may be kept where networks run."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return min(MOST_KEPT, int(free * SHARE_KEPT))


def batches_of(
    dataset: ClipDataset, batch_size: int, num_workers: int, device: torch.device, features: Features = "auto"
) -> Iterator[ClipBatch]:
    """All clips in order. `features` says where spectrograms are made."""
    sampler = EpochSampler(len(dataset), 0, training=False)
    device_features = DeviceFeatures(dataset.features)
    for batch in batches_on(device, dataset, sampler, batch_size, num_workers, features):
        yield ClipBatch(device_features(on(device, batch.inputs)), batch.targets, batch.spans)


def on(device: torch.device, inputs: torch.Tensor | Samples | Held) -> torch.Tensor | Samples | Held:
    """A batch's inputs where the networks are."""
    if isinstance(inputs, torch.Tensor):
        return inputs.to(device, non_blocking=True)
    if isinstance(inputs, Held):
        return inputs
    return inputs._replace(samples=inputs.samples.to(device, non_blocking=True))


def outputs_of(
    networks: Sequence[Callable[[], nn.Module]],
    batches: Iterable[ClipBatch],
    num_clips: int,
    budget: int,
    run: Run = lambda network, inputs: network(inputs),
) -> Generator[Outputs, None, None]:
    """Every network's outputs, in their order, in one pass over the batches.

    Args:
        networks: each gives its network, on the batches' device, when its turn comes: once, or once for each
            chunk where the batches do not fit the budget.
        num_clips: in all batches, for the progress bar.
        budget: bytes of batches to keep.
        run: what is wanted of a network, (B, …), of (B, 1, F, T) inputs.
    """
    source = Lookahead(batches)
    seen: list[ClipBatch] = []  # all batches, without their inputs
    done = 0  # clips in earlier chunks
    description = f"clips × {len(networks)} network{'s' * (len(networks) > 1)}"
    with tempfile.TemporaryFile() as file, progress(num_clips * len(networks), description, "clip") as bar:
        while not source.ended:
            kept: list[ClipBatch] = []
            fresh = kept_batches(source, budget, kept) if len(networks) > 1 else source
            for number, network in enumerate(networks):
                said = outputs_for(run, network(), kept if number else fresh, [] if number else seen, bar)  # (n, …)
                # Earlier chunks' outputs wait in a file: those of many networks for many clips would fill the memory.
                row, start = said[0].nbytes, number * num_clips * said[0].nbytes
                if source.ended:
                    bar.clear()  # a message logged meanwhile gets a line of its own
                    file.seek(start)
                    earlier = np.frombuffer(file.read(done * row), np.float32).reshape(done, *said.shape[1:])
                    logits = torch.from_numpy(np.concatenate([earlier, said]))
                    targets = torch.cat([batch.targets for batch in seen]).numpy()
                    spans = [batch.spans for batch in seen if batch.spans is not None]
                    yield Outputs(logits, targets, torch.cat(spans) if spans else None)
                else:
                    file.seek(start + done * row)
                    file.write(said.tobytes())
            done += len(said)


@torch.inference_mode()
def outputs_for(
    run: Run, network: nn.Module, batches: Iterable[ClipBatch], seen: list[ClipBatch], bar: Any
) -> np.ndarray:
    """(N, …) float32 of the batches, which are added to `seen` without their inputs."""
    found = []
    for batch in batches:
        found.append(run(network, batch.inputs).float())
        seen.append(replace(batch, inputs=torch.empty(0)))
        bar.update(len(batch.inputs))
    return torch.cat(found).cpu().numpy()


class Lookahead:
    """Batches for one pass, of which the next one can be seen."""

    def __init__(self, batches: Iterable[ClipBatch]):
        self._batches = iter(batches)
        self.next = next(self._batches, None)

    @property
    def ended(self) -> bool:
        return self.next is None

    def __iter__(self) -> Iterator[ClipBatch]:
        while self.next is not None:
            batch, self.next = self.next, next(self._batches, None)
            yield batch


def kept_batches(source: Lookahead, budget: int, kept: list[ClipBatch]) -> Iterator[ClipBatch]:
    """As many batches of a source as fit the budget, at least one, each also added to `kept`.

    They come as the source gives them, so that loader workers go on while a network runs.
    """
    for batch in source:
        budget -= batch.nbytes
        kept.append(batch)
        yield batch
        if source.next is not None and source.next.nbytes > budget:
            return
