"""What torch.hub loads from this repository: the tagger, and the bare networks. See docs/python.md."""

from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import Any as _Any

import src as _src

if _Path(_src.__path__[0]).resolve().parent != _Path(__file__).resolve().parent:
    _other = f"another package of the name 'src' is already imported, from {_src.__path__[0]}"
    raise ImportError(f"{_other}. Load this repository before it, or in a process of its own")

from pydantic import ValidationError as _ValidationError
from torch.nn import Module as _Module

from src.config.sections import AudioConfig as _AudioConfig
from src.config.sections import ModelConfig as _ModelConfig
from src.errors import UserError as _UserError
from src.models import registry as _registry
from src.runs.folder import checkpoint_at as _checkpoint_at
from src.tagging import Tagger as _Tagger

dependencies = (
    "torch torchvision torchaudio timm numpy scipy soundfile miniaudio yaml pydantic tqdm safetensors".split()
)


def tagger(checkpoint: str | _Path, **options: _Any) -> _Tagger:
    """A trained network that scores recordings, and gives their embeddings.

    Args:
        checkpoint: a `.ckpt`, of this project or released in 2021, or a run folder, whose best one is taken.
        options: lbl_map, window, hop, device, batch_size, as of `src.tagging.Tagger`.
    """
    return _Tagger(checkpoint, **options)


def network(
    arch: str, model_depth: int | str, num_classes: int = 51, pretrained: str | None = None, **more: _Any
) -> _Module:
    """A network of any family, in training mode: (B, 1, F, T) float32 spectrograms in dB -> (B, num_classes) logits.

    Args:
        arch, model_depth: such as "resnet" and 18, or "timm" and the name of one of timm's networks.
        num_classes: C.
        pretrained: file of the weights to start from, or a run folder, by default none.
        more: further keys of a cfg's section `model`, such as pretrained_fc and im_size.

    Raises:
        UserError: there is no such network, or a value or the weights do not fit.
    """
    keys: dict[str, _Any] = {"type": "multilabel"} | more
    weights = str(_checkpoint_at(pretrained)) if pretrained else None
    try:
        model = _ModelConfig(arch=arch, model_depth=model_depth, num_classes=num_classes, pretrained=weights, **keys)
    except _ValidationError as error:
        fault = error.errors(include_url=False)[0]
        value = f"{'.'.join(map(str, fault['loc']))}: is {fault['input']!r}. " if fault["loc"] else ""
        raise _UserError(value + fault["msg"].removeprefix("Value error, ")) from None
    return _registry.build_network(model, model.frame_stride(_AudioConfig()))


def _entry(arch: str, depth: int | str) -> _Callable[..., _Module]:
    def made(num_classes: int = 51, pretrained: str | None = None, **more: _Any) -> _Module:
        return network(arch, depth, num_classes, pretrained, **more)

    made.__name__ = made.__qualname__ = f"{arch}_{depth}"
    made.__doc__ = f"The network {arch} {depth}: (B, 1, F, T) -> (B, num_classes) logits. Arguments: see `network`."
    return made


for _arch, _family in _registry.FAMILIES.items():
    for _depth in () if _arch == "timm" else _family.DEPTHS:
        globals()[f"{_arch}_{_depth}"] = _entry(_arch, _depth)
