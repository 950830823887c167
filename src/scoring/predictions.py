"""Checkpoints -> their networks' probabilities for the clips of an LMDB or a manifest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.data.clip_dataset import ClipDataset
from src.data.device_features import Features
from src.data.lmdb.fingerprint import fingerprint
from src.data.lmdb.store import LMDBReader
from src.data.loading import open_dataset
from src.data.manifest_dataset import manifest_fingerprint, read_manifest
from src.data.transforms import Compose, evaluation_chain
from src.errors import UserError
from src.learning.events.choosing import smoothed
from src.learning.events.clips import EventTruth, FrameScores
from src.learning.events.seen import seen
from src.learning.tasks import Task, build_task
from src.learning.teachers import write_teacher
from src.models.checkpoint import Checkpoint, architecture, outline, read_checkpoint
from src.models.decisions import Decisions, EventDecisions
from src.models.frames import FrameNetwork
from src.models.torch_files import torch_file_digest
from src.models.weights import require_fit, weights_of
from src.runs.devices import present_gpus
from src.scoring.bootstrap import BootstrapScores, bootstrap
from src.scoring.forward_pass import batches_of, most_to_keep, outputs_of
from src.scoring.frames import frames_to_score, report_frames
from src.utils.memory import keep_freed_memory
from src.utils.progress import progress


@dataclass(frozen=True)
class InferenceOptions:
    """Which clips, and how networks run over them."""

    lmdb_path: str | None  # clips in an LMDB, or …
    lbl_map: str | None = None  # by default each checkpoint's own
    num_timesteps: int | None = None  # frames, by default those of `frames_to_score`
    batch_size: int = 32
    num_workers: int = 4
    gpus: tuple[int, ...] = (0,)  # the first that is there is used
    features: Features = "auto"  # where spectrograms are made
    skip_bad_records: bool = False  # leave them out instead of stopping
    cache_samples: str | None = None  # folder for decoded clips, or "device"
    manifest: str | None = None  # … those that this CSV lists
    resample: bool = False  # take the manifest's files of any rate, as `audio_config.resample` does
    all_folds: bool = False  # of an LMDB with folds, not a checkpoint's validation fold alone
    events: bool = False  # also when each class sounds, by networks of events

    @property
    def source(self) -> str:
        """Where the clips are."""
        return self.manifest or self.lmdb_path or ""

    def fingerprint(self) -> str:
        """Of the clips, as data sets give it."""
        if self.manifest:
            return manifest_fingerprint(read_manifest(self.manifest))
        return fingerprint(LMDBReader(self.source))

    def device(self) -> torch.device:
        """Where networks run: the first of `gpus` that is there, or the CPU."""
        gpus = present_gpus(self.gpus)
        if not gpus:
            keep_freed_memory()
        return torch.device("cuda", gpus[0]) if gpus else torch.device("cpu")


@dataclass(frozen=True)
class Candidate:
    """One network to score: a checkpoint's, or the one that its run began with."""

    path: Path  # of the checkpoint
    untrained: bool = False

    @property
    def name(self) -> str:
        """The `ckpt_path` of its row."""
        return str(self.path.parent / "untrained") if self.untrained else str(self.path)

    def digest(self) -> str:
        """The `ckpt_digest` of its row."""
        return read_checkpoint(self.path).untrained_digest if self.untrained else torch_file_digest(self.path)


@dataclass(frozen=True)
class Prediction:
    """One network's scores of all clips."""

    candidate: Candidate
    checkpoint: Checkpoint  # without its weights
    weights: Callable[[], dict[str, torch.Tensor]]  # the network's, read again unless it is still in memory
    dataset: ClipDataset
    logits: torch.Tensor  # (N, C) float32, on the CPU
    probabilities: np.ndarray  # (N, C) float32
    targets: np.ndarray  # (N, C) of 0 and 1, or (N,) class indices
    eval_data: str  # fingerprint of the clips that were scored
    frames: torch.Tensor | None = None  # (N, J, C) logits, on the CPU, with `InferenceOptions.events`
    spans: torch.Tensor | None = None  # (N, 3), as in `Batch`, beside them

    @property
    def task(self) -> Task:
        return build_task(self.checkpoint.config)

    @property
    def decisions(self) -> Decisions | None:
        """The checkpoint's thresholds. They are not of the network that its run began with."""
        return None if self.candidate.untrained else self.checkpoint.decisions

    @property
    def event_decisions(self) -> EventDecisions:
        """The checkpoint's, or else no filters and thresholds of 0.5."""
        kept = None if self.candidate.untrained else self.checkpoint.event_decisions
        return kept or EventDecisions.plain(len(self.dataset.label_map))

    def seen(self) -> tuple[FrameScores, EventTruth]:
        """Probabilities over time, and the true events."""
        assert self.frames is not None and self.spans is not None
        return seen(self.frames.sigmoid(), self.spans, self.dataset)

    @cached_property
    def smoothed(self) -> tuple[FrameScores, EventTruth]:
        """The same, through the checkpoint's filters: made once for all tables."""
        scores, truth = self.seen()
        return smoothed(scores, self.event_decisions.medians), truth

    @property
    def multi_hot(self) -> np.ndarray:
        """(N, C) targets of 0 and 1."""
        return self.task.multi_hot(self.targets)

    def bootstrap(self, resamples: int, seed: int) -> BootstrapScores:
        """Scores of resamples of the clips, of accuracy too where they have one class each."""
        one_class = self.checkpoint.config.model.type == "multiclass"
        return bootstrap(self.probabilities, self.multi_hot, resamples, seed, one_class)


