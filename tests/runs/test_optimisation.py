"""Optimisers, rates by the step, clipping, averaged weights and dropping, alone and all together, and resuming."""

import csv
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import cfg_tree, run_script, train_command, write_cfg
from torch.optim import SGD, lr_scheduler

from src.config.loading import load_config
from src.config.sections import OptConfig
from src.data.labels import LabelMap
from src.data.loading import open_dataset
from src.data.transforms import evaluation_chain
from src.errors import Interrupted, UserError
from src.learning.optim import build_optimizer, rate_at
from src.learning.tasks import build_task
from src.models.checkpoint import initial_network, read_checkpoint
from src.models.registry import build_network, create
from src.run_plan import TrainingOptions
from src.runs.devices import Devices
from src.runs.folder import checkpoint_at
from src.runs.interrupts import Interrupts
from src.runs.resuming import RAW
from src.scoring.predictions import InferenceOptions, store_logits
from src.training import train

RECIPE = {
    "optimizer": "AdamW",
    "lr": 1e-2,
    "weight_decay": 0.1,
    "scheduler": "one_cycle",
    "warmup": 0.3,
    "clip_norm": 0.5,
    "ema_decay": 0.9,
    "label_smoothing": 0.1,
    "balanced": True,
}


@pytest.fixture(scope="module")
def teacher(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    run(corpus / "tiny.cfg", folder / "run", epochs=1)
    clips = InferenceOptions(str(corpus / "train.lmdb"), num_workers=0, all_folds=True)
    store_logits([checkpoint_at(folder / "run")], clips, folder / "teacher.pt")
    return folder / "teacher.pt"


@pytest.fixture(scope="module")
def recipe(corpus, teacher):
    """A cfg with all of it."""
    tree = cfg_tree(corpus)
    tree["model"] |= {"arch": "timm", "model_depth": "test_resnet", "dropout": 0.2, "drop_path": 0.2}
    tree["opt"] |= RECIPE | {"teacher": str(teacher), "teacher_weight": 0.3}
    tree["augment"] = {"roll": True, "freq_shift": 3, "mixup_alpha": 0.4, "mixup_max": True}
    tree["protocol"] = "corrected"
    return write_cfg(corpus / "recipe.cfg", tree)


def run(cfg, folder, *overrides, epochs=2, precision="32", **more):
    """Train in this process. Without interruptions, and three steps an epoch."""
    options = {"num_workers": 0, "random_clip_size": 64, "val_clip_size": 64, "seed": 3} | more
    devices = Devices(precision=precision)
    train(TrainingOptions(str(cfg), str(folder), devices, epochs, overrides=overrides, **options))
    return [torch.load(path, weights_only=True) for path in sorted((folder / "ckpts").iterdir())]


def figures(folder):
    with open(folder / "logs" / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def assert_same(states, expected, folder, other):
    parts = ("state_dict", RAW, "averaging_state", "optimizer_states", "lr_schedulers", "decisions", "global_step")
    assert len(states) == len(expected) and figures(folder) == figures(other)
    for state, due in zip(states, expected):
        for part in parts:
            assert equal(state[part], due[part]), part


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory):
    """Precision -> states and folder of a run that nothing interrupts."""
    found = {}

    def of(precision):
        if precision not in found:
            folder = tmp_path_factory.mktemp("undisturbed") / precision
            found[precision] = run(recipe, folder, precision=precision, use_mixup=True), folder
        return found[precision]

    return of


PLACES = {
    "within an epoch": lambda trainer: not trainer.validating and trainer.global_step == 4,
    "within validation": lambda trainer: trainer.validating and trainer.current_epoch == 0,
    "between epochs": lambda trainer: not trainer.validating and trainer.current_epoch == 1,
}


def interrupted(monkeypatch, place, *run_of, **more):
    """A run that ends in one of the places, as if a signal had come."""
    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "wanted", lambda _, trainer: PLACES[place](trainer))
        with pytest.raises(Interrupted):
            run(*run_of, **more)


@pytest.mark.parametrize(
    "place, precision", [*((place, "32") for place in PLACES), *((place, "bf16-mixed") for place in list(PLACES)[:2])]
)
def test_an_interrupted_run_of_everything_ends_as_an_undisturbed_one(
    recipe, undisturbed, tmp_path, monkeypatch, place, precision
):
    expected, other = undisturbed(precision)
    folder = tmp_path / "run"
    interrupted(monkeypatch, place, recipe, folder, precision=precision, use_mixup=True)
    assert (folder / "resume.ckpt").exists() == (place != "between epochs")
    assert_same(run(recipe, folder, precision=precision, use_mixup=True), expected, folder, other)


