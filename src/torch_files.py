"""Files of torch.save, read as plain data: nothing inside a file is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from src.errors import UserError


def read_torch_file(path: str | Path, what: str) -> Any:
    """The content of a file, onto the CPU, through PyTorch's weights-only unpickler.

    Args:
        what: what the file should be, for messages, such as "a checkpoint".

    Raises:
        UserError: no such file, or not one that torch.save wrote from plain data.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {what} was expected")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the unpickler raises whatever it trips over in a broken file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: is not {what}, or is truncated ({reason})") from None
