"""Files of torch.save, read as plain data: nothing inside a file is run.

PyTorch's weights-only unpickler knows tensors, containers and numbers, and refuses everything else.
The checkpoints released in 2021 also mention a few classes of their own and of Lightning 1.1.3:
inert stand-ins, which keep nothing and do nothing, take their place.
"""

import os
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from src.errors import UserError


class StandIn:
    """In place of an object that a released checkpoint holds."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **keywords: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


TRANSFORMS = "Compose OneOf UseWithProb SpecAugment PadToSize RandomCrop CenterCrop ToTensor"
RELEASED_CLASSES = [
    *(f"src.data.transforms.{name}" for name in TRANSFORMS.split()),
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.progress.ProgressBar",
]
STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (type(name.rpartition(".")[2], (StandIn,), {"__slots__": ()}), name) for name in RELEASED_CLASSES
]


SAFE = (2, 10)  # the first version of PyTorch without CVE-2026-24747
LARGEST_RATIO = 20  # of what a ZIP file's parts unpack to, to its own size. PyTorch compresses nothing
PLAUSIBLE = 1 << 26  # bytes, whatever the ratio
FOREIGN = {
    b"\x93NUMPY": "it is a NumPy file. Save torch.from_numpy(numpy.load(FILE)) with torch.save",
    b"\x89HDF\r\n": "it is an HDF5 file",
}
OTHER_CLASS = re.compile(r"(?:GLOBAL|class|global:?) ([\w.]+\.[\w.]+)")


def read_torch_file(path: str | Path, what: str, mapped: bool = False) -> Any:
    """The content of a file, onto the CPU, through PyTorch's weights-only unpickler.

    Args:
        what: what the file should be, for messages, such as "a checkpoint".
        mapped: leave the tensors in the file, where that can be done. They are read when they are used, and
            take no memory of the process. Such a file may be replaced while in use, but never written into.
            Call `require_as_written` before its tensors are used, as it is not called here then.

    Raises:
        UserError: no such file, or not one that torch.save wrote from plain data. Or PyTorch is too old.
    """
    require_safe_reader()
    require_plain_file(path, what)
    require_plausible_size(path)
    try:
        with torch.serialization.safe_globals(STAND_INS):
            if mapped and _is_stored_plainly(path):
                with suppress(Exception):  # not every file system maps files, and not every name is text
                    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            require_as_written(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # in a broken file, the unpickler can raise anything
        if isinstance(error, OSError) and error.filename:  # the file cannot be opened
            raise
        raise UserError(f"{path}: is not {what}, or is truncated ({_reason(path, error)})") from None


def require_safe_reader() -> None:
    """Refuse a PyTorch whose weights-only reader a file can break out of.

    Raises:
        UserError: it is older than SAFE.
    """
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < SAFE:
        raise UserError(
            f"PyTorch {torch.__version__} is installed. Up to 2.9, its weights-only reader has known holes "
            "(CVE-2026-24747): a file made for it can run code. Install the version in requirements.txt"
        )


def require_plain_file(path: str | Path, what: str) -> None:
    """Refuse a folder, and a FIFO or a device, which would be waited for.

    Raises:
        UserError: it is one, or there is none. `what` it should be is said.
    """
    if not os.path.isfile(path):
        problem = "is no plain file" if os.path.exists(path) else "no such file"
        raise UserError(f"{path}: {problem} ({what} was expected)")


def _reason(path: str | Path, error: Exception) -> str:
    """Why a file cannot be read, without PyTorch's advice to have what is in it run."""
    with open(path, "rb") as stream:
        head = stream.read(16)
    for start, reason in FOREIGN.items():
        if head.startswith(start):
            return reason
    text = str(error).strip() or type(error).__name__
    if "not in a subdirectory" in text:
        return "it is a ZIP file, but none of torch.save. Is it one of NumPy's?"
    if "weights_only" not in text and "Weights only" not in text:
        return text.splitlines()[0]
    other = OTHER_CLASS.search(text)
    found = f"it holds {other[1]}" if other else "it holds something else"
    return f"{found}, and only tensors, numbers, text, lists and dicts are read"


def require_plausible_size(path: str | Path) -> None:
    """Refuse a ZIP file whose parts would fill the memory, before one is unpacked.

    Raises:
        UserError: they are much larger than the file itself.
    """
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(item.file_size for item in file.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return
    size = os.path.getsize(path)
    if unpacked > max(PLAUSIBLE, LARGEST_RATIO * size):
        sizes = f"its {size / 1e6:.1f} MB unpack to {unpacked / 1e6:.1f} MB"
        raise UserError(f"{path}: is compressed, as no file of weights is: {sizes}. Is it damaged, or made to do harm?")


def _is_stored_plainly(path: str | Path) -> bool:
    """Whether it is a ZIP file, as PyTorch writes since 1.6, in which nothing was compressed afterwards."""
    try:
        with zipfile.ZipFile(path) as file:
            return all(item.compress_type == zipfile.ZIP_STORED for item in file.infolist())
    except (zipfile.BadZipFile, ValueError):
        return False


def require_as_written(path: str | Path) -> None:
    """Compare the parts of a file with their checksums, which PyTorch writes and does not look at.

    Raises:
        UserError: one is not as it was written.
    """
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"{path}: is damaged ({error})") from None
        if damaged:
            raise UserError(f"{path}: is damaged: its part {damaged} is not as it was written")
