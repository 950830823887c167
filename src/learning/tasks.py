"""All that differs between kinds of targets: several classes a clip, one, or several and when each sounds."""

import logging
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn

from src.config.sections import Config, OptConfig
from src.data.batching import Batch
from src.data.clip_dataset import ClipDataset
from src.data.labels import LabelMap
from src.data.mixup import Mixed
from src.errors import listed
from src.learning.events.choosing import choose_events
from src.learning.events.psds import PSDS1, psds, psds_curves
from src.learning.events.seen import seen
from src.learning.losses import MultilabelLoss, multiclass_loss, multilabel_loss
from src.learning.metrics import accuracy, mean_average_precision, top_k_accuracy
from src.learning.thresholds import choose
from src.models.decisions import DECISIONS, EVENT_DECISIONS, Decisions, EventDecisions
from src.models.frames import clip_logits

log = logging.getLogger(__name__)

AnyDecisions = Decisions | EventDecisions


class Task(ABC):
    """Loss, probabilities and scores of one kind of target."""

    # Names of validation figures. The schedule, early stopping and checkpoint names use the first one.
    figure_names: tuple[str, ...]
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

    def outputs(self, network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """What the network says of (B, 1, F, T) inputs: (B, C) logits of clips, or (B, J, C) of their frames."""
        return network(inputs)

    def clip_logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """(B, C) logits of clips, of their `outputs`."""
        return outputs

    def outputs_loss(self, outputs: torch.Tensor, batch: Batch, mixed: Mixed | None = None) -> torch.Tensor:
        """Mean loss of a training batch's outputs."""
        return self.target_loss(outputs, batch.targets, mixed)

    def validation_loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean loss of a validation set's outputs."""
        return self.loss(outputs, batch.targets)

    def training_loss(self, network: nn.Module, batch: Batch, mixed: Mixed | None = None) -> torch.Tensor:
        """Loss of a training batch.

        The probabilities of a teacher's logits, mixed as targets are, are learnt from as well (Hinton et al., 2015,
        arXiv 1503.02531).

        Args:
            batch: with its inputs as (B, 1, F, T).
            mixed: the batch as mixup has it.
        """
        assert isinstance(batch.inputs, torch.Tensor), "the data module makes features of samples"
        outputs = self.outputs(network, mixed.inputs if mixed and self.sees_mixed else batch.inputs)
        loss = self.outputs_loss(outputs, batch, mixed)
        if batch.teacher is None:
            return loss
        taught = self.probabilities(batch.teacher)
        distillation = self.likelihood_loss(self.clip_logits(outputs), mixed.mix(taught) if mixed else taught)
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

    @property
    def monitor(self) -> str:
        """The validation figure that the schedule, early stopping and checkpoint names use."""
        return self.figure_names[0]

    def figures(self, outputs: torch.Tensor, batch: Batch, dataset: ClipDataset) -> dict[str, float]:
        """The validation figures of a whole set, all of its clips as one batch. Of each, higher is better."""
        probabilities = self.probabilities(self.clip_logits(outputs)).numpy()
        return {self.monitor: self.figure(probabilities, batch.targets.numpy())}

    def decisions(self, outputs: torch.Tensor, batch: Batch, dataset: ClipDataset) -> dict[str, AnyDecisions]:
        """What a checkpoint keeps to decide by, under its key, chosen on a whole set as in `figures`."""
        probabilities = self.probabilities(self.clip_logits(outputs)).numpy()
        return {DECISIONS: choose(probabilities, self.multi_hot(batch.targets.numpy()))}

    @abstractmethod
    def figure(self, probabilities: np.ndarray, targets: np.ndarray) -> float:
        """The figure of a whole set's clips, of which higher is better."""

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

    figure_names: tuple[str, ...] = ("val_mAP",)

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


class EventsTask(MultilabelTask):
    """Any number of classes a clip, and the frames in which each sounds: the weighted sum of both losses."""

    figure_names = "val_psds", "val_mAP"

    def __init__(self, opt: OptConfig, mixup: bool, positive_weights: torch.Tensor | None = None):
        super().__init__(opt, mixup, positive_weights)
        self._frame_weight, self._clip_weight = opt.frame_weight, opt.clip_weight

    def outputs(self, network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return network(inputs, of_frames=True)

    def clip_logits(self, outputs: torch.Tensor) -> torch.Tensor:
        return clip_logits(outputs)

    def outputs_loss(self, outputs: torch.Tensor, batch: Batch, mixed: Mixed | None = None) -> torch.Tensor:
        return self._of_both(lambda logits, targets: self.target_loss(logits, targets, mixed), outputs, batch)

    def validation_loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._of_both(self.loss, outputs, batch)

    def figures(self, outputs: torch.Tensor, batch: Batch, dataset: ClipDataset) -> dict[str, float]:
        """PSDS1 without class penalty, and the mAP of clips."""
        of_clips = super().figures(outputs, batch, dataset)[self.monitor]
        assert batch.spans is not None
        scores, truth = seen(outputs, batch.spans, dataset)
        clips = truth.each_clip_once
        found = psds(psds_curves(scores, truth, PSDS1, clips), truth, clips, alpha_st=0)
        return {"val_psds": found.value.item(), "val_mAP": of_clips}

    def decisions(self, outputs: torch.Tensor, batch: Batch, dataset: ClipDataset) -> dict[str, AnyDecisions]:
        """Thresholds of clips, and of each class's events."""
        assert batch.spans is not None
        of_events = choose_events(*seen(outputs.sigmoid(), batch.spans, dataset))
        return super().decisions(outputs, batch, dataset) | {EVENT_DECISIONS: of_events}

    def _of_both(self, loss: MultilabelLoss, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        assert batch.frames is not None
        frames = batch.frames[:, : outputs.shape[1]]  # (B, J, C), of which some networks leave the last ones out
        heard = (frames > 0).any(dim=1).float()  # (B, C) of what is seen of a clip, maybe less than its label
        frame_loss, clip_loss = loss(outputs, frames), loss(self.clip_logits(outputs), heard)
        return self._frame_weight * frame_loss + self._clip_weight * clip_loss


class MulticlassTask(Task):
    """One class a clip: softmax, cross-entropy, accuracy.

    Args:
        num_classes: C.
        opt: label smoothing, the teacher's share.
        mixup: what the configuration says of it.
        sees_mixed: with mixup, run the network on the mixed input. The published runs used the unmixed one.
        class_weights: (C,) of --cw.
    """

    figure_names = ("val_acc",)

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
    if config.model.type != "multiclass":
        return (EventsTask if config.model.type == "events" else MultilabelTask)(opt, mixup, class_weights)
    return MulticlassTask(config.model.num_classes, opt, mixup, config.protocol == "corrected", class_weights)
