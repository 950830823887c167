"""A linear classifier on a network's embeddings of clips: how well they tell classes apart that it was not trained for.

As in HEAR (Turian et al., 2022, arXiv 2203.03022) and EVAR (Niizumi et al., 2022, arXiv 2204.12260), the network stays
as it is. Its embeddings are standardised. Each fold is scored by a logistic regression that was trained on the other
folds, and whose penalty was chosen on one of them.
"""

import logging
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from src.config.sections import ModelConfig
from src.data.checks.bad_records import bad_records
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap, split_labels
from src.data.lmdb.store import Annotation, LMDBReader
from src.errors import UserError
from src.learning.metrics import accuracy, mean_average_precision, mean_defined
from src.models.checkpoint import Checkpoint, read_checkpoint
from src.models.last_layer import Embedder
from src.runs.folder import checkpoint_at, lowest_if_nan
from src.scoring.bootstrap import bootstrap, bootstrap_accuracy, interval
from src.scoring.forward_pass import batches_of, outputs_of
from src.scoring.predictions import InferenceOptions, open_for
from src.utils.progress import progress

log = logging.getLogger(__name__)

Figure = Callable[[np.ndarray, np.ndarray], float]  # of (N, C) predictions and their targets

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, the inverse of the penalty
ONE_IN = 4  # clips choose among them where no fold can
MOST_CLASSES = 10_000  # that are known by their numbers


@dataclass(frozen=True)
class ProbeOptions:
    """What is probed, beside where its clips are."""

    ckpt_path: str
    eval_lmdb: str | None = None  # clips to score on, in place of folds
    delimiter: str | None = None  # between the labels of a clip, by default the checkpoint's
    untrained: bool = False  # take the network as it was when its run began
    bootstrap: int = 1000  # resamples of the scored clips
    seed: int = 0  # of these, and of the clips that choose where no fold can


@dataclass(frozen=True)
class Fold:
    """How the clips of one fold were scored by a classifier trained on the others."""

    name: str  # of the fold, or of the LMDB
    clips: int
    strength: float  # the one of STRENGTHS that was chosen
    score: float


@dataclass(frozen=True)
class Probe:
    """What linear classifiers make of a network's embeddings."""

    score: str  # accuracy where every clip has one class, else mAP
    classes: int
    folds: list[Fold]
    mean: float  # over the folds
    std: float | None  # over the folds, if there are several
    pooled: float  # the score of all scored clips together
    low: float  # 95 % interval of it
    high: float


@dataclass(frozen=True)
class Clips:
    """Embeddings and targets of clips."""

    embeddings: np.ndarray  # (N, D)
    targets: np.ndarray  # (N,) class indices, or (N, C) of 0 and 1
    folds: np.ndarray  # (N,), -1 for none

    def __getitem__(self, chosen: np.ndarray) -> "Clips":
        return Clips(self.embeddings[chosen], self.targets[chosen], self.folds[chosen])


