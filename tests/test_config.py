"""Every .cfg of the tree, and what is refused."""

import copy
from dataclasses import replace

import pytest
import yaml
from conftest import ROOT, cfg_tree, write_cfg

from src.config.loading import load_config, parse_config
from src.config.sections import PUBLISHED_AUGMENT, AudioConfig, OptConfig
from src.data.labels import LabelMap
from src.errors import UserError
from src.models.checkpoint import Checkpoint
from src.models.registry import FAMILIES

CFGS = sorted(path.relative_to(ROOT) for path in (ROOT / "cfgs_v2").rglob("*.cfg"))


def test_there_are_cfgs():
    assert CFGS


@pytest.mark.parametrize("path", CFGS, ids=str)
def test_every_cfg_of_the_tree_parses(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(path)
    assert config.model.model_depth in FAMILIES[config.model.arch].DEPTHS
    of_events = path.parent.name == "events" or path.name in ("demo.cfg", "gise_mixtures_60k.cfg")
    assert (config.model.type == "events") == of_events
    assert (config.protocol == "corrected") == (path.parent.name in ("efficient", "events"))
    if config.model.arch != "timm":  # the published recipe's
        assert config.augment == PUBLISHED_AUGMENT
        assert config.model.im_size == 221 and config.audio_config.win_len == config.audio_config.n_fft == 441
    if config.data.label_map_path().exists():
        LabelMap.load(config.data.label_map_path()).require_size(config.model.num_classes, str(path))


@pytest.mark.parametrize(
    "name, like, changes",
    [
        *(
            (
                f"{network}_lmdb",
                f"gise_mixtures_60k/{network}_lmdb",
                ("opt.scheduler=one_cycle", "protocol=corrected", "audio_config.mixup=True"),
            )
            for network in ("resnet_18", "efficientnet-b1")
        ),
        ("regnetx_002", "efficient/gise_mixtures_60k", ("model.frame_ms=80", "model.head=gru")),
    ],
)
def test_cfgs_of_events_are_those_of_taggers_but_for_what_events_need(name, like, changes):
    tagger = load_config(ROOT / f"cfgs_v2/{like}.cfg", ("model.type=events", *changes))
    assert load_config(ROOT / f"cfgs_v2/events/{name}.cfg") == tagger


def test_values_have_their_types(tmp_path):
    config = load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path)))
    assert config.opt.lr == 1e-3 and isinstance(config.opt.lr, float)  # YAML 1.1 reads 1e-3 as text
    assert config.audio_config.win_len == 441 and config.opt.weight_decay == 0.0


def test_unused_keys_of_published_cfgs_are_accepted(tmp_path):
    tree = cfg_tree(tmp_path)
    tree["data"]["test_manifest"] = "None"
    tree["data"]["cw"] = "None"
    tree["model"]["pretrained"] = "None"
    tree["audio_config"]["bg_files"] = None
    config = load_config(write_cfg(tmp_path / "a.cfg", tree))
    assert config.model.pretrained is None


ENDLESS = ("data.train_lmdb=None", "data.isolated_events=events", "data.backgrounds=noises")


