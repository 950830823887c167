"""A teacher's logits: stored once for every record of an LMDB or a manifest, and learnt from in training.

A file of torch.save with a dict. Its `logits` are (R, C) float32, NaN in the rows of skipped records. `classes` has C
names, `type` is as `model.type`. `fingerprint` is of the clips, `checkpoints` has the digests of those asked.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from src.data.clip_dataset import ClipDataset
from src.errors import UserError
from src.models.safe_loading import read_torch_file
from src.models.torch_files import write_torch_file
from src.models.weights import is_plain

TEACHER = "a teacher's logits"  # what messages call such a file


def write_teacher(
    path: str | Path, logits: torch.Tensor, dataset: ClipDataset, fingerprint: str, checkpoints: Sequence[str]
) -> int:
    """Store the (N, C) logits of a data set's clips under their records.

    Args:
        fingerprint: of the clips.
        checkpoints: digests of those that the logits are the mean of.

    Returns:
        R, the records, those without logits included.
    """
    records = torch.from_numpy(dataset.records)
    rows = torch.full((len(records) + len(dataset.skipped), logits.shape[1]), torch.nan)  # (R, C)
    rows[records] = logits
    content = {"logits": rows, "classes": list(dataset.label_map.names), "type": dataset.target_type}
    write_torch_file(path, content | {"fingerprint": fingerprint, "checkpoints": list(checkpoints)})
    return len(rows)


def teach(dataset: ClipDataset, path: str, source: str) -> None:
    """Give a data set's clips a teacher's logits.

    Args:
        path: a file of `write_teacher`.
        source: what messages call the data set.

    Raises:
        UserError: the file is none, or is of other clips, other classes or another kind of target, or lacks a clip.
    """
    content = read_torch_file(path, TEACHER)
    again = "Make it again with scripts/store_logits.py"
    logits = content.get("logits") if isinstance(content, dict) else None
    if not is_plain(logits) or logits.dtype != torch.float32 or logits.ndim != 2:
        raise UserError(f"{path}: holds no logits. {again}")
    names, classes = list(dataset.label_map.names), content.get("classes")
    if classes != names or logits.shape[1] != len(names):
        raise UserError(f"{path}: is of other classes than {dataset.label_map.path}. {again}")
    several = "multilabel", "events"  # whose logits of clips are of one kind
    if content.get("type") != dataset.target_type and not {content.get("type"), dataset.target_type} <= set(several):
        raise UserError(f"{path}: is of type {str(content.get('type'))[:12]}, and model.type is {dataset.target_type}")
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
    dataset.teacher = rows.detach().numpy()
