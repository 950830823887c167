"""Any number of checkpoints in one pass over the clips, within bounded memory."""

import csv
import gc
import re
import shutil
import weakref
import zipfile

import numpy as np
import pytest
import torch
from conftest import CLASSES, cfg_tree, error_line, run_script

from benchmarks.evaluation import write_checkpoint
from src.data import inmemory_lmdb_dataset
from src.evaluation import EvaluationOptions, evaluate, write_up
from src.models import checkpoint as checkpoints
from src.models.checkpoint import read_checkpoint
from src.models.registry import create
from src.models.safe_loading import read_torch_file
from src.models.weights import NETWORK
from src.scoring.forward_pass import ClipBatch, Lookahead, batches_of, kept_batches, most_to_keep, outputs_of
from src.scoring.predictions import Candidate, predictions
from src.utils.memory import available_memory

NUM_CHECKPOINTS = 10
NETWORKS = [("cifar_resnet", 20), ("cifar_resnet", 32)]


def random_checkpoint(path, corpus, network, seed):
    """A checkpoint of one of NETWORKS."""
    cfg = cfg_tree(corpus)
    cfg["model"]["arch"], cfg["model"]["model_depth"] = network
    return write_checkpoint(path, cfg, {name: index for index, name in enumerate(CLASSES)}, seed)


@pytest.fixture(scope="module")
def experiment(corpus, tmp_path_factory):
    """More checkpoints than one would hold in memory at once, of two architectures in turns."""
    folder = tmp_path_factory.mktemp("many") / "r1"
    for number in range(NUM_CHECKPOINTS):
        name = f"epoch={number:02d}_train_loss=0.500_val_mAP=0.{number}00.ckpt"
        random_checkpoint(folder / f"mixup/net_{number // 5}/ckpts" / name, corpus, NETWORKS[number % 2], number)
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """How often each clip was decoded in this process."""
    calls = {}
    decode = inmemory_lmdb_dataset.decode_record

    def counted(source, rate, where):
        calls[where] = calls.get(where, 0) + 1
        return decode(source, rate, where)

    monkeypatch.setattr(inmemory_lmdb_dataset, "decode_record", counted)
    return calls


def options(corpus, results_csv="unused.csv", **more):
    return EvaluationOptions(
        str(corpus / "eval.lmdb"),
        str(corpus / "meta/lbl_map.json"),
        num_timesteps=64,
        batch_size=4,
        results_csv=str(results_csv),
        **{"num_workers": 0} | more,
    )


def rows_of(path):
    """By checkpoint, less the time of day."""
    with open(path, newline="") as stream:
        return {row["ckpt_path"]: row | {"evaluated": ""} for row in csv.DictReader(stream)}


def small_budget(monkeypatch, batches):
    """Have no more than so many batches of four clips kept."""
    monkeypatch.setattr("src.scoring.forward_pass.MOST_KEPT", batches * 4 * (221 * 64 + len(CLASSES)) * 4 + 100)


@pytest.mark.parametrize("kept", [None, 1], ids=["all clips kept", "a batch at a time"])
def test_rows_are_those_of_checkpoints_scored_one_by_one_and_clips_are_decoded_once(
    corpus, experiment, tmp_path, monkeypatch, decoded, kept
):
    if kept:
        small_budget(monkeypatch, kept)
    evaluate(options(corpus, tmp_path / "together.csv", exp_dir=str(experiment), untrained=True, per_class=True))
    assert list(decoded.values()) == [1] * 6
    monkeypatch.undo()
    for number, path in enumerate(sorted(experiment.rglob("*.ckpt"))):  # each run begins with its first one's network
        more = {"untrained": number % 5 == 0, "per_class": True}
        evaluate(options(corpus, tmp_path / "apart.csv", ckpt_path=str(path), **more))
    together, apart = rows_of(tmp_path / "together.csv"), rows_of(tmp_path / "apart.csv")
    assert len(together) == NUM_CHECKPOINTS + 2 and len({row["mAUC"] for row in together.values()}) > 1
    assert together == apart
    assert rows_of(tmp_path / "together_per_class.csv") == rows_of(tmp_path / "apart_per_class.csv")