def test_a_checkpoint_within_the_validation_holds_the_average_as_every_other(
    recipe, undisturbed, tmp_path, monkeypatch
):
    interrupted(monkeypatch, "within validation", recipe, tmp_path / "run", use_mixup=True)
    found = torch.load(tmp_path / "run" / "resume.ckpt", weights_only=True)
    expected = undisturbed("32")[0][0]
    assert equal(found["state_dict"], expected["state_dict"]) and equal(found[RAW], expected[RAW])
    assert not equal(found["state_dict"], found[RAW])


@pytest.mark.processes
def test_everything_in_two_processes_goes_on_as_if_undisturbed(corpus, recipe, tmp_path):
    words = [
        train_command(corpus, folder, "--use_mixup", "--accelerator", "cpu", "--devices", 2, cfg=recipe, epochs=2)
        for folder in (tmp_path / "run", tmp_path / "other")
    ]
    words = [(*line, "--set", "opt.batch_size=2") for line in words]
    run_script(*words[0], check=0)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    (last,) = (tmp_path / "other" / "ckpts").glob("epoch=01*")
    last.unlink()
    assert "after 1 epochs" in run_script(*words[1], check=0).stderr
    states = [
        [torch.load(path, weights_only=True) for path in sorted((folder / "ckpts").iterdir())]
        for folder in (tmp_path / "run", tmp_path / "other")
    ]
    assert_same(*states, tmp_path / "run", tmp_path / "other")


# ---- each alone ----


@pytest.mark.parametrize("steps, warmup", [(40, 0.1), (40, 0.35), (7, 0.5)])
def test_rates_by_the_step_are_pytorchs(steps, warmup):
    def rates(make):
        optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
        schedule, found = make(optimizer), []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    def opt(scheduler):
        return OptConfig(optimizer="SGD", lr=0.2, batch_size=1, scheduler=scheduler, warmup=warmup)

    def one_cycle(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps + 1, pct_start=warmup)

    one = [0.2 * rate_at(opt("one_cycle"), step, steps + 1) for step in range(steps)]
    assert one == pytest.approx(rates(one_cycle), rel=1e-9)
    assert rate_at(opt("one_cycle"), steps, steps + 1) == pytest.approx(1 / 250_000)
    up = round(warmup * steps)

    def cosine(optimizer):
        rising = lr_scheduler.LinearLR(optimizer, 1 / 25, total_iters=up)
        falling = lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - up)
        return lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[up])

    found = [0.2 * rate_at(opt("cosine"), step, steps) for step in range(steps)]
    assert found == pytest.approx(rates(cosine), rel=1e-6)
    for scheduler in ("one_cycle", "cosine"):
        for total in (1, 2, 3):
            shares = [
                rate_at(OptConfig("SGD", 0.2, 1, scheduler=scheduler, warmup=0), step, total) for step in range(total)
            ]
            assert shares[0] == 1 and sorted(shares, reverse=True) == shares


@pytest.mark.parametrize("accumulate, steps", [(1, 3), (2, 2)])
@pytest.mark.parametrize("scheduler", ["one_cycle", "cosine"])
def test_a_run_has_the_rates_of_its_schedule(corpus, tmp_path, scheduler, accumulate, steps):
    folder, overrides = tmp_path / "run", (f"opt.scheduler={scheduler}", "opt.warmup=0.4")
    states = run(corpus / "tiny.cfg", folder, *overrides, accumulate_grad_batches=accumulate)
    opt = load_config(corpus / "tiny.cfg", overrides).opt
    due = [1e-3 * rate_at(opt, step, 2 * steps) for step in (steps - 1, 2 * steps - 1)]
    assert [float(row["lr"]) for row in figures(folder)] == pytest.approx(due)
    assert [state["optimizer_states"][0]["param_groups"][0]["lr"] for state in states] == pytest.approx(due)


