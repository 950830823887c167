""".cfg files (YAML) as frozen dataclasses. Whatever does not fit is refused by name as it loads."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic.functional_validators import BeforeValidator, PlainValidator

from src.errors import UserError
from src.utils.folders import require_folder
from src.utils.strict_yaml import OCTAL_OR_SEXAGESIMAL, parse_yaml, shown
from src.utils.text import read_text

UNUSED_KEYS = {"test_manifest", "cw"}  # which published cfgs carry and nothing reads

DATA_ROOT = "GISE_DATA_ROOT"  # environment variable
ROOTED_KEYS = {  # the paths that a data root is put before
    "data": ("meta_root", "train_lmdb", "val_lmdb", "test_lmdb", "train_manifest", "val_manifest", "label_map"),
    "model": ("pretrained",),
}


def _text(value: Any) -> str:
    """Any text that may name a file, which need not be valid Unicode."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("be text without NUL" if isinstance(value, str) else "be text")
    return value


def _number(value: Any) -> Any:
    """What may be a number: YAML reads 1e-3 as text. True is not 1.0, and 010 would be 8 or 10."""
    if isinstance(value, bool) or (isinstance(value, str) and OCTAL_OR_SEXAGESIMAL.fullmatch(value.strip())):
        raise ValueError("be a number")
    return value


