"""Several processes and nodes on the CPU: the same figures, decisions and errors as one. And the device flags."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import msgpack
import numpy as np
import pytest
import torch
from conftest import (
    AUGMENTED,
    ROOT,
    cfg_tree,
    error_line,
    run_in_forked_process,
    run_script,
    train_command,
    write_cfg,
    write_folder,
    write_lbl_map,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config.loading import load_config
from src.config.sections import OptConfig
from src.data.datamodule import ClipDataModule
from src.data.labels import LabelMap
from src.data.loading import open_dataset
from src.data.sampling import Dealing, EpochSampler
from src.data.transforms import evaluation_chain
from src.errors import UserError
from src.learning.optim import build_optimizer
from src.learning.tasks import build_task
from src.learning.thresholds import choose
from src.models.checkpoint import read_checkpoint
from src.runs import devices as devices_module
from src.runs.devices import Devices, choose_devices

TWO = ("--accelerator", "cpu", "--devices", 2)
THREADS = os.environ.get("OMP_NUM_THREADS", str(max(1, os.cpu_count() // 2)))  # what Lightning gives each of two


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """13 clips to train on, 9 to validate on, batches of 2: of the last, two ranks have 3 and 2."""
    folder = tmp_path_factory.mktemp("odd")
    write_lbl_map(folder / "meta" / "lbl_map.json")
    for split, count, seed in (("train", 13, 1), ("val", 9, 2), ("one", 1, 3)):
        run_script(
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            write_folder(folder / split, count, seed),
            "--lmdb_path",
            folder / f"{split}.lmdb",
            "--audio_min_duration",
            0.5,
            check=0,
        )
    tree = cfg_tree(folder)
    tree["opt"]["batch_size"] = 2
    write_cfg(folder / "tiny.cfg", tree)
    tree["audio_config"]["feature"] = "logmel"
    tree["opt"]["balanced"] = True
    write_cfg(folder / "augmented.cfg", tree | {"augment": AUGMENTED})
    return folder


@pytest.fixture(scope="module")
def two_processes(odd, tmp_path_factory):
    """A run of two epochs in two processes, and what it said."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    return folder, run_script(*train_command(odd, folder, *TWO, epochs=2), check=0)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def run_together(words, environments):
    """The same command in several processes, as a launcher starts them, each with its environment variables."""
    words = [str(ROOT / words[0]), *map(str, words[1:])]
    with ThreadPoolExecutor(len(environments)) as pool:
        return list(pool.map(lambda environment: run_in_forked_process(words, ROOT, 120, environment), environments))