def linear_probe(probe: ProbeOptions, options: InferenceOptions) -> Probe:
    """Train and score linear classifiers on the embeddings of the clips of `options.lmdb_path`.

    Args:
        options: `lbl_map` is the LMDB's. By default its classes are its own labels.

    Raises:
        UserError: the LMDB has no folds and there is no other one, or it has too few clips or classes. Or the network
            has no embeddings, or a file cannot be read.
    """
    if probe.eval_lmdb and os.path.realpath(probe.eval_lmdb) == os.path.realpath(options.source):
        raise UserError(f"--eval_lmdb {probe.eval_lmdb}: is --lmdb_path itself, the clips to train on. Choose others")
    content = read_checkpoint(checkpoint_at(probe.ckpt_path))
    audio = content.config.audio_config
    audio = replace(audio, delimiter=probe.delimiter or audio.delimiter)
    sources = [replace(options, lmdb_path=path, lbl_map=None) for path in (options.lmdb_path, probe.eval_lmdb) if path]
    annotations = [usable_annotations(source, audio.sample_rate) for source in sources]
    if len(sources) == 1 and len({fold for _, fold in annotations[0]} - {None}) < 2:
        raise UserError(f"{options.source}: its records are not of several folds. Name clips to score as --eval_lmdb")
    labels = [label for found in annotations for label, _ in found]
    given, delimiter = options.lbl_map, audio.delimiter
    label_map = LabelMap.load(given) if given else own_classes(labels, delimiter, options.source)
    one_class = all(isinstance(label, int) or len(set(split_labels(label, delimiter))) == 1 for label in labels)
    kind: dict[str, Any] = {"num_classes": len(label_map), "type": "multiclass" if one_class else "multilabel"}
    kind |= {key: getattr(ModelConfig, key) for key in ("frame_ms", "head")}  # which are of events
    config = replace(content.config, model=replace(content.config.model, **kind), audio_config=audio)
    clips_as = replace(content, config=config, label_map=label_map, record={}, weights={})
    network = content.untrained_network() if probe.untrained else content.network()
    used = [] if probe.untrained else list((content.record.get("data") or {}).values())
    clips = [embedded(network, clips_as, source, used) for source in sources]
    return scored(clips, len(label_map), [source.source for source in sources], probe)


def usable_annotations(options: InferenceOptions, sample_rate: int) -> list[Annotation]:
    """(label field, fold or None) of every record that is not left out."""
    reader = LMDBReader(options.source)
    bad = bad_records(reader, sample_rate, options.num_workers) if options.skip_bad_records else {}
    return [found for index, found in enumerate(reader.annotations(without=bad)) if index not in bad]


def own_classes(labels: list[str | int], delimiter: str, where: str) -> LabelMap:
    """The classes that label fields name, in alphabetical order, or number.

    Raises:
        UserError: some are named and others numbered, or there are fewer than two.
    """
    numbers = {label for label in labels if isinstance(label, int)}
    names = sorted({name for label in labels if isinstance(label, str) for name in split_labels(label, delimiter)})
    if names and numbers:
        raise UserError(f"{where}: some of its labels are names, others numbers. Give a label map as --lbl_map")
    if numbers:  # a number that is too large is refused by its record
        names = list(map(str, range(1 + max((number for number in numbers if number < MOST_CLASSES), default=0))))
    if len(names) < 2:
        raise UserError(f"{where}: its clips have {len(names)} classes, and a classifier needs two")
    return LabelMap(tuple(names), f"of the labels in {where}")


def embedded(network: nn.Module, clips_as: Checkpoint, options: InferenceOptions, used: list[Any]) -> Clips:
    """The embeddings of an LMDB's clips.

    Args:
        clips_as: says how clips are read, and has their classes.
        used: fingerprints of the data that the network was trained and validated on.

    Raises:
        UserError: the network has none, or they are not finite.
    """
    device, dataset = options.device(), open_for(clips_as, options)
    assert isinstance(dataset, LMDBDataset)
    if dataset.fingerprint() in used:
        log.warning("%s: the network was trained or validated on these clips. It may know them", options.source)
    batches = batches_of(dataset, options.batch_size, options.num_workers, device, options.features)
    embedder = Embedder(network.to(device).eval())
    with closing(outputs_of([lambda: embedder], batches, len(dataset), 0)) as outputs:
        output = next(outputs)
    embeddings = output.logits.numpy()  # (N, D)
    if embeddings.shape[1] == 0:
        raise UserError(f"{clips_as.path}: its network has no embeddings: its logits come from no single linear layer")
    if not np.isfinite(embeddings).all():
        raise UserError(f"{clips_as.path}: its embeddings are not finite. Is it of a run that diverged, or damaged?")
    folds = [fold for _, fold in dataset.reader.annotations(without=dataset.skipped)]
    numbers = np.array([-1 if folds[record] is None else folds[record] for record in dataset.records])
    return Clips(embeddings.astype(np.float64), output.targets, numbers)


