"""Seeds, resuming, and what a run folder allows."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, cfg_tree, error_line, run_script, train_command, write_cfg

from src.config.loading import load_config
from src.learning.optim import build_optimizer, build_schedule
from src.models.checkpoint import initial_network, read_checkpoint


def weights_of(folder, epoch):
    (path,) = (folder / "ckpts").glob(f"epoch={epoch:02d}*.ckpt")
    return read_checkpoint(path).weights, path.name


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """A run of three epochs with seed 3."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    run_script(*train_command(corpus, folder, "--use_mixup", epochs=3), check=0)
    return folder


def test_a_seed_gives_the_same_run_with_any_number_of_workers(corpus, undisturbed, tmp_path):
    command = train_command(corpus, tmp_path / "again", "--use_mixup", "--num_workers", 2, epochs=3)
    run_script(*command, check=0)
    for epoch in range(3):
        (ours, name), (theirs, other_name) = weights_of(tmp_path / "again", epoch), weights_of(undisturbed, epoch)
        assert name == other_name and same_weights(ours, theirs)
    csvs = [(folder / "logs" / "metrics.csv").read_text() for folder in (tmp_path / "again", undisturbed)]
    assert csvs[0] == csvs[1]


def test_another_seed_gives_another_run(corpus, undisturbed, tmp_path):
    run_script(*train_command(corpus, tmp_path / "other", "--use_mixup", "--seed", 4), check=0)
    assert not same_weights(weights_of(tmp_path / "other", 0)[0], weights_of(undisturbed, 0)[0])


def test_an_unseeded_run_records_the_seed_it_drew(corpus, tmp_path):
    command = [word for word in train_command(corpus, tmp_path / "drawn") if word not in ("--seed", 3)]
    run_script(*command, check=0)
    seed = json.loads((tmp_path / "drawn" / "run.json").read_text())["seed"]
    run_script(*train_command(corpus, tmp_path / "named", "--seed", seed), check=0)
    assert same_weights(weights_of(tmp_path / "drawn", 0)[0], weights_of(tmp_path / "named", 0)[0])


@pytest.mark.parametrize("setting", ["opt.scheduler=step", "opt.lr=1e-6"])
def test_the_schedule_goes_on_where_it_stood(corpus, trained, tmp_path, setting):
    """A run that ends just where the learning rate drops, and then goes on, is as one that never ended."""

    def train(folder, epochs):
        run_script(
            *train_command(
                corpus, folder, "--set", setting, "--set", f"data.train_lmdb={corpus / 'train_4.lmdb'}", epochs=epochs
            ),
            check=0,
        )
        return (folder / "logs" / "metrics.csv").read_text()

    undisturbed = train(tmp_path / "whole", 12)
    rates = [float(line.split(",")[2]) for line in undisturbed.splitlines()[1:]]
    drop = rates.index(rates[-1])
    assert drop > 0 and rates == [rates[0]] * drop + [pytest.approx(rates[0] / 10)] * (len(rates) - drop)
    train(tmp_path / "parts", drop)
    assert train(tmp_path / "parts", 12) == undisturbed


def test_an_interrupted_run_goes_on_and_ends_as_if_undisturbed(corpus, tmp_path):
    folder = tmp_path / "run"
    words = [str(word) for word in train_command(corpus, folder, "--use_mixup", epochs=500)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / words[0]), *words[1:]],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("ckpts/epoch=00*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=120)
    assert process.returncode == 130 and "resumes from the last checkpoint" in output and "Traceback" not in output
    assert json.loads((folder / "run.json").read_text())["finished"] is None

    epochs = len(list((folder / "ckpts").iterdir())) + 2
    result = run_script(*train_command(corpus, folder, "--use_mixup", epochs=epochs), check=0)
    assert "resuming from" in result.stderr
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1
    run_script(*train_command(corpus, tmp_path / "undisturbed", "--use_mixup", epochs=epochs), check=0)
    for epoch in range(len(list((tmp_path / "undisturbed" / "ckpts").iterdir()))):
        (ours, name), (theirs, other_name) = weights_of(folder, epoch), weights_of(tmp_path / "undisturbed", epoch)
        assert name == other_name and same_weights(ours, theirs)
    assert (folder / "logs/metrics.csv").read_text() == (tmp_path / "undisturbed/logs/metrics.csv").read_text()


def test_a_finished_run_is_left_alone_and_more_epochs_go_on(corpus, undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())
    result = run_script(*train_command(corpus, folder, "--use_mixup", epochs=3), check=0)
    assert "finished (3 epochs), skipped" in result.stderr
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())
    assert "skipped" in run_script(*train_command(corpus, folder, "--use_mixup", epochs=2), check=0).stderr
    run_script(*train_command(corpus, folder, "--use_mixup", epochs=4), check=0)
    assert len(list((folder / "ckpts").iterdir())) == 4
    assert len((folder / "logs" / "metrics.csv").read_text().splitlines()) == 5


