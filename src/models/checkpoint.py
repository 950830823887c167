"""Checkpoints read back: configuration, label map and weights, as plain data."""

import logging
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.config.loading import parse_config
from src.config.sections import AudioConfig, Config, ModelConfig, OptConfig
from src.data.labels import LabelMap
from src.errors import UserError
from src.models.bundle import golden_logits, is_bundle, read_bundle, write_bundle
from src.models.decisions import DECISIONS, EVENT_DECISIONS, Decisions, EventDecisions, read_decisions
from src.models.registry import build_network, create
from src.models.safe_loading import StandIn, read_torch_file, require_as_written
from src.models.torch_files import digest_of, torch_file_digest, write_torch_file
from src.models.weights import is_usable, load_state, network_part, weights_of
from src.utils.files import whole_file

log = logging.getLogger(__name__)

GISE_51 = Path(__file__).parents[2] / "meta" / "lbl_map.json"
TOLERANCE = 1e-3  # of logits that another machine computed


@dataclass(frozen=True)
class Checkpoint:
    """What a `.ckpt` or a bundle holds. Its tensors stay in the file until they are used, where it can be mapped."""

    path: Path
    config: Config
    label_map: LabelMap | None  # None in the checkpoints released in 2021
    record: dict[str, Any]  # `hyper_parameters`: seed, protocol, command, versions, …
    weights: dict[str, torch.Tensor]  # the network's state dict
    digest: str  # of the file, see src/models/torch_files.py
    decisions: Decisions | None = None  # None where nobody has chosen thresholds
    event_decisions: EventDecisions | None = None
    golden: list[float] | None = None  # (C,) of a bundle, see `golden_logits`

    def classes(self, lbl_map: str | Path | None = None) -> LabelMap:
        """The label map of a file, by default the one that the checkpoint carries.

        A checkpoint released in 2021 carries none. One of 51 classes has GISE-51's.

        Raises:
            UserError: the file is no label map, or another one than the checkpoint was trained with, or none is known.
        """
        label_map = LabelMap.load(lbl_map) if lbl_map else self.label_map
        if label_map is None:
            label_map = LabelMap.load(GISE_51)
            classes = self.config.model.num_classes
            if classes != len(label_map):
                raise UserError(
                    f"{self.path}: carries no label map for its {classes} classes. Give the one it was trained with "
                    "as --lbl_map"
                )
            log.info("%s: carries no label map. Taken: GISE-51's, meta/lbl_map.json", self.path)
        self.require_label_map(label_map)
        return label_map

    def require_label_map(self, label_map: LabelMap) -> None:
        """Refuse a label map other than the one the checkpoint was trained with, as far as it says."""
        label_map.require_size(self.config.model.num_classes, str(self.path))
        trained = self.label_map.names if self.label_map else label_map.names
        for index, (name, own) in enumerate(zip(label_map.names, trained)):
            if name != own:
                trained_with = f"{self.path} was trained with '{own}' there. Is it another data set's map?"
                raise UserError(f"{label_map.path}: class {index} is '{name}', but {trained_with}")

    @property
    def temperature(self) -> float:
        """What the network's logits are divided by."""
        return self.decisions.temperature if self.decisions else 1.0

    def network(self, reused: nn.Module | None = None) -> nn.Module:
        """The trained network.

        Args:
            reused: one of this architecture whose place it takes, which is quicker than making one.

        Raises:
            UserError: the weights do not fit the configuration, or are damaged.
        """
        require_as_written(self.path)
        network = create(*architecture(self.config)) if reused is None else reused
        load_state(network, self.weights, str(self.path))
        return network

    @property
    def seed(self) -> int:
        """With which the run began.

        Raises:
            UserError: the checkpoint does not say.
        """
        seed = self.record.get("seed")
        if not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise UserError(f"{self.path}: does not say with which seed its run began, as --untrained needs")
        return seed

    @property
    def untrained_digest(self) -> str:
        """16 hexadecimal digits that tell what `untrained_network` is made of, and what it reads."""
        config, pretrained = self.config, Path(self.config.model.pretrained or "")
        weights = torch_file_digest(pretrained) if pretrained.is_file() else ""
        audio, fold = config.audio_config, self.record.get("fold_index")
        of_logmel = (audio.n_mels, audio.f_min, audio.f_max, audio.mean, audio.std)  # which its repr lacks
        more = (of_logmel,) if audio.feature == "logmel" else ()
        of_events = (config.model.frame_ms, config.model.head) if config.model.type == "events" else ()
        return digest_of((config.model, audio, self.seed, fold, weights, *more, *of_events))

    def untrained_network(self) -> nn.Module:
        """The network as it was when the run began."""
        return initial_network(self.config, self.seed)