def predictions(candidates: Sequence[Candidate], options: InferenceOptions) -> Iterator[Prediction]:
    """Predictions of all candidates, each as soon as it is known, in one pass over the clips for each kind of data.

    A checkpoint is read once for what it says of itself, before anything else is done, and once for its weights.

    Raises:
        UserError: a checkpoint does not fit, or a file was replaced meanwhile.
    """
    if not candidates:
        return
    checkpoints = read_heads(candidates, options.lbl_map)
    for path, head in checkpoints.items() if options.events else ():
        if stride_of(head) is None:
            raise UserError(f"{path}: is of a tagger, and scores of events are of model.type events")
    device = options.device()
    memory, eval_data = OneNetwork(device, checkpoints), ""
    for networks in by_data(candidates, checkpoints):
        first = checkpoints[networks[0][0].path]
        task = build_task(first.config)
        dataset = open_for(first, options)
        if options.events:
            stride = stride_of(first)
            assert stride is not None
            dataset.use_frames(stride)
        eval_data = eval_data or dataset.fingerprint() or ""
        batches = batches_of(dataset, options.batch_size, options.num_workers, device, options.features)
        loaders = [partial(memory.load, alike[0]) for alike in networks]
        run = task.outputs if options.events else lambda network, inputs: network(inputs)
        outputs = outputs_of(loaders, batches, len(dataset), most_to_keep(device), run)
        with closing(outputs):  # its progress bar is removed before an error is told
            for number, (output, alike) in enumerate(zip(outputs, networks)):
                if dataset.fingerprint() != eval_data:
                    raise UserError(f"{options.source}: was written into while it was in use. Start again")
                if number == 0:
                    task.report_undefined(output.targets, dataset.label_map, options.source)
                head, untrained = checkpoints[alike[0].path], alike[0].untrained
                temperature = 1.0 if untrained else head.temperature
                logits = task.clip_logits(output.logits) if options.events else output.logits
                frames = (output.logits, output.spans) if options.events else ()
                probabilities = task.probabilities(logits, temperature).numpy()
                if not np.isfinite(probabilities).all():
                    cause = "Is it of a run that diverged, or damaged?"
                    raise UserError(f"{alike[0].path}: its network's outputs are not finite. {cause}")
                for candidate in alike:
                    scored = candidate, checkpoints[candidate.path], partial(memory.weights, candidate), dataset
                    yield Prediction(*scored, logits, probabilities, output.targets, eval_data, *frames)


def read_heads(candidates: Sequence[Candidate], lbl_map: str | None) -> dict[Path, Checkpoint]:
    """The candidates' checkpoints, with their classes and without their weights: there may be thousands.

    Raises:
        UserError: one cannot be read, or does not fit the label map or its own configuration.
    """
    heads = {}
    with progress(len(candidates), "checkpoints", "file", leave=False) as bar:
        for candidate in candidates:
            if candidate.path not in heads:
                checkpoint = read_checkpoint(candidate.path)
                classes = checkpoint.classes(lbl_map)
                require_fit(outline(*architecture(checkpoint.config)), checkpoint.weights, str(candidate.path))
                heads[candidate.path] = replace(checkpoint, weights={}, label_map=classes)
            bar.update()
    return heads


def by_data(candidates: Sequence[Candidate], checkpoints: dict[Path, Checkpoint]) -> list[list[list[Candidate]]]:
    """Candidates that share a network, of all that read the same: features, kind of target, classes, and fold."""
    kinds: dict[Any, dict[Any, list[Candidate]]] = {}
    for candidate in candidates:
        checkpoint = checkpoints[candidate.path]
        config = checkpoint.config
        names = checkpoint.classes().names
        fold = checkpoint.record.get("fold_index")
        # Networks of events may give other numbers of frames.
        of_frames = architecture(config) if config.model.type == "events" else None
        kind = (config.audio_config, config.model.type, names, fold, of_frames)
        network = (config.model, checkpoint.seed) if candidate.untrained else candidate.path
        kinds.setdefault(kind, {}).setdefault(network, []).append(candidate)
    return [list(networks.values()) for networks in kinds.values()]


