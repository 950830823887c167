""".cfg files (YAML), read and checked. Whatever does not fit is refused by name as it loads."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from src.config.sections import AudioConfig, AugmentConfig, Config, DataConfig, ModelConfig, OptConfig
from src.errors import UserError
from src.utils.folders import require_folder
from src.utils.strict_yaml import parse_yaml, shown
from src.utils.text import read_text

UNUSED_KEYS = {"test_manifest", "cw"}  # which published cfgs carry and nothing reads

DATA_ROOT = "GISE_DATA_ROOT"  # environment variable
ROOTED_KEYS = {  # the paths that a data root is put before
    "data": (
        "meta_root",
        "train_lmdb",
        "val_lmdb",
        "test_lmdb",
        "train_manifest",
        "val_manifest",
        "label_map",
        "isolated_events",
        "backgrounds",
    ),
    "model": ("pretrained",),
    "opt": ("teacher",),
}

VALIDATOR = TypeAdapter(Config)
SECTIONS: dict[str, Any] = {
    "model": ModelConfig,
    "opt": OptConfig,
    "audio_config": AudioConfig,
    "data": DataConfig,
    "augment": AugmentConfig,
}
KEYS: dict[Any, dict[str, bool]] = {  # and whether they are required
    name: {key: info.is_required() for key, info in kind.__pydantic_fields__.items()} for name, kind in SECTIONS.items()
}
KINDS = {"int_type": "be a whole number", "bool_type": "be True or False", "dataclass_type": "be a section with keys"}
TOP_KEYS = dict.fromkeys(SECTIONS, True) | {"augment": False, "protocol": False}


def load_config(
    path: str | Path, overrides: Sequence[str] = (), data_root: str | None = None, values: Mapping[str, Any] = {}
) -> Config:
    """Read a .cfg, apply `section.key=value` overrides, check every key, type and limit.

    Args:
        data_root: the folder that the file's relative paths start from. By default it is $GISE_DATA_ROOT,
            else the current folder. Paths in overrides start from the current folder.
        values: `section.key` → what takes the place of the file's value.

    Raises:
        UserError: the file cannot be read, or something in it does not fit.
    """
    path = Path(path)
    try:
        tree = parse_yaml(read_text(path, "a cfg file"), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a cfg file: {error.strerror}") from None
    root = os.path.expanduser(os.environ.get(DATA_ROOT, "") if data_root is None else data_root)
    if isinstance(tree, dict):
        if root:
            _apply_root(tree, root)
        for override in overrides:
            _apply_override(tree, override)
        for name, value in values.items():
            section, key = name.split(".")
            if isinstance(tree.get(section), dict):
                tree[section][key] = value
    return parse_config(tree, str(path))


def parse_config(tree: Any, path: str) -> Config:
    """Build a `Config` from nested dicts. `path` is named in messages.

    Raises:
        UserError: something in the dicts does not fit.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no sections. Expected: model, opt, audio_config and data")
    if "path" in tree:
        raise UserError(f"{path}: unknown key 'path'")
    used = {name: _used(section, KEYS.get(name, {})) for name, section in _used(tree, TOP_KEYS).items()}
    try:
        return VALIDATOR.validate_python(used | {"path": path})
    except ValidationError as error:
        raise UserError(f"{path}: {_first_complaint(error)}") from None


def _used(section: Any, required: Mapping[Any, bool]) -> Any:
    """A section without unused keys, and without optional ones that are None, which published cfgs give as text."""
    if not isinstance(section, dict):
        return section
    used = {key: None if value == "None" else value for key, value in section.items() if key not in UNUSED_KEYS}
    return {key: value for key, value in used.items() if value is not None or required.get(key, True)}


def _first_complaint(error: ValidationError) -> str:
    """The key that does not fit, its value and what it should be."""
    # A misspelt key gives two errors: it is unknown, and another one is missing. The first is wanted.
    unknown = ("unexpected_keyword_argument", "invalid_key")
    errors = sorted(error.errors(include_url=False), key=lambda each: each["type"] not in unknown)
    where = errors[0]["loc"][:2]
    if len(where) < 2 and errors[0]["type"] == "value_error":  # what a section or all of it says, naming the key itself
        return errors[0]["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, where))
    if errors[0]["type"] in unknown:
        return f"unknown key {shown(name)}. Known here: {', '.join(KEYS[where[0]] if len(where) > 1 else TOP_KEYS)}"
    if errors[0]["type"] == "missing":
        return f"{'section' if len(where) == 1 else 'key'} '{name}' is missing"
    # A value of a union, such as model_depth, has an error for each type of the union.
    messages = [KINDS.get(each["type"], each["msg"]) for each in errors if each["loc"][:2] == where]
    extra = "^(Value error, |(Input|String) should )|valid |, unable to parse .*"
    words = " or ".join(re.sub(extra, "", message) for message in messages)
    return f"{name} is {shown(errors[0]['input'])}. It should {words.replace(' or be ', ' or ')}"


def _apply_root(tree: dict[str, Any], root: str) -> None:
    """Put `root` before the relative paths of a .cfg."""
    require_folder(root, f"data (--data_root, or the environment variable {DATA_ROOT})")
    for name, keys in ROOTED_KEYS.items():
        section = tree[name] if isinstance(tree.get(name), dict) else {}
        under_meta_root = section.get("meta_root") not in (None, "None")  # where label_map then is
        for key in keys:
            path = section.get(key)
            if not isinstance(path, str) or path == "None" or (key == "label_map" and under_meta_root):
                continue
            rooted = os.path.normpath(os.path.join(root, os.path.expanduser(path)))
            # GISE-51's label map comes with the code, and may be missing among the data.
            if key != "meta_root" or os.path.isdir(rooted) or not os.path.isdir(path):
                section[key] = rooted


def _apply_override(tree: dict[str, Any], override: str) -> None:
    """Set what `SECTION.KEY=VALUE` or `KEY=VALUE` names. VALUE is read as YAML, as in a .cfg."""
    name, equals, text = override.partition("=")
    *sections, key = name.strip().split(".")
    if not equals or not key or len(sections) > 1:
        raise UserError(f"--set {override}: expected SECTION.KEY=VALUE, such as opt.lr=0.01")
    value = parse_yaml(text, f"--set {override}")
    section = tree.setdefault(sections[0], {}) if sections else tree
    if not isinstance(section, dict):
        raise UserError(f"--set {override}: {sections[0]} is not a section of the cfg")
    section[key] = value
