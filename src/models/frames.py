"""A tagger's network that says of every frame what sounds in it.

Its later strides act on frequency alone, and its last layer is applied to every frame. Names and shapes of the weights
are the tagger's, so that a tagger's weights fit. F is bins or bands, T spectrogram frames, J frames of events.
"""

import copy
import math
from functools import partial
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn
from torch.nn import functional

from src.errors import UserError

TAGGER = "tagger."  # what PyTorch calls the tagger's weights in it
TRIED = (221, 4096)  # bins and frames, so many that paddings hardly count
GRU = "gru."  # and those of the recurrent layer, which no tagger has


class FrameNetwork(nn.Module):
    """(B, 1, F, T) spectrograms -> (B, C) logits of clips, and (B, J, C) of frames.

    Args:
        tagger: of any family, which becomes a part of it.
        stride: spectrogram frames that a frame of events stands for at most.
        recurrent: put a recurrent layer before the last one.

    Raises:
        UserError: the tagger cannot give frames so fine.
    """

    def __init__(self, tagger: nn.Module, stride: int, recurrent: bool = False):
        super().__init__()
        self.stride = refine(tagger, stride)
        self.tagger = tagger
        self.pools_largest = any(
            isinstance(one, SelectAdaptivePool2d) and one.pool_type == "max" for one in tagger.modules()
        )
        self.gru = ResidualGRU(last_map(tagger)[0].shape[1]) if recurrent else nn.Identity()
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, inputs: torch.Tensor, of_frames: bool = False) -> torch.Tensor:
        """(B, C) logits of clips, or (B, J, C) of frames. Frame j begins with the spectrogram's frame j · `stride`."""
        maps: torch.Tensor = self.tagger.forward_features(inputs)  # type: ignore[operator]  # (B, D, rows, J)
        frames = maps.amax(dim=2) if self.pools_largest else maps.mean(dim=2)  # (B, D, J)
        frames = self.gru(frames.transpose(1, 2))  # (B, J, D)
        columns = frames.flatten(0, 1)[..., None, None]  # (B · J, D, 1, 1)
        logits: torch.Tensor = self.tagger.forward_head(columns)  # type: ignore[operator]
        logits = logits.unflatten(0, frames.shape[:2])
        return logits if of_frames else clip_logits(logits)

    def reset_classifier(self, num_classes: int) -> None:
        """Make a fresh last layer, or none with 0 classes."""
        self.tagger.reset_classifier(num_classes)  # type: ignore[operator]


class ResidualGRU(nn.Module):
    """(B, J, D) frames, with what a gated recurrent layer in both directions says of them added."""

    def __init__(self, size: int):
        super().__init__()
        self.layer = nn.GRU(size, -(-size // 2), batch_first=True, bidirectional=True)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames + self.layer(frames)[0][..., : frames.shape[2]]


def clip_logits(frame_logits: torch.Tensor) -> torch.Tensor:
    """(B, J, C) -> (B, C), by linear softmax pooling (Wang et al., 2019, arXiv 1810.09050).

    A clip's probability is Σ p² / Σ p over the probabilities p of its frames: each frame weighs as much as it says.
    """
    logits = frame_logits.float()
    present, absent = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return torch.logsumexp(2 * present, dim=1) - torch.logsumexp(present + absent, dim=1)


def refine(network: nn.Module, most: int) -> int:
    """Let the strides of a network act on frequency alone where a column of its maps stands for `most` frames already.

    Returns:
        The spectrogram frames that a column of its last map stands for.

    Raises:
        UserError: it has no map of frames, or one that is coarser all the same.
    """
    if most < 1:
        raise UserError("model.frame_ms: is less than a hop of the spectrogram lasts. Choose a larger one")
    _, columns_before = last_map(network)
    late = False
    for name, before in columns_before.items():
        layer: Any = network.get_submodule(name)
        rows, columns = pair(layer.stride)
        fine = min(columns, max(1, most // before))
        if fine == columns:
            continue
        layer.stride = rows, fine
        if type(layer) in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d):
            kernel, padding = pair(layer.kernel_size), pair(layer.padding)
            if not isinstance(layer, nn.Conv2d) and kernel[1] == columns:  # what is pooled does not overlap
                layer.kernel_size = kernel[0], fine
            elif (lacking := kernel[1] - fine - 2 * padding[1]) > 0:
                # Columns that were left out are made up for, an odd one on either side in turns.
                left = (lacking + late) // 2
                late ^= lacking % 2 == 1
                value = -math.inf if isinstance(layer, nn.MaxPool2d) else 0.0
                layer.register_forward_pre_hook(partial(_pad_columns, left, lacking - left, value))
    found = round(TRIED[1] / last_map(network)[0].shape[3])
    if found > most:
        raise UserError(
            f"model.frame_ms: asks for a frame of at most {most} spectrogram frames, and this network gives one for "
            f"{found}. Choose a larger frame_ms, or another network"
        )
    return found


def last_map(network: nn.Module) -> tuple[torch.Tensor, dict[str, int]]:
    """The shape of what a network makes before it pools, of which nothing is computed.

    Returns:
        (1, D, rows, columns) on the meta device, and of each layer with a stride, the spectrogram frames that a column
        of its input stands for.

    Raises:
        UserError: it makes no such map, as transformers and networks with two heads do not.
    """
    outline = copy.deepcopy(network).to("meta").eval()
    found: dict[str, int] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].ndim == 4:  # not those over channels, as of ECA
            found[name] = max(1, round(TRIED[1] / inputs[0].shape[-1]))

    for name, layer in outline.named_modules():
        if hasattr(layer, "stride") and not any(True for _ in layer.children()):
            layer.register_forward_pre_hook(partial(note, name))
    try:
        columns = outline.forward_features(torch.zeros(1, 1, *TRIED, device="meta"))  # type: ignore[operator]
        logits = outline.forward_head(columns.mean(dim=(2, 3), keepdim=True))  # type: ignore[operator]
        assert logits.ndim == 2, "one row of logits for one column"
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        none = f"this network makes no map of frames, or none of all its frames ({reason})"
        raise UserError(f"model.type is events, and {none}") from None
    return columns, found


def _pad_columns(
    left: int, right: int, value: float, layer: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    return functional.pad(inputs[0], (left, right), value=value), *inputs[1:]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """A stride or a kernel of rows and columns, which layers may keep as one number."""
    return value if isinstance(value, tuple) else (value, value)


def _without_prefix(network: nn.Module, state: dict[str, Any], prefix: str, *more: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + TAGGER)]:
        state[prefix + key.removeprefix(prefix + TAGGER)] = state.pop(key)


def _with_prefix(network: nn.Module, state: dict[str, Any], prefix: str, *more: Any) -> None:
    own = prefix + GRU
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(own)]:
        state[prefix + TAGGER + key.removeprefix(prefix)] = state.pop(key)
