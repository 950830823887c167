"""All clips of a data set as 16-bit samples in the memory of the network's device, for `--cache_samples device`.

A batch is gathered there. What goes to the device is which clips it has, and how each is seen.

Where the memory of one device does not hold all clips, each of several processes holds its share of them. For every
batch they then send each other the clips that are asked for.
"""

import functools
import gc
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from src.data.audio.files import num_samples
from src.data.batching import Held, HeldClip, on_device
from src.data.lmdb.sample_cache import decoded
from src.data.lmdb.store import LMDBReader
from src.data.sampling import EpochSampler
from src.data.transforms import View
from src.errors import UserError
from src.utils.memory import available_memory
from src.utils.parallel import map_in_processes

log = logging.getLogger(__name__)

DEVICE = "device"  # in place of a folder
SHARE = 1 / 2  # of the free memory. The rest is for the network, whose activations are not known yet


class DeviceCache:
    """Samples of clips, gathered in batches.

    Args:
        lengths: (N,) samples of every clip.
        held: which clips this process holds.
        device: where.
        rank, num_ranks: of the processes, which hold every `num_ranks`-th clip each. 1 where what is asked for is here.
    """

    def __init__(self, lengths: np.ndarray, held: np.ndarray, device: torch.device, rank: int = 0, num_ranks: int = 1):
        self.lengths = lengths
        self._rank, self._num_ranks = rank, num_ranks
        # Which clips are asked for is told on the CPU: on a GPU it would wait for the step under way.
        self._group: Any = dist.new_group(backend="gloo") if num_ranks > 1 else None
        self._longest = int(lengths.max())
        ends = np.cumsum(lengths[held])
        self._starts = np.zeros(len(lengths), np.int64)
        self._starts[held] = ends - lengths[held]
        # Clip behind clip, then room for a row that begins with the last one.
        self._samples = torch.zeros(int(ends[-1]) + self._longest, dtype=torch.int16, device=device)

    def put(self, index: int, samples: bytes) -> None:
        """Copy a clip to the device."""
        start = self._starts[index]
        self._samples[start : start + self.lengths[index]] = torch.frombuffer(bytearray(samples), dtype=torch.int16)

    def __getitem__(self, index: int) -> HeldClip:
        return HeldClip(index, int(self.lengths[index]))

    def batch(self, clips: Sequence[HeldClip], views: Sequence[View]) -> Held:
        """Clips, and how they are seen, as one batch."""
        partners = [-1 if clip.partner is None else clip.partner for clip in clips]
        indices, lengths = [clip.index for clip in clips], [clip.length for clip in clips]
        seen = np.array(views, dtype=object)
        return Held(self.gather, np.array(indices), np.array(partners), np.array(lengths), seen)

    def gather(self, clips: np.ndarray, partners: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        """(B, N) int16, or float32 in which 1 is full scale where clips have partners, as of `stack_samples`.

        Args:
            clips, partners: (B,) indices, -1 for no partner.
            lengths: (B,) samples of both together.
        """
        mixed = np.flatnonzero(partners >= 0)
        asked, longest = np.concatenate([clips, partners[mixed]]), int(lengths.max())
        rows = self._exchanged(asked, longest) if self._num_ranks > 1 else self._rows(asked, longest)
        if not len(mixed):
            return rows
        rows = rows * 2.0**-15
        samples, others = rows[: len(clips)], rows[len(clips) :]
        places = on_device(torch.from_numpy(mixed), rows.device)
        of_both = on_device(torch.from_numpy(lengths[mixed]), rows.device)
        total = self._repeated(samples[places], clips[mixed]) + self._repeated(others, partners[mixed])
        samples[places] = total.masked_fill(_behind(of_both, longest), 0)
        return samples

    def _rows(self, clips: np.ndarray, length: int) -> torch.Tensor:
        """(B, length) int16 of clips that are here, with zeros behind those that are shorter."""
        device, own = self._samples.device, np.minimum(self.lengths[clips], length)
        rows = self._samples.unfold(0, length, 1)[on_device(torch.from_numpy(self._starts[clips]), device)]
        return _without_rest(rows, own)

    def _repeated(self, rows: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
        """(B, N) of which each clip fills its whole row, again and again."""
        own = self.lengths[clips]
        if own.min() >= rows.shape[1]:
            return rows
        columns = torch.arange(rows.shape[1], device=rows.device)
        return rows.gather(1, columns % on_device(torch.from_numpy(own), rows.device)[:, None])

    def _exchanged(self, clips: np.ndarray, length: int) -> torch.Tensor:
        """`_rows` of any clips. All processes call it at once."""
        ranks, asked = self._num_ranks, [clips] * self._num_ranks
        dist.all_gather_object(asked, clips, group=self._group)
        for_each = [theirs[theirs % ranks == self._rank] for theirs in asked]
        sent = self._rows(np.concatenate(for_each), self._longest)
        received = sent.new_empty(len(clips), self._longest)
        counts = np.bincount(clips % ranks, minlength=ranks).tolist(), list(map(len, for_each))
        dist.all_to_all_single(received.view(torch.uint8), sent.view(torch.uint8), *counts)  # none sends int16
        order = np.argsort(np.argsort(clips % ranks, kind="stable"))
        return received[on_device(torch.from_numpy(order), sent.device), :length]


def _behind(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """(B, size) bool: what lies behind the first of so many samples."""
    return torch.arange(size, device=lengths.device) >= lengths[:, None]


def _without_rest(rows: torch.Tensor, lengths: np.ndarray) -> torch.Tensor:
    """(B, N) with zeros behind clips of these lengths."""
    if lengths.min() == rows.shape[1]:
        return rows
    return rows.masked_fill_(_behind(on_device(torch.from_numpy(lengths), rows.device), rows.shape[1]), 0)


def open_device_cache(
    reader: LMDBReader,
    records: np.ndarray,
    sample_rate: int,
    device: torch.device,
    sampler: EpochSampler,
    num_workers: int,
) -> DeviceCache | None:
    """Records on a device, or None, with a message, where there is too little memory for them.

    In training each process holds all, or else its share. In validation it holds those that are its own.

    Args:
        records: of the data set's clips.
        sampler: of the batches.
        num_workers: processes that decode.

    Raises:
        UserError: a clip cannot be decoded, or is not 16-bit FLAC.
    """
    lengths, ranks = lengths_of(reader, records, sample_rate), sampler.num_ranks
    everything = np.arange(len(records))
    choices = [(everything, 1), (everything[sampler.rank :: ranks], ranks)]
    if not sampler.training:
        choices = [(sampler.share(0), 1)]
    free = free_memory(device, ranks)
    needed = [2 * int(lengths[held].sum()) for held, _ in choices]
    fitting = [size <= SHARE * free for size in needed]
    if sampler.training and ranks > 1:  # all decide alike
        votes: list = [None] * ranks
        dist.all_gather_object(votes, fitting)
        fitting = [all(votes_of_one) for votes_of_one in zip(*votes)]
    if not any(fitting):
        log.warning(
            "%s: --cache_samples device needs %.1f GB on %s, and %.1f GB are free, half of them for the network. "
            "Clips are read as without the flag",
            *(reader.path, needed[-1] / 1e9, device, free / 1e9),
        )
        return None
    held, sharing = choices[fitting.index(True)]
    cache = DeviceCache(lengths, held, device, sampler.rank, sharing)
    log.info("%s: %d clips on %s, %.1f GB", reader.path, len(held), device, 2 * lengths[held].sum() / 1e9)
    decode, what = functools.partial(decoded, reader, sample_rate, ()), f"decoding for {device}"
    clips = map_in_processes(decode, records[held].tolist(), num_workers, what, unit="clip", chunk=16)
    for index, samples in zip(held.tolist(), clips):
        if len(samples) != 2 * lengths[index]:
            raise UserError(f"{reader.where(records[index])}: has not as many samples as its header says")
        cache.put(index, samples)
    return cache


def lengths_of(reader: LMDBReader, records: np.ndarray, sample_rate: int) -> np.ndarray:
    """(N,) samples of each record, as headers say, or as it is decoded where its header does not."""
    found = []
    for record in records.tolist():
        found.append(reader.look(record, num_samples) or len(decoded(reader, sample_rate, (), record)) // 2)
        reader.release_pages()
    return np.array(found, np.int64)


def free_memory(device: torch.device, num_ranks: int) -> int:
    """Bytes that a process may take on a device. A CPU's are shared out."""
    if device.type != "cuda":
        return available_memory() // num_ranks
    gc.collect()  # an earlier run's clips may still be there
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]
