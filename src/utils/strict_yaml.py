"""YAML 1.1 read without its traps: a doubled key is refused, and 010 is not 8."""

import re
import reprlib
from typing import Any

import yaml

from src.errors import UserError

OCTAL_OR_SEXAGESIMAL = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 200  # characters


class StrictLoader(yaml.SafeLoader):
    """Refuses a doubled key, with its line. Reads 010 (8 in YAML 1.1) and 1:30 (90) as text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0] and OCTAL_OR_SEXAGESIMAL.fullmatch(value):
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise UserError(f"line {line}: key {shown(key.value)} is already in line {lines[key.value]}")
            lines[key.value] = line
        return node


def parse_yaml(text: str, where: str) -> Any:
    """Plain data.

    Raises:
        UserError: the text is not YAML, or a key is doubled, in one line that begins with `where`.
    """
    try:
        return yaml.load(text, StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a day that no month has
        cause = "" if isinstance(error, UserError) else "is not valid YAML: "
        raise UserError(f"{where}: {cause}{' '.join(str(error).split())}") from None


def shown(value: Any) -> str:
    """A value in a message, cut: a few lines of YAML can stand for gigabytes, or for a number of any length."""
    try:
        return SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"
