"""Networks of events against the taggers that they are made of."""

import re

import pytest
import torch
from test_models import NETWORKS, fill

from src.config.sections import ModelConfig
from src.errors import UserError
from src.models.frames import FrameNetwork, clip_logits
from src.models.registry import FAMILIES, build_network, create

SMALLEST = [next(network for network in NETWORKS if network[0] == arch) for arch in FAMILIES if arch != "timm"]
OF_TIMM = [
    ("timm", name) for name in ("regnetx_002", "lcnet_050", "mobilenetv4_conv_small", "resnetblur18", "ecaresnet26t")
]
FEW = [("resnet", 18), ("cifar_resnet", 20), ("densenet", 121), ("timm", "regnetx_002")]
UNCHANGED = 10_000  # spectrogram frames: no stride is finer


def pair_of(arch, depth, stride, **more):
    """A tagger, and the network of events with its weights, in evaluation mode."""
    torch.manual_seed(1)
    tagger = create(arch, depth, 3, **more)
    events = create(arch, depth, 3, frame_stride=stride, **more)
    events.load_state_dict(tagger.state_dict())
    return tagger.eval(), events.eval()


@pytest.mark.parametrize("arch, depth", SMALLEST + OF_TIMM)
def test_weights_are_the_taggers_and_frames_are_as_fine_as_asked_for(arch, depth):
    tagger, events = pair_of(arch, depth, 4)
    shapes = [[(name, value.shape) for name, value in one.state_dict().items()] for one in (tagger, events)]
    assert shapes[0] == shapes[1]
    assert events.stride == 4
    with torch.inference_mode():
        assert events(torch.randn(2, 1, 64, 101), of_frames=True).shape == (2, 26, 3)


@pytest.mark.parametrize("arch, depth", FEW)
@pytest.mark.parametrize("stride, made", [(1, 1), (3, 2), (8, 8), (UNCHANGED, 32)])
def test_a_frame_is_never_coarser_than_asked_for(arch, depth, stride, made):
    made = min(made, 16) if arch == "cifar_resnet" else made
    events = create(arch, depth, 3, frame_stride=stride)
    assert events.stride == made
    with torch.inference_mode():
        assert events.eval()(torch.randn(1, 1, 64, 128), of_frames=True).shape[1] == 128 // made


@pytest.mark.parametrize("arch, depth", FEW)
def test_with_all_strides_the_mean_of_the_frames_is_the_taggers(arch, depth):
    """A linear layer of a mean over time is the mean over time of that layer."""
    tagger, events = pair_of(arch, depth, UNCHANGED)
    inputs = torch.randn(2, 1, 64, 128)
    with torch.inference_mode():
        assert torch.allclose(events(inputs, of_frames=True).mean(dim=1), tagger(inputs), atol=1e-5)


def test_where_the_tagger_takes_the_largest_of_a_map_frames_take_it_over_frequency():
    """Of an input one frame long, the map has one column."""
    tagger, events = pair_of("timm", "regnetx_002", UNCHANGED, pool="maxpool")
    inputs = torch.randn(2, 1, 64, 32)
    with torch.inference_mode():
        assert torch.allclose(events(inputs, of_frames=True)[:, 0], tagger(inputs), atol=1e-5)


@pytest.mark.parametrize("arch, depth", FEW + [("efficientnet", "b0")])
def test_frames_move_with_the_sound(arch, depth):
    """Four spectrogram frames later is one frame later, away from the ends. Squeezing over time would not be."""
    _, events = pair_of(arch, depth, 4)
    fill(events)
    for module in events.modules():
        if type(module).__name__ == "SqueezeExcite":
            module.forward = lambda x: x
    inputs = torch.zeros(1, 1, 32, 1200)
    inputs[..., 500:560] = torch.randn(1, 1, 32, 60)
    with torch.inference_mode():
        one, other = (events(torch.roll(inputs, by, dims=3), of_frames=True)[0] for by in (0, 4))
    assert torch.allclose(one[100:190], other[101:191], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one[100:190], other[100:190], rtol=1e-2, atol=1e-2)


def test_clip_scores_are_the_linear_softmax_of_the_frames():
    logits = 4 * torch.randn(2, 9, 3, dtype=torch.float64)
    p = logits.sigmoid()
    assert torch.allclose(clip_logits(logits).sigmoid().double(), (p**2).sum(1) / p.sum(1), atol=1e-6)
    _, events = pair_of("cifar_resnet", 20, 4)
    inputs = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(events(inputs), clip_logits(events(inputs, of_frames=True)))


@pytest.mark.parametrize("value", [-200.0, 0.0, 200.0])
def test_clip_scores_stay_finite(value):
    logits = torch.full((1, 5, 2), value, requires_grad=True)
    found = clip_logits(logits)
    found.sum().backward()
    assert torch.allclose(found, torch.full_like(found, value), rtol=1e-3, atol=1e-5)
    assert torch.isfinite(logits.grad).all()


def test_a_taggers_weights_start_a_network_with_a_recurrent_layer(tmp_path, caplog):
    """The layer adds to the frames, and starts fresh. In time it reaches both ways."""
    tagger, file = create("cifar_resnet", 20, 3), tmp_path / "tagger.pth"
    torch.save(tagger.state_dict(), file)
    model = ModelConfig("cifar_resnet", 20, 3, "events", pretrained=str(file), head="gru")
    with caplog.at_level("INFO"):
        events = build_network(model, 4).eval()
    assert "without gru.*, which starts fresh" in caplog.text
    own = events.state_dict()
    assert all(torch.equal(own[name], value) for name, value in tagger.state_dict().items() if "linear" not in name)
    inputs = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        before = events(inputs, of_frames=True)
        inputs[..., 40:] = 0
        changed = (events(inputs, of_frames=True) - before).abs().amax(dim=2)[0]
        assert changed[0] > 0
        for value in events.gru.parameters():
            value.zero_()
        assert not torch.allclose(events(inputs, of_frames=True), before)
    without = dict(own)
    del without["conv1.weight"]
    torch.save(without, file)
    with pytest.raises(UserError, match=r"1 missing: conv1\.weight"):
        build_network(model, 4)


def test_a_network_without_a_map_of_frames_is_refused():
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    with pytest.raises(UserError, match=re.escape("model.type is events, and this network makes no map of frames")):
        FrameNetwork(Mean(), 4)


@pytest.mark.parametrize(
    "arch, depth", FEW + [("efficientnet", "b0"), ("timm", "convnext_atto"), ("timm", "vovnet39a")]
)
def test_a_frame_hears_what_is_around_it(arch, depth):
    """Where the gradient of a frame's scores lies is within a frame of that frame's place. None of them is missing."""
    torch.manual_seed(1)
    events = create(arch, depth, 3, frame_stride=4).eval()
    for module in events.modules():
        if type(module).__name__ in ("SqueezeExcite", "EffectiveSEModule"):
            module.forward = lambda x: x
    places = []
    for seed in range(3):
        torch.manual_seed(seed)
        inputs = torch.randn(1, 1, 64, 504, requires_grad=True)
        outputs = events(inputs, of_frames=True)
        assert outputs.shape[1] == 126
        (gradient,) = torch.autograd.grad(outputs[0, 62].sum(), inputs)
        energy = gradient.square().sum(dim=(0, 1, 2))
        places.append((energy * torch.arange(504)).sum() / energy.sum())
    assert abs(torch.stack(places).mean() - (62 * 4 + 1.5)) < 4
