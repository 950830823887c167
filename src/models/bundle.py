"""A checkpoint to deploy: a file of safetensors, in which nothing can be run.

It begins with the length of its header, 8 bytes with the lowest first. The header is JSON, with each tensor's type,
shape and place. Its `__metadata__` has one key of this project, `gise`, whose text is JSON with everything else:

    format              1
    hyper_parameters    the run's record, as in a checkpoint: cfg, lbl_map, seed, versions, …
    decisions           thresholds and temperature, and event_decisions: as in a checkpoint, where it has them
    golden              (C,) logits of `golden_logits`
    weights_sha256      of the tensors, see `weights_digest`

The tensors follow, those of the network alone.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.config.sections import Config
from src.data.audio.spectrogram import FeatureExtractor
from src.errors import UserError
from src.utils.files import write_whole

KEY = "gise"
FORMAT = 1
HEADER_START = b"{"  # the ninth byte, which no file of torch.save has there


def is_bundle(path: str | Path) -> bool:
    """Whether a file is one of safetensors, as far as its first bytes say."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(9)[8:] == HEADER_START


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """Tensors that stay in the file until they are used, and the text under KEY, where there is one.

    Raises:
        UserError: the file is truncated, or its header is none.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(KEY)
    except Exception as error:  # in a broken file, the header's text can raise anything
        if isinstance(error, OSError) and error.errno:  # the file cannot be opened
            raise
        raise UserError(f"{path}: is no file of safetensors, or is truncated ({error})") from None


def read_bundle(path: str | Path) -> dict[str, Any]:
    """The content of a bundle, under the keys that a checkpoint has, `state_dict` among them.

    Raises:
        UserError: it is none, or is not as it was written.
    """
    tensors, text = read_tensors(path)
    if text is None:
        only = "holds tensors and no configuration. scripts/export_model.py --safetensors writes both"
        raise UserError(f"{path}: {only}. Weights alone can be started from, with --pretrained")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: its configuration is no JSON object. The file is damaged")
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: is a bundle of format {str(content.get('format'))[:20]}, and {FORMAT} is read here")
    if content.get("weights_sha256") != weights_digest(tensors):
        raise UserError(f"{path}: is damaged: its weights are not as they were written")
    return content | {"state_dict": tensors}


def write_bundle(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write what `read_bundle` gives, in one step. What is no finite number becomes null, as JSON has none.

    Raises:
        UserError: the configuration holds something else than plain data.
    """
    from safetensors.torch import save

    tensors = content["state_dict"]
    rest = {key: value for key, value in content.items() if key != "state_dict"}
    try:
        text = json.dumps(rest | {"format": FORMAT, "weights_sha256": weights_digest(tensors)})
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: the checkpoint's record cannot be written as JSON ({error})") from None
    finite = json.dumps(json.loads(text, parse_constant=lambda _: None))
    write_whole(path, save(tensors, metadata={KEY: finite}))


def weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """64 hexadecimal digits: SHA-256 of names, types, shapes and bytes, by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode(errors="surrogatepass"))
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.inference_mode()
def golden_logits(config: Config, network: nn.Module) -> list[float]:
    """(C,) logits of a second of white noise at full scale: what tells that a network computes as it did elsewhere.

    Args:
        network: in evaluation mode, on the CPU.
    """
    rate = config.audio_config.sample_rate
    noise = np.random.RandomState(51).uniform(-1, 1, rate).astype(np.float32)  # (N,), in every version of NumPy
    features = FeatureExtractor.of(config.audio_config)(noise)  # (F, T)
    logits: list[float] = network(torch.from_numpy(features)[None, None])[0].tolist()
    return logits
