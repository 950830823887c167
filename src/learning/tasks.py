"""All that differs between multilabel and multiclass recognition."""

import logging
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn

from src.config.sections import Config
from src.data.labels import LabelMap
from src.data.mixup import Mixed
from src.errors import listed
from src.learning.losses import multiclass_loss, multilabel_loss
from src.learning.metrics import accuracy, mean_average_precision, top_k_accuracy

log = logging.getLogger(__name__)


class Task(ABC):
    """Loss, probabilities and scores of one kind of target."""

    monitor: str  # the validation figure that the schedule, early stopping and checkpoint names use

    @abstractmethod
    def wants_mixup(self, flag: bool) -> bool:
        """Whether to mix, given the flag --use_mixup."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of (B, C) logits."""

    @abstractmethod
    def mixup_loss(self, network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, mixed: Mixed) -> torch.Tensor:
        """Loss of a mixed batch."""

    @abstractmethod
    def probabilities(self, logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """(B, C) probabilities of (B, C) logits, which are divided by a temperature."""

    @abstractmethod
    def confidences(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M,) probabilities and (M,) of 0 and 1, whether what each is of was so: what calibration compares."""

    @abstractmethod
    def likelihood_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of (B, C) logits, whatever the loss that was trained with."""

    @abstractmethod
    def figure(self, probabilities: np.ndarray, targets: np.ndarray) -> float:
        """The validation figure of a whole set, of which higher is better."""

    @abstractmethod
    def multi_hot(self, targets: np.ndarray) -> np.ndarray:
        """Targets as an (N, C) array of 0 and 1."""

    def more_scores(self, probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Scores beside those of ranking, by column name."""
        return {}

    def class_accuracy(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
        """(C,) share of each class's clips that are recognised, NaN without clips. None for multilabel."""
        return None

    def report_undefined(self, targets: np.ndarray, label_map: LabelMap, where: str) -> None:
        """Say which classes have no positive clip, hence no average precision."""
        absent = [label_map.names[c] for c in np.flatnonzero(self.multi_hot(targets).sum(axis=0) == 0)]
        if absent:
            log.warning(
                "%s: no clip of %d of the %d classes: their AP and AUC are undefined and left out of the means (%s)",
                where,
                len(absent),
                len(label_map),
                listed(absent, 60),
            )


class MultilabelTask(Task):
    """Any number of classes a clip: sigmoid, binary cross-entropy or focal loss, mAP.

    Args:
        focal: use the sigmoid focal loss.
        mixup: what the configuration says of it.
        positive_weights: (C,) of --cw.
    """

    monitor = "val_mAP"

    def __init__(self, focal: bool, mixup: bool, positive_weights: torch.Tensor | None = None):
        self._loss = multilabel_loss(focal, positive_weights)
        self._mixup = mixup

    def wants_mixup(self, flag: bool) -> bool:
        return flag or self._mixup

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._loss(logits, targets)

    def mixup_loss(self, network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, mixed: Mixed) -> torch.Tensor:
        return self.loss(network(mixed.inputs), mixed.mix(targets))

    def probabilities(self, logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        return (logits / temperature).sigmoid()

    def confidences(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return probabilities.ravel(), targets.ravel()

    def likelihood_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return multilabel_loss(focal=False)(logits, targets)

    def figure(self, probabilities: np.ndarray, targets: np.ndarray) -> float:
        return mean_average_precision(probabilities, targets)

    def multi_hot(self, targets: np.ndarray) -> np.ndarray:
        return targets


class MulticlassTask(Task):
    """One class a clip: softmax, cross-entropy, accuracy.

    Args:
        num_classes: C.
        mixup: what the configuration says of it.
        mixed_input: with mixup, run the network on the mixed input. The published runs used the unmixed one.
        class_weights: (C,) of --cw.
    """

    monitor = "val_acc"

    def __init__(self, num_classes: int, mixup: bool, mixed_input: bool, class_weights: torch.Tensor | None = None):
        self._num_classes = num_classes
        self._mixup = mixup
        self._mixed_input = mixed_input
        self._class_weights = class_weights

    def wants_mixup(self, flag: bool) -> bool:
        if flag and not self._mixup:
            log.warning("--use_mixup is for multilabel training. A multiclass cfg sets audio_config.mixup: no mixup")
        return self._mixup

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return multiclass_loss(logits, targets, self._class_weights)

    def mixup_loss(self, network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, mixed: Mixed) -> torch.Tensor:
        logits = network(mixed.inputs if self._mixed_input else inputs)
        own = multiclass_loss(logits, targets, self._class_weights, reduction="none")  # (B,)
        partner = multiclass_loss(logits, targets[mixed.partners], self._class_weights, reduction="none")  # (B,)
        return (mixed.weights * own + (1 - mixed.weights) * partner).mean()

    def probabilities(self, logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        return (logits / temperature).softmax(dim=1)

    def confidences(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets

    def likelihood_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return multiclass_loss(logits, targets)

    def figure(self, probabilities: np.ndarray, targets: np.ndarray) -> float:
        return accuracy(probabilities, targets)

    def more_scores(self, probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {"accuracy": accuracy(probabilities, targets), "top5": top_k_accuracy(probabilities, targets, 5)}

    def class_accuracy(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        right = probabilities.argmax(axis=1) == targets  # (N,)
        clips = np.bincount(targets, minlength=self._num_classes)  # (C,)
        with np.errstate(invalid="ignore"):
            return np.bincount(targets, weights=right, minlength=len(clips)) / clips

    def multi_hot(self, targets: np.ndarray) -> np.ndarray:
        return np.eye(self._num_classes, dtype=np.float32)[targets]


def build_task(config: Config, class_weights: torch.Tensor | None = None) -> Task:
    """The task of `model.type`."""
    mixup = config.audio_config.mixup
    if config.model.type == "multilabel":
        return MultilabelTask(config.opt.focal_loss, mixup, class_weights)
    return MulticlassTask(config.model.num_classes, mixup, config.protocol == "corrected", class_weights)