def test_a_cfg_asks_for_new_soundscapes_in_every_epoch(tmp_path):
    data = load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path)), ENDLESS).data
    assert (data.source("train"), data.source("val")) == ("events", data.val_lmdb)
    assert (data.soundscapes, data.max_events, data.duration) == (1000, 3, 5.0)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("data.train_lmdb=a.lmdb",), "data.train_lmdb is 'a.lmdb'. It should be None with data.isolated_events"),
        (("data.backgrounds=./events/",), "It should be another folder than data.isolated_events"),
        (("data.isolated_events=None", "data.train_lmdb=a"), "data.backgrounds is 'noises'. It should be None without"),
        *(
            (
                ("data.isolated_events=None", "data.train_lmdb=a", "data.backgrounds=None", f"data.{key}={value}"),
                f"data.{key} is {value}. It should be {default} without data.isolated_events",
            )
            for key, value, default in (("soundscapes", 9, 1000), ("max_events", 2, 3), ("duration", 4.5, 5.0))
        ),
        (("data.soundscapes=9223372036854775807",), "It should be less than or equal to 100000000"),
        (
            ("audio_config.sample_rate=100",),
            "audio_config.sample_rate is 100. It should be 4000 to 65535 with data.iso",
        ),
        (("audio_config.sample_rate=96001",), "audio_config.sample_rate is 96001. It should be 4000 to 65535 with"),
        (("audio_config.sample_rate=655360",), "It should be 4000 to 65535 with data.isolated_events, or a multiple"),
        (("data.backgrounds=None",), "data.backgrounds is None. It should be a path with isolated_events"),
        (("data.val_lmdb=None",), "data.val_lmdb is None. It should be a path with is_lmdb: True"),
        (("data.soundscapes=0",), "data.soundscapes is 0. It should be greater than or equal to 1"),
        (("data.max_events=0",), "data.max_events is 0. It should be greater than or equal to 1"),
        (("data.max_events=101",), "data.max_events is 101. It should be less than or equal to 100"),
        (("data.duration=0",), "data.duration is 0. It should be greater than or equal to 0.1"),
        (("data.duration=601",), "data.duration is 601. It should be less than or equal to 600"),
        (("model.type=multiclass",), "data.max_events is 3. It should be 1 with model.type multiclass"),
        (("opt.balanced=True",), "opt.balanced is True. It should be False with data.isolated_events"),
        (("audio_config.precompute_features=True",), "should be False where clips are new in every epoch"),
    ],
)
def test_soundscapes_without_end_are_refused_with_what_does_not_fit(tmp_path, overrides, message):
    with pytest.raises(UserError) as error:
        load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path)), [*ENDLESS, *overrides])
    assert message in str(error.value)


def test_overrides(tmp_path):
    path = write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path))
    config = load_config(
        path,
        [
            "opt.lr=1e-2",
            "data.train_lmdb=a b;c.lmdb",
            "protocol=corrected",
            "audio_config.precompute_features=true",
            "model.model_depth=44",
        ],
    )
    assert config.opt.lr == 0.01 and config.data.train_lmdb == "a b;c.lmdb" and config.protocol == "corrected"
    assert config.audio_config.precompute_features is True and config.model.model_depth == 44


CONTRADICTIONS = [
    (["model.type=multiclass", "augment.wave_mix=0.5"], "augment.wave_mix is 0.5. It should be 0 with type multiclass"),
    (
        ["audio_config.precompute_features=True", "augment.wave_mix=0.5"],
        "precompute_features is True. It should be Fal",
    ),
    (["opt.teacher=a.npz", "augment.wave_mix=0.5"], "opt.teacher is 'a.npz'. It should be None with augment.wave_mix"),
    (
        ["opt.balanced=True", "data.train_lmdb=None", "data.isolated_events=a", "data.backgrounds=b"],
        "opt.balanced is True. It should be False with data.isolated_events",
    ),
]


@pytest.mark.parametrize("overrides, message", CONTRADICTIONS)
def test_keys_that_contradict_each_other(tmp_path, overrides, message):
    with pytest.raises(UserError, match="a.cfg: ") as error:
        load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path)), overrides)
    assert message in str(error.value)