def test_a_schedule_by_the_step_holds_a_run_to_its_epochs(corpus, tmp_path):
    by_step = ("opt.scheduler=cosine",)
    run(corpus / "tiny.cfg", tmp_path / "run", *by_step, epochs=2)
    with pytest.raises(UserError, match="belongs to another run, with epochs 2 instead of 3"):
        run(corpus / "tiny.cfg", tmp_path / "run", *by_step, epochs=3)
    (first,) = (tmp_path / "run" / "ckpts").glob("epoch=00*")
    with pytest.raises(UserError, match="is of a run of 2 epochs, .* and --epochs is 3. Give --epochs 2"):
        run(corpus / "tiny.cfg", tmp_path / "other", *by_step, epochs=3, resume_from=str(first))
    assert not (tmp_path / "other" / "ckpts").exists()


@pytest.mark.parametrize(
    "then, now, message",
    [
        ((), ("opt.optimizer=AdamW",), "another opt.optimizer than the cfg's AdamW"),
        ((), ("opt.scheduler=cosine",), "another opt.scheduler than the cfg's cosine"),
        (("opt.scheduler=cosine",), (), "another opt.scheduler than the cfg's reduce"),
        ((), ("opt.ema_decay=0.9",), "another opt.ema_decay than the cfg's 0.9"),
        (("opt.ema_decay=0.9",), (), "another opt.ema_decay than the cfg's None"),
    ],
)
def test_what_another_optimiser_has_left_is_not_resumed(corpus, tmp_path, then, now, message):
    run(corpus / "tiny.cfg", tmp_path / "run", *then, epochs=1)
    (first,) = (tmp_path / "run" / "ckpts").iterdir()
    with pytest.raises(UserError, match=f"{re.escape(str(first))}: is of a run with {message}"):
        run(corpus / "tiny.cfg", tmp_path / "other", *now, resume_from=str(first))
    assert not (tmp_path / "other" / "ckpts").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw, average: ([1, 2], average),
        lambda raw, average: ({name: value.flatten()[:1] for name, value in raw.items()}, average),
        lambda raw, average: ({f"a{name}": value for name, value in raw.items()}, average),
        lambda raw, average: (raw, {"x": 1}),
        lambda raw, average: (raw, None),
    ],
)
def test_an_average_that_does_not_fit_is_refused_by_name(corpus, tmp_path, damage):
    (whole,) = run(corpus / "tiny.cfg", tmp_path / "run", "opt.ema_decay=0.9", epochs=1)
    raw, average = damage(whole[RAW], whole["averaging_state"])
    torch.save(whole | {RAW: raw, "averaging_state": average}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="a.ckpt: cannot be resumed from: its average and the weights of its last step"):
        run(corpus / "tiny.cfg", tmp_path / "other", "opt.ema_decay=0.9", resume_from=str(tmp_path / "a.ckpt"))


@pytest.mark.parametrize("scheduler, early", [("reduce", True), ("one_cycle", False)])
def test_a_schedule_by_the_step_is_not_stopped_early(corpus, tmp_path, monkeypatch, scheduler, early):
    monkeypatch.setattr("src.runs.trainer.EARLY_STOPPING_PATIENCE", 1)
    states = run(corpus / "tiny.cfg", tmp_path / "run", "opt.lr=1e-12", f"opt.scheduler={scheduler}", epochs=4)
    assert (len(states) < 4) == early


def test_adamw_decays_matrices_alone():
    network = create("cifar_resnet", 20, 3)
    opt = OptConfig(optimizer="AdamW", lr=0.1, batch_size=1, weight_decay=0.5)
    optimizer = build_optimizer(opt, network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)  # decoupled from the gradient, decay alone moves the weights
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter, before[name] * (0.95 if parameter.ndim > 1 else 1)), name


def test_gradients_are_clipped_to_their_norm(corpus, tmp_path):
    """One step of SGD with Nesterov's momentum of 0.9 is lr · 1.9 · gradient."""
    overrides = ("opt.optimizer=SGD", "opt.lr=0.5", "opt.batch_size=12", "opt.clip_norm=1e-3")
    (state,) = run(corpus / "tiny.cfg", tmp_path / "run", *overrides, epochs=1)
    network = initial_network(load_config(corpus / "tiny.cfg"), 3)
    moved = [state["state_dict"][f"net.{name}"] - value.detach() for name, value in network.named_parameters()]
    assert float(torch.cat([one.flatten() for one in moved]).norm()) == pytest.approx(0.5 * 1.9 * 1e-3, rel=1e-2)


