"""Weights as other programs write them: wrappings are taken off, the rest is refused in this project's words."""

import itertools
import pickle
import re
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from conftest import error_line, run_script, train_command
from safetensors.torch import save_file

from src.errors import UserError
from src.learning.losses import multiclass_loss
from src.models.checkpoint import load_class_weights, read_checkpoint
from src.models.registry import create
from src.models.safe_loading import read_torch_file
from src.models.weights import CONTAINERS, load_weights

PREFIXES = ("module.", "_orig_mod.", "net.", "model.", "encoder.backbone.")
NETWORKS = [("cifar_resnet", 20), ("resnet", 18), ("densenet", 121), ("efficientnet", "b0"), ("timm", "resnet10t")]


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def without_counters(state):
    return {name: value for name, value in state.items() if "num_batches" not in name}


WRAPPINGS = {
    **{prefix: lambda state, prefix=prefix: prefixed(state, prefix) for prefix in PREFIXES},
    **{
        one + other: lambda state, both=one + other: prefixed(state, both)
        for one, other in itertools.permutations(PREFIXES[:3], 2)
    },
    **{name: lambda state, name=name: {name: state, "epoch": 3, "optimizer": {"lr": 0.1}} for name in CONTAINERS},
    "model.state_dict": lambda state: {"model": {"state_dict": prefixed(state, "module.")}, "args": {"x": [1, None]}},
    "Lightning": lambda state: {"state_dict": prefixed(state, "net._orig_mod."), "hyper_parameters": {}, "loops": {}},
    "parts compiled": lambda state: {
        name.replace("layer1.", "layer1._orig_mod.").replace("features.", "features._orig_mod."): value
        for name, value in state.items()
    },
    "without counters": without_counters,
    "without counters, wrapped": lambda state: {"state_dict": prefixed(without_counters(state), "module.net.")},
    "parameters": lambda state: OrderedDict(
        (name, torch.nn.Parameter(value) if value.is_floating_point() else value) for name, value in state.items()
    ),
    "contiguous": lambda state: {name: value.contiguous() for name, value in state.items()},
}


def drawn(arch, depth, seed=0):
    torch.manual_seed(seed)
    return create(arch, depth, 5)


@pytest.fixture(scope="module")
def states():
    return {arch: (depth, drawn(arch, depth, 1).state_dict()) for arch, depth in NETWORKS[:2]}


def require_loaded(path, arch, depth, state):
    network = drawn(arch, depth)
    load_weights(network, path)
    found = network.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("arch", ["cifar_resnet", "resnet"])
def test_wrappings_are_taken_off_and_said(states, tmp_path, caplog, arch, wrapping):
    depth, state = states[arch]
    caplog.set_level("INFO")
    wrapped = WRAPPINGS[wrapping](state)
    torch.save(wrapped, tmp_path / "w.pth")
    require_loaded(tmp_path / "w.pth", arch, depth, state)
    assert bool(caplog.text) == (wrapped.keys() != state.keys())


@pytest.mark.parametrize("arch, depth", NETWORKS)
def test_wrappings_of_every_family(tmp_path, arch, depth):
    state = drawn(arch, depth, 1).state_dict()
    torch.save({"state_dict": prefixed(without_counters(state), "module._orig_mod.net.")}, tmp_path / "w.pth")
    require_loaded(tmp_path / "w.pth", arch, depth, state)
    torch.save(state, tmp_path / "plain.pth")
    require_loaded(tmp_path / "plain.pth", arch, depth, state)