REMOVE = object()
BROKEN = [
    (("model", "depht"), 18, "unknown key 'model.depht'"),
    (("model", "pretrianed"), None, "unknown key 'model.pretrianed'"),
    (("model", "lr"), "None", "unknown key 'model.lr'"),
    (("extra",), {}, "unknown key 'extra'"),
    (("extra",), None, "unknown key 'extra'"),
    (("opt",), REMOVE, "section 'opt' is missing"),
    (("opt",), 3, "opt is 3. It should be a section with keys"),
    (("opt",), None, "opt is None. It should be a section with keys"),
    (("model", "arch"), REMOVE, "key 'model.arch' is missing"),
    (("model", "arch"), "None", "model.arch is None. It should be text"),
    (("opt", "lr"), None, "opt.lr is None. It should be a number"),
    (("opt", "batch_size"), "many", "opt.batch_size is 'many'. It should be a whole number"),
    (("opt", "batch_size"), 2.5, "opt.batch_size is 2.5"),
    (("opt", "batch_size"), True, "opt.batch_size is True. It should be a whole number"),
    (("opt", "batch_size"), 0, "opt.batch_size is 0. It should be greater than or equal to 1"),
    (("opt", "lr"), "fast", "opt.lr is 'fast'. It should be a number"),
    (("opt", "lr"), "nan", "opt.lr is 'nan'. It should be a finite number"),
    (("opt", "optimizer"), "Adagrad", "opt.optimizer is 'Adagrad'. It should be 'Adam', 'AdamW' or 'SGD'"),
    (("audio_config", "win_len"), 500, "audio_config.win_len is 500. It should fit n_fft (441)"),
    (("audio_config", "bg_files"), "bg.txt", "mixers are retired"),
    (("audio_config", "mixup"), "yes please", "audio_config.mixup is 'yes please'. It should be True or False"),
    (("data", "train_lmdb"), None, "data.train_lmdb is None"),
    (("data", "is_lmdb"), False, "data.train_manifest is None"),
    (("model", "pretrained_fc"), 51, "pretrained_fc"),
    (("protocol",), "new", "'paper' or 'corrected'"),
    (("path",), "a.cfg", "unknown key 'path'"),
    (("model", "model_depth"), [18], "model.model_depth is [18]. It should be a whole number or text"),
    (("model", "arch"), "a\0b", "model.arch is 'a\\x00b'. It should be text without NUL"),
    (("opt", "batch_size"), 2**63, "It should be less than 9223372036854775808"),
    (("opt", "lr"), float("inf"), "opt.lr is inf. It should be a finite number"),
    (("opt", "lr"), True, "opt.lr is True. It should be a number"),
    (("opt", "weight_decay"), -1, "opt.weight_decay is -1. It should be greater than or equal to 0"),
    (("audio_config", "delimiter"), 3, "audio_config.delimiter is 3. It should be text"),
    (("audio_config", "delimiter"), "", "It should have at least 1 character"),
    (("audio_config", "min_duration"), 0, "audio_config.min_duration is 0. It should be greater than 0"),
    (("audio_config", "n_mels"), 64, "audio_config.n_mels is 64. It should be None unless feature is logmel"),
    (("audio_config", "f_max"), 8000, "audio_config.f_max is 8000.0. It should be None unless feature is logmel"),
    (("audio_config", "f_min"), 50, "audio_config.f_min is 50.0. It should be 0 unless feature is logmel"),
    (("audio_config", "mean"), -40, "audio_config.mean is -40.0. It should be None unless feature is logmel"),
    (("audio_config", "std"), 16, "audio_config.std is 16.0. It should be None unless feature is logmel"),
    (("audio_config", "feature"), "mfcc", "It should be 'spectrogram', 'melspectrogram' or 'logmel'"),
    (("augment",), {"rol": True}, "unknown key 'augment.rol'"),
    (("augment",), {"roll": 1}, "augment.roll is 1. It should be True or False"),
    (("augment",), {"gain": 3}, "augment.gain is 3.0. It should be 0 unless feature is logmel"),
    (("augment",), {"gain": 101}, "augment.gain is 101. It should be less than or equal to 100"),
    (("augment",), {"gain": float("nan")}, "augment.gain is nan. It should be"),
    (("augment",), {"freq_shift": 1.5}, "augment.freq_shift is 1.5. It should be a whole number"),
    (("augment",), {"freq_shift": -1}, "augment.freq_shift is -1. It should be greater than or equal to 0"),
    (("augment",), {"wave_mix": 1.5}, "augment.wave_mix is 1.5. It should be less than or equal to 1"),
    (("augment",), {"mixup_alpha": 0}, "augment.mixup_alpha is 0. It should be greater than or equal to 0.01"),
    (("augment",), {"mixup_alpha": "inf"}, "augment.mixup_alpha is 'inf'. It should be less than or equal to 100"),
    (("augment",), {"mask_prob": -0.1}, "augment.mask_prob is -0.1. It should be greater than or equal to 0"),
    (("augment",), {"freq_mask": 1.1}, "augment.freq_mask is 1.1. It should be less than or equal to 1"),
    (("augment",), {"time_mask": True}, "augment.time_mask is True. It should be a number"),
    (("opt", "balanced"), 1, "opt.balanced is 1. It should be True or False"),
]


