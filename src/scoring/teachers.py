"""A teacher's logits: stored once for every record of an LMDB or a manifest, and learnt from in training.

A file of torch.save with a dict: `logits` (R, C) float32, NaN in the rows of skipped records, `classes` their C names,
`type` as of `model.type`, `fingerprint` of the clips, and `checkpoints`, the digests of those that the mean is of.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from src.data.clip_dataset import ClipDataset
from src.errors import UserError
from src.models.safe_loading import read_torch_file
from src.models.torch_files import write_torch_file
from src.scoring.predictions import Candidate, InferenceOptions, Prediction, predictions


def store_logits(checkpoints: Sequence[Path], options: InferenceOptions, output: str) -> tuple[int, int]:
    """Write the mean of the checkpoints' logits for every record, folds or not, as their networks give them.

    Returns:
        R and C.

    Raises:
        UserError: a checkpoint does not fit, or differs from the first one in its classes or its kind of target.
    """
    first, total = None, torch.zeros(())
    for prediction in predictions([Candidate(path) for path in checkpoints], options):
        first = first or prediction
        if kind_of(prediction) != kind_of(first):
            raise UserError(
                f"{prediction.candidate.path}: is of other classes or of another model.type than "
                f"{first.candidate.path}, and their logits have no mean"
            )
        total = total + prediction.logits
    assert first is not None
    records = torch.from_numpy(first.dataset.records)
    logits = torch.full((len(records) + len(first.dataset.skipped), total.shape[1]), torch.nan)  # (R, C)
    logits[records] = total / len(checkpoints)
    classes, kind = kind_of(first)
    digests = [Candidate(path).digest() for path in checkpoints]
    content = {"logits": logits, "classes": classes, "type": kind, "fingerprint": first.eval_data}
    write_torch_file(output, content | {"checkpoints": digests})
    return logits.shape[0], logits.shape[1]


def kind_of(prediction: Prediction) -> tuple[list[str], str]:
    """Names of the classes, and `model.type`."""
    return list(prediction.dataset.label_map.names), prediction.dataset.target_type


def teach(dataset: ClipDataset, path: str, source: str) -> None:
    """Give a data set's clips a teacher's logits.

    Args:
        path: a file of `store_logits`.
        source: what messages call the data set.

    Raises:
        UserError: the file is none, or is of other clips, other classes or another kind of target, or lacks a clip.
    """
    content = read_torch_file(path, "a teacher's logits")
    again = "Make it again with scripts/store_logits.py"
    logits = content.get("logits") if isinstance(content, dict) else None
    if not isinstance(logits, torch.Tensor) or logits.dtype != torch.float32 or logits.ndim != 2:
        raise UserError(f"{path}: holds no logits. {again}")
    names, classes = list(dataset.label_map.names), content.get("classes")
    if classes != names or logits.shape[1] != len(names):
        raise UserError(f"{path}: is of other classes than {dataset.label_map.path}. {again}")
    if content.get("type") != dataset.target_type:
        raise UserError(f"{path}: is of type {content.get('type')}, and model.type is {dataset.target_type}")
    own, found = dataset.fingerprint(), str(content.get("fingerprint"))
    if found != own or len(logits) <= dataset.records.max():
        raise UserError(
            f"{path}: is of other clips than {source}, {len(logits)} with fingerprint {found[:12]}… instead of "
            f"{str(own)[:12]}…. {again}"
        )
    rows = logits[torch.from_numpy(dataset.records)]  # (N, C)
    lacking = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if lacking:
        raise UserError(
            f"{path}: has no finite logits for {len(lacking)} of the {len(rows)} clips, such as "
            f"{dataset.where(lacking[0])}. Were they skipped? {again}"
        )
    dataset.teacher = rows.numpy()
