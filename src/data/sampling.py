"""Which clips, in which order, and with which random draws: by seed, epoch and record index alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

# Separate streams of one seed. A clip's key is (seed, CLIP, epoch, index).
ORDER, CLIP, MIXUP, NETWORK, PARTNER, SOUNDSCAPE = 0, 1, 2, 3, 4, 5


def clip_generator(seed: int, epoch: int, index: int, stream: int = CLIP) -> np.random.Generator:
    """The generator of one clip in one epoch, whichever worker or rank serves it. Each kind of draw has its stream."""
    return np.random.default_rng((seed, stream, epoch, index))


def network_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """What PyTorch's own generators, which dropout draws from, start from in one batch."""
    return int(np.random.SeedSequence((seed, NETWORK, epoch, batch, rank)).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Dealing:
    """Which process computes which batch of a run that may change its number of processes.

    A run begins with so many ranks, and a step takes so many batches of each. Later processes share the same batches
    of every step in equal parts, rank by rank: the first process has those of rank 0 first, in their order. With as
    many processes as ranks, each has its own.
    """

    ranks: int = 1  # processes that the run began with
    accumulate: int = 1  # batches of each rank that make a step
    processes: int = 1  # that share them now. They divide the batches of a step

    @property
    def batches_a_step(self) -> int:
        """Of all ranks together."""
        return self.ranks * self.accumulate

    @property
    def share(self) -> int:
        """Batches of each process that make a step."""
        return self.batches_a_step // self.processes

    @property
    def is_as_begun(self) -> bool:
        """Whether every process has the batches of its own rank."""
        return self.processes == self.ranks

    def num_batches(self, of_rank: int) -> int:
        """Batches of a process in an epoch of so many batches of each rank."""
        steps, rest = divmod(of_rank, self.accumulate)
        return steps * self.share + self._part(rest)

    def origin(self, process: int, batch: int, of_rank: int) -> tuple[int, int] | None:
        """Rank and number of a process's batch in an epoch of so many batches of each rank.

        None where the epoch's last step, an incomplete one, has no batch left for this process.
        """
        step, place = divmod(batch, self.share)
        first = step * self.accumulate
        each = min(self.accumulate, of_rank - first)
        rank, offset = divmod(process * self._part(each) + place, each)
        return (rank, first + offset) if rank < self.ranks else None

    def _part(self, of_rank: int) -> int:
        """Batches of each process in a step of so many batches of each rank."""
        return -(-self.ranks * of_rank // self.processes)


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, record index), so that the data set knows the epoch wherever it runs.

    In training every epoch is a new permutation of all records, dealt out to the ranks. With weights it is as many
    draws with replacement. Where their number is no multiple of the ranks', its first records are dealt out twice. In
    evaluation the records come in order, and each goes to exactly one rank.

    Args:
        num_records: N.
        seed: of the permutations.
        training: shuffle and pad, or neither.
        rank, num_ranks: which share to yield.
        weights: (N,) chances of the records in training, which sum to 1. None for each record once.
    """

    def __init__(
        self,
        num_records: int,
        seed: int,
        training: bool,
        rank: int = 0,
        num_ranks: int = 1,
        weights: np.ndarray | None = None,
    ):
        self.num_records = num_records
        self.seed = seed
        self.training = training
        self.rank = rank
        self.num_ranks = num_ranks
        self.weights = weights
        self.epoch = 0
        self._done: dict[int, int] = {}  # records of an epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, done: int) -> None:
        """In that epoch leave out the first `done` records of the share."""
        self.epoch = epoch
        self._done = {epoch: done}

    def share(self, epoch: int) -> np.ndarray:
        """(len(self),) the rank's record indices of an epoch, in their order."""
        order = np.arange(self.num_records)
        if self.training:
            rng = np.random.default_rng((self.seed, ORDER, epoch))
            if self.weights is None:
                order = rng.permutation(self.num_records)
            else:
                order = rng.choice(self.num_records, self.num_records, p=self.weights)
            order = np.resize(order, -(-self.num_records // self.num_ranks) * self.num_ranks)
        return order[self.rank :: self.num_ranks]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        for index in self.share(epoch)[self._done.get(epoch, 0) :]:
            yield epoch, int(index)

    def __len__(self) -> int:
        """Records of a whole epoch, also of one that is resumed."""
        return len(range(0 if self.training else self.rank, self.num_records, self.num_ranks))


class DealtSampler(EpochSampler):
    """A process's records of whole training batches, whichever rank's they were when the run began.

    Args:
        num_records, seed, weights: as of `EpochSampler`.
        batch_size: records of a batch.
        dealing: of the run.
        process: whose share to yield. A batch that its last step lacks is filled with the epoch's last one.
    """

    def __init__(
        self,
        num_records: int,
        seed: int,
        batch_size: int,
        dealing: Dealing,
        process: int = 0,
        weights: np.ndarray | None = None,
    ):
        super().__init__(num_records, seed, True, process, dealing.processes, weights)
        self.batch_size = batch_size
        self.dealing = dealing
        self.of_rank = -(-num_records // dealing.ranks) // batch_size  # whole batches

    def origin(self, batch: int) -> tuple[int, int] | None:
        """Rank and number of one of the share's batches, as `Dealing.origin` gives them."""
        return self.dealing.origin(self.rank, batch, self.of_rank)

    def share(self, epoch: int) -> np.ndarray:
        ranks = [
            EpochSampler(self.num_records, self.seed, True, rank, self.dealing.ranks, self.weights).share(epoch)
            for rank in range(self.dealing.ranks)
        ]
        last = self.dealing.ranks - 1, self.of_rank - 1
        origins = [self.origin(batch) or last for batch in range(len(self) // self.batch_size)]
        size = self.batch_size
        return np.concatenate([ranks[rank][number * size :][:size] for rank, number in origins])

    def __len__(self) -> int:
        return self.dealing.num_batches(self.of_rank) * self.batch_size
