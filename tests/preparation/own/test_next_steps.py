"""The cfg that a user gets, and the commands that are printed for them."""

import os
import shlex

import pytest
import yaml
from conftest import ROOT

from src.config.loading import KEYS, load_config
from src.preparation.own.next_steps import HOP, TEMPLATE, NextSteps

PATHS = [
    "my_data",
    "my data/it's",
    "/abs/#1: [a], {b} & 'c' \"d\"",
    "no",
    "0x10",
    "- x",
    "!tag *star",
    "k\u00f6ln \U0001f600",
    "ends in:",
    "tab\there",
    "line\nbreak",
    "$HOME `x` \\d",
    "\udcff",
    "x" * 200 + " " + "y" * 200,
]


def test_the_template_has_a_comment_for_every_key_and_what_is_used_today():
    config = load_config(TEMPLATE)
    assert config.audio_config.hop_len == HOP and config.opt.lr == 3e-4 and config.model.model_depth == 18
    tree = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    assert set(tree) == {"protocol", *KEYS}
    for line in TEMPLATE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert "  # " in line, line


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
@pytest.mark.parametrize("out_dir", PATHS)
def test_the_cfg_loads_whatever_the_folder_is_called(tmp_path, out_dir, kind, monkeypatch):
    monkeypatch.delenv("GISE_DATA_ROOT", raising=False)
    text = NextSteps(out_dir, kind, (), 2.5, 16000).cfg(7, 100, "|")
    (tmp_path / "mine.cfg").write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "mine.cfg")
    data = config.data
    assert [data.label_map, data.train_lmdb, data.val_lmdb] == [
        f"{out_dir}/{name}" for name in ("lbl_map.json", "train.lmdb", "val.lmdb")
    ]
    assert (config.model.type, config.model.num_classes, config.audio_config.delimiter) == (kind, 7, "|")
    assert (config.audio_config.sample_rate, config.audio_config.min_duration) == (16000, 2.5)
    template = TEMPLATE.read_text(encoding="utf-8")
    assert text.count(" # ") >= template.count(" # ")  # its comments are kept


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_the_delimiter_is_in_the_cfg(tmp_path, delimiter):
    (tmp_path / "mine.cfg").write_text(NextSteps("d", "multilabel", (1, 2, 3), 5, 22050).cfg(2, 8, delimiter))
    config = load_config(tmp_path / "mine.cfg")
    assert config.audio_config.delimiter == delimiter and config.data.train_lmdb == config.data.val_lmdb == "d/all.lmdb"


@pytest.mark.parametrize("clips, batch", [(1, 1), (3, 1), (4, 1), (40, 10), (127, 31), (128, 32), (10**6, 32)])
def test_an_epoch_has_four_batches_or_more(tmp_path, clips, batch):
    (tmp_path / "mine.cfg").write_text(NextSteps("d", "multiclass", (), 5, 22050).cfg(2, clips, ","))
    assert load_config(tmp_path / "mine.cfg").opt.batch_size == batch


@pytest.mark.parametrize(
    "seconds, rate, frames",
    [(5, 22050, 500), (10, 22050, 1000), (1, 22050, 100), (0.05, 22050, 5), (5, 44100, 1000), (0.001, 22050, 1)],
)
def test_training_sees_what_all_clips_have(seconds, rate, frames):
    steps = NextSteps("d", "multiclass", (), seconds, rate)
    assert steps.frames == frames <= max(1 + round(seconds * rate) // HOP, 1)
    assert f"--random_clip_size {frames} --val_clip_size {frames} " in steps.commands(1)
    assert f" --num_timesteps {frames + 1}" in steps.commands(1)


@pytest.mark.parametrize("out_dir", [path for path in PATHS if "\n" not in path])
@pytest.mark.parametrize("folds", [(), (1, 2, 4)])
def test_the_commands_are_words_of_a_shell(out_dir, folds, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = NextSteps(out_dir, "multilabel", folds, 5, 22050).commands(50).splitlines()
    assert len(lines) == (4 if folds else 3)
    words = [shlex.split(line) for line in lines]
    scripts = ["train_gise_mixtures.py", "eval_gise_mixtures.py", "predict.py"]
    if folds:
        scripts = ["train_esc50_classifier.py", "eval_gise_mixtures.py", "scripts/summarise_results.py", "predict.py"]
        assert words[0][:6] == ["for", "fold", "in", "1", "2", "4;"]
        words[0] = words[0][7:]
    assert [line[:2] for line in words] == [["python", script] for script in scripts]
    assert os.path.normpath(words[0][words[0].index("--cfg_file") + 1]) == f"{out_dir}/mine.cfg"


def test_a_folder_that_begins_with_a_dash_is_no_flag():
    for line in NextSteps("-o", "multiclass", (), 5, 22050).commands(50).splitlines():
        assert "./-o/" in line and " -o/" not in line


def test_from_another_folder_scripts_have_their_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = shlex.quote(str(ROOT / "train_classifier.py"))
    assert f"python {script} " in NextSteps("d", "multiclass", (), 5, 22050).commands(50)