def architecture(config: Config) -> tuple[str, int | str, int, int, str, int | None, str]:
    """What `create` makes a network of: equal for networks that differ in their weights alone."""
    model, stride = config.model, config.model.frame_stride(config.audio_config)
    return model.arch, model.model_depth, model.num_classes, model.im_size, model.pool, stride, model.head


@lru_cache
def outline(*architecture: Any) -> nn.Module:
    """A network whose tensors have shapes and no values."""
    with torch.device("meta"):
        return create(*architecture)


def initial_network(config: Config, seed: int) -> nn.Module:
    """The network that a run with this seed begins with."""
    torch.manual_seed(seed)
    return build_network(config.model, config.model.frame_stride(config.audio_config))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project, one released in 2021, or a bundle, onto the CPU. Nothing in it is run.

    Raises:
        UserError: no such file, not a checkpoint, or one without what is needed.
    """
    path = Path(path)
    digest = torch_file_digest(path) if path.is_file() else ""
    content = read_bundle(path) if is_bundle(path) else read_torch_file(path, "a checkpoint", mapped=True)
    if not isinstance(content, dict) or not {"hyper_parameters", "state_dict"} <= content.keys():
        raise UserError(f"{path}: is not a checkpoint of a training run (is it a .pth of weights alone?)")
    record, state = content["hyper_parameters"], content["state_dict"]
    if not (isinstance(record, dict) and isinstance(record.get("cfg"), dict) and isinstance(state, dict)):
        raise UserError(f"{path}: holds no configuration, and so does not say which network it is of")
    if not isinstance(record.get("data") or {}, dict):
        raise UserError(f"{path}: its note on the run's data is {str(record['data'])[:100]!r}. The file is damaged")
    if "lbl_map" in record:
        config = parse_config(record["cfg"], str(path))
        label_map = LabelMap.from_mapping(record["lbl_map"], f"in {path}")
    else:
        config, label_map = parse_config(published_settings(record["cfg"]), str(path)), None
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
        raise UserError(f"{path}: its state_dict holds something else than named tensors. The file is damaged")
    decisions = read_decisions(Decisions, content.get(DECISIONS), config.model.num_classes, path)
    of_events = read_decisions(EventDecisions, content.get(EVENT_DECISIONS), config.model.num_classes, path)
    golden, classes = content.get("golden"), config.model.num_classes
    if golden is not None and not (isinstance(golden, list) and [type(each) for each in golden] == [float] * classes):
        raise UserError(f"{path}: its golden output is no list of {classes} numbers. The file is damaged")
    return Checkpoint(path, config, label_map, record, network_part(state), digest, decisions, of_events, golden)


def keep_decisions(
    checkpoint: Checkpoint,
    decisions: Decisions,
    of_events: EventDecisions | None = None,
    output: str | Path | None = None,
) -> None:
    """Put decisions into a checkpoint's file, or into a copy of it. Everything else in it stays as it is.

    A copy of a checkpoint released in 2021 lacks the objects that nothing here reads.

    Raises:
        UserError: another file is under that name now.
    """
    in_bundle = is_bundle(checkpoint.path)
    content = read_bundle(checkpoint.path) if in_bundle else read_torch_file(checkpoint.path, "a checkpoint")
    if torch_file_digest(checkpoint.path) != checkpoint.digest:
        raise UserError(f"{checkpoint.path}: was replaced while it was in use. Start again")
    if checkpoint.label_map is None:
        content = without_stand_ins(content)
    chosen = {DECISIONS: decisions, EVENT_DECISIONS: of_events}
    found = {key: each.as_dict() for key, each in chosen.items() if each is not None}
    (write_bundle if in_bundle else write_torch_file)(output or checkpoint.path, content | found)


def export_bundle(checkpoint: Checkpoint, path: str | Path, lbl_map: str | Path | None = None) -> None:
    """Write a checkpoint as a bundle, and read it back.

    Args:
        lbl_map: as of `Checkpoint.classes`. The bundle carries it.

    Raises:
        UserError: the weights or the label map do not fit, or the bundle says something else than the checkpoint.
    """
    network = checkpoint.network().eval()
    record = checkpoint.record
    if checkpoint.label_map is None:
        record = without_stand_ins(record) | {"cfg": published_settings(record["cfg"])}
    record = record | {"lbl_map": {name: index for index, name in enumerate(checkpoint.classes(lbl_map).names)}}
    chosen = {DECISIONS: checkpoint.decisions, EVENT_DECISIONS: checkpoint.event_decisions}
    golden = golden_logits(checkpoint.config, network)
    content = {"hyper_parameters": record, "state_dict": weights_of(network), "golden": golden}
    with whole_file(path) as temporary:
        write_bundle(temporary, content | {key: each.as_dict() for key, each in chosen.items() if each})
        found = read_checkpoint(temporary)
        again = golden_logits(found.config, found.network(network))
        if again != golden:
            raise UserError(f"{path}: is not written: read back, its network gives other logits")


def require_golden(checkpoint: Checkpoint) -> None:
    """Refuse a bundle whose network computes something else here than where it was written.

    Raises:
        UserError: logits differ by more than TOLERANCE.
    """
    if checkpoint.golden is not None:
        found = golden_logits(checkpoint.config, checkpoint.network().eval())
        furthest = max(abs(one - other) for one, other in zip(found, checkpoint.golden))
        if not furthest <= TOLERANCE:
            raise UserError(
                f"{checkpoint.path}: a logit of its golden input is {furthest:.2g} from what it was where it was "
                f"written, and {TOLERANCE:g} at most are allowed. Is another version of timm installed?"
            )


def without_stand_ins(tree: Any) -> Any:
    """Nested dicts without what stands in for objects of 2021 and their classes."""
    if type(tree) is not dict:
        return tree
    stay = {name: value for name, value in tree.items() if not isinstance(value, StandIn)}
    return {name: without_stand_ins(value) for name, value in stay.items() if not isinstance(name, type)}


def published_settings(cfg: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration as stored in 2021, what this project knows. Where its data was is left out."""
    settings: dict[str, Any] = {"data": {"label_map": "", "train_lmdb": "", "val_lmdb": ""}}
    for section, kind in (("model", ModelConfig), ("opt", OptConfig), ("audio_config", AudioConfig)):
        known = {spec.name for spec in fields(kind)} - {"pretrained", "pretrained_fc", "bg_files"}
        stored = cfg.get(section)
        settings[section] = {k: v for k, v in stored.items() if k in known} if isinstance(stored, dict) else stored
    return settings


def load_class_weights(path: str | None, num_classes: int) -> torch.Tensor | None:
    """The (C,) tensor of --cw.

    Raises:
        UserError: no such file, or not one weight a class.
    """
    if path is None:
        return None
    weights = read_torch_file(path, "a tensor of class weights (--cw)")
    if not isinstance(weights, torch.Tensor) or weights.shape != (num_classes,):
        shape = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise UserError(f"--cw {path}: holds {shape}, where a tensor of {num_classes} class weights was expected")
    if not is_usable(weights) or not is_usable(weights := weights.detach().float()) or (weights < 0).any():
        raise UserError(f"--cw {path}: holds something else than finite numbers of 0 or more, one a class")
    if not weights.any():
        raise UserError(f"--cw {path}: all weights are 0, and nothing could be learnt")
    return weights
