"""Label maps, and label strings as targets."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from src.errors import UserError
from src.utils.files import write_json
from src.utils.text import is_text, read_json


@dataclass(frozen=True)
class LabelMap:
    """Class names in the order of their indices 0 … C-1, in Unicode's composed form."""

    names: tuple[str, ...]
    path: str = "label map"  # where it came from, for messages

    @classmethod
    def load(cls, path: str | Path) -> "LabelMap":
        """Read `lbl_map.json`, an object of class name → index.

        Raises:
            UserError: the file is missing, is not such an object, or its indices are not 0 … C-1.
        """
        try:
            mapping = read_json(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such label map") from None
        except IsADirectoryError:
            raise UserError(f"{path}: is a folder, and a label map was expected") from None
        except ValueError as error:
            raise UserError(f"{path}: is not JSON ({error}). A label map was expected") from None
        return cls.from_mapping(mapping, str(path))

    @classmethod
    def from_mapping(cls, mapping: object, path: str = "label map") -> "LabelMap":
        """Build from class name → index, as `load` does."""
        if not isinstance(mapping, dict) or not mapping:
            raise UserError(f"{path}: an object of class name → index was expected")
        indices, count = list(mapping.values()), len(mapping)
        if any(type(index) is not int for index in indices) or sorted(indices) != list(range(count)):
            raise UserError(f"{path}: its {count} classes must have the indices 0 to {count - 1}, each once")
        names: dict[str, None] = {}
        for name in sorted(mapping, key=mapping.__getitem__):
            if not is_text(name):
                raise UserError(f"{path}: {name!r} is no class name")
            if nfc(name) in names:
                raise UserError(f"{path}: class '{name}' is there twice, once with accents as characters of their own")
            names[nfc(name)] = None
        return cls(tuple(names), path)

    def save(self, path: str | Path) -> None:
        """Write `lbl_map.json`."""
        write_json(path, self.mapping)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def mapping(self) -> dict[str, int]:
        """Class name → index, as in `lbl_map.json`."""
        return {name: index for index, name in enumerate(self.names)}

    def require_size(self, num_classes: int, where: str) -> None:
        """Refuse a network that has another number of outputs than there are classes."""
        if len(self) != num_classes:
            other = f"the label map {self.path} has {len(self)} classes. One of them is another data set's"
            raise UserError(f"{where}: model.num_classes is {num_classes}, but {other}")

    def indices(self, label: str | int, delimiter: str, where: str) -> list[int]:
        """Class indices of a record's label field.

        Args:
            label: names joined by `delimiter`, or the class index itself (ESC-50's records).
            where: the record, for messages.

        Returns:
            An index for each name. None for the empty label of a negative clip, in which no class sounds.

        Raises:
            UserError: there are names, but empty ones, or one that the map does not have.
        """
        if isinstance(label, int):
            if not 0 <= label < len(self):
                raise UserError(f"{where}: class index {label} is outside 0 to {len(self) - 1} of {self.path}")
            return [label]
        names = split_labels(label, delimiter)
        if label and not names:
            raise UserError(f"{where}: has no label")
        unknown = [name for name in names if name not in self.mapping]
        if unknown:
            odd = nfc(label) in self.mapping or ";" in label
            cause = f"The delimiter is {delimiter!r}: does audio_config.delimiter fit this data?"
            cause = cause if odd else "Is it another data set's map?"
            raise UserError(f"{where}: label '{unknown[0]}' is not in the label map {self.path}. {cause}")
        return [self.mapping[name] for name in names]

    def multi_hot(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(C,) float32 with ones at `indices`. Repeats count once."""
        target = np.zeros(len(self), dtype=np.float32)
        target[list(indices)] = 1.0
        return target


def split_labels(label: str, delimiter: str) -> list[str]:
    """The names in a record's label field, as often as they occur, as label maps spell them."""
    return [name for name in nfc(label).split(delimiter) if name]


def nfc(name: str) -> str:
    """A class name as it is compared: Unicode's composed form. macOS writes "é" in file names as "e" and an accent."""
    return unicodedata.normalize("NFC", name)
