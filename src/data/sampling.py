"""Which clips, in which order, and with which random draws: by seed, epoch and record index alone."""

from collections.abc import Iterator

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
