"""One LMDB as a torch Dataset: FLAC bytes stay FLAC until a clip is asked for."""

import logging
from collections.abc import Iterable

import numpy as np
import torch

from src.config.sections import AudioConfig
from src.data.audio.files import decode_record
from src.data.checks.bad_records import unusable
from src.data.clip_dataset import ClipDataset
from src.data.events import Event
from src.data.lmdb.device_cache import DEVICE, open_device_cache
from src.data.lmdb.fingerprint import fingerprint, known_fingerprint
from src.data.lmdb.read_ahead import ReadingAhead
from src.data.lmdb.sample_cache import open_cache
from src.data.lmdb.store import LMDBReader
from src.data.lmdb.subsets import chosen_records
from src.data.sampling import EpochSampler
from src.errors import UserError

log = logging.getLogger(__name__)


class LMDBDataset(ClipDataset):
    """Reads records from an LMDB on the fly, for `in_memory: False`.

    Args:
        lmdb_path: an LMDB of src/data/lmdb/store.py.
        fold: of records with folds, keep this one's.
        held_out: keep those of the next fold, or without folds a tenth of all.
        complement: keep those that are left to train on instead. These three are `chosen_records`'.
        skip_bad_records: look for records that cannot be used, list them and leave them out.
        cache_samples: folder for a file of all clips decoded, see src/data/lmdb/sample_cache.py, or "device".
        num_workers: processes for these two, which take a pass the first time.
        The rest is `ClipDataset`'s.

    Raises:
        UserError: as of `chosen_records` and `ClipDataset`.
    """

    in_memory = False

    def __init__(
        self,
        lmdb_path: str,
        audio: AudioConfig,
        *args,
        fold: int | None = None,
        held_out: bool = False,
        complement: bool = False,
        skip_bad_records: bool = False,
        cache_samples: str | None = None,
        num_workers: int = 1,
        **kwargs,
    ):
        self.reader = LMDBReader(lmdb_path, readahead=False)  # records are read in random order
        self._ahead: ReadingAhead | None = None
        self._events: tuple[np.ndarray, np.ndarray, list[str]] | None = None  # of all clips, once they are asked for
        bad = unusable(self.reader, audio.sample_rate, num_workers) if skip_bad_records else set()
        annotations = self.reader.annotations(without=bad)
        self.skipped = sorted(bad)
        chosen = chosen_records(self.reader, annotations, audio.delimiter, fold, held_out, complement)
        self.records = np.setdiff1d(chosen, self.skipped)
        self.cache_on_device, rate = cache_samples == DEVICE, audio.sample_rate
        folder = None if self.cache_on_device else cache_samples
        self._cache = open_cache(folder, self.reader, rate, num_workers, bad) if folder else None
        super().__init__((annotations[record][0] for record in self.records), audio, *args, **kwargs)
        self.reader.unmap()

    def __len__(self) -> int:
        return len(self.records)

    def waveform(self, index: int) -> np.ndarray:
        cached = self._cache[self.records[index]] if self._cache else None
        if cached is not None:
            return cached
        return decode_record(self.stored(index), self.audio.sample_rate, self.where(index))

    def hold(self, device: torch.device, sampler: EpochSampler, num_workers: int) -> None:
        """Keep all samples on a device for a sampler's batches, where there is room for them."""
        self.held = None  # those of an earlier loader go first
        rate = self.audio.sample_rate
        self.held = open_device_cache(self.reader, self.records, rate, device, sampler, num_workers)
        self.reader.unmap()

    def stored(self, index: int) -> bytes:
        flac = self.reader.audio(self.records[index])
        self.reader.release_pages()  # or a worker would come to map all of the file
        return flac

    def events(self, epoch: int, index: int) -> list[Event]:
        self._events = self._events or self._read_events()
        values, starts, labels = self._events
        found = values[starts[index] : starts[index + 1]].tolist()
        return [Event(onset, offset, labels[int(label)]) for onset, offset, label in found]

    def _read_events(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(M, 3) onset, offset and label index of the clips' events, (N + 1,) where each clip's begin, and the labels.

        These are flat: small objects would be copied, bit by bit, into every forked worker.
        """
        stored = self.reader.require_events()
        lists = [stored[record] for record in self.records]
        labels = sorted({event.label for events in lists for event in events})
        number = {label: place for place, label in enumerate(labels)}
        values = [(onset, offset, number[label]) for events in lists for onset, offset, label in events]
        starts = np.cumsum([0, *map(len, lists)])
        return np.array(values, dtype=np.float64).reshape(-1, 3), starts, labels

    def use_frames(self, stride: int) -> None:
        super().use_frames(stride)
        assert self._events
        unknown = [label for label in self._events[2] if label not in self.label_map.mapping]
        if unknown:
            where = f"{self.reader.path}: an event's label, '{unknown[0]}', is not in the label map"
            raise UserError(f"{where} {self.label_map.path}. Is it another data set's map?")
        heard = [{event.label for event in self.events(0, i) if event.offset > event.onset} for i in range(len(self))]
        if not any(heard):
            raise UserError(f"{self.reader.path}: no event of it lasts, and networks of events learn from their times")
        names = self.label_map.names
        silent = sum(any(names[c] not in heard[i] for c in self.class_indices(i)) for i in range(len(self)))
        if silent:
            lacking = f"{silent} of {len(self)} clips have a class without an event that lasts"
            log.warning("%s: %s. It counts as silent. scripts/check_lmdb.py names them", self.reader.path, lacking)

    def where(self, index: int) -> str:
        return self.reader.where(self.records[index])

    def where_all(self, indices: Iterable[int]) -> str:
        return f"{self.reader.path}, records {', '.join(str(self.records[index]) for index in indices)}"

    def read_ahead(self) -> None:
        self._ahead = ReadingAhead(self.reader, warm=self.in_memory)

    def fingerprint(self, wait: bool = True) -> str | None:
        if not wait:
            return known_fingerprint(self.reader.file)
        return self._ahead.fingerprint() if self._ahead else fingerprint(self.reader)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_ahead": None}  # a process cannot be sent to another


class InMemoryLMDBDataset(LMDBDataset):
    """An LMDB that is held in memory, for `in_memory: True`, the default.

    It is mapped, not copied. The one copy in the system's page cache serves all loader workers and all ranks of a
    machine. No process holds records of its own. `read_ahead` fills the cache in the background, while the first
    records are already being read. Where memory is too short for it, the system drops pages and reads them again. That
    is slower, but nothing fails.
    """

    in_memory = True
