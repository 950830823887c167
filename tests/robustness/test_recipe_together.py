"""Log-mels, soundscapes without end, all augmentation, averaged weights and rates by the step in one run."""

import shutil

import pytest
import torch
from conftest import cfg_tree, run_script, train_command, write_cfg
from small_sources import write_sources

from src.errors import Interrupted
from src.run_plan import TrainingOptions
from src.runs.interrupts import Interrupts
from src.runs.resuming import RAW
from src.training import train


@pytest.fixture(scope="module")
def recipe(corpus, tmp_path_factory):
    """A cfg with all that goes together."""
    folder = tmp_path_factory.mktemp("together")
    sources, tree = write_sources(folder), cfg_tree(corpus)
    tree["protocol"] = "corrected"
    tree["model"] |= {"arch": "timm", "model_depth": "test_resnet", "dropout": 0.2, "drop_path": 0.2}
    tree["opt"] |= {"optimizer": "AdamW", "scheduler": "one_cycle", "clip_norm": 0.5, "ema_decay": 0.9}
    tree["audio_config"] |= {"feature": "logmel", "n_mels": 16, "n_fft": 512, "win_len": 512, "mixup": True}
    tree["augment"] = {"roll": True, "gain": 6, "freq_shift": 3, "wave_mix": 0.5, "mixup_alpha": 0.4, "mixup_max": True}
    del tree["data"]["train_lmdb"]
    tree["data"] |= {"isolated_events": str(sources / "events"), "backgrounds": str(sources / "noises")}
    tree["data"] |= {"soundscapes": 12, "duration": 0.7}
    return write_cfg(folder / "recipe.cfg", tree)


def states(folder):
    return [torch.load(path, weights_only=True) for path in sorted((folder / "ckpts").iterdir())]


def assert_same(one, other):
    for state, due in zip(states(one), states(other), strict=True):
        for part in ("state_dict", RAW):
            assert all(torch.equal(tensor, due[part][name]) for name, tensor in state[part].items())
        audio = state["hyper_parameters"]["cfg"]["audio_config"]
        assert audio["std"] and audio == due["hyper_parameters"]["cfg"]["audio_config"]
    assert (one / "logs" / "metrics.csv").read_text() == (other / "logs" / "metrics.csv").read_text()


@pytest.mark.parametrize("features", ["workers", "device"])
def test_an_interrupted_run_ends_as_an_undisturbed_one(recipe, tmp_path, monkeypatch, features):
    sizes = {"epochs": 2, "num_workers": 0, "random_clip_size": 64, "val_clip_size": 64}

    def run(folder):
        train(TrainingOptions(str(recipe), str(folder), seed=3, features=features, **sizes))

    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "wanted", lambda _, trainer: not trainer.validating and trainer.global_step == 4)
        with pytest.raises(Interrupted):
            run(tmp_path / "run")
    assert (tmp_path / "run" / "resume.ckpt").exists()
    run(tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.processes
def test_two_processes_go_on_as_if_undisturbed(corpus, recipe, tmp_path):
    def run(folder, *more):
        two = "--accelerator", "cpu", "--devices", 2, "--features", "device", "--set", "opt.batch_size=2"
        run_script(*train_command(corpus, folder, *two, *more, cfg=recipe, epochs=2), check=0)

    run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    (last,) = (tmp_path / "run" / "ckpts").glob("epoch=01*")
    last.unlink()
    run(tmp_path / "run", "--num_workers", 1)
    assert_same(tmp_path / "run", tmp_path / "whole")