Count = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Separator = Annotated[str, Field(strict=True, min_length=1), BeforeValidator(_text)]
Text = Annotated[str, PlainValidator(_text, json_schema_input_type=str)]
File = Annotated[str, PlainValidator(lambda value: os.path.expanduser(_text(value)), json_schema_input_type=str)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelConfig:
    """Which network, and from which weights it starts."""

    arch: Text = Field(description="family of networks, one of src/models/registry.py")
    model_depth: Count | Text = Field(description="member of the family, such as 18 or b1")
    num_classes: Count = Field(description="classes, as many as in the label map")
    type: Literal["multilabel", "multiclass"] = Field(description="several classes in a clip, or one")
    pool: Literal["avgpool"] = Field(default="avgpool", description="pooling before the last layer")
    im_size: Count = Field(default=221, description="input side that efficientnet's padding is frozen for")
    pretrained: File | None = Field(
        default=None, description="weights to start from: a .pth, a checkpoint or a run folder"
    )
    pretrained_fc: Count | None = Field(
        default=None, description="number of classes that pretrained must have. By default any"
    )


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OptConfig:
    """Loss, optimiser and schedule."""

    optimizer: Literal["Adam", "SGD"] = Field(description="SGD: with Nesterov momentum of 0.9")
    lr: Positive = Field(description="learning rate at the start")
    batch_size: Count = Field(description="clips per device")
    weight_decay: NonNegative = Field(default=0.0, description="L2 penalty on the weights")
    scheduler: Literal["reduce", "step"] = Field(
        default="reduce", description="lower lr at a plateau of the validation figure, or every 10 epochs"
    )
    focal_loss: StrictBool = Field(default=False, description="sigmoid focal loss. For type multilabel alone")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AudioConfig:
    """How a clip becomes a spectrogram."""

    feature: Literal["spectrogram", "melspectrogram"] = Field(default="spectrogram", description="linear or mel scale")
    n_fft: Count = Field(
        default_factory=lambda data: 1920 if data["feature"] == "melspectrogram" else 441,
        description="samples of a transform. By default 441 (spectrogram) or 1920 (melspectrogram)",
    )
    hop_len: Count = Field(default=220, description="samples between frames")
    win_len: Count = Field(
        default_factory=lambda data: min(661, data["n_fft"]) if data["feature"] == "melspectrogram" else data["n_fft"],
        description="samples of a window, at most n_fft. By default n_fft (spectrogram) or 661 (melspectrogram)",
    )
    sample_rate: Count = Field(
        default=22050, description="Hz. A clip at another rate is refused, unless resample is True"
    )
    normalize: StrictBool = Field(default=False, description="not used. The published cfgs have it")
    resample: StrictBool = Field(  # not in its repr, of which digests are made: what it lets in was refused before
        default=False,
        repr=False,
        description="take a manifest's files of any rate and number of channels. Of LMDBs' records it changes nothing",
    )
    min_duration: Positive | None = Field(default=None, description="seconds that a manifest's clips are tiled up to")
    delimiter: Separator = Field(default=",", description="between the labels of one clip")
    mixup: StrictBool = Field(default=False, description="mix the clips of a training batch")
    precompute_features: StrictBool = Field(default=False, description="keep spectrograms, not FLAC, in memory")
    bg_files: Text | None = Field(default=None, description="refused. Background mixers are retired")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DataConfig:
    """Where the clips and the label map are."""

    label_map: File = Field(description="JSON file: itself, or its name under meta_root")
    meta_root: File | None = Field(default=None, description="folder of the label map")
    is_lmdb: StrictBool = Field(default=True, description="False: the manifests list audio files")
    in_memory: StrictBool = Field(default=True, description="False: records are read from disk when they are needed")
    train_lmdb: File | None = Field(default=None, description="clips to train on. Needed if is_lmdb is True")
    val_lmdb: File | None = Field(default=None, description="clips to validate on. Needed if is_lmdb is True")
    test_lmdb: File | None = Field(default=None, description="not used. The published cfgs have it")
    train_manifest: File | None = Field(default=None, description="clips to train on. Needed if is_lmdb is False")
    val_manifest: File | None = Field(default=None, description="clips to validate on. Needed if is_lmdb is False")

    def source(self, split: Literal["train", "val"]) -> str:
        """The LMDB or manifest of a split."""
        return getattr(self, f"{split}_{'lmdb' if self.is_lmdb else 'manifest'}")

    def label_map_path(self) -> Path:
        """`label_map` as it stands where that exists, else under `meta_root`."""
        path = Path(self.label_map)
        return path if path.exists() or self.meta_root is None else Path(self.meta_root, path)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """One experiment."""

    model: ModelConfig
    opt: OptConfig
    audio_config: AudioConfig
    data: DataConfig
    protocol: Literal["paper", "corrected"] = Field(
        default="paper", description="paper: with the two quirks of the published runs (src/data/mixup.py)"
    )
    path: str = dataclasses.field(default="", compare=False)  # the .cfg it came from, for messages

    @model_validator(mode="after")
    def _keys_agree(self) -> "Config":
        model, opt, audio, data = self.model, self.opt, self.audio_config, self.data

        def require(condition: bool, name: str, value: Any, what: str) -> None:
            if not condition:
                raise ValueError(f"{name} is {shown(value)}. It should {what}")

        fc, focal = model.pretrained_fc, opt.focal_loss
        require(fc is None or model.pretrained is not None, "model.pretrained_fc", fc, "be None without 'pretrained'")
        require(not focal or model.type == "multilabel", "opt.focal_loss", focal, "be False unless type is multilabel")
        require(audio.win_len <= audio.n_fft, "audio_config.win_len", audio.win_len, f"fit n_fft ({audio.n_fft})")
        retired = "be removed: background mixers are retired (mixup is audio_config.mixup)"
        require(audio.bg_files is None, "audio_config.bg_files", audio.bg_files, retired)
        for key in ("train_lmdb", "val_lmdb") if data.is_lmdb else ("train_manifest", "val_manifest"):
            require(getattr(data, key) is not None, f"data.{key}", None, f"be a path with is_lmdb: {data.is_lmdb}")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, strings and numbers, as stored in checkpoints and run folders."""
        plain = dataclasses.asdict(self)
        del plain["path"]
        return plain


VALIDATOR = TypeAdapter(Config)
SECTIONS: dict[str, Any] = {"model": ModelConfig, "opt": OptConfig, "audio_config": AudioConfig, "data": DataConfig}
KEYS: dict[Any, dict[str, bool]] = {  # and whether they are required
    name: {key: info.is_required() for key, info in kind.__pydantic_fields__.items()} for name, kind in SECTIONS.items()
}
KINDS = {"int_type": "be a whole number", "bool_type": "be True or False", "dataclass_type": "be a section with keys"}
TOP_KEYS = dict.fromkeys(SECTIONS, True) | {"protocol": False}


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
    if not where:  # what _keys_agree says, which names the key itself
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
