"""The networks against the published ones' golden values."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.config.sections import ModelConfig
from src.errors import UserError
from src.models.last_layer import Embedder, last_layer
from src.models.registry import FAMILIES, build_network, create
from src.models.weights import load_weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
NETWORKS = [(arch, depth) for arch, family in FAMILIES.items() if arch != "timm" for depth in family.DEPTHS]
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


def test_the_nine_published_networks_are_here():
    assert {f"{arch}_{depth}" for arch, depth in PUBLISHED} == set(GOLDEN) and len(GOLDEN) == 9


@pytest.mark.parametrize("arch, depth", [*NETWORKS, ("timm", "mobilenetv3_small_050")])
def test_every_network_trains_and_starts_warm_with_other_classes(arch, depth, tmp_path):
    torch.manual_seed(0)
    network = create(arch, depth, 5)
    network(torch.randn(2, 1, 221, 64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    x = torch.randn(1, 1, 221, 64)
    copy = create(arch, depth, 5)
    copy.load_state_dict(network.state_dict())
    network.eval(), copy.eval()
    assert torch.equal(network(x), copy(x))

    torch.save(network.state_dict(), tmp_path / "w.pth")
    warm = build_network(ModelConfig(arch, depth, 7, "multilabel", pretrained=str(tmp_path / "w.pth")))
    old, new = network.state_dict(), warm.state_dict()
    assert list(old) == list(new)
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert len(changed) == 2 and all(len(new[name]) == 7 for name in changed)  # the last layer's weight and bias
    warm.eval()
    assert warm(x).shape == (1, 7)
    warm.reset_classifier(0)
    assert warm(x).ndim == 2 and warm(x).shape[1] > 7  # what the last layer takes


def test_a_file_that_does_not_fit_is_explained_key_by_key(tmp_path):
    state = create("resnet", 18, 5).state_dict()
    state["fc.weight"] = torch.zeros(4, 512)
    state["more"] = torch.zeros(1)
    del state["bn1.weight"], state["bn1.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError) as error:
        load_weights(create("resnet", 18, 5), tmp_path / "w.pth")
    assert "2 missing: bn1.weight, bn1.bias; 1 unexpected: more; 1 of another shape: fc.weight [4, 512] instead of" in (
        str(error.value)
    )
    torch.save({"state_dict": state}, tmp_path / "c.ckpt")
    with pytest.raises(UserError, match="c.ckpt: does not fit the network: 2 missing: bn1.weight, bn1.bias"):
        load_weights(create("resnet", 18, 5), tmp_path / "c.ckpt")
    with pytest.raises(UserError, match="no such file"):
        load_weights(create("resnet", 18, 5), tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "arch, depth, message",
    [
        ("vgg", 16, "must be one of resnet, cifar_resnet, densenet, efficientnet, timm"),
        ("densenet", 120, "121, 161, 169, 201"),
        ("efficientnet", "b8", "b0, b1"),
        ("timm", "resnet81", "timm's model names, such as resnet"),
        ("timm", "vit_tiny_patch16_224", "takes no input of 221×128 .*224.*Choose one without a fixed input size"),
    ],
)
def test_unknown_networks_are_answered_with_the_known_ones(arch, depth, message):
    with pytest.raises(UserError, match=message):
        create(arch, depth, 5)


def test_efficientnets_padding_is_frozen_for_its_image_size():
    convolutions = [m for m in create("efficientnet", "b0", 5).modules() if getattr(m, "stride", None) == (2, 2)]
    assert [m.frozen for m in convolutions] == [(1, 1), (1, 1), (1, 2), (0, 1), (1, 2)]
    convolutions = [
        m for m in create("efficientnet", "b0", 5, im_size=224).modules() if getattr(m, "stride", None) == (2, 2)
    ]
    assert [m.frozen for m in convolutions] == [(0, 1), (0, 1), (1, 2), (0, 1), (1, 2)]


def test_efficientnets_dropout_and_drop_connect():
    network = create("efficientnet", "b0", 5)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in network.blocks for block in stage]
    assert network.drop_rate == 0.2 and np.allclose(rates, [0.2 * k / 16 for k in range(16)])


FIRSTS = [(arch, family.DEPTHS[0]) for arch, family in FAMILIES.items() if arch != "timm"]
OF_TIMM = ("regnety_002", "convnext_atto", "mobilenetv3_small_050", "vgg11", "ghostnet_050", "tiny_vit_5m_224")


@pytest.mark.parametrize("arch, depth", [*FIRSTS, *(("timm", name) for name in OF_TIMM)])
def test_embeddings_are_what_goes_into_the_last_layer(arch, depth):
    network = create(arch, depth, 7).eval()
    inputs = torch.randn(2, 1, 221, 128)
    with torch.inference_mode():
        logits, embeddings = Embedder(network).both(inputs)
        assert torch.equal(logits, network(inputs)) and len(embeddings) == 2 and embeddings.ndim == 2
        assert torch.equal(last_layer(network, inputs)(embeddings), logits)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("arch, depth", [("resnet", 18), ("timm", "mobilenetv3_small_050")])
def test_a_network_of_events_has_the_mean_of_its_frames_embeddings(arch, depth, recurrent):
    """Behind them is one linear layer, so that the mean embedding has the mean logits."""
    network = create(arch, depth, 7, frame_stride=8, head="gru" if recurrent else "linear").eval()
    inputs = torch.randn(2, 1, 64, 128)
    with torch.inference_mode():
        logits, embeddings = Embedder(network).both(inputs)
        assert torch.equal(logits, network(inputs, of_frames=True)) and logits.shape == (2, 16, 7)
        last = last_layer(network, inputs)
        assert embeddings.shape == (2, last.in_features)
        assert torch.allclose(last(embeddings), logits.mean(dim=1), atol=1e-5)


def test_embeddings_may_go_into_a_convolution():
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(1, 7, 1), torch.nn.Flatten())
    inputs = torch.randn(2, 1, 221, 128)
    with torch.inference_mode():
        logits, embeddings = Embedder(network).both(inputs)
    assert logits.shape == (2, 7) and torch.allclose(embeddings, inputs.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "behind", [torch.nn.Sigmoid(), torch.nn.AvgPool1d(2), torch.nn.Linear(8, 4).requires_grad_(False)]
)
def test_what_is_behind_a_layer_counts(behind):
    """Only a linear layer that gives the logits themselves is the last one."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), behind)
    with torch.inference_mode():
        embeddings = Embedder(network)(torch.randn(2, 1, 3, 4))
    assert embeddings.shape == (2, 8 if isinstance(behind, torch.nn.Linear) else 0)