def stride_of(checkpoint: Checkpoint) -> int | None:
    """Spectrogram frames that a frame of a network of events stands for. None for taggers."""
    network = outline(*architecture(checkpoint.config))
    return network.stride if isinstance(network, FrameNetwork) else None


class OneNetwork:
    """The network in memory: the next one of the same architecture replaces its weights alone.

    Args:
        heads: the checkpoints as they were examined.
    """

    def __init__(self, device: torch.device, heads: dict[Path, Checkpoint]):
        self._device = device
        self._heads = heads
        self._network: nn.Module | None = None
        self._architecture: Any = None
        self._candidate: Candidate | None = None

    def load(self, candidate: Candidate) -> nn.Module:
        """The candidate's network, ready to run."""
        checkpoint = read_checkpoint(candidate.path)
        wanted = architecture(checkpoint.config)
        reusable = None if candidate.untrained or wanted != self._architecture else self._network
        self._network = None  # one that is not reused is freed before another is made
        network = checkpoint.untrained_network() if candidate.untrained else checkpoint.network(reusable)
        if torch_file_digest(candidate.path) != self._heads[candidate.path].digest:
            raise UserError(f"{candidate.path}: was replaced while it was in use. Start again")
        self._network, self._architecture, self._candidate = network.to(self._device).eval(), wanted, candidate
        return self._network

    def weights(self, candidate: Candidate) -> dict[str, torch.Tensor]:
        """The candidate's weights, as `weights_of` gives them."""
        network = self._network if self._network is not None and candidate == self._candidate else self.load(candidate)
        return weights_of(network)


def with_events(options: InferenceOptions, checkpoints: Sequence[Path]) -> InferenceOptions:
    """Options that ask for events too, if all networks are of events and the clips have them."""
    of_events = all(read_checkpoint(path).config.model.type == "events" for path in checkpoints)
    return replace(
        options, events=of_events and options.manifest is None and LMDBReader(options.source).events() is not None
    )


def open_for(checkpoint: Checkpoint, options: InferenceOptions) -> ClipDataset:
    """The evaluation clips as the checkpoint's configuration reads them, cut as `options` say."""
    dataset = whole_clips(checkpoint, options)
    num_timesteps = options.num_timesteps or frames_to_score(dataset)
    dataset.transform = evaluation_chain(num_timesteps)
    report_frames(dataset, num_timesteps)
    return dataset


def frames_of_clips(checkpoint: Checkpoint, options: InferenceOptions) -> int:
    """Frames to score by default of the clips that a checkpoint is scored on."""
    return frames_to_score(whole_clips(checkpoint, options))


def whole_clips(checkpoint: Checkpoint, options: InferenceOptions) -> ClipDataset:
    """The evaluation clips as the checkpoint's configuration reads them. Of folds, its own, unless all are wanted."""
    config = checkpoint.config
    if options.resample:
        config = replace(config, audio_config=replace(config.audio_config, resample=True))
    fold, is_lmdb = None if options.all_folds else checkpoint.record.get("fold_index"), options.manifest is None
    if fold is not None:
        folds = [found for _, found in LMDBReader(options.source).annotations()] if is_lmdb else []
        if all(found is None for found in folds):
            fold = None  # another data set, all of which is new to it
    choice: dict[str, Any] = {"fold": fold, "skip_bad_records": options.skip_bad_records}
    choice["cache_samples"] = options.cache_samples
    choice |= {"num_workers": options.num_workers, "is_lmdb": is_lmdb}
    return open_dataset(config, options.source, checkpoint.classes(options.lbl_map), Compose(()), **choice)


def store_logits(checkpoints: Sequence[Path], options: InferenceOptions, output: str) -> tuple[int, int]:
    """Write the mean of the checkpoints' logits for every clip, as their networks give them, for `opt.teacher`.

    Returns:
        Records and classes.

    Raises:
        UserError: a checkpoint does not fit, or differs from the first one in its classes or its `model.type`.
    """
    candidates = [Candidate(path) for path in checkpoints]
    first, total = None, torch.zeros(())
    for prediction in predictions(candidates, options):
        first = first or prediction
        kinds = [(one.dataset.label_map.names, one.dataset.target_type) for one in (first, prediction)]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"{prediction.candidate.path}: is of other classes or of another model.type than "
                f"{first.candidate.path}, and their logits have no mean"
            )
        total = total + prediction.logits
    assert first is not None
    digests = [candidate.digest() for candidate in candidates]
    records = write_teacher(output, total / len(candidates), first.dataset, first.eval_data, digests)
    return records, total.shape[1]
