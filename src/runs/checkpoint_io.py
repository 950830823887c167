"""Writing a checkpoint: beside its place, synced, renamed. A full disk gets a message that says how much is needed."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO

from src.errors import UserError
from src.models.torch_files import write_torch_file
from src.utils.files import sync_folder

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class WholeFileIO(TorchCheckpointIO):
    """Lightning's reading, and writing that leaves the earlier file as it was until the new one is on the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: it does not fit onto the disk, or into the user's quota.
        """
        try:
            write_torch_file(path, checkpoint)
            sync_folder(Path(path).parent)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise UserError(no_room(Path(path), checkpoint, error)) from error


def no_room(path: Path, checkpoint: dict[str, Any], refused: OSError) -> str:
    """The message: how much a checkpoint takes, and how much there is."""
    needed, free = sum(tensor.nbytes for tensor in tensors_in(checkpoint)), shutil.disk_usage(path.parent).free
    return (
        f"{path}: {refused.strerror}: a checkpoint takes {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free. "
        "The earlier ones are whole. Make room and give the same command again to resume"
    )


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested dicts and lists."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (dict, list, tuple)):
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(inner)
