""".cfg files (YAML) as frozen dataclasses; whatever does not fit is refused by name as it loads."""

from __future__ import annotations

import dataclasses
import os
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from src.errors import UserError

# Keys that the published cfgs carry and that nothing reads.
UNUSED_KEYS = {"test_manifest", "cw"}

# What the YAML parser raises: of its own, for a day that no month has, and for nesting without end.
UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)

LARGEST = 2**63  # whole numbers are below

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 200  # characters

DATA_ROOT = "GISE_DATA_ROOT"  # environment variable


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and from which weights it starts."""

    arch: str  # a family of src/models/registry.py
    model_depth: int | str  # 18, 34, 50, … or b0, b1
    num_classes: int  # must equal the label map's
    type: Literal["multilabel", "multiclass"]
    pool: Literal["avgpool"] = "avgpool"
    im_size: int = 221  # the input side that efficientnet's padding is frozen for
    pretrained: str | None = None  # a .pth whose weights the network starts from …
    pretrained_fc: int | None = None  # … and the number of classes that file was trained with


@dataclass(frozen=True)
class OptConfig:
    """Loss, optimiser and schedule."""

    optimizer: Literal["Adam", "SGD"]
    lr: float
    batch_size: int  # clips per device
    weight_decay: float = 0.0
    scheduler: Literal["reduce", "step"] = "reduce"  # on plateau of the validation figure | StepLR(10)
    focal_loss: bool = False  # sigmoid focal loss in place of binary cross-entropy


@dataclass(frozen=True)
class AudioConfig:
    """How a clip becomes a spectrogram."""

    feature: Literal["spectrogram", "melspectrogram"] = "spectrogram"
    n_fft: int | None = None  # samples; 441 (spectrogram) or 1920 (melspectrogram) if left out
    hop_len: int = 220  # samples between frames
    win_len: int | None = None  # samples; n_fft (spectrogram) or 661 (melspectrogram) if left out
    sample_rate: int = 22050  # Hz; a clip at another rate is refused, never resampled unseen
    normalize: bool = False  # in the published cfgs, and never used
    min_duration: float | None = None  # seconds; shorter files of a manifest are tiled up to it
    delimiter: str = ","  # between the labels of one clip
    mixup: bool = False
    precompute_features: bool = False  # keep spectrograms, not FLAC, in memory
    bg_files: str | None = None  # of the retired mixers: refused

    def __post_init__(self) -> None:
        mel = self.feature == "melspectrogram"
        if self.n_fft is None:
            object.__setattr__(self, "n_fft", 1920 if mel else 441)
        if self.win_len is None:
            object.__setattr__(self, "win_len", min(661, self.n_fft) if mel else self.n_fft)


@dataclass(frozen=True)
class DataConfig:
    """Where the clips and the label map are."""

    label_map: str  # a JSON file: itself, or its name under meta_root
    meta_root: str | None = None
    is_lmdb: bool = True  # False: train_manifest and val_manifest list audio files
    in_memory: bool = True  # False: records are read from disk as they are asked for
    train_lmdb: str | None = None
    val_lmdb: str | None = None
    test_lmdb: str | None = None
    train_manifest: str | None = None
    val_manifest: str | None = None

    def source(self, split: Literal["train", "val"]) -> str:
        """The LMDB or manifest of a split."""
        return getattr(self, f"{split}_{'lmdb' if self.is_lmdb else 'manifest'}")

    def label_map_path(self) -> Path:
        """`label_map` as it stands where that exists, else under `meta_root`."""
        path = Path(self.label_map)
        if path.exists() or self.meta_root is None:
            return path
        return Path(self.meta_root) / path


@dataclass(frozen=True)
class Config:
    """One experiment."""

    model: ModelConfig
    opt: OptConfig
    audio_config: AudioConfig
    data: DataConfig
    # "paper" keeps the two quirks under which the published figures were obtained
    # (src/data/mixup.py); "corrected" has neither.
    protocol: Literal["paper", "corrected"] = "paper"
    path: str = field(default="", compare=False)  # the .cfg it came from, for messages

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, strings and numbers, as stored in checkpoints and run folders."""
        plain = dataclasses.asdict(self)
        del plain["path"]
        return plain


