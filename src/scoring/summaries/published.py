"""The published figures, and which runs they may be set beside."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Of one experiment: the mean of three runs, and the checkpoint that was released."""

    score: str  # "mAP" of the evaluation set, or "val": the best validation accuracy
    mean: float
    released: float
    num_timesteps: int = 501  # frames that mAP was scored on


@dataclass(frozen=True)
class FullSet:
    """What a run on a data set of the paper has, and one on a few demo clips has not."""

    num_classes: int
    num_train_clips: int
    tolerance: float  # share of the clips that may be missing, as YouTube's go missing


FULL_SETS = {
    "GISE-51-Mixtures": FullSet(51, 60_000, 0.0),
    "AudioSet": FullSet(527, 19_253, 0.15),
    "ESC-50": FullSet(50, 1_600, 0.0),  # four of five folds
}

# (data set, arch, depth, whether fine-tuned) -> figures, from the paper's tables and the release's names.
FIGURES = {
    ("GISE-51-Mixtures", "cifar_resnet", "44", False): Published("mAP", 0.5656, 0.5689),
    ("GISE-51-Mixtures", "cifar_resnet", "56", False): Published("mAP", 0.5634, 0.5671),  # called 54 there
    ("GISE-51-Mixtures", "resnet", "18", False): Published("mAP", 0.5551, 0.5635),
    ("GISE-51-Mixtures", "resnet", "34", False): Published("mAP", 0.5722, 0.5783),
    ("GISE-51-Mixtures", "resnet", "50", False): Published("mAP", 0.5677, 0.5727),
    ("GISE-51-Mixtures", "efficientnet", "b0", False): Published("mAP", 0.5984, 0.6032),
    ("GISE-51-Mixtures", "efficientnet", "b1", False): Published("mAP", 0.6062, 0.6097),
    ("GISE-51-Mixtures", "densenet", "121", False): Published("mAP", 0.6053, 0.6136),
    ("AudioSet", "resnet", "18", False): Published("mAP", 0.2053, 0.2095, 1001),
    ("AudioSet", "resnet", "18", True): Published("mAP", 0.2236, 0.2244, 1001),
    ("AudioSet", "efficientnet", "b1", False): Published("mAP", 0.2287, 0.2317, 1001),
    ("AudioSet", "efficientnet", "b1", True): Published("mAP", 0.2595, 0.2603, 1001),
    ("ESC-50", "resnet", "18", True): Published("val", 0.8392, 0.8535),
    ("ESC-50", "efficientnet", "b1", True): Published("val", 0.8572, 0.8675),
}


def published_figure(arch: str, depth: str, fine_tuned: bool, num_classes: int, clips: int) -> Published | None:
    """The figure of the same experiment on as many training clips, if one was published."""
    for name, full in FULL_SETS.items():
        enough = full.num_train_clips * (1 - full.tolerance) <= clips <= full.num_train_clips
        if num_classes == full.num_classes and enough:
            return FIGURES.get((name, arch, depth, fine_tuned))
    return None
