"""The networks against the published ones' golden values."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.models.registry import FAMILIES, create

GOLDEN = json.loads((Path(__file__).parent / "golden" / "models.json").read_text())
NETWORKS = [(arch, depth) for arch, family in FAMILIES.items() for depth in family.DEPTHS]
PUBLISHED = [(arch, depth) for arch, depth in NETWORKS if f"{arch}_{depth}" in GOLDEN]


def fill(network):
    """The filling of the golden logits: tensor i of the state dict drawn from RandomState(i)."""
    state = network.state_dict()
    for i, (name, tensor) in enumerate(state.items()):
        r = np.random.RandomState(i)
        shape = tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            values = np.zeros(shape)
        elif name.endswith("running_var"):
            values = r.uniform(0.5, 1.5, shape)
        elif name.endswith("running_mean"):
            values = 0.1 * r.randn(*shape)
        elif len(shape) > 1:
            values = r.randn(*shape) * np.sqrt(2 / (np.prod(shape) // shape[0]))
        elif name.endswith("weight"):
            values = 1 + 0.1 * r.randn(*shape)
        else:
            values = 0.1 * r.randn(*shape)
        tensor.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)).to(tensor.dtype))


@pytest.mark.parametrize("arch, depth", PUBLISHED)
def test_keys_shapes_and_counts_are_the_published_ones(arch, depth):
    network = create(arch, depth, 51)
    golden = GOLDEN[f"{arch}_{depth}"]
    assert [[key, list(tensor.shape)] for key, tensor in network.state_dict().items()] == golden["keys"]
    assert sum(parameter.numel() for parameter in network.parameters()) == golden["params"]
    norms = {(m.eps, m.momentum) for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert np.allclose(sorted(norms), golden["batchnorm_eps_momentum"])


@pytest.mark.parametrize("arch, depth", PUBLISHED)
def test_initialisation_has_the_published_spread(arch, depth):
    torch.manual_seed(0)
    state = create(arch, depth, 51).state_dict()
    for name, (mean, std) in GOLDEN[f"{arch}_{depth}"]["init_mean_std"].items():
        tensor = state[name].double()
        # Means and spreads of two samples of n values differ by a few std / sqrt(n).
        margin = 8 * std / np.sqrt(tensor.numel()) + 1e-4 * abs(std) + 1e-9
        assert abs(tensor.mean().item() - mean) <= margin + 1e-3 * abs(mean), name
        assert abs(tensor.std(unbiased=False).item() - std) <= margin, name


@pytest.mark.parametrize("arch, depth", [n for n in PUBLISHED if "logits_1x1x221x501" in GOLDEN[f"{n[0]}_{n[1]}"]])
def test_logits_are_the_published_ones(arch, depth):
    network = create(arch, depth, 51).double().eval()
    fill(network)
    golden = GOLDEN[f"{arch}_{depth}"]
    for key, seed in (("logits_2x1x221x128", 7), ("logits_1x1x221x501", 8)):
        shape = [int(n) for n in key.removeprefix("logits_").split("x")]
        x = (15 * np.random.RandomState(seed).randn(*shape)).astype(np.float32).astype(np.float64)
        with torch.no_grad():
            logits = network(torch.from_numpy(x)).numpy()
        expected = np.asarray(golden[key]).reshape(logits.shape)
        assert np.abs(logits - expected).max() <= 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize("arch, depth", NETWORKS)
def test_every_network_trains_and_takes_a_new_head(arch, depth):
    torch.manual_seed(0)
    network = create(arch, depth, 5)
    network(torch.randn(2, 1, 221, 64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    copy = create(arch, depth, 5)
    copy.load_state_dict(network.state_dict())
    network.eval(), copy.eval()
    x = torch.randn(1, 1, 221, 64)
    assert torch.equal(network(x), copy(x))
    network.reset_classifier(7)
    assert network(x).shape == (1, 7)
