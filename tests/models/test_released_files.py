"""Files released in 2021: they load, score and export, and nothing inside a file runs."""

import csv
import json
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from conftest import FIXTURES, GOLDEN, error_line, run_script, train_command
from released import CKPT, FIRST_RECORD, LMDB

from src.data.transforms import Compose
from src.errors import UserError
from src.evaluation import EvaluationOptions
from src.models.checkpoint import read_checkpoint
from src.models.safe_loading import StandIn, read_torch_file
from src.scoring.forward_pass import batches_of, outputs_of
from src.scoring.predictions import open_for

SETTINGS = {
    "cfg": {
        "model": {"arch": "cifar_resnet", "model_depth": 20, "num_classes": 18, "type": "multilabel"},
        "opt": {"optimizer": "Adam", "lr": "1e-3", "batch_size": 32},
        "audio_config": {},
    }
}


def test_a_released_checkpoint_scores_what_it_scored_then(tmp_path):
    run_script(
        "eval_gise_mixtures.py",
        "--ckpt_path",
        CKPT,
        "--lbl_map",
        FIXTURES / "lbl_map.json",
        "--lmdb_path",
        LMDB,
        "--results_csv",
        tmp_path / "r.csv",
        "--export_weights",
        "--export_dir",
        tmp_path / "weights",
        check=0,
    )
    with open(tmp_path / "r.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert abs(float(row["mAP"]) - 0.391152) < 1e-4 and abs(float(row["mAUC"]) - 0.733163) < 1e-4
    assert abs(float(row["dprime"]) - 0.880219) < 1e-3 and row["protocol"] == "paper"
    (exported,) = (tmp_path / "weights").rglob("mAP=0.3912_dprime=0.8802_num_classes=18.pth")
    state = torch.load(exported, weights_only=True)
    golden = json.loads((GOLDEN / "models.json").read_text())["cifar_resnet_20"]
    assert list(state) == [key for key, _ in golden["keys"]]
    assert all(torch.equal(state[key], value) for key, value in read_checkpoint(CKPT).weights.items())


def test_the_first_record_gets_the_outputs_it_got_then():
    checkpoint = read_checkpoint(CKPT)
    options = EvaluationOptions(str(LMDB), str(FIXTURES / "lbl_map.json"), num_workers=0)
    dataset = open_for(checkpoint, options)
    network = checkpoint.network().eval()
    with torch.no_grad():
        outputs = network(torch.from_numpy(dataset[0][0])[None, None]).sigmoid().numpy()[0]
    assert np.abs(outputs - FIRST_RECORD).max() < 1e-5
    (batched,) = outputs_of([lambda: network], batches_of(dataset, 32, 0, torch.device("cpu")), len(dataset), 0)
    assert np.abs(batched.logits[0].sigmoid().numpy() - FIRST_RECORD).max() < 1e-5


def test_a_released_network_can_be_fine_tuned(corpus, tmp_path):
    torch.save(read_checkpoint(CKPT).weights, tmp_path / "w.pth")
    settings = (f"model.pretrained={tmp_path / 'w.pth'}", "model.pretrained_fc=18")
    words = [word for setting in settings for word in ("--set", setting)]
    run_script(*train_command(corpus, tmp_path / "run", *words), check=0)
    assert len(list((tmp_path / "run" / "ckpts").iterdir())) == 1


def test_a_released_checkpoint_cannot_be_resumed_and_says_what_to_do(corpus, tmp_path):
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", "--resume_from", CKPT)))
    assert "is of an early Lightning, 1.1.3" in line and "--export_weights" in line and not (tmp_path / "run").exists()


class Runs:
    """An object whose pickle calls a function as it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def evil_payloads(marker):
    """What a pickle might carry to run code: each would make the file `marker`."""
    command = f"touch {marker}"
    return {
        "os.system": Runs(os.system, command),
        "builtins.eval": Runs(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.exec": Runs(exec, f"open({str(marker)!r}, 'w')"),
        "subprocess": Runs(subprocess.check_call, ["touch", str(marker)]),
        "a stand-in's state": HoldsState(Runs(os.system, command)),
    }


class HoldsState:
    """Pickled under the name of a released class, with a state of its own."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return (Compose, ((),), {"transforms": self.state, "__setstate__": self.state})


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("name", list(evil_payloads("x")))
def test_nothing_in_a_file_runs(tmp_path, name, legacy):
    content = {"state_dict": {}, "hyper_parameters": {"cfg": {}, "x": evil_payloads(tmp_path / "it_ran")[name]}}
    torch.save(content, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="evil.ckpt: is not a checkpoint, or is truncated"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "it_ran").exists()


def test_the_payloads_do_run_where_pickle_is_trusted(tmp_path):
    """Otherwise the test above would show nothing."""
    for name in evil_payloads("x"):
        marker = tmp_path / name.replace(" ", "_").replace("'", "_")
        pickle.loads(pickle.dumps(evil_payloads(marker)[name]))
        assert marker.exists(), name


@pytest.mark.parametrize(
    "script, flag",
    [
        ("eval_gise_mixtures.py", "--ckpt_path"),
        ("train_gise_mixtures.py", "--resume_from"),
        ("train_gise_mixtures.py", "--cw"),
        ("train_gise_mixtures.py", "pretrained"),
    ],
)
def test_no_command_line_runs_what_a_file_brings(corpus, tmp_path, script, flag):
    torch.save({"state_dict": {}, "x": evil_payloads(tmp_path / "it_ran")["os.system"]}, tmp_path / "evil.pt")
    evil = tmp_path / "evil.pt"
    words = ("--set", f"model.pretrained={evil}") if flag == "pretrained" else (flag, evil)
    if script.startswith("eval"):
        result = run_script(script, *words, "--lbl_map", FIXTURES / "lbl_map.json", "--lmdb_path", LMDB)
    else:
        result = run_script(*train_command(corpus, tmp_path / "run", *words))
    assert "evil.pt: is not a" in error_line(result) and not (tmp_path / "it_ran").exists()


def test_a_state_given_to_a_stand_in_is_dropped(tmp_path):
    torch.save({"x": HoldsState([1, 2])}, tmp_path / "x.ckpt")
    stand_in = read_torch_file(tmp_path / "x.ckpt", "a checkpoint")["x"]
    assert isinstance(stand_in, StandIn) and not hasattr(stand_in, "__dict__")
    with pytest.raises(AttributeError):
        stand_in.transforms = 3


def test_tensors_of_a_gpu_are_read_onto_the_cpu(tmp_path):
    """A checkpoint whose storages say cuda:0, as one saved on a GPU does."""
    with zipfile.ZipFile(CKPT) as source, zipfile.ZipFile(tmp_path / "gpu.ckpt", "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                on_cpu, on_gpu = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
                assert on_cpu in data
                data = data.replace(on_cpu, on_gpu)
            target.writestr(item.filename, data)
    ours, theirs = read_checkpoint(tmp_path / "gpu.ckpt").weights, read_checkpoint(CKPT).weights
    assert all(ours[key].device.type == "cpu" and torch.equal(ours[key], theirs[key]) for key in theirs)


def test_stand_ins_keep_and_do_nothing():
    content = read_torch_file(CKPT, "a checkpoint")
    stand_in = content["hyper_parameters"]["val_tfs"]
    assert isinstance(stand_in, StandIn) and type(stand_in).__name__ == "Compose"
    assert not hasattr(stand_in, "__dict__") and not hasattr(stand_in, "transforms")
    with pytest.raises(TypeError):
        stand_in(0)


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 1_000_000])
def test_truncated_checkpoints(tmp_path, size):
    (tmp_path / "cut.ckpt").write_bytes(CKPT.read_bytes()[:size])
    with pytest.raises(UserError, match="cut.ckpt: is not a checkpoint, or is truncated"):
        read_checkpoint(tmp_path / "cut.ckpt")


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"state_dict": {}},
        {"state_dict": {}, "hyper_parameters": {}},
        {"state_dict": 3, "hyper_parameters": {"cfg": {}}},
        {"state_dict": {}, "hyper_parameters": {"cfg": {"model": 3}}},
        torch.ones(2),
        {"state_dict": {3: torch.ones(1)}, "hyper_parameters": SETTINGS},
        {"state_dict": {"net.x": 3}, "hyper_parameters": SETTINGS},
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt: "):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_checkpoint_whose_weights_are_of_another_network(tmp_path):
    state = {f"net.{name}": value for name, value in read_checkpoint(CKPT).weights.items()}
    cfg = {**SETTINGS["cfg"], "model": {**SETTINGS["cfg"]["model"], "model_depth": 44}}
    torch.save({"state_dict": state, "hyper_parameters": {"cfg": cfg}}, tmp_path / "x.ckpt")
    line = error_line(
        run_script(
            "eval_gise_mixtures.py",
            "--ckpt_path",
            tmp_path / "x.ckpt",
            "--lbl_map",
            FIXTURES / "lbl_map.json",
            "--lmdb_path",
            LMDB,
            "--results_csv",
            tmp_path / "r.csv",
        )
    )
    assert "x.ckpt: does not fit the network: 144 missing: layer1.3.conv1.weight" in line