def test_resume_from_a_named_checkpoint(corpus, undisturbed, tmp_path):
    (path,) = (undisturbed / "ckpts").glob("epoch=01*.ckpt")
    run_script(*train_command(corpus, tmp_path / "run", "--use_mixup", "--resume_from", path, epochs=3), check=0)
    assert [p.name[:8] for p in (tmp_path / "run" / "ckpts").iterdir()] == ["epoch=02"]
    assert same_weights(weights_of(tmp_path / "run", 2)[0], weights_of(undisturbed, 2)[0])


def test_a_truncated_last_checkpoint_is_passed_over(corpus, undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"finished": None}))
    (last,) = (folder / "ckpts").glob("epoch=02*.ckpt")
    last.write_bytes(last.read_bytes()[:5000])
    result = run_script(*train_command(corpus, folder, "--use_mixup", epochs=3), check=0)
    assert "epoch=01" in result.stderr.split("resuming from")[1].splitlines()[0]


@pytest.mark.parametrize(
    "more, message",
    [
        (("--set", "opt.lr=0.1"), "opt.lr 0.001 instead of 0.1"),
        (("--seed", "9"), "seed 3 instead of 9"),
        (("--random_clip_size", "32"), "random_clip_size 64 instead of 32"),
        (("--val_clip_size", "32"), "val_clip_size 64 instead of 32"),
    ],
)
def test_a_folder_of_another_run_is_refused(corpus, undisturbed, more, message):
    line = error_line(run_script(*train_command(corpus, undisturbed, "--use_mixup", *more, epochs=9)))
    assert message in line and str(undisturbed) in line


def test_the_initial_network_is_that_of_the_seed(corpus):
    config = load_config(corpus / "tiny.cfg")
    torch.manual_seed(99)
    one, other = initial_network(config, 1).state_dict(), initial_network(config, 1).state_dict()
    assert same_weights(one, other) and not same_weights(one, initial_network(config, 2).state_dict())


def test_warm_start_from_exported_weights(corpus, undisturbed, tmp_path):
    weights, _ = weights_of(undisturbed, 2)
    torch.save(weights, tmp_path / "w.pth")
    tree = cfg_tree(corpus)
    tree["model"] |= {"pretrained": str(tmp_path / "w.pth"), "pretrained_fc": 3}
    config = load_config(write_cfg(tmp_path / "ft.cfg", tree))
    network = initial_network(config, 0)
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[key]) != key.startswith("linear.")  # the last layer is fresh
    run_script(*train_command(corpus, tmp_path / "run", cfg=tmp_path / "ft.cfg"), check=0)
    assert len(list((tmp_path / "run" / "ckpts").iterdir())) == 1


def test_optimisers_and_schedules(corpus):
    parameter = [torch.nn.Parameter(torch.zeros(1))]
    sgd = build_optimizer(load_config(corpus / "tiny.cfg", ["opt.optimizer=SGD"]).opt, parameter)
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["momentum"] == 0.9 and sgd.defaults["nesterov"]
    opt = load_config(corpus / "tiny.cfg", ["opt.weight_decay=1e-4"]).opt
    adam = build_optimizer(opt, parameter)
    assert isinstance(adam, torch.optim.Adam) and adam.defaults["lr"] == 1e-3 and adam.defaults["weight_decay"] == 1e-4
    plateau = build_schedule(opt, adam, lambda: (0, 1))
    for epoch in range(8):
        assert adam.param_groups[0]["lr"] == (1e-3 if epoch < 7 else pytest.approx(1e-4))
        plateau.step(0.5)
    step = build_schedule(load_config(corpus / "tiny.cfg", ["opt.scheduler=step"]).opt, sgd, lambda: (0, 1))
    for epoch in range(20):
        assert sgd.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.1 ** (epoch // 10))
        sgd.step()
        step.step()


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.in_memory=False",),
        ("opt.optimizer=SGD", "opt.scheduler=step"),
        ("opt.focal_loss=True",),
        ("protocol=corrected",),
        ("audio_config.precompute_features=True",),
        ("audio_config.feature=melspectrogram", "audio_config.n_fft=1920", "audio_config.win_len=661"),
    ],
)
def test_other_settings_train(corpus, tmp_path, overrides):
    words = [word for override in overrides for word in ("--set", override)]
    run_script(*train_command(corpus, tmp_path / "run", "--use_mixup", *words), check=0)
    assert len(list((tmp_path / "run" / "ckpts").iterdir())) == 1


def test_class_weights_change_the_loss(corpus, undisturbed, tmp_path):
    torch.save(torch.tensor([5.0, 5.0, 5.0]), tmp_path / "cw.pt")
    run_script(*train_command(corpus, tmp_path / "run", "--use_mixup", "--cw", tmp_path / "cw.pt"), check=0)
    assert not same_weights(weights_of(tmp_path / "run", 0)[0], weights_of(undisturbed, 0)[0])


@pytest.mark.parametrize("flag", ["--random_clip_size", "--val_clip_size"])
def test_clips_that_are_too_small_for_the_network_are_refused_before_it_learns(corpus, tmp_path, flag):
    network = ("--set", "model.arch=densenet", "--set", "model.model_depth=121")
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", *network, flag, 1)))
    assert "the network takes no input of 221 bins or bands and 1 frames (" in line and flag in line
    assert not (tmp_path / "run" / "run.json").exists() and not list(tmp_path.rglob("*.ckpt"))