@pytest.mark.parametrize("keys, value, message", BROKEN)
def test_what_does_not_fit_is_refused_by_name(tmp_path, keys, value, message):
    tree = copy.deepcopy(cfg_tree(tmp_path))
    *sections, key = keys
    target = tree
    for section in sections:
        target = target[section]
    if value is REMOVE:
        del target[key]
    else:
        target[key] = value
    with pytest.raises(UserError) as error:
        load_config(write_cfg(tmp_path / "a.cfg", tree))
    assert message in str(error.value) and "a.cfg" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"n_mels": 0}, "n_mels is 0. It should be greater than or equal to 1"),
        ({"n_mels": "many"}, "n_mels is 'many'. It should be a whole number"),
        ({"f_min": -1}, "f_min is -1. It should be greater than or equal to 0"),
        ({"f_min": 11025}, "f_min is 11025.0. It should be below 11025 Hz, the upper end"),
        ({"f_min": 500, "f_max": 400}, "f_min is 500.0. It should be below 400 Hz, the upper end"),
        ({"f_max": 11026}, "f_max is 11026.0. It should be at most 11025, half of sample_rate"),
        ({"sample_rate": 8000, "f_max": 8000}, "f_max is 8000.0. It should be at most 4000, half of sample_rate"),
        ({"mean": -40}, "mean is -40.0. It should come with std, or neither"),
        ({"std": 16}, "mean is None. It should come with std, or neither"),
        ({"mean": -40, "std": 0}, "std is 0. It should be greater than or equal to 0.0001"),
        ({"mean": -40, "std": 1e300}, "std is 1e+300. It should be less than or equal to 1000"),
        ({"mean": 1e38, "std": 1}, "mean is 1e+38. It should be less than or equal to 1000"),
        ({"n_mels": 10**9}, "n_mels is 1000000000. It should be at most 513, n_fft's bins"),
        ({"n_mels": 2**63 - 1}, "n_mels is 9223372036854775807. It should be at most 513, n_fft's bins"),
        ({"n_fft": 2}, "n_mels is 64. It should be at most 2, n_fft's bins"),
        ({"mean": float("nan"), "std": 16}, "mean is nan. It should be a finite number"),
        ({"n_fft": 512, "win_len": 1024}, "win_len is 1024. It should fit n_fft (512)"),
    ],
)
def test_settings_of_log_mels_that_do_not_fit(tmp_path, keys, message):
    tree = cfg_tree(tmp_path)
    tree["audio_config"] = {"feature": "logmel"} | keys
    with pytest.raises(UserError) as error:
        load_config(write_cfg(tmp_path / "a.cfg", tree))
    assert f"audio_config.{message}" in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("model: [", "not valid YAML"),
        ("", "no sections"),
        ("- a\n- b", "no sections"),
        ("model: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_files_that_are_no_cfg(tmp_path, text, message):
    path = tmp_path / "a.cfg"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


def refusal_of(tmp_path, text, *overrides):
    path = tmp_path / "a.cfg"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


def test_a_doubled_key_or_section_is_refused_with_its_line(tmp_path):
    text = yaml.safe_dump(cfg_tree(tmp_path), sort_keys=False)
    number = len(text.splitlines()) + 1
    doubled = refusal_of(tmp_path, f"{text}opt:\n  lr: 1\n")
    assert doubled.startswith(f"line {number}: key 'opt' is already in line ")
    assert refusal_of(tmp_path, "opt:\n  lr: 1\n  'lr': 1\n") == "line 3: key 'lr' is already in line 2"
    assert "--set opt={lr: 1, lr: 2}: line 1: key 'lr'" in refusal_of(tmp_path, text, "opt={lr: 1, lr: 2}")


def test_merge_keys_and_anchors(tmp_path):
    tree = cfg_tree(tmp_path)
    base = yaml.safe_dump(tree.pop("opt"), default_flow_style=True).strip()
    text = f"opt: &base\n  <<: &inner {base}\n  lr: 0.5\n{yaml.safe_dump(tree)}"
    (tmp_path / "a.cfg").write_text(text)
    config = load_config(tmp_path / "a.cfg", ["opt.scheduler=step"])
    assert (config.opt.lr, config.opt.batch_size, config.opt.scheduler) == (
        0.5,
        cfg_tree(tmp_path)["opt"]["batch_size"],
        "step",
    )
    merged = text.replace("opt: &base", "data2: &base", 1) + "opt:\n  <<: *base\n  lr: 0.25\n"
    assert refusal_of(tmp_path, merged).startswith("unknown key 'data2'")  # and not a doubled one


@pytest.mark.parametrize("text", ["010", "-010", "0_10", "1:30"])
def test_no_number_is_octal_or_sexagesimal(tmp_path, text):
    tree = cfg_tree(tmp_path)
    tree["opt"]["batch_size"] = "NUMBER"
    cfg = yaml.safe_dump(tree).replace("NUMBER", text)
    assert refusal_of(tmp_path, cfg) == f"opt.batch_size is '{text}'. It should be a whole number"
    path = write_cfg(tmp_path / "b.cfg", cfg_tree(tmp_path))
    with pytest.raises(UserError, match=f"opt.batch_size is '{text}'"):
        load_config(path, [f"opt.batch_size={text}"])
    assert load_config(path, [f"data.train_lmdb={text}"]).data.train_lmdb == text  # a folder may be called so
    for key in ("opt.lr", "opt.weight_decay", "audio_config.min_duration"):
        for value in (text, f"' {text}'"):
            with pytest.raises(UserError, match=f"{key} is ' ?{text}'. It should be a number"):
                load_config(path, [f"{key}={value}"])
    assert load_config(path, ["opt.lr='1e-3'", "opt.batch_size=0x10"]).opt == OptConfig("Adam", 1e-3, 16)


def test_a_file_that_is_not_there_and_one_that_cannot_be_read(tmp_path):
    for path, message in (
        (tmp_path / "a.cfg", "is missing. Expected a cfg file"),
        (tmp_path, "cannot be read as a cfg file: Is a"),
    ):
        with pytest.raises(UserError, match=f"^{path}: {message}"):
            load_config(path)


def test_a_part_that_is_replaced_is_checked_again(tmp_path):
    config = load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path)))
    other = replace(config, audio_config=replace(config.audio_config, mixup=True))
    assert other.audio_config.mixup and other != config and other.path == config.path
    assert replace(config, path="b.cfg") == config and "path" not in config.as_dict()
    with pytest.raises(ValueError, match="greater than 0"):
        replace(config.opt, lr=0)
    with pytest.raises(ValueError, match="fit n_fft"):
        replace(config, audio_config=replace(config.audio_config, n_fft=64))