def load_config(
    path: str | Path, overrides: Sequence[str] = (), data_root: str | None = None, values: Mapping[str, Any] = {}
) -> Config:
    """Read a .cfg, apply `section.key=value` overrides, check every key, type and limit.

    Args:
        data_root: the folder that the file's relative paths start from; by default $GISE_DATA_ROOT,
            else the current folder. Paths in overrides start from the current folder.
        values: `section.key` → what takes the place of the file's value.

    Raises:
        UserError: the file cannot be read, or something in it does not fit.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such cfg file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; a .cfg file was expected") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; is it really a .cfg?") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: is not valid YAML: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no sections; model, opt, audio_config and data were expected")
    _apply_root(tree, os.environ.get(DATA_ROOT, "") if data_root is None else data_root)
    for override in overrides:
        _apply_override(tree, override)
    for name, value in values.items():
        section, key = name.split(".")
        if isinstance(tree.get(section), dict):
            tree[section][key] = value
    return parse_config(tree, str(path))


def parse_config(tree: dict[str, Any], path: str) -> Config:
    """Build a `Config` from nested dicts; `path` is named in messages."""
    config = replace(_build(Config, tree, path, ""), path=path)
    _check_limits(config)
    return config


def _apply_root(tree: dict[str, Any], root: str) -> None:
    """Let the relative paths of a .cfg start from `root`."""
    if not root:
        return
    if not Path(root).is_dir():
        raise UserError(f"data root {root}: no such folder (--data_root, or the environment variable {DATA_ROOT})")
    keys = {
        "data": [
            "meta_root",
            *(f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("lmdb", "manifest")),
        ],
        "model": ["pretrained"],
    }
    for name, paths in keys.items():
        section = tree.get(name)
        if not isinstance(section, dict):
            continue
        if name == "data" and section.get("meta_root") in (None, "None"):
            paths = [*paths, "label_map"]  # otherwise it is found under meta_root
        for key in paths:
            path = section.get(key)
            if not isinstance(path, str) or path == "None":
                continue
            moved = os.path.normpath(os.path.join(root, path))
            if key == "meta_root" and os.path.isdir(path) and not os.path.isdir(moved):
                continue  # GISE-51's label map comes with the code, and may be missing among the data
            section[key] = moved


def _apply_override(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    *sections, key = name.strip().split(".")
    if not equals or not key or len(sections) > 1:
        raise UserError(f"--set {override}: expected SECTION.KEY=VALUE, such as opt.lr=0.01")
    try:
        value = yaml.safe_load(text)
    except UNREADABLE as error:
        raise UserError(f"--set {override}: {_one_line(error)}") from None
    if sections:
        section = tree.setdefault(sections[0], {})
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: {sections[0]} is not a section of the cfg")
        section[key] = value
    else:
        tree[key] = value


def _build(cls: type, tree: Any, path: str, section: str) -> Any:
    """A dataclass from a dict, with unknown, missing and mistyped keys refused by name."""
    if not isinstance(tree, dict):
        raise UserError(f"{path}: section '{section}' is {_shown(tree)}; keys and values were expected")
    hints = typing.get_type_hints(cls)
    hints.pop("path", None)  # is no key of the file
    prefix = f"{section}." if section else ""
    unknown = [key for key in tree if key not in hints and key not in UNUSED_KEYS]
    if unknown:
        raise UserError(f"{path}: unknown key '{prefix}{str(unknown[0])[:100]}'; known here: {', '.join(hints)}")
    values = {}
    for spec in dataclasses.fields(cls):
        if spec.name not in hints:
            continue
        hint = hints[spec.name]
        name = prefix + spec.name
        if dataclasses.is_dataclass(hint):
            if spec.name not in tree:
                raise UserError(f"{path}: section '{name}' is missing")
            values[spec.name] = _build(hint, tree[spec.name], path, name)
        elif spec.name in tree:
            values[spec.name] = _typed(tree[spec.name], hint, f"{path}: {name}", spec)
        elif spec.default is dataclasses.MISSING:
            raise UserError(f"{path}: key '{name}' is missing")
    return cls(**values)


def _typed(value: Any, hint: Any, where: str, spec: dataclasses.Field) -> Any:
    """`value` as the type that the field declares."""
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None or value == "None":  # the published cfgs write None, which YAML reads as text
        if type(None) in choices:
            return None
        if spec.default is not dataclasses.MISSING:
            return spec.default
    for choice in choices:
        if typing.get_origin(choice) is Literal and value in typing.get_args(choice):
            return value
        if choice is bool and isinstance(value, bool):
            return value
        if choice is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST:
            return value
        if choice is float and not isinstance(value, bool):
            try:
                return float(value)  # YAML 1.1 reads 1e-3 as text
            except (TypeError, ValueError, OverflowError):
                pass
        if choice is str and isinstance(value, str) and "\0" not in value:
            return value
    raise UserError(f"{where} is {_shown(value)}; expected {_describe(choices)}")


def _describe(choices: Sequence[Any]) -> str:
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    parts = []
    for choice in choices:
        if typing.get_origin(choice) is Literal:
            parts += [repr(value) for value in typing.get_args(choice)]
        elif choice is not type(None):
            parts.append(words[choice])
    return " or ".join(parts)


def _check_limits(config: Config) -> None:
    """Limits that types do not express, and settings that contradict each other."""
    model, opt, audio, data = config.model, config.opt, config.audio_config, config.data

    def require(condition: bool, name: str, value: Any, limit: str) -> None:
        if not condition:
            raise UserError(f"{config.path}: {name} is {_shown(value)}; {limit}")

    require(model.num_classes >= 1, "model.num_classes", model.num_classes, "at least 1 is needed")
    require(
        model.pretrained_fc is None or model.pretrained is not None,
        "model.pretrained_fc",
        model.pretrained_fc,
        "it says how many classes the file 'pretrained' has, and there is none",
    )
    require(0 < opt.lr < float("inf"), "opt.lr", opt.lr, "a number above 0 is needed")
    require(opt.batch_size >= 1, "opt.batch_size", opt.batch_size, "at least 1 is needed")
    require(0 <= opt.weight_decay < float("inf"), "opt.weight_decay", opt.weight_decay, "0 or more is needed")
    require(
        not (opt.focal_loss and model.type == "multiclass"),
        "opt.focal_loss",
        True,
        "the focal loss is for model.type multilabel",
    )
    for name in ("n_fft", "hop_len", "win_len", "sample_rate"):
        require(getattr(audio, name) >= 1, f"audio_config.{name}", getattr(audio, name), "at least 1 is needed")
    require(
        audio.win_len <= audio.n_fft, "audio_config.win_len", audio.win_len, f"it cannot exceed n_fft ({audio.n_fft})"
    )
    require(
        audio.min_duration is None or audio.min_duration > 0,
        "audio_config.min_duration",
        audio.min_duration,
        "seconds above 0 are needed",
    )
    require(len(audio.delimiter) > 0, "audio_config.delimiter", audio.delimiter, "a character is needed")
    require(
        audio.bg_files is None,
        "audio_config.bg_files",
        audio.bg_files,
        "background mixers are retired; remove the key (mixup is audio_config.mixup)",
    )
    for split in ("train", "val"):
        key = f"{split}_{'lmdb' if data.is_lmdb else 'manifest'}"
        require(data.source(split) is not None, f"data.{key}", None, f"it is needed with is_lmdb: {data.is_lmdb}")


def _shown(value: Any) -> str:
    """A value in a message, cut: a few lines of YAML can stand for gigabytes, or for a number of any length."""
    try:
        return SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
