"""Bundles: files of safetensors that are read wherever a checkpoint is."""

import json
import struct

import numpy as np
import pytest
import torch
from conftest import FIXTURES
from exported import NAMES, NETWORKS, write_random
from released import CKPT, clip
from safetensors.torch import save_file

from src.errors import UserError
from src.models.bundle import read_bundle, write_bundle
from src.models.checkpoint import export_bundle, keep_decisions, read_checkpoint, require_golden
from src.models.decisions import Decisions
from src.models.registry import create
from src.models.safe_loading import read_torch_file
from src.models.weights import load_weights, weights_of
from src.tagging import Tagger

SMALL = {"arch": "cifar_resnet", "model_depth": 20}


def header_of(data):
    """The header of a file of safetensors, read by nothing but JSON, and where the tensors begin."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:end]), end


def with_header(header, tensors):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A checkpoint a.ckpt and its bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "a.safetensors"
    export_bundle(read_checkpoint(write_random(folder / "a.ckpt", SMALL, {})), path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bundle_of_every_family_is_its_checkpoint(name, tmp_path):
    checkpoint = read_checkpoint(write_random(tmp_path / "a.ckpt", *NETWORKS[name]))
    export_bundle(checkpoint, tmp_path / "b.safetensors")
    found = read_checkpoint(tmp_path / "b.safetensors")
    for field in ("label_map", "record", "decisions", "event_decisions", "seed", "temperature"):
        one, other = getattr(found, field), getattr(checkpoint, field)
        assert getattr(one, "names", one) == getattr(other, "names", other), field
    one, other = found.network().state_dict(), checkpoint.network().state_dict()
    assert list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)
    scores = [Tagger(each.path, window=1.0, hop=4.0).scores(clip(), 22050) for each in (found, checkpoint)]
    assert np.array_equal(*scores)
    require_golden(found)


def test_a_released_checkpoint_becomes_a_bundle_that_carries_its_classes(tmp_path):
    export_bundle(read_checkpoint(CKPT), tmp_path / "b.safetensors", FIXTURES / "lbl_map.json")
    one, other = Tagger(tmp_path / "b.safetensors"), Tagger(CKPT, FIXTURES / "lbl_map.json")
    assert one.classes == other.classes and np.array_equal(*(each.scores(clip(), 22050) for each in (one, other)))


def test_a_bundle_is_tensors_and_one_json(bundle):
    header, start = header_of(bundle.read_bytes())
    assert header["__metadata__"].keys() == {"gise"}
    content = json.loads(header["__metadata__"]["gise"])
    assert content["hyper_parameters"]["lbl_map"] == {name: index for index, name in enumerate(NAMES)}
    assert content["hyper_parameters"]["cfg"]["model"]["arch"] == "cifar_resnet"
    assert content["decisions"]["thresholds"] == [0.25, None, 0.5] and len(content["golden"]) == 3
    weights = read_checkpoint(bundle.with_suffix(".ckpt")).weights
    assert header.keys() - {"__metadata__"} == weights.keys()
    begin, end = header["linear.bias"]["data_offsets"]
    stored = np.frombuffer(bundle.read_bytes()[start + begin : start + end], "<f4")
    assert np.array_equal(stored, weights["linear.bias"].numpy())
    assert bundle.stat().st_mode == bundle.with_suffix(".ckpt").stat().st_mode


def test_a_bundle_is_weights_to_start_from(bundle, tmp_path):
    network, weights = create("cifar_resnet", 20, 3), weights_of(read_checkpoint(bundle).network())
    load_weights(network, bundle)
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    save_file(weights, tmp_path / "plain.safetensors")
    load_weights(create("cifar_resnet", 20, 3), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="holds tensors and no configuration.*--pretrained"):
        read_checkpoint(tmp_path / "plain.safetensors")


def test_thresholds_are_kept_in_a_bundle(bundle, tmp_path):
    decisions = Decisions("precision 0.9", [0.5, 0.75, None], 1.5)
    keep_decisions(read_checkpoint(bundle), decisions, output=tmp_path / "b.safetensors")
    found = read_checkpoint(tmp_path / "b.safetensors")
    assert found.decisions == decisions and found.golden == read_checkpoint(bundle).golden
    require_golden(found)


def test_a_network_that_computes_something_else_is_refused(bundle, tmp_path):
    content = read_bundle(bundle)
    content["golden"][1] += 0.01
    write_bundle(tmp_path / "b.safetensors", content)
    with pytest.raises(UserError, match="a logit of its golden input is 0.01 from what it was"):
        require_golden(read_checkpoint(tmp_path / "b.safetensors"))


def damaged(data):
    """What is wrong -> a file."""
    header, start = header_of(data)
    tensors, text = data[start:], header["__metadata__"]["gise"]
    content = json.loads(text)

    def saying(**changes):
        return with_header(header | {"__metadata__": {"gise": json.dumps(content | changes)}}, tensors)

    flipped = bytearray(data)
    flipped[-1000] ^= 1
    yield from ((f"cut at {size}", data[:size]) for size in (9, 100, start, len(data) - 1))
    yield "longer", data + b"\0"
    yield "a bit of a weight", bytes(flipped)
    yield "a header of 2^63 bytes", struct.pack("<Q", 2**63) + data[8:]
    yield "a header of 99 MB", struct.pack("<Q", 99_000_000) + data[8:]
    yield "a header that is no JSON", data.replace(b'"dtype"', b'"dtype ', 1)
    yield "places outside", with_header(header | {"linear.bias": header["linear.bias"] | {"shape": [2**60]}}, tensors)
    yield "a tensor less", with_header({k: v for k, v in header.items() if k != "linear.bias"}, tensors)
    for other in ("", "{", "[]", "null", "[" * 100_000, '{"format": 1e999}'):
        yield f"text {other[:5]}", with_header(header | {"__metadata__": {"gise": other}}, tensors)
    yield "a number as text", with_header(header | {"__metadata__": {"gise": 1}}, tensors)
    yield "a later format", saying(format=2)
    yield "no configuration", saying(hyper_parameters={})
    yield "another network", saying(hyper_parameters=content["hyper_parameters"] | {"cfg": {"model": 1}})
    yield "other classes", saying(hyper_parameters=content["hyper_parameters"] | {"lbl_map": {"a": 1}})
    yield "thresholds", saying(decisions={"by": "F1", "thresholds": [2, 2, 2]})
    for golden in (1, [], [1.0, 2.0], [1.0, 2.0, None], [[1.0]] * 3):
        yield f"golden {golden}", saying(golden=golden)


def test_a_damaged_bundle_is_told_in_one_line(bundle, tmp_path):
    for what, data in damaged(bundle.read_bytes()):
        (tmp_path / "b.safetensors").write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_checkpoint(tmp_path / "b.safetensors").network()
        line = str(caught.value)
        assert "b.safetensors" in line and "\n" not in line and len(line) < 500, (what, line)


def test_an_old_pytorch_reads_bundles_and_nothing_of_torch_save(bundle, monkeypatch):
    for version in ("2.9.1+cpu", "2.6.0", "2.9.0a0+git"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(UserError, match=f"PyTorch {version[:5]}.* known holes .*CVE-2026-24747"):
            read_torch_file(bundle.with_suffix(".ckpt"), "a checkpoint")
        assert read_checkpoint(bundle).label_map.names == NAMES
    for version in ("2.10.0", "2.14.1+cu130", "3.0.0"):
        monkeypatch.setattr(torch, "__version__", version)
        assert read_checkpoint(bundle.with_suffix(".ckpt")).label_map.names == NAMES