def test_a_safetensors_file(states, tmp_path):
    depth, state = states["resnet"]
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
    require_loaded(tmp_path / "w.safetensors", "resnet", depth, state)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda state: prefixed(state, "module.") | {"fc.weight": torch.ones(1)}, "unexpected: module.conv1.weight"),
        (lambda state: {"state_dict": prefixed(state, "a.") | {"a.more": torch.ones(1)}}, "1 unexpected: more"),
        (lambda state: prefixed({**state, "fc.weight": torch.zeros(4, 512)}, "net."), "fc.weight [4, 512] instead of"),
        (lambda state: {name: state[name] for name in list(state)[2:]}, "2 missing: conv1.weight, bn1.weight"),
        (lambda state: {"generator": state}, "no state dict of tensors, alone or under one of the keys state_dict"),
        (lambda state: {"model": {"model": {"model": {"model": state}}}}, "no state dict of tensors"),
        (lambda state: {**state, "epoch": 3}, "no state dict of tensors"),
        (lambda state: [state], "no state dict of tensors"),
    ],
)
def test_what_does_not_fit_is_still_refused(states, tmp_path, spoil, message):
    torch.save(spoil(states["resnet"][1]), tmp_path / "w.pth")
    with pytest.raises(UserError) as error:
        load_weights(drawn("resnet", 18), tmp_path / "w.pth")
    assert message in str(error.value) and "w.pth: " in str(error.value)


def numpy_pickle(path):
    path.write_bytes(pickle.dumps(np.ones(3)))


FOREIGN = {
    "npy": (lambda path: np.save(path.open("wb"), np.ones(3)), "it is a NumPy file"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.ones(3)), "Is it one of NumPy's?"),
    "NumPy's pickle": (numpy_pickle, "only tensors"),
    "NumPy in torch.save": (lambda path: torch.save(np.ones(3), path), "it holds numpy._core.multiarray._reconstruct"),
    "a NumPy number": (lambda path: torch.save({"a": np.float64(3)}, path), "it holds numpy._core.multiarray.scalar"),
    "a whole module": (lambda path: torch.save(torch.nn.Linear(2, 2), path), "it holds torch.nn.modules.linear.Linear"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "it is an HDF5 file"),
    "old format": (
        lambda path: torch.save(np.ones(3), path, _use_new_zipfile_serialization=False),
        "numpy._core.multiarray",
    ),
}
READERS = ("--pretrained", "--cw", "--resume_from", "--ckpt_path")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_refused_in_our_words(corpus, tmp_path, kind, reader):
    write, message = FOREIGN[kind]
    write(tmp_path / "x.pt")
    words = train_command(corpus, tmp_path / "run")
    if reader == "--ckpt_path":
        words = ("predict.py", "--audio", corpus / "eval")
    line = error_line(run_script(*words, reader, tmp_path / "x.pt"))
    assert "x.pt: is not a" in line and message in line
    assert not any(advice in line for advice in ("weights_only", "arbitrary code", "trust", "inline_container"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [("--pretrained",), ("--set", "model.pretrained=")])
def test_a_checkpoint_of_ours_is_a_warm_start(corpus, trained, tmp_path, more):
    checkpoint = next(trained.rglob("epoch=01*.ckpt"))
    torch.save(read_checkpoint(checkpoint).weights, tmp_path / "plain.pth")
    tables = set()
    for name, file in (("ckpt", checkpoint), ("pth", tmp_path / "plain.pth")):
        words = (more[0], file) if len(more) == 1 else (more[0], f'{more[1]}"{file}"')
        result = run_script(*train_command(corpus, tmp_path / name, *words), check=0)
        tables.add((tmp_path / name / "logs/metrics.csv").read_text())
        assert ("the weights are taken from 'state_dict' in it" in result.stderr) == (name == "ckpt")
    assert len(tables) == 1


@pytest.mark.parametrize("prefix", ["net._orig_mod.", "module.net.", "_orig_mod.net."])
def test_checkpoints_with_other_prefixes_are_scored(corpus, trained, tmp_path, prefix):
    checkpoint = next(trained.rglob("epoch=01*.ckpt"))
    content = read_torch_file(checkpoint, "a checkpoint")
    content["state_dict"] = {
        prefix + name.removeprefix("net."): value
        for name, value in content["state_dict"].items()
        if "num_batches" not in name
    }
    torch.save(content, tmp_path / "x.ckpt")
    figures = set()
    for file in (checkpoint, tmp_path / "x.ckpt"):
        words = ("--lbl_map", corpus / "meta/lbl_map.json", "--lmdb_path", corpus / "eval.lmdb", "--ckpt_path", file)
        result = run_script("eval_gise_mixtures.py", *words, "--results_csv", tmp_path / "r.csv", check=0)
        figures.add(re.search(r"mAP [0-9.]+  mAUC [0-9.]+", result.stderr)[0])
        assert ("prefixes are taken off" in result.stderr) == (file != checkpoint)
        run_script("predict.py", "--ckpt_path", file, "--audio", corpus / "eval", check=0)
    assert len(figures) == 1


# ---- class weights ----


@pytest.mark.parametrize(
    "weights",
    [
        torch.nn.Parameter(torch.tensor([1.0, 2.0, 0.5])),
        torch.tensor([1.0, 2.0, 0.5], requires_grad=True),
        torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64),
        torch.tensor([1.0, 2.0, 0.5]).half(),
    ],
)
def test_class_weights_of_other_kinds_are_the_same(corpus, tmp_path, weights):
    torch.save(weights, tmp_path / "cw.pt")
    found = load_class_weights(tmp_path / "cw.pt", 3)
    assert torch.equal(found, torch.tensor([1.0, 2.0, 0.5])) and type(found) is torch.Tensor and not found.requires_grad
    run_script(*train_command(corpus, tmp_path / "run", "--cw", tmp_path / "cw.pt"), check=0)


