"""A run's plan: what flags, cfg and run folder settle before training begins."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import cfg_tree, error_line, run_script, train_command, write_cfg

from src.errors import UserError
from src.run_plan import TrainingOptions, plan_run
from src.training import train


@pytest.fixture
def options(corpus, tmp_path):
    return TrainingOptions(
        str(corpus / "tiny.cfg"),
        str(tmp_path / "run"),
        epochs=2,
        num_workers=0,
        random_clip_size=64,
        val_clip_size=64,
        seed=3,
    )


def test_a_plan_is_frozen_and_leaves_no_trace(options, tmp_path):
    plan = plan_run(options)
    assert plan.seed == 3 and plan.earlier is None and plan.resume is None and not plan.use_mixup
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.seed = 4
    assert not list(tmp_path.iterdir())


def test_flags_take_the_place_of_cfg_values_as_they_are(options):
    """No YAML is made of them: a name that YAML reads otherwise stays a name."""
    config = dataclasses.replace(options, train_lmdb="010", pretrained="{a: b}").config()
    assert config.data.train_lmdb == "010" and config.model.pretrained == "{a: b}"


def test_a_cfg_need_not_name_what_a_flag_gives(corpus, tmp_path):
    tree = cfg_tree(corpus)
    del tree["data"]["train_lmdb"]
    cfg = write_cfg(tmp_path / "no_train.cfg", tree)
    given = TrainingOptions(str(cfg), str(tmp_path / "run"), train_lmdb=str(corpus / "train.lmdb"))
    assert given.config().data.train_lmdb == str(corpus / "train.lmdb")
    with pytest.raises(UserError, match="data.train_lmdb is None"):
        dataclasses.replace(given, train_lmdb=None).config()


def test_a_checkpoint_is_read_once_to_plan_and_once_to_resume(options, tmp_path, monkeypatch):
    train(dataclasses.replace(options, epochs=1))
    (checkpoint,) = (tmp_path / "run/ckpts").iterdir()
    reads = []
    load = torch.load

    def counted(file, *more, **options):
        reads.append(Path(getattr(file, "name", file)).name)
        return load(file, *more, **options)

    monkeypatch.setattr(torch, "load", counted)
    train(options)
    assert reads == [checkpoint.name] * 2


def test_a_finished_run_is_known_to_be(options):
    train(options)
    assert plan_run(options).is_finished and not plan_run(dataclasses.replace(options, epochs=3)).is_finished


def test_a_doubled_key_is_refused_with_its_line(corpus, tmp_path):
    cfg = tmp_path / "doubled.cfg"
    cfg.write_text((corpus / "tiny.cfg").read_text() + "opt: {optimizer: SGD, lr: 1, batch_size: 2}\n")
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", cfg=cfg)))
    assert "doubled.cfg" in line and "key 'opt' is already in line" in line and not (tmp_path / "run").exists()