def test_the_average_is_what_is_saved_and_validated(corpus, tmp_path):
    """A step an epoch, so that every epoch's checkpoint has the weights of its step beside their average."""
    folder, overrides = tmp_path / "run", ("opt.batch_size=12", "opt.ema_decay=0.2", "opt.lr=0.1")
    states = run(corpus / "tiny.cfg", folder, *overrides, epochs=4)
    average = dict(states[0][RAW])
    for number, state in enumerate(states):
        decay = min(0.2, (1 + number) / (10 + number)) if number else 0
        for name, value in state[RAW].items():
            average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
            assert torch.allclose(state["state_dict"][name], average[name], rtol=1e-5, atol=1e-6), name
    config = load_config(corpus / "tiny.cfg")
    label_map = LabelMap.load(config.data.label_map_path())
    clips = open_dataset(config, config.data.val_lmdb, label_map, evaluation_chain(64))
    inputs, targets = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*(clips[0, index] for index in range(len(clips))))
    )
    for row, path in zip(figures(folder), sorted((folder / "ckpts").iterdir()), strict=True):
        with torch.no_grad():
            logits = read_checkpoint(path).network().eval()(inputs[:, None])
        assert float(row["val_loss"]) == pytest.approx(float(build_task(config).loss(logits, targets)), rel=1e-5)


@pytest.mark.parametrize("key", ["dropout", "drop_path"])
def test_what_is_dropped_changes_training_alone(corpus, key):
    timm = ("model.arch=timm", "model.model_depth=test_resnet")
    whole, dropping = (
        initial_network(load_config(corpus / "tiny.cfg", [*timm, *more]), 1) for more in ([], [f"model.{key}=0.5"])
    )
    assert equal(whole.state_dict(), dropping.state_dict())
    inputs = torch.randn(4, 1, 221, 64)
    with torch.no_grad():
        for parameter in (*whole.parameters(), *dropping.parameters()):
            parameter += 0.1  # the last norm of each branch begins with 0
        assert torch.equal(whole.eval()(inputs), dropping.eval()(inputs))
        assert torch.equal(whole.train()(inputs), whole(inputs))
        assert not torch.equal(dropping.train()(inputs), dropping(inputs))


@pytest.mark.parametrize("depth", ["vgg11", "densenet121", "lcnet_050"])
def test_a_network_without_drop_path_refuses_it(corpus, depth):
    """Some take no such argument. lcnet_050 takes it, and has no residual branch to leave out."""
    overrides = ["model.arch=timm", f"model.model_depth={depth}", "model.drop_path=0.1"]
    with pytest.raises(UserError, match=f"model.drop_path is 0.1, and timm's {depth} has no drop path"):
        initial_network(load_config(corpus / "tiny.cfg", overrides), 1)


def test_the_largest_of_each_map_goes_into_the_last_layer(corpus, tmp_path):
    """Of timm's own maps: in a new network, a trained one read back, and one that starts from that."""
    settings = ["model.arch=timm", "model.model_depth=test_resnet", "model.pool=maxpool"]
    run(corpus / "tiny.cfg", tmp_path / "run", *settings, epochs=1)
    (path,) = (tmp_path / "run" / "ckpts").iterdir()
    config = load_config(corpus / "tiny.cfg", [*settings, f"model.pretrained={path}"])
    plain = load_config(corpus / "tiny.cfg", settings[:-1])
    inputs = torch.randn(4, 1, 221, 64)
    trained = read_checkpoint(path).network()
    with torch.no_grad():
        fresh = initial_network(load_config(corpus / "tiny.cfg", settings), 1)
        for network in (fresh, trained, build_network(config.model)):
            maps = network.eval().forward_features(inputs)
            assert torch.allclose(network(inputs), network.get_classifier()(maps.amax(dim=(2, 3))), atol=1e-5)
        averaged = initial_network(plain, 1).eval()
        averaged.load_state_dict(trained.state_dict())
        assert not torch.allclose(averaged(inputs), trained.eval()(inputs), atol=1e-4)


@pytest.mark.parametrize("depth", ["mixer_s32_224", "test_vit"])
def test_a_network_that_pools_otherwise_refuses_maxpool(corpus, depth):
    overrides = ["model.arch=timm", f"model.model_depth={depth}", "model.pool=maxpool"]
    with pytest.raises(UserError, match=f"model.pool is maxpool, and timm's {depth} has no pooling to change"):
        initial_network(load_config(corpus / "tiny.cfg", overrides), 1)
