"""All that differs between multilabel and multiclass recognition."""

import logging
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn

from src.config.sections import Config, OptConfig
from src.data.labels import LabelMap
from src.data.mixup import Mixed
from src.errors import listed
from src.learning.losses import multiclass_loss, multilabel_loss
from src.learning.metrics import accuracy, mean_average_precision, top_k_accuracy

log = logging.getLogger(__name__)


class Task(ABC):
    """Loss, probabilities and scores of one kind of target."""

    monitor: str  # the validation figure that the schedule, early stopping and checkpoint names use
    sees_mixed = True  # with mixup, run the network on the mixed input

    def __init__(self, opt: OptConfig, mixup: bool):
        self._mixup = mixup
        self._smoothing = opt.label_smoothing
        self._teacher_weight = opt.teacher_weight

    @abstractmethod
    def wants_mixup(self, flag: bool) -> bool:
        """Whether to mix, given the flag --use_mixup."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of (B, C) logits, as the validation takes it."""

    @abstractmethod
    def target_loss(self, logits: torch.Tensor, targets: torch.Tensor, mixed: Mixed | None) -> torch.Tensor:
        """Mean loss of (B, C) logits of training, with smoothed and mixed targets."""

    def training_loss(
        self,
        network: nn.Module,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        mixed: Mixed | None = None,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss of a training batch.

        Args:
            inputs: (B, 1, F, T).
            targets: (B, C) multi-hot or (B,) class indices.
            mixed: the batch as mixup has it.
            teacher: (B, C) logits. Their probabilities, mixed as targets are, are learnt from as well (Hinton et al.,
                2015, arXiv 1503.02531).
        """
        logits = network(mixed.inputs if mixed and self.sees_mixed else inputs)
        loss = self.target_loss(logits, targets, mixed)
        if teacher is None:
            return loss
        taught = self.probabilities(teacher)
        distillation = self.likelihood_loss(logits, mixed.mix(taught) if mixed else taught)
        return (1 - self._teacher_weight) * loss + self._teacher_weight * distillation

    @abstractmethod
    def probabilities(self, logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """(B, C) probabilities of (B, C) logits, which are divided by a temperature."""

    @abstractmethod
    def confidences(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M,) probabilities and (M,) of 0 and 1, whether what each is of was so: what calibration compares."""

    @abstractmethod
    def likelihood_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of (B, C) logits, whatever the loss that was trained with.

        Args:
            targets: as of `training_loss`, or (B, C) probabilities.
        """

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
        opt: focal loss, label smoothing, the teacher's share.
        mixup: what the configuration says of it.
        positive_weights: (C,) of --cw.
    """

    monitor = "val_mAP"

    def __init__(self, opt: OptConfig, mixup: bool, positive_weights: torch.Tensor | None = None):
        super().__init__(opt, mixup)
        self._loss = multilabel_loss(opt.focal_loss, positive_weights)

    def wants_mixup(self, flag: bool) -> bool:
        return flag or self._mixup

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._loss(logits, targets)

    def target_loss(self, logits: torch.Tensor, targets: torch.Tensor, mixed: Mixed | None) -> torch.Tensor:
        targets = mixed.mix(targets) if mixed else targets
        if self._smoothing:
            targets = targets * (1 - self._smoothing) + self._smoothing / 2
        return self.loss(logits, targets)

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
        opt: label smoothing, the teacher's share.
        mixup: what the configuration says of it.
        sees_mixed: with mixup, run the network on the mixed input. The published runs used the unmixed one.
        class_weights: (C,) of --cw.
    """

    monitor = "val_acc"

    def __init__(
        self,
        num_classes: int,
        opt: OptConfig,
        mixup: bool,
        sees_mixed: bool,
        class_weights: torch.Tensor | None = None,
    ):
        super().__init__(opt, mixup)
        self._num_classes = num_classes
        self.sees_mixed = sees_mixed
        self._class_weights = class_weights

    def wants_mixup(self, flag: bool) -> bool:
        if flag and not self._mixup:
            log.warning("--use_mixup is for multilabel training. A multiclass cfg sets audio_config.mixup: no mixup")
        return self._mixup

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return multiclass_loss(logits, targets, self._class_weights)

    def target_loss(self, logits: torch.Tensor, targets: torch.Tensor, mixed: Mixed | None) -> torch.Tensor:
        weights, smoothing = self._class_weights, self._smoothing
        if not mixed:
            return multiclass_loss(logits, targets, weights, smoothing=smoothing)
        own = multiclass_loss(logits, targets, weights, "none", smoothing)  # (B,)
        partner = multiclass_loss(logits, targets[mixed.partners], weights, "none", smoothing)  # (B,)
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
    opt, mixup = config.opt, config.audio_config.mixup
    if config.model.type == "multilabel":
        return MultilabelTask(opt, mixup, class_weights)
    return MulticlassTask(config.model.num_classes, opt, mixup, config.protocol == "corrected", class_weights)
