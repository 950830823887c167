"""Files of torch.save: written whole, and told apart by the checksums in them."""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from src.utils.files import whole_file


def write_torch_file(path: str | os.PathLike, content: Any) -> None:
    """Save tensors and plain data.

    Raises:
        OSError: it cannot be written, with the file's name and the system's reason.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # PyTorch's, which says nothing of the system's under it
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise cause from error


def torch_file_digest(path: str | Path) -> str:
    """16 hexadecimal digits that tell what a file of torch.save holds.

    They are of the names, lengths and CRC-32 of its parts, from the ZIP file's own directory: no tensor is read. A file
    of before PyTorch 1.6 is no ZIP file, and all of it is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # parts are in a folder that is called as the file once was
            parts = [(item.filename.partition("/")[2], item.file_size, item.CRC) for item in archive.infolist()]
        return digest_of(parts)
    except (zipfile.BadZipFile, ValueError):
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()[:16]


def digest_of(plain: Any) -> str:
    """16 hexadecimal digits of plain data."""
    return hashlib.sha256(repr(plain).encode(errors="surrogatepass")).hexdigest()[:16]