@pytest.mark.parametrize(
    "weights, message",
    [
        (torch.zeros(3), "all weights are 0"),
        (torch.full((3,), 1e-50, dtype=torch.float64), "all weights are 0"),
        (torch.tensor([1e300, 1, 1], dtype=torch.float64), "holds something else than finite numbers of 0 or more"),
    ],
)
def test_weights_with_which_nothing_could_be_learnt_are_refused(corpus, tmp_path, weights, message):
    torch.save(weights, tmp_path / "cw.pt")
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", "--cw", tmp_path / "cw.pt")))
    assert f"cw.pt: {message}" in line and not (tmp_path / "run").exists()


def test_a_batch_of_classes_without_weight_has_the_loss_0():
    logits = torch.randn(4, 3, requires_grad=True)
    weights = torch.tensor([0.0, 1.0, 2.0])
    loss = multiclass_loss(logits, torch.tensor([0, 0, 0, 0]), weights)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and not gradient.any()
    targets = torch.tensor([0, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(logits, targets, weight=weights)
    assert torch.equal(multiclass_loss(logits, targets, weights), expected)


def test_a_class_without_weight_does_not_end_a_run(corpus, tmp_path):
    """Batches of one clip, of which some are of that class alone."""
    names = [f"s{number:03d}" for number in range(0, 12, 3)]
    files = "".join(f"{corpus / 'train' / name}.flac,{label}\n" for name, label in zip(names, ["Drum", "Harp"] * 2))
    (tmp_path / "m.csv").write_text(f"files,labels\n{files}")
    torch.save(torch.tensor([0.0, 1.0, 1.0]), tmp_path / "cw.pt")
    settings = ("is_lmdb=False", f"train_manifest={tmp_path / 'm.csv'}", f"val_manifest={tmp_path / 'm.csv'}")
    more = [word for setting in settings for word in ("--set", f"data.{setting}")]
    words = (*more, "--set", "model.type=multiclass", "--set", "opt.batch_size=1", "--cw", tmp_path / "cw.pt")
    run_script(*train_command(corpus, tmp_path / "run", *words, script="train_classifier.py"), check=0)


# ---- compressed files ----


def test_a_file_that_unpacks_to_much_more_is_refused_before_it_is(corpus, tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "small.pth")
    with (
        zipfile.ZipFile(tmp_path / "small.pth") as source,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for item in source.infolist():
            data = bytes(200_000_000) if item.filename.endswith("data/0") else source.read(item)
            target.writestr(item.filename, data)
    assert (tmp_path / "bomb.pth").stat().st_size < 1_000_000
    for reader in READERS[:3]:
        line = error_line(run_script(*train_command(corpus, tmp_path / "run", reader, tmp_path / "bomb.pth")))
        assert "bomb.pth: is compressed, as no file of weights is: its 0.2 MB unpack to 200.0 MB" in line


def test_a_file_that_was_compressed_afterwards_is_read(states, tmp_path):
    depth, state = states["cifar_resnet"]
    torch.save(state, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as source,
        zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for item in source.infolist():
            target.writestr(item.filename, source.read(item))
    require_loaded(tmp_path / "z.pth", "cifar_resnet", depth, state)