def scored(clips: list[Clips], num_classes: int, names: list[str], options: ProbeOptions) -> Probe:
    """Train on all folds but one and score on that one, for each in turn, or train on the first and score the second.

    Args:
        clips: of one LMDB with folds, or of two.
        names: of the LMDBs.
    """
    if len(clips) == 2:
        splits: list[tuple[str, Clips, Clips]] = [(names[1], clips[0], clips[1])]
    else:
        folds = np.unique(clips[0].folds[clips[0].folds >= 0])
        splits = [(str(fold), clips[0][clips[0].folds != fold], clips[0][clips[0].folds == fold]) for fold in folds]
    one_class = clips[0].targets.ndim == 1
    name = "accuracy" if one_class else "mAP"
    figure: Figure = accuracy if one_class else mean_average_precision
    found, predictions = [], []
    with progress(len(splits), "linear classifiers", "fold") as bar:
        for fold, train, test in splits:
            chosen = strength(train, int(fold) if len(clips) == 1 else -1, num_classes, options.seed, figure)
            predictions.append(predicted(train, test.embeddings, num_classes, chosen))
            found.append(Fold(fold, len(test.folds), chosen, figure(predictions[-1], test.targets)))
            bar.update()
    scores = [fold.score for fold in found]
    pooled, targets = np.concatenate(predictions), np.concatenate([test.targets for _, _, test in splits])
    if one_class:
        resampled = bootstrap_accuracy(pooled.argmax(axis=1) == targets, options.bootstrap, options.seed)
    else:
        resampled = bootstrap(pooled, targets, options.bootstrap, options.seed).mAP
    std = float(np.nanstd(scores, ddof=1)) if np.isfinite(scores).sum() > 1 else None
    ends = interval(resampled)
    return Probe(name, num_classes, found, mean_defined(np.array(scores)), std, figure(pooled, targets), *ends)


def strength(train: Clips, tested: int, num_classes: int, seed: int, figure: Figure) -> float:
    """The inverse penalty that scores best on the fold behind the tested one, after training on the rest.

    Where there is no such fold, on clips drawn at random.
    """
    folds = np.unique(train.folds[train.folds >= 0])
    if len(folds) > 1:
        chooses = train.folds == next((fold for fold in folds if fold > tested), folds[0])
    else:
        chooses = np.random.default_rng(seed).permutation(len(train.folds)) % ONE_IN == 0
    rest, held_out = train[~chooses], train[chooses]
    return max(
        STRENGTHS,
        key=lambda each: lowest_if_nan(
            figure(predicted(rest, held_out.embeddings, num_classes, each), held_out.targets)
        ),
    )


def predicted(train: Clips, embeddings: np.ndarray, num_classes: int, strength: float) -> np.ndarray:
    """(M, C) probabilities of (M, D) embeddings, by a logistic regression on the training clips.

    Raises:
        UserError: these are all of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    one_class = train.targets.ndim == 1
    present = (
        np.unique(train.targets)
        if one_class
        else np.flatnonzero(train.targets.any(axis=0) & ~train.targets.all(axis=0))
    )
    if len(present) < (2 if one_class else 1):
        few = "all have the same classes. There are too few clips, or too few in a fold"
        raise UserError(f"the {len(train.folds)} clips that a classifier would be trained on {few}")
    regression = LogisticRegression(C=strength, max_iter=1000)
    classifier = make_pipeline(StandardScaler(), regression if one_class else OneVsRestClassifier(regression))
    with threadpool_limits(1, "blas"):  # many small products: threads that wait for each other take five times as long
        classifier.fit(train.embeddings, train.targets if one_class else train.targets[:, present])
    found = np.zeros((len(embeddings), num_classes))
    probabilities = classifier.predict_proba(embeddings)
    found[:, present] = probabilities[:, -1:] if not one_class and len(present) == 1 else probabilities
    return found
