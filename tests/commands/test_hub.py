"""hubconf.py: what torch.hub loads, in a new process and from another folder."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import FIXTURES, ROOT, SAMPLE_RATE
from released import CKPT, clip

import hubconf
from src.errors import UserError
from src.models.registry import FAMILIES
from src.tagging import Tagger

TAG = """
import sys, numpy, soundfile, torch
root, checkpoint, lbl_map = sys.argv[1:]
tagger = torch.hub.load(root, "tagger", checkpoint, source="local", lbl_map=lbl_map, hop=5.0)
samples, rate = soundfile.read("a.wav", dtype="float32")
numpy.savez("found.npz", scores=tagger.scores(samples, rate), embeddings=tagger.embeddings(samples, rate))
network = torch.hub.load(root, "cifar_resnet_20", source="local", num_classes=5)
assert network(torch.zeros(2, 1, 221, 64)).shape == (2, 5)
network = torch.hub.load(root, "network", "timm", "regnety_002", source="local", num_classes=4)
assert network(torch.zeros(2, 1, 221, 64)).shape == (2, 4)
"""


def python(code, *arguments, cwd):
    """Run code in a new process."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_torch_hub_gives_the_tagger_and_bare_networks(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.concatenate([clip(0), clip(1)]), SAMPLE_RATE)
    result = python(TAG, ROOT, CKPT, FIXTURES / "lbl_map.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    tagged = Tagger(CKPT, FIXTURES / "lbl_map.json", hop=5.0)(tmp_path / "a.wav")
    found = np.load(tmp_path / "found.npz")
    assert np.array_equal(found["scores"], tagged.scores) and np.array_equal(found["embeddings"], tagged.embeddings)


def test_another_package_called_src_is_named(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").touch()
    code = "import src, torch, sys; torch.hub.load(sys.argv[1], 'resnet_18', source='local')"
    result = python(code, ROOT, cwd=tmp_path)
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("ImportError: another package of the name 'src'") and str(tmp_path / "src") in line


def test_every_network_of_the_zoo_is_an_entry_point_with_its_own_words():
    """What torch.hub lists is what can be called in hubconf.py, and has no underscore in front."""
    entries = {name: value for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    zoo = {f"{arch}_{depth}" for arch, family in FAMILIES.items() if arch != "timm" for depth in family.DEPTHS}
    assert set(entries) == zoo | {"tagger", "network"}
    assert all(len(inspect.getdoc(entry)) > 40 for entry in entries.values())
    assert all(entries[name].__name__ == name for name in zoo)


@pytest.mark.parametrize(
    "words, options",
    [
        ("num_classes: is 0. ", {"num_classes": 0}),
        ("num_classes: is '5'. ", {"num_classes": "5"}),
        ("imsize: is 3. Unexpected keyword", {"imsize": 3}),
        ("model.pool is 'maxpool'. It should be avgpool unless arch is timm", {"pool": "maxpool"}),
        ("model.dropout is 0.5. It should be 0 unless arch is timm", {"dropout": 0.5}),
        ("is a folder without checkpoints", {"pretrained": str(FIXTURES)}),
        ("nowhere.pth: no such file", {"pretrained": "nowhere.pth"}),
    ],
)
def test_what_no_network_can_be_is_refused_in_one_line(words, options):
    with pytest.raises(UserError) as caught:
        hubconf.cifar_resnet_20(**options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_dependencies_are_the_packages_that_are_imported():
    assert {"torch", "timm", "numpy", "soundfile", "pydantic", "yaml"} <= set(hubconf.dependencies)
    result = python("import hubconf, sys; print(*sys.modules)", cwd=ROOT)
    packages = {line.split("==")[0].lower() for line in (ROOT / "requirements.txt").read_text().splitlines()}
    names = {"pyyaml": "yaml", "scikit-learn": "sklearn", "pytorch-lightning": "pytorch_lightning"}
    imported = {name.partition(".")[0] for name in result.stdout.split()}
    assert imported & {names.get(name, name) for name in packages} <= set(hubconf.dependencies)


@pytest.mark.parametrize("classes", [3, 51])
def test_a_network_starts_from_weights(tmp_path, classes):
    state = hubconf.cifar_resnet_20(num_classes=classes).state_dict()
    torch.save(state, tmp_path / "w.pth")
    loaded = hubconf.cifar_resnet_20(num_classes=classes, pretrained=str(tmp_path / "w.pth"), pretrained_fc=classes)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name]) or name.startswith("linear."), name
