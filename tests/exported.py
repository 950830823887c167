"""Checkpoints of small networks of every family, with random weights, to export."""

import numpy as np
import torch

from src.config.loading import parse_config
from src.data.audio.spectrogram import FeatureExtractor
from src.export.onnx_file import golden_clips
from src.models.checkpoint import architecture
from src.models.decisions import DECISIONS, EVENT_DECISIONS
from src.models.registry import create, last_layer
from src.models.torch_files import write_torch_file

NAMES = ("Drum", "Harp, or lyre", "Örgel")
LOGMEL = {"feature": "logmel", "mean": -40.0, "std": 20.0}
RECIPE = LOGMEL | {"n_mels": 32, "win_len": 882, "f_min": 50.0}
MEL = {"feature": "melspectrogram"}
# The smallest of each family, one of the efficient recipe, and one of events.
NETWORKS = {
    "resnet": ({"arch": "resnet", "model_depth": 18}, {}),
    "cifar_resnet": ({"arch": "cifar_resnet", "model_depth": 20}, MEL),
    "densenet": ({"arch": "densenet", "model_depth": 121}, LOGMEL),
    "efficientnet": ({"arch": "efficientnet", "model_depth": "b0"}, LOGMEL),
    "timm": ({"arch": "timm", "model_depth": "regnetx_002", "pool": "maxpool", "type": "multiclass"}, RECIPE),
    "events": ({"arch": "cifar_resnet", "model_depth": 20, "type": "events", "head": "gru"}, LOGMEL),
}


def write_random(path, model, audio):
    """A checkpoint with thresholds. As in a trained one, batch norm has seen sounds and logits are small."""
    cfg = {
        "model": {"num_classes": len(NAMES), "type": "multilabel"} | model,
        "opt": {"optimizer": "Adam", "lr": 1e-3, "batch_size": 2},
        "audio_config": audio,
        "data": {"label_map": "", "train_lmdb": "", "val_lmdb": ""},
    }
    config = parse_config(cfg, "a test's")
    torch.manual_seed(1)
    network = create(*architecture(config))
    for layer in network.eval().modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.train().momentum = 0.99
    features = FeatureExtractor.of(config.audio_config)
    clips = golden_clips(11025, config.audio_config.sample_rate).values()
    with torch.no_grad():
        network(torch.from_numpy(np.stack([features(clip) for clip in clips]))[:, None])
    state = network.state_dict()
    for name in last_layer(config.model):
        state[name] *= 0.25
    record = {"cfg": cfg, "seed": 1, "lbl_map": {name: index for index, name in enumerate(NAMES)}}
    content = {"hyper_parameters": record, "state_dict": {f"net.{k}": v for k, v in state.items()}}
    content[DECISIONS] = {"by": "F1", "thresholds": [0.25, None, 0.5], "temperature": 2.0}
    if config.model.type == "events":
        content[EVENT_DECISIONS] = {"medians": [1, 3, 5], "thresholds": [0.5, 0.25, None]}
    write_torch_file(path, content)
    return path