def two_ranks():
    """Environment variables of two processes that were started together."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    return [shared | {"LOCAL_RANK": rank} for rank in "01"]


def in_background(words, **more):
    """A command in a process group of its own. Its output can be read from one pipe."""
    return subprocess.Popen(
        [*map(str, words)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
    )


def end_of(process, timeout=120):
    """Wait for a command in the background: (exit status, output). Its whole group is ended at any rate."""
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def figures(folder):
    with open(folder / "logs" / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def weights(folder, epoch):
    (path,) = (folder / "ckpts").glob(f"epoch={epoch:02d}*.ckpt")
    return read_checkpoint(path).weights


def assert_same_run(folder, other):
    assert figures(folder) == figures(other)
    for epoch in range(len(figures(folder))):
        ours, theirs = weights(folder, epoch), weights(other, epoch)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- what each rank gets ----


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_every_record_goes_to_one_rank_and_is_reshuffled_globally(records, ranks, seed, epoch):
    def shares(training, epoch):
        samplers = [EpochSampler(records, seed, training, rank, ranks) for rank in range(ranks)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
        return [[index for _, index in sampler] for sampler in samplers]

    validation = shares(False, epoch)
    assert sorted(sum(validation, [])) == list(range(records))
    training = shares(True, epoch)
    each = -(-records // ranks)
    assert [len(share) for share in training] == [each] * ranks
    dealt = [training[place % ranks][place // ranks] for place in range(each * ranks)]
    whole = [index for _, index in _whole(records, seed, epoch)]
    assert sorted(dealt[:records]) == list(range(records)) and dealt[:records] == whole
    assert dealt[records:] == [dealt[place % records] for place in range(records, each * ranks)]
    if records > 20:
        assert shares(True, epoch + 1) != training


def _whole(records, seed, epoch):
    sampler = EpochSampler(records, seed, True)
    sampler.set_epoch(epoch)
    return sampler


@pytest.fixture(scope="module", params=["tiny.cfg", "augmented.cfg"])
def witnesses(odd, tmp_path_factory, request):
    """What tests/runs/ranks_script.py wrote as one process with batches of 4, and as two with batches of 2."""
    folder = tmp_path_factory.mktemp("witnesses")
    script = ("tests/runs/ranks_script.py", odd / request.param, folder)
    for result in run_together((*script, 2, 2), two_ranks()) + run_together((*script, 1, 4), [{}]):
        assert result.returncode == 0, result.stderr[-3000:]
    return [
        torch.load(folder / name, weights_only=True) for name in ("rank_0_of_1.pt", "rank_0_of_2.pt", "rank_1_of_2.pt")
    ]


def test_losses_and_gradients_are_those_of_the_joined_batch(witnesses):
    """Not to the last bit: two means of two are not added up in the order of one mean of four."""
    alone, *ranks = witnesses
    assert len(alone["steps"]) == 3
    for rank in ranks:
        for ours, theirs in zip(rank["steps"], alone["steps"], strict=True):
            assert torch.equal(ours["inputs"], theirs["inputs"])
            assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-6)
        ours, theirs = rank["steps"][0]["gradients"], alone["steps"][0]["gradients"]
        assert ours.keys() == theirs.keys() and len(ours) > 50
        for name in theirs:
            assert theirs[name].norm() > 0
            assert (ours[name] - theirs[name]).norm() <= 1e-6 * theirs[name].norm(), name
        for name in ("train_loss", "val_loss", "val_mAP"):
            assert float(rank["figures"][name]) == pytest.approx(float(alone["figures"][name]), rel=1e-5)


def test_what_ranks_share(witnesses):
    alone, *ranks = witnesses
    for witness in witnesses:
        assert witness["told"] == "rank 0"
        assert witness["shares"] == [list(range(count)) for count in (2, 3, 7, 8)]
    for name in ranks[0]["steps"][0]["gradients"]:
        assert torch.equal(*(rank["steps"][0]["gradients"][name] for rank in ranks))


# ---- whole runs ----


def test_validation_figures_are_those_of_the_checkpoint_over_the_whole_set(odd, two_processes):
    folder, _ = two_processes
    config = load_config(odd / "tiny.cfg")
    label_map = LabelMap.load(config.data.label_map_path())
    clips = open_dataset(config, config.data.val_lmdb, label_map, evaluation_chain(64))
    inputs, targets = (np.stack(parts) for parts in zip(*(clips[0, index] for index in range(len(clips)))))
    task = build_task(config)
    for row, path in zip(figures(folder), sorted((folder / "ckpts").iterdir()), strict=True):
        with torch.no_grad():
            logits = read_checkpoint(path).network().eval()(torch.from_numpy(inputs)[:, None])
        assert float(row["val_mAP"]) == pytest.approx(task.figure(logits.sigmoid().numpy(), targets), abs=1e-6)
        assert float(row["val_loss"]) == pytest.approx(float(task.loss(logits, torch.from_numpy(targets))), rel=1e-6)
        thresholds = choose(logits.sigmoid().numpy(), targets).thresholds
        assert read_checkpoint(path).decisions.thresholds == pytest.approx(thresholds, rel=1e-4)


def test_one_process_speaks_for_all(two_processes):
    folder, result = two_processes
    assert result.stderr.count("1.1 M parameters") == 1 and "in each of 2 processes" in result.stderr
    assert result.stdout.count("Epoch 1: 100%") >= 1 and "Initializing distributed" not in result.stderr
    assert result.stderr.count("reading train.lmdb") <= 1 and "sync_dist" not in result.stderr
    record = json.loads((folder / "run.json").read_text())
    assert record["devices"]["per_node"] == 2 and record["finished"]["epochs"] == 2
    assert [row["step"] for row in figures(folder)] == ["3", "6"]


def test_two_nodes_are_as_two_processes(odd, two_processes, tmp_path):
    port = free_port()
    words = train_command(odd, tmp_path / "run", "--accelerator", "cpu", "--devices", 1, "--num_nodes", 2, epochs=2)
    nodes = [
        in_background(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes",
                2,
                "--node_rank",
                rank,
                "--nproc_per_node",
                1,
                "--master_addr",
                "127.0.0.1",
                "--master_port",
                port,
                ROOT / words[0],
                *words[1:],
            ],
            env=os.environ | {"OMP_NUM_THREADS": THREADS},
        )
        for rank in range(2)
    ]
    for status, output in map(end_of, nodes):
        assert status == 0, output[-3000:]
    assert_same_run(tmp_path / "run", two_processes[0])


def test_slurm_starts_are_as_two_processes(odd, two_processes, tmp_path):
    job = {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    words = train_command(odd, tmp_path / "run", *TWO, epochs=2)
    for result in run_together(words, [job | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]):
        assert result.returncode == 0, result.stderr[-3000:]
    assert_same_run(tmp_path / "run", two_processes[0])


def test_a_seed_that_was_drawn_is_every_ranks(odd, tmp_path):
    words = [word for word in train_command(odd, tmp_path / "run", *TWO) if word not in ("--seed", 3)]
    for result in run_together(words, two_ranks()):
        assert result.returncode == 0, result.stderr[-3000:]
    seed = json.loads((tmp_path / "run" / "run.json").read_text())["seed"]
    for result in run_together(train_command(odd, tmp_path / "named", *TWO, "--seed", seed), two_ranks()):
        assert result.returncode == 0, result.stderr[-3000:]
    assert_same_run(tmp_path / "run", tmp_path / "named")


def test_a_run_goes_on_in_another_number_of_processes_and_is_skipped_when_finished(odd, two_processes, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_processes[0], folder)
    result = run_script(*train_command(odd, folder, epochs=3), check=0)
    assert "resuming from" in result.stderr and [row["step"] for row in figures(folder)] == ["3", "6", "9"]
    for result, said in zip(run_together(train_command(odd, folder, *TWO, epochs=3), two_ranks()), (1, 0)):
        assert result.returncode == 0 and result.stderr.count("finished (3 epochs), skipped") == said


def test_several_runs_in_two_processes(odd, two_processes, tmp_path):
    shutil.copy(odd / "train.lmdb", tmp_path / "other.lmdb")
    words = train_command(
        odd,
        tmp_path,
        *TWO,
        "--lmdbs_list",
        f"{odd / 'train.lmdb'};{tmp_path / 'other.lmdb'}",
        script="train_all_mixtures.py",
        epochs=2,
    )
    for result in run_together(words, two_ranks()):
        assert result.returncode == 0, result.stderr[-3000:]
    for name in ("train", "other"):
        assert_same_run(tmp_path / name, two_processes[0])


# ---- interrupts and errors ----


def test_an_interrupt_ends_all_processes_and_the_run_goes_on(odd, tmp_path):
    folder = tmp_path / "run"
    words = train_command(odd, folder, *TWO, epochs=400)
    process = in_background([sys.executable, ROOT / words[0], *words[1:]])
    deadline = time.monotonic() + 120
    while not list(folder.glob("ckpts/epoch=01*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    status, output = end_of(process)
    assert status == 130 and time.monotonic() - started < 60, output[-3000:]
    assert "Traceback" not in output and output.count("resumes from the last checkpoint") == 1, output[-3000:]
    assert_no_process_mentions(folder)
    epochs = len(list((folder / "ckpts").iterdir())) + 1
    for result in run_together(train_command(odd, folder, *TWO, epochs=epochs), two_ranks()):
        assert result.returncode == 0, result.stderr[-3000:]
    assert len(figures(folder)) <= epochs and json.loads((folder / "run.json").read_text())["finished"]


def assert_no_process_mentions(path):
    command_lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command_lines.append(file.read_bytes())
        except OSError:
            pass
    assert not [line for line in command_lines if os.fsencode(path) in line]


def lines_of_error(results):
    """The error lines of ranks of which each ended with status 1 and without a traceback."""
    for result in results:
        assert result.returncode == 1 and "Traceback" not in result.stderr, (result.returncode, result.stderr[-3000:])
    return [line for result in results for line in re.findall(r"\S+\.py: error: .*", result.stderr)]


@pytest.mark.parametrize(
    "more, said",
    [
        (("--set", "data.val_lmdb=missing.lmdb"), "missing.lmdb: no such LMDB"),
        (("--cfg_file", "missing.cfg"), "missing.cfg: is missing"),
        (("--devices", 3), "--devices 3 and --num_nodes 1"),
    ],
)
def test_a_mistake_that_all_ranks_meet_is_said_once(odd, tmp_path, more, said):
    environments = [
        environment | {"TORCHELASTIC_RUN_ID": "test", "RANK": environment["LOCAL_RANK"]} for environment in two_ranks()
    ]
    (line,) = lines_of_error(run_together(train_command(odd, tmp_path / "run", *TWO, *more), environments))
    assert said in line and not (tmp_path / "run").exists()


def test_ranks_without_a_clip_are_refused(odd):
    config = load_config(odd / "tiny.cfg", ["opt.batch_size=8", f"data.val_lmdb={odd / 'one.lmdb'}"])
    data = ClipDataModule(config, LabelMap.load(config.data.label_map_path()), 64, 64, num_workers=0)
    with pytest.raises(UserError, match="7 for each of 2 devices training clips do not fill one batch"):
        data.deal(Dealing(2, 1, 2))
    data.batch_size = 2
    data.deal(Dealing())
    with pytest.raises(UserError, match="one.lmdb: holds 1 validation clips, fewer than the 2 devices"):
        data.deal(Dealing(2, 1, 2))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_that_one_rank_meets_ends_all(odd, tmp_path, rank):
    shutil.copy(odd / "train.lmdb", tmp_path / "train.lmdb")
    _, index = list(EpochSampler(13, 3, True, rank, 2))[2]
    break_record(tmp_path / "train.lmdb", index)
    words = train_command(odd, tmp_path / "run", *TWO, "--set", f"data.train_lmdb={tmp_path / 'train.lmdb'}")
    (line,) = lines_of_error(run_together(words, two_ranks()))
    assert f"train.lmdb, record {index}: is not audio" in line


def break_record(path, index):
    key = str(index).encode()
    with lmdb.open(str(path), subdir=False) as environment, environment.begin(write=True) as transaction:
        _, label = msgpack.unpackb(transaction.get(key))
        transaction.put(key, msgpack.packb((b"fLaC, or not", label)))


def test_the_first_process_of_a_command_says_what_its_others_met(odd, tmp_path):
    shutil.copy(odd / "train.lmdb", tmp_path / "train.lmdb")
    _, index = list(EpochSampler(13, 3, True, 1, 2))[0]
    break_record(tmp_path / "train.lmdb", index)
    words = train_command(odd, tmp_path / "run", *TWO, "--set", f"data.train_lmdb={tmp_path / 'train.lmdb'}")
    assert f"train.lmdb, record {index}: is not audio" in error_line(run_script(*words))
    assert_no_process_mentions(tmp_path / "run")


def test_a_process_that_is_killed_ends_the_run(odd, tmp_path):
    folder = tmp_path / "run"
    words = train_command(odd, folder, *TWO, epochs=400)
    process = in_background([sys.executable, ROOT / words[0], *words[1:]])
    deadline = time.monotonic() + 120
    while not list(folder.glob("ckpts/epoch=00*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (other,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(other), signal.SIGKILL)
    status, output = end_of(process)
    assert status == 1 and "Traceback" not in output, output[-3000:]
    assert "another process of this run has ended without a message" in output


# ---- flags ----


@pytest.mark.parametrize(
    "present, flags, chosen",
    [
        (0, {}, Devices()),
        (0, {"gpus": [0, 1]}, Devices()),
        (0, {"devices": 2}, Devices(per_node=2)),
        (0, {"devices": 2, "num_nodes": 3, "accelerator": "cpu"}, Devices(per_node=2, num_nodes=3)),
        (2, {}, Devices((0,))),
        (2, {"gpus": [1]}, Devices((1,))),
        (2, {"gpus": [0, 1, 2, 3]}, Devices((0, 1), 2)),
        (2, {"devices": 2}, Devices((0, 1), 2)),
        (2, {"gpus": [1, 0], "devices": 2}, Devices((1, 0), 2)),
        (2, {"gpus": [0, 1], "accelerator": "cpu"}, Devices()),
        (2, {"devices": 2, "accelerator": "cpu"}, Devices(per_node=2)),
        (2, {"accelerator": "gpu", "num_nodes": 2, "precision": "16-mixed"}, Devices((0,), 1, 2, "16-mixed")),
    ],
)
def test_devices_that_are_chosen(monkeypatch, present, flags, chosen):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    assert choose_devices(**flags) == chosen


@pytest.mark.parametrize(
    "present, flags, said",
    [
        (2, {"devices": 4}, "--devices 4: only 2 GPUs are here"),
        (2, {"gpus": [0, 3], "devices": 2}, "--gpus 0, 3: only 2 GPUs are here"),
        (2, {"gpus": [0, 3], "accelerator": "gpu"}, "--gpus 0, 3: only 2 GPUs are here"),
        (0, {"accelerator": "gpu"}, "--accelerator gpu: PyTorch finds no GPU here"),
        (4, {"gpus": [0, 1], "devices": 3}, "--devices 3: --gpus names 2 (0, 1)"),
    ],
)
def test_devices_that_are_refused(monkeypatch, present, flags, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    with pytest.raises(UserError, match=re.escape(said)):
        choose_devices(**flags)


@pytest.mark.parametrize(
    "variables, flags, said",
    [
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"}, {"devices": 2}, "torchrun has started 4 processes, not 2"),
        ({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}, {"devices": 4}, "SLURM has started 8 processes, not 4"),
        (
            {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"},
            {"devices": 2, "num_nodes": 4},
            "--devices 2: SLURM starts 4 processes on each node",
        ),
    ],
)
def test_a_launcher_with_another_number_of_processes_is_refused(monkeypatch, variables, flags, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(said)):
        choose_devices(accelerator="cpu", **flags)


@pytest.mark.parametrize(
    "precision, on_gpu, lightning",
    [
        ("32", False, "32-true"),
        ("32", True, "32-true"),
        ("16-mixed", False, "32-true"),
        ("16-mixed", True, "16-mixed"),
        ("bf16-mixed", False, "bf16-mixed"),
        ("bf16-mixed", True, "bf16-mixed"),
    ],
)
def test_precision(precision, on_gpu, lightning):
    assert Devices((0,) if on_gpu else (), precision=precision).arguments()["precision"] == lightning


def test_half_precision_on_the_cpu(odd, two_processes, tmp_path):
    plain, half, brain = tmp_path / "plain", tmp_path / "half", tmp_path / "brain"
    run_script(*train_command(odd, plain), check=0)
    result = run_script(*train_command(odd, half, "--fp16"), check=0)
    assert "16-bit mixed precision needs a GPU. Training in 32 bits" in result.stderr
    assert json.loads((half / "run.json").read_text())["precision"] == "16-mixed"
    assert_same_run(plain, half)
    run_script(*train_command(odd, brain, "--precision", "bf16-mixed"), check=0)
    ours, theirs = weights(brain, 0), weights(plain, 0)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    assert {value.dtype for value in ours.values()} == {value.dtype for value in theirs.values()}
    line = error_line(run_script(*train_command(odd, tmp_path / "none", "--precision", "bf16-mixed", "--fp16")))
    assert "--precision bf16-mixed: --fp16 asks for 16-mixed" in line
    line = error_line(run_script(*train_command(odd, brain, epochs=2)))
    assert "precision 'bf16-mixed' instead of '32'" in line


# ---- fused optimisers, compiling ----


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_an_optimiser_state_moves_between_kernels(monkeypatch, name):
    """As when a run goes on on a GPU that began on a CPU, and the other way: both have fused kernels here."""

    def built(fused):
        network = torch.nn.Conv2d(3, 4, 3)
        with torch.no_grad():
            for place, parameter in enumerate(network.parameters()):
                parameter.copy_(torch.linspace(place - 1, 1, parameter.numel()).view(parameter.shape))
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "is_cuda", fused)
            return network, build_optimizer(OptConfig(optimizer=name, lr=0.1, batch_size=1), network.parameters())

    def step(network, optimizer):
        optimizer.zero_grad()
        network(torch.linspace(-1, 1, 3 * 5 * 5).view(1, 3, 5, 5)).square().sum().backward()
        optimizer.step()

    plain = built(False)
    step(*plain)
    step(*plain)
    for first, second in ((False, True), (True, False)):
        network, optimizer = built(first)
        assert optimizer.param_groups[0]["fused"] is (True if first else None)
        step(network, optimizer)
        later_network, later = built(second)
        later_network.load_state_dict(network.state_dict())
        later.load_state_dict(optimizer.state_dict())
        assert later.param_groups[0]["fused"] is (True if second else None)
        step(later_network, later)
        for ours, theirs in zip(later_network.parameters(), plain[0].parameters()):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip_norm, fused", [(None, True), (1.0, None)])
def test_gradients_that_are_clipped_are_not_left_to_fused_kernels(monkeypatch, clip_norm, fused):
    """Those unscale the gradients of 16-mixed in their own step, and Lightning clips none before that."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    opt = OptConfig(optimizer="AdamW", lr=0.1, batch_size=1, clip_norm=clip_norm)
    optimizer = build_optimizer(opt, torch.nn.Linear(2, 2).parameters())
    assert [group["fused"] for group in optimizer.param_groups] == [fused, fused]


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs a C.. compiler, and there is no no-such-compiler"):
        choose_devices(accelerator="cpu", compile=True)
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(devices_module.sysconfig, "get_path", lambda name: "/nowhere")
    with pytest.raises(UserError, match="--compile: on a CPU it needs Python's headers"):
        choose_devices(accelerator="cpu", compile=True)


def test_the_benchmark_of_training_options(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = run_script(
        "benchmarks/training_options.py",
        "--arch",
        "cifar_resnet",
        "--model_depth",
        20,
        "--frames",
        32,
        "--batch_size",
        2,
        "--steps",
        1,
        "--rounds",
        1,
        "--accelerator",
        "cpu",
        check=0,
    )
    rows = re.findall(r"^\| ([^|]+) \| [\d.]+ \([\d.]+ … [\d.]+\) \| ([\d.]+) \|$", result.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["plain", "channels_last", "fused optimiser", "--precision bf16-mixed"]
    assert rows[0][1] == "1.00" and "without --compile here" in result.stderr