def test_a_checkpoint_is_read_once_for_its_head_and_once_for_its_weights(corpus, experiment, tmp_path, monkeypatch):
    """Also where its weights are exported."""
    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **more: (reads.append(str(path)), load(path, **more))[1])
    evaluate(options(corpus, tmp_path / "r.csv", exp_dir=str(experiment), export_dir=str(tmp_path / "weights")))
    assert sorted(reads) == sorted(2 * [str(path) for path in experiment.rglob("*.ckpt")])
    for file in (tmp_path / "weights").rglob("*.pth"):  # equal scores share a name
        exported = load(file, weights_only=True)
        states = [read_checkpoint(path).weights for path in (experiment / "mixup" / file.parent.name).rglob("*.ckpt")]
        assert any(
            all(torch.equal(exported[name], state[name]) for name in state)
            for state in states
            if len(state) == len(exported)
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kept", [0, 1, 100])
def test_probabilities_are_the_same_to_the_last_bit(corpus, experiment, monkeypatch, workers, kept):
    entries = [Candidate(path) for path in sorted(experiment.rglob("*.ckpt"))[:4]]
    small_budget(monkeypatch, kept)
    together = list(predictions(entries, options(corpus, num_workers=workers)))
    assert [each.candidate for each in together] == entries
    for each in together:
        (alone,) = predictions([each.candidate], options(corpus))
        assert np.array_equal(each.probabilities, alone.probabilities)
        assert np.array_equal(each.targets, alone.targets)
    assert not np.array_equal(together[0].probabilities, together[2].probabilities)


def test_checkpoints_of_other_features_get_a_pass_of_their_own(corpus, tmp_path, decoded):
    paths = [random_checkpoint(tmp_path / f"{number}.ckpt", corpus, NETWORKS[0], number) for number in range(4)]
    for path in paths[1::2]:
        content = torch.load(path, weights_only=True)
        content["hyper_parameters"]["cfg"]["audio_config"]["win_len"] = 400
        torch.save(content, path)
    found = list(predictions([Candidate(path) for path in paths], options(corpus)))
    assert sorted(each.candidate.path for each in found) == paths and list(decoded.values()) == [2] * 6
    for each in found:
        (alone,) = predictions([each.candidate], options(corpus))
        assert np.array_equal(each.probabilities, alone.probabilities)


def test_rows_are_written_as_soon_as_they_are_known(corpus, experiment, tmp_path, monkeypatch, caplog):
    """An evaluation that is interrupted keeps them, and resumes there."""

    def interrupted(prediction, *more):
        if "epoch=02" in prediction.candidate.name:
            raise KeyboardInterrupt
        write_up(prediction, *more)

    asked = options(corpus, tmp_path / "r.csv", exp_dir=str(experiment))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("src.evaluation.write_up", interrupted)
        evaluate(asked)
    assert len(rows_of(tmp_path / "r.csv")) == 2
    caplog.set_level("INFO")
    evaluate(asked)
    assert "already holds 2 of 10" in caplog.text and len(rows_of(tmp_path / "r.csv")) == NUM_CHECKPOINTS


def test_networks_take_turns_and_one_is_in_memory(corpus, experiment, monkeypatch):
    """Also where no two neighbours are of one architecture."""
    networks = weakref.WeakSet()

    def watched(*arguments):
        gc.collect()
        assert not len(networks)
        networks.add(network := create(*arguments))
        return network

    monkeypatch.setattr(checkpoints, "create", watched)
    checkpoints.outline.cache_clear()
    for path in sorted(experiment.rglob("*.ckpt"))[:2]:
        checkpoints.outline(*checkpoints.architecture(read_checkpoint(path).config))
        networks.clear()
    entries = [Candidate(path) for path in sorted(experiment.rglob("*.ckpt"))]
    assert len(list(predictions(entries, options(corpus)))) == NUM_CHECKPOINTS


def test_networks_of_one_seed_run_once(corpus, tmp_path):
    for name in ("a", "b"):
        random_checkpoint(tmp_path / f"r1/mixup/{name}/ckpts/epoch=00.ckpt", corpus, NETWORKS[0], 5)
    result = run_script(
        "eval_gise_mixtures.py",
        "--exp_dir",
        tmp_path / "r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--num_workers",
        0,
        "--untrained",
        check=0,
    )
    assert "clips × 3 networks" in result.stderr and "18/18" in result.stderr
    assert len(rows_of(tmp_path / "r.csv")) == 4


def test_every_checkpoint_is_examined_before_the_first_one_is_scored(corpus, experiment, tmp_path):
    shutil.copytree(experiment, tmp_path / "r1")
    last = sorted((tmp_path / "r1").rglob("*.ckpt"))[-1]
    content = torch.load(last, weights_only=True)
    command = (
        "eval_gise_mixtures.py",
        "--exp_dir",
        tmp_path / "r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--num_workers",
        0,
    )

    def refused(message):
        line = error_line(run_script(*command))
        assert last.name in line and re.search(message, line), line
        assert not (tmp_path / "r.csv").exists()

    last.write_bytes(last.read_bytes()[:3000])
    refused("is truncated")
    torch.save(content | {"state_dict": dict(list(content["state_dict"].items())[2:])}, last)
    refused("does not fit the network: 2 missing")
    record = content["hyper_parameters"]
    torch.save(content | {"hyper_parameters": record | {"lbl_map": {"Cello": 0, "Harp": 1, "Organ": 2}}}, last)
    refused("class 0 is 'Drum', but .* was trained with 'Cello'")
    torch.save(content | {"hyper_parameters": {key: record[key] for key in ("cfg", "lbl_map")}}, last)
    command += ("--untrained",)
    last.rename(last.with_name(name := "epoch=00.ckpt"))
    last = last.with_name(name)
    refused("does not say with which seed")


def test_tensors_of_a_checkpoint_stay_in_its_file(corpus, tmp_path):
    """And of a file that cannot be mapped they are read."""
    plain = random_checkpoint(tmp_path / "plain.ckpt", corpus, NETWORKS[0], 1)
    content = torch.load(plain, weights_only=True)
    torch.save(content, tmp_path / "legacy.ckpt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "small.ckpt", "w", zipfile.ZIP_DEFLATED) as small:
        for item in source.infolist():
            small.writestr(item.filename, source.read(item))
    odd = tmp_path / "no text \udcff.ckpt"
    shutil.copy(plain, odd)
    for path in (plain, tmp_path / "legacy.ckpt", tmp_path / "small.ckpt", odd):
        found = read_checkpoint(path).weights
        assert all(
            torch.equal(found[name.removeprefix(NETWORK)], value) for name, value in content["state_dict"].items()
        )
        assert is_mapped(plain) == (path == plain)
        del found


def is_mapped(path):
    """Whether this process has mapped the file."""
    with open("/proc/self/maps") as stream:
        return any(line.rstrip().endswith(str(path)) for line in stream)


def test_other_files_are_copied_into_memory(tmp_path):
    torch.save(torch.ones(3), tmp_path / "cw.pt")
    weights = read_torch_file(tmp_path / "cw.pt", "weights")
    assert not is_mapped(tmp_path / "cw.pt") and weights.sum() == 3


def batches(*sizes):
    return [ClipBatch(torch.full((size, 1), float(number)), torch.zeros(size)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "most, expected",
    [
        (0, [[0], [1], [2], [3]]),
        (16, [[0], [1], [2], [3]]),
        (31, [[0], [1], [2, 3]]),
        (32, [[0, 1], [2, 3]]),
        (1000, [[0, 1, 2, 3]]),
    ],
)
def test_a_chunk_keeps_what_fits_and_at_least_one_batch(most, expected):
    source, found = Lookahead(batches(2, 2, 2, 1)), []  # of 16, 16, 16 and 8 bytes
    while not source.ended:
        kept = []
        first = [int(batch.inputs[0, 0]) for batch in kept_batches(source, most, kept)]
        assert first == [int(batch.inputs[0, 0]) for batch in kept]
        found.append(first)
    assert found == expected


def test_a_lone_network_keeps_nothing():
    alive = weakref.WeakSet()

    def source():
        for _ in range(20):
            alive.add(inputs := torch.zeros(2, 3))
            assert len(alive) <= 4  # the one at work, the next one, and what is on its way between them
            yield ClipBatch(inputs, torch.zeros(2, 3))

    (found,) = outputs_of([lambda: torch.nn.Linear(3, 3)], source(), 40, budget=10**9)
    assert found.logits.shape == (40, 3)


def test_batches_of_loader_workers_leave_the_shared_memory(corpus, experiment):
    path = next(experiment.rglob("*.ckpt"))
    dataset = next(predictions([Candidate(path)], options(corpus))).dataset
    for batch in batches_of(dataset, 4, 2, torch.device("cpu")):
        assert not batch.inputs.is_shared() and not batch.targets.is_shared()


def test_the_budget_is_a_share_of_the_memory_there_is(tmp_path, monkeypatch):
    assert 0 < most_to_keep(torch.device("cpu")) <= available_memory() / 4
    monkeypatch.setattr("src.utils.memory.LIMIT", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("4000000\n")
    assert most_to_keep(torch.device("cpu")) == 1000000
    (tmp_path / "memory.max").write_text("max\n")
    assert most_to_keep(torch.device("cpu")) > 1000000


def test_the_benchmark_compares_an_evaluation_with_its_parts(tmp_path):
    result = run_script(
        "benchmarks/evaluation.py", "--clips", 4, "--checkpoints", 2, "--runs", 1, "--num_workers", 0, check=0
    )
    rows = [line.split("|")[1:-1] for line in result.stdout.splitlines() if line.startswith("| 2 |")]
    timed, memory = ([float(cell.split()[0]) for cell in row] for row in rows)
    data, forwards, whole, scores, ratio, without_scores = timed[1:]
    assert data > 0 and forwards > 0 and whole > scores and ratio >= without_scores > 0
    assert memory[1] > 0
