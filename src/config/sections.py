"""The keys of a .cfg, as frozen dataclasses: meaning, type, limits and default of each."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, model_validator
from pydantic.dataclasses import dataclass
from pydantic.functional_validators import BeforeValidator, PlainValidator

from src.utils.strict_yaml import OCTAL_OR_SEXAGESIMAL, shown


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
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), BeforeValidator(_number)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_number)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
# What 32 bits can hold by far. All log-mels, in dB, have a mean and a deviation within these.
Level = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False), BeforeValidator(_number)]
Spread = Annotated[float, Field(ge=1e-4, le=1000, allow_inf_nan=False), BeforeValidator(_number)]
Separator = Annotated[str, Field(strict=True, min_length=1), BeforeValidator(_text)]
Text = Annotated[str, PlainValidator(_text, json_schema_input_type=str)]
File = Annotated[str, PlainValidator(lambda value: os.path.expanduser(_text(value)), json_schema_input_type=str)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelConfig:
    """Which network, and from which weights it starts."""

    arch: Text = Field(description="family of networks, one of src/models/registry.py")
    model_depth: Count | Text = Field(description="member of the family, such as 18 or b1")
    num_classes: Count = Field(description="classes, as many as in the label map")
    type: Literal["multilabel", "multiclass", "events"] = Field(
        description="several classes in a clip, or one. events: several, and when each sounds"
    )
    pool: Literal["avgpool", "maxpool"] = Field(
        default="avgpool", description="pooling before the last layer. maxpool is for arch timm"
    )
    im_size: Count = Field(default=221, description="input side that efficientnet's padding is frozen for")
    pretrained: File | None = Field(
        default=None, description="weights to start from: a .pth, a checkpoint or a run folder"
    )
    pretrained_fc: Count | None = Field(
        default=None, description="number of classes that pretrained must have. By default any"
    )
    # The first two are not in its repr, of which digests are made: without events, it is as before.
    frame_ms: Annotated[float, Field(ge=1, le=10_000), BeforeValidator(_number)] = Field(
        default=40.0, repr=False, description="a frame of events lasts so many milliseconds at most"
    )
    head: Literal["linear", "gru"] = Field(
        default="linear",
        repr=False,
        description="what events' last layer gets: the frames, or what a recurrent layer in both directions adds to "
        "them (Cho et al., 2014, arXiv 1406.1078)",
    )
    # Nor are these, as they say nothing of the weights that training begins with.
    dropout: Share = Field(
        default=0.0,
        repr=False,
        description="share of the last layer's inputs that training sets to 0 (Srivastava et al., 2014). For arch timm",
    )
    drop_path: Share = Field(
        default=0.0,
        repr=False,
        description="chance at which training leaves out the last residual branch, from 0 at the first (Huang et al., "
        "2016, arXiv 1603.09382). For arch timm",
    )

    @model_validator(mode="after")
    def _family_takes_them(self) -> "ModelConfig":
        for key, usual in ("dropout", 0), ("drop_path", 0), ("pool", "avgpool"):
            value, should = getattr(self, key), f"be {usual} unless arch is timm"
            _require(value == usual or self.arch == "timm", f"model.{key}", value, should)
        _require(
            self.head == "linear" or self.type == "events", "model.head", self.head, "be linear unless type is events"
        )
        return self

    def frame_stride(self, audio: "AudioConfig") -> int | None:
        """Spectrogram frames that a frame of events stands for at most, or None for other types."""
        frames = self.frame_ms / 1000 * audio.sample_rate / audio.hop_len
        return int(frames + 1e-6) if self.type == "events" else None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OptConfig:
    """Loss, optimiser and schedule."""

    optimizer: Literal["Adam", "AdamW", "SGD"] = Field(
        description="SGD: with Nesterov momentum of 0.9. AdamW: Adam with decoupled weight decay (Loshchilov and "
        "Hutter, 2019, arXiv 1711.05101)"
    )
    lr: Positive = Field(description="learning rate: at the start, or the highest one for one_cycle and cosine")
    batch_size: Count = Field(description="clips per device")
    weight_decay: NonNegative = Field(default=0.0, description="L2 penalty on the weights. Decoupled with AdamW")
    scheduler: Literal["reduce", "step", "one_cycle", "cosine"] = Field(
        default="reduce",
        description="lower lr at a plateau of the validation figure, or every 10 epochs. By the step, over all epochs: "
        "one_cycle (Smith and Topin, 2019, arXiv 1708.07120), or cosine (Loshchilov and Hutter, 2017, arXiv "
        "1608.03983) after a linear warm-up",
    )
    warmup: Share = Field(
        default=0.1, description="share of all steps over which lr rises. For one_cycle and cosine alone"
    )
    clip_norm: Positive | None = Field(
        default=None, description="largest norm of all gradients together (Pascanu et al., 2013, arXiv 1211.5063)"
    )
    ema_decay: Share | None = Field(
        default=None,
        description="validate and save a moving average of the weights, of which each step keeps this share (after "
        "Tarvainen and Valpola, 2017, arXiv 1703.01780)",
    )
    label_smoothing: Share = Field(
        default=0.0, description="share of a target that is spread evenly (Szegedy et al., 2016, arXiv 1512.00567)"
    )
    balanced: StrictBool = Field(
        default=False,
        description="draw an epoch's clips at random, those of rare classes more often (Gong et al., 2021, arXiv "
        "2102.01243)",
    )
    teacher: File | None = Field(
        default=None, description="logits of scripts/store_logits.py for the training clips, to learn from as well"
    )
    teacher_weight: Probability = Field(
        default=0.5, description="the teacher's share of the loss (Hinton et al., 2015, arXiv 1503.02531)"
    )
    focal_loss: StrictBool = Field(default=False, description="sigmoid focal loss. Not for type multiclass")
    frame_weight: NonNegative = Field(default=1.0, description="factor of the frames' loss. For type events")
    clip_weight: NonNegative = Field(default=1.0, description="factor of the clip's loss. For type events")

    @property
    def by_step(self) -> bool:
        """Whether the learning rate moves with every step, towards the end of all epochs."""
        return self.scheduler in ("one_cycle", "cosine")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AudioConfig:
    """How a clip becomes a spectrogram."""

    feature: Literal["spectrogram", "melspectrogram", "logmel"] = Field(
        default="spectrogram",
        description="linear or mel scale, in dB from a clip's mean. logmel: mel scale, in deviations from the training "
        "set's mean",
    )
    n_fft: Count = Field(
        default_factory=lambda data: {"melspectrogram": 1920, "logmel": 1024}.get(data["feature"], 441),
        description="samples of a transform. By default 441 (spectrogram), 1920 (melspectrogram) or 1024 (logmel)",
    )
    hop_len: Count = Field(default=220, description="samples between frames")
    win_len: Count = Field(
        default_factory=lambda data: min(661, data["n_fft"]) if data["feature"] == "melspectrogram" else data["n_fft"],
        description="samples of a window, at most n_fft. By default n_fft, or 661 (melspectrogram)",
    )
    sample_rate: Count = Field(
        default=22050, description="Hz. A clip at another rate is refused, unless resample is True"
    )
    # The five of logmel are not in its repr, of which digests are made: without logmel, these are as before.
    n_mels: Count | None = Field(
        default_factory=lambda data: 64 if data["feature"] == "logmel" else None,
        validate_default=True,
        repr=False,
        description="mel bands of logmel, on Slaney's scale (Auditory Toolbox, 1998), each of area 1. By default 64",
    )
    f_min: NonNegative = Field(default=0.0, repr=False, description="Hz at the lower end of the lowest band of logmel")
    f_max: Positive | None = Field(
        default=None, repr=False, description="Hz at the upper end of the highest band. By default half of sample_rate"
    )
    mean: Level | None = Field(
        default=None, repr=False, description="dB that logmel takes off. By default measured on the training set"
    )
    std: Spread | None = Field(
        default=None, repr=False, description="dB that logmel divides by. By default measured on the training set"
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
class AugmentConfig:
    """What training changes about a clip, drawn anew in every epoch."""

    roll: StrictBool = Field(
        default=False,
        description="turn the clip round in time by a random number of frames (Schmid et al., 2022, arXiv 2211.04772)",
    )
    gain: Annotated[float, Field(ge=0, le=100), BeforeValidator(_number)] = Field(
        default=0.0,
        description="dB by which a clip is louder or softer at most (Koutini et al., 2022, arXiv 2110.05069). For "
        "logmel",
    )
    freq_shift: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = Field(
        default=0,
        description="bins or bands by which a clip is shifted up or down at most (after Kahl et al., 2021, BirdNET). "
        "Fewer than it has",
    )
    wave_mix: Probability = Field(
        default=0.0,
        description="chance that another training clip sounds as well, with its labels (after Tokozume et al., 2018, "
        "arXiv 1711.10282). Not for type multiclass",
    )
    mixup_alpha: Annotated[float, Field(ge=0.01, le=100), BeforeValidator(_number)] = Field(
        default=1.0,
        description="both parameters of the beta distribution of mixup's λ (Zhang et al., 2018, arXiv 1710.09412). "
        "With mixup alone",
    )
    mixup_max: StrictBool = Field(
        default=False, description="mixup with max(λ, 1 - λ), so that a clip outweighs its partner. With mixup alone"
    )
    mask_prob: Probability = Field(
        default=0.5, description="chance of SpecAugment's masks (Park et al., 2019, arXiv 1904.08779)"
    )
    freq_mask: Probability = Field(default=0.15, description="share of the bins or bands of a mask at most")
    time_mask: Probability = Field(default=0.20, description="share of the frames of a mask at most")


PUBLISHED_AUGMENT = AugmentConfig()


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DataConfig:
    """Where the clips and the label map are."""

    label_map: File = Field(description="JSON file: itself, or its name under meta_root")
    meta_root: File | None = Field(default=None, description="folder of the label map")
    is_lmdb: StrictBool = Field(default=True, description="False: the manifests list audio files")
    in_memory: StrictBool = Field(default=True, description="False: records are read from disk when they are needed")
    train_lmdb: File | None = Field(
        default=None, description="clips to train on. Needed if is_lmdb is True, but with isolated_events"
    )
    val_lmdb: File | None = Field(default=None, description="clips to validate on. Needed if is_lmdb is True")
    test_lmdb: File | None = Field(default=None, description="not used. The published cfgs have it")
    train_manifest: File | None = Field(default=None, description="clips to train on. Needed if is_lmdb is False")
    val_manifest: File | None = Field(default=None, description="clips to validate on. Needed if is_lmdb is False")
    isolated_events: File | None = Field(
        default=None, description="folder of <class>/*.wav: train on new soundscapes of these in every epoch"
    )
    backgrounds: File | None = Field(
        default=None, description="folder of <kind>/*.wav, or *.wav, backgrounds of these soundscapes"
    )
    soundscapes: Annotated[int, Field(strict=True, ge=1, le=10**8)] = Field(
        default=1000, description="how many of these make an epoch"
    )
    max_events: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=3, description="1 to so many events in each of these"
    )
    duration: Annotated[float, Field(ge=0.1, le=600, allow_inf_nan=False), BeforeValidator(_number)] = Field(
        default=5.0, description="seconds of each of these"
    )

    def source(self, split: Literal["train", "val"]) -> str:
        """The LMDB or manifest of a split, or the folder of isolated events."""
        if split == "train" and self.isolated_events:
            return self.isolated_events
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
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    protocol: Literal["paper", "corrected"] = Field(
        default="paper", description="paper: with the two quirks of the published runs (src/data/mixup.py)"
    )
    path: str = dataclasses.field(default="", compare=False)  # the .cfg it came from, for messages

    @model_validator(mode="after")
    def _keys_agree(self) -> "Config":
        model, opt, audio = self.model, self.opt, self.audio_config
        fc, focal = model.pretrained_fc, opt.focal_loss
        _require(fc is None or model.pretrained is not None, "model.pretrained_fc", fc, "be None without 'pretrained'")
        one_class, events = model.type == "multiclass", model.type == "events"
        _require(not (focal and one_class), "opt.focal_loss", focal, "be False with type multiclass")
        for key in "frame_weight", "clip_weight":
            value = getattr(opt, key)
            _require(events or value == 1, f"opt.{key}", value, "be 1 unless type is events")
        _require(opt.frame_weight + opt.clip_weight > 0, "opt.frame_weight", 0, "be above 0 where clip_weight is 0")
        steps = model.frame_stride(audio)
        _require(steps is None or steps >= 1, "model.frame_ms", model.frame_ms, "be no less than hop_len lasts")
        _require(audio.win_len <= audio.n_fft, "audio_config.win_len", audio.win_len, f"fit n_fft ({audio.n_fft})")
        retired = "be removed: background mixers are retired (mixup is audio_config.mixup)"
        _require(audio.bg_files is None, "audio_config.bg_files", audio.bg_files, retired)
        return self

    @model_validator(mode="after")
    def _data_keys_agree(self) -> "Config":
        data, endless = self.data, self.data.isolated_events is not None
        for key in ("train_lmdb", "val_lmdb") if data.is_lmdb else ("train_manifest", "val_manifest"):
            given = getattr(data, key)
            if endless and key.startswith("train"):
                _require(given is None, f"data.{key}", given, "be None with data.isolated_events: train on one of them")
            else:
                _require(given is not None, f"data.{key}", None, f"be a path with is_lmdb: {data.is_lmdb}")
        both = "be a path with isolated_events"
        _require(not endless or data.backgrounds is not None, "data.backgrounds", None, both)
        same = endless and os.path.abspath(data.backgrounds or "") == os.path.abspath(data.isolated_events or "")
        _require(not same, "data.backgrounds", data.backgrounds, "be another folder than data.isolated_events")
        for key in ("backgrounds", "soundscapes", "max_events", "duration"):
            value, default = getattr(data, key), getattr(DataConfig, key)
            _require(endless or value == default, f"data.{key}", value, f"be {default} without data.isolated_events")
        rate = self.audio_config.sample_rate  # loudness is of a filter at 1,500 Hz, and FLAC has no other rates
        fits = 4000 <= rate < 2**16 or (rate % 10 == 0 and 2**16 <= rate <= 655350)
        rates = "be 4000 to 65535 with data.isolated_events, or a multiple of 10 up to 655350"
        _require(not endless or fits, "audio_config.sample_rate", rate, rates)
        one = "be 1 with model.type multiclass and isolated_events: a clip has one class"
        single = not endless or self.model.type != "multiclass" or data.max_events == 1
        _require(single, "data.max_events", data.max_events, one)
        return self

    @model_validator(mode="after")
    def _logmel_keys_agree(self) -> "Config":
        audio, gain = self.audio_config, self.augment.gain
        logmel, highest = audio.feature == "logmel", audio.f_max or audio.sample_rate / 2
        for key in ("n_mels", "f_max", "mean", "std"):
            value = getattr(audio, key)
            _require(logmel or value is None, f"audio_config.{key}", value, "be None unless feature is logmel")
        bins = 1 + audio.n_fft // 2
        _require((audio.n_mels or 1) <= bins, "audio_config.n_mels", audio.n_mels, f"be at most {bins}, n_fft's bins")
        _require(logmel or audio.f_min == 0, "audio_config.f_min", audio.f_min, "be 0 unless feature is logmel")
        half = f"be at most {audio.sample_rate / 2:g}, half of sample_rate"
        _require(highest <= audio.sample_rate / 2, "audio_config.f_max", audio.f_max, half)
        _require(audio.f_min < highest, "audio_config.f_min", audio.f_min, f"be below {highest:g} Hz, the upper end")
        both = (audio.mean is None) == (audio.std is None)
        _require(both, "audio_config.mean", audio.mean, "come with std, or neither")
        _require(logmel or gain == 0, "augment.gain", gain, "be 0 unless feature is logmel: others take the level off")
        return self

    @model_validator(mode="after")
    def _recipe_keys_agree(self) -> "Config":
        model, opt, mix, endless = self.model, self.opt, self.augment.wave_mix, self.data.isolated_events
        smoothing = opt.label_smoothing
        _require(not (smoothing and opt.focal_loss), "opt.label_smoothing", smoothing, "be 0 with focal_loss")
        for other, name in (opt.focal_loss, "focal_loss"), (mix, "augment.wave_mix"), (endless, "data.isolated_events"):
            _require(not (opt.teacher and other), "opt.teacher", opt.teacher, f"be None with {name}")
        _require(not (opt.balanced and endless), "opt.balanced", opt.balanced, "be False with data.isolated_events")
        _require(mix == 0 or model.type != "multiclass", "augment.wave_mix", mix, "be 0 with type multiclass")
        kept = self.audio_config.precompute_features and (mix or endless)
        _require(not kept, "audio_config.precompute_features", True, "be False where clips are new in every epoch")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, strings and numbers, as stored in checkpoints and run folders."""
        plain = dataclasses.asdict(self)
        del plain["path"]
        return plain


def _require(condition: bool, name: str, value: Any, what: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {shown(value)}. It should {what}")