@pytest.mark.parametrize(
    "feature, lengths", [("spectrogram", (441, 441)), ("melspectrogram", (1920, 661)), ("logmel", (1024, 1024))]
)
def test_lengths_that_are_left_out_depend_on_the_feature(feature, lengths):
    audio = AudioConfig(feature=feature)
    assert (audio.n_fft, audio.win_len) == lengths
    assert AudioConfig(feature=feature, n_fft=64).win_len == 64


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["model.dropout=0.1"], "model.dropout is 0.1. It should be 0 unless arch is timm"),
        (["model.drop_path=0.1"], "model.drop_path is 0.1. It should be 0 unless arch is timm"),
        (["model.pool=maxpool"], "model.pool is 'maxpool'. It should be avgpool unless arch is timm"),
        (["model.pool=gem"], "model.pool is 'gem'. It should be 'avgpool' or 'maxpool'"),
        (["model.drop_path=1"], "model.drop_path is 1. It should be less than 1"),
        (["opt.scheduler=linear"], "opt.scheduler is 'linear'. It should be 'reduce', 'step', 'one_cycle' or 'cosine'"),
        (["opt.warmup=1"], "opt.warmup is 1. It should be less than 1"),
        (["opt.clip_norm=0"], "opt.clip_norm is 0. It should be greater than 0"),
        (["opt.ema_decay=1"], "opt.ema_decay is 1. It should be less than 1"),
        (["opt.label_smoothing=-0.1"], "opt.label_smoothing is -0.1. It should be greater than or equal to 0"),
        (["opt.label_smoothing=0.1", "opt.focal_loss=True"], "opt.label_smoothing is 0.1. It should be 0 with focal"),
        (["opt.teacher=t.pt", "opt.focal_loss=True"], "opt.teacher is 't.pt'. It should be None with focal_loss"),
        (
            ["opt.teacher=t.pt", "augment.wave_mix=0.5"],
            "opt.teacher is 't.pt'. It should be None with augment.wave_mix",
        ),
        (["opt.teacher_weight=1.1"], "opt.teacher_weight is 1.1. It should be less than or equal to 1"),
    ],
)
def test_keys_of_a_recipe_that_do_not_agree(tmp_path, overrides, message):
    with pytest.raises(UserError) as error:
        load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path)), overrides)
    assert message in str(error.value) and "a.cfg" in str(error.value)


@pytest.mark.parametrize("override", ["opt.lr", "=3", "a.b.c=3", "protocol.x=1", "opt.lr=["])
def test_overrides_that_make_no_sense(tmp_path, override):
    with pytest.raises(UserError, match="--set"):
        load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path)), [override])


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "class name"),
        ("{}", "class name"),
        ("{", "JSON"),
        ('{"a": 0, "b": 0}', "each once"),
        ('{"a": 1}', "each once"),
        ('{"a": "0"}', "each once"),
        ('{"a": true}', "each once"),
    ],
)
def test_label_maps_that_make_no_sense(tmp_path, text, message):
    path = tmp_path / "lbl_map.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        LabelMap.load(path)


def test_the_published_label_map_is_alphabetical():
    names = LabelMap.load(ROOT / "meta" / "lbl_map.json").names
    assert len(names) == 51 and list(names) == sorted(names) and names[0] == "Applause"


def rooted(tmp_path, monkeypatch, **sections):
    """A cfg of relative paths, loaded from another folder with a data root."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    tree = cfg_tree(tmp_path)
    tree["data"] |= {
        "meta_root": "meta",
        "train_lmdb": "l/train.lmdb",
        "val_lmdb": "/abs/val.lmdb",
        "test_lmdb": "None",
        "train_manifest": "m.csv",
    }
    for section, values in sections.items():
        tree[section] |= values
    return load_config(write_cfg(tmp_path / "a.cfg", tree), ["data.val_manifest=here.csv"], "data")


def test_the_data_root_is_put_before_relative_paths_of_the_cfg_alone(tmp_path, monkeypatch):
    config = rooted(tmp_path, monkeypatch, model={"pretrained": "w/a.pth"})
    data = config.data
    assert (data.train_lmdb, data.train_manifest, data.meta_root) == ("data/l/train.lmdb", "data/m.csv", "data/meta")
    assert config.model.pretrained == "data/w/a.pth"
    assert data.val_lmdb == "/abs/val.lmdb" and data.test_lmdb is None and data.val_manifest == "here.csv"


def test_a_label_map_that_is_not_among_the_data_is_the_codes(tmp_path, monkeypatch):
    (tmp_path / "meta").mkdir()
    assert rooted(tmp_path, monkeypatch).data.meta_root == "meta"


def test_a_label_map_without_a_meta_root_is_under_the_data_root(tmp_path, monkeypatch):
    assert rooted(tmp_path, monkeypatch, data={"meta_root": None}).data.label_map == "data/lbl_map.json"


def test_a_data_root_that_is_not_there_is_named(tmp_path):
    path = write_cfg(tmp_path / "a.cfg", cfg_tree(tmp_path))
    with pytest.raises(UserError, match="nowhere: no such folder of data .--data_root"):
        load_config(path, data_root="nowhere")


def test_digests_of_a_configuration_are_those_of_before_there_was_resample():
    """Of `repr`, that of an untrained network is made, which stands in results tables."""
    then = "normalize=False, min_duration=None, delimiter=',', mixup=False, precompute_features=False, bg_files=None)"
    assert repr(AudioConfig()).endswith(then) and repr(AudioConfig(resample=True)) == repr(AudioConfig())


def test_of_log_mels_every_setting_is_in_the_digest_of_an_untrained_network(tmp_path):
    def digest(audio):
        config = parse_config(cfg_tree(tmp_path) | {"audio_config": audio}, "a.cfg")
        return Checkpoint(tmp_path / "a.ckpt", config, None, {"seed": 1}, {}, "").untrained_digest

    logmel = {"feature": "logmel", "mean": -40.0, "std": 16.0}
    others = ({}, {"mean": -41.0}, {"std": 17.0}, {"n_mels": 32}, {"f_min": 50.0}, {"f_max": 9e3}, {"hop_len": 441})
    assert len({digest(logmel | other) for other in others}) == len(others)
    assert digest({}) == "932796357d97026d"  # of before there were log-mels
