"""Runs that are killed, interrupted, out of room or diverging, and what they leave."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from importlib import metadata

import numpy as np
import psutil
import pytest
import torch
from conftest import AUGMENTED, ROOT, error_line, run_script, start, train_command, wait_until, write_folder

from src.data.sampling import EpochSampler
from src.errors import UserError
from src.models.registry import create
from src.runs.lock import sole_process
from src.runs.provenance import DeterminismWarnings
from src.runs.resuming import read_resume_point


@pytest.fixture(scope="module")
def clips(corpus, tmp_path_factory):
    """An LMDB of 40 clips: ten batches."""
    folder = tmp_path_factory.mktemp("clips")
    run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        write_folder(folder / "flac", 40, 7),
        "--lmdb_path",
        folder / "forty.lmdb",
        "--audio_min_duration",
        "0.5",
        check=0,
    )
    return folder / "forty.lmdb"


def command(corpus, clips, folder, *more, epochs=3):
    """A run of ten batches an epoch, with mixup, validated on the same clips."""
    return train_command(
        corpus,
        folder,
        "--use_mixup",
        "--set",
        f"data.train_lmdb={clips}",
        "--set",
        f"data.val_lmdb={clips}",
        *more,
        epochs=epochs,
    )


@pytest.fixture(scope="module")
def undisturbed(corpus, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run_script(*command(corpus, clips, folder), check=0)
    return folder


def outcome(folder):
    """All that a run ends with: checkpoint names, their tensors, the table of figures."""
    names = sorted(path.name for path in (folder / "ckpts").iterdir())
    states = [torch.load(folder / "ckpts" / name, weights_only=True) for name in names]
    return names, states, (folder / "logs" / "metrics.csv").read_text()


def assert_same(one, other):
    """Equal to the last bit, the optimiser's state and the schedule's included."""
    (names, states, table), (other_names, other_states, other_table) = outcome(one), outcome(other)
    assert names == other_names and table == other_table
    for state, expected in zip(states, other_states):
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert equal(state[part], expected[part]), part
    assert not (one / "resume.ckpt").exists() and not list(one.rglob("*.partial"))


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def with_every_augmentation(features, **of_model):
    """Balanced sampling included."""
    values = {f"model.{key}": value for key, value in of_model.items()}
    values |= {f"augment.{key}": value for key, value in AUGMENTED.items()}
    values |= {"audio_config.feature": "logmel", "opt.balanced": True}
    return "--features", features, *(word for key, value in values.items() for word in ("--set", f"{key}={value}"))


def age(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def batches_done(path):
    """Of the epoch under way, or 0 without such a checkpoint."""
    try:
        return read_resume_point(path).batches
    except UserError:
        return 0


def test_killed_again_and_again_a_run_ends_as_if_undisturbed(corpus, clips, undisturbed, tmp_path):
    """Kills within an epoch, in a checkpoint's writing and in the validation, each with workers that stay behind."""
    folder, rng = tmp_path / "run", np.random.default_rng(8)
    words = command(corpus, clips, folder, "--checkpoint_every_n_steps", 1, "--num_workers", 2)
    resume, half_written = folder / "resume.ckpt", 0
    kinds = ("step", "writing", "validation", "step", "writing", "validation")
    for kind in kinds:
        before = age(resume)
        process = start(tmp_path, *words)
        wait_until(process, lambda: age(resume) > before)
        if kind == "step":
            time.sleep(rng.uniform(0, 0.15))
        elif kind == "writing":
            wait_until(process, lambda: stopped_while_writing(process, folder))
        else:
            wait_until(process, lambda: batches_done(resume) == 10)
        assert process.is_alive()
        process.kill()
        process.join(60)
        half_written += any(folder.rglob(".*.partial"))
    assert half_written >= 2
    run_script(*words, check=0)
    assert_same(folder, undisturbed)
    record = json.loads((folder / "run.json").read_text())
    assert len(record["resumed"]) == len(kinds) and record["nondeterministic"] == []
    assert record["finished"]["epochs"] == 3


def stopped_while_writing(process, folder):
    """Whether a process is writing a file. If so, it is left stopped in the midst of it."""
    if any(folder.rglob(".*.partial")):
        os.kill(process.pid, signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        if any(folder.rglob(".*.partial")):
            return True
        os.kill(process.pid, signal.SIGCONT)
    return False


def interrupt(process, reached, signum, group=False):
    """Send a signal once `reached()`. Returns the exit status."""
    wait_until(process, reached)
    assert process.is_alive()
    (os.killpg if group else os.kill)(process.pid, signum)
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize("signum, workers", [(signal.SIGTERM, 2), (signal.SIGUSR1, 2), (signal.SIGINT, 0)])
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint(corpus, clips, undisturbed, tmp_path, signum, workers):
    """SLURM sends it to every process, loader workers too."""
    folder = tmp_path / "run"
    words = command(corpus, clips, folder, "--num_workers", workers, "--checkpoint_every_n_steps", 4)
    process = start(tmp_path, *words)
    wait_until(process, (folder / "resume.ckpt").exists)
    for _ in range(2):
        for worker in psutil.Process(process.pid).children():
            worker.send_signal(signum)
    status = interrupt(process, (folder / "resume.ckpt").exists, signum, group=True)
    output = (tmp_path / "err.log").read_text()
    assert status == 128 + signum and "The same command resumes from the last checkpoint" in output
    assert "Traceback" not in output and not (folder / ".lock").exists()
    assert 4 < batches_done(folder / "resume.ckpt") < 10
    assert json.loads((folder / "run.json").read_text())["finished"] is None
    result = run_script(*words, check=0)
    assert f"resuming from {folder / 'resume.ckpt'}" in result.stderr
    assert_same(folder, undisturbed)


def test_a_signal_in_the_validation_leaves_it_to_be_repeated(corpus, clips, undisturbed, tmp_path):
    folder = tmp_path / "run"
    words = command(corpus, clips, folder, "--checkpoint_every_n_steps", 10)  # the last step of an epoch
    assert interrupt(start(tmp_path, *words), lambda: batches_done(folder / "resume.ckpt") == 10, signal.SIGTERM) == 143
    assert batches_done(folder / "resume.ckpt") == 10 and not list(folder.glob("ckpts/*.ckpt"))
    run_script(*command(corpus, clips, tmp_path / "other", "--resume_from", folder / "resume.ckpt"), check=0)
    assert_same(tmp_path / "other", undisturbed)
    run_script(*words, check=0)
    assert_same(folder, undisturbed)


@pytest.mark.parametrize(
    "more",
    [
        ("--set", "model.arch=efficientnet", "--set", "model.model_depth=b0"),  # drops units and whole blocks at random
        ("--accumulate_grad_batches", 3),
        ("--set", "opt.optimizer=SGD", "--set", "opt.scheduler=step"),
        with_every_augmentation("workers"),
        with_every_augmentation("device"),
        with_every_augmentation("workers", type="events", head="gru"),
        with_every_augmentation("device", type="events"),
    ],
    ids=["efficientnet", "accumulate", "SGD", "augmented", "augmented_on_device", "events", "events_on_device"],
)
def test_other_runs_go_on_within_an_epoch(corpus, clips, tmp_path, more):
    """And end as one that had no workers."""
    folders = tmp_path / "run", tmp_path / "undisturbed"
    words = [
        command(corpus, clips, folder, *more, "--num_workers", workers, epochs=1)
        for folder, workers in zip(folders, (2, 0))
    ]
    for _ in range(2):
        before = age(folders[0] / "resume.ckpt")
        process = start(tmp_path, *words[0], "--checkpoint_every_n_steps", 1)
        wait_until(process, lambda: age(folders[0] / "resume.ckpt") > before)
        process.kill()
        process.join(60)
        assert 0 < batches_done(folders[0] / "resume.ckpt") < 10
    for line in words:
        run_script(*line, check=0)
    assert_same(*folders)


def test_loader_workers_of_a_resumed_run_begin_with_the_right_epoch(corpus, undisturbed, clips, tmp_path):
    for epochs in (2, 3):
        run_script(*command(corpus, clips, tmp_path / "run", "--num_workers", 2, epochs=epochs), check=0)
    assert_same(tmp_path / "run", undisturbed)


def test_a_run_killed_before_it_could_say_so_is_finished(corpus, undisturbed, tmp_path):
    """Early stopping included: its last checkpoint knows."""
    folder = tmp_path / "run"
    words = train_command(corpus, folder, "--set", "opt.lr=1e-9", epochs=20)
    run_script(*words, check=0)
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"]["early"]
    expected = outcome(folder)[0]
    (folder / "run.json").write_text(json.dumps(record | {"finished": None}))
    (folder / "resume.ckpt").write_bytes((folder / "ckpts" / expected[0]).read_bytes())
    assert "finished (early stopping after" in run_script(*words, check=0).stderr
    assert outcome(folder)[0] == expected and not (folder / "resume.ckpt").exists()
    again = json.loads((folder / "run.json").read_text())
    assert 0 < again["finished"].pop("seconds") <= record["finished"].pop("seconds")
    assert again == record


def kept(folder):
    return sorted(int(path.name[6:8]) for path in (folder / "ckpts").iterdir())


@pytest.mark.parametrize("keep", ["last", "2"])
def test_keep_leaves_the_same_checkpoints_after_kills(corpus, clips, undisturbed, tmp_path, keep):
    rows = [line.split(",") for line in (undisturbed / "logs" / "metrics.csv").read_text().splitlines()[1:]]
    best = sorted(rows, key=lambda row: (-float(row[5]), int(row[0])))[:2]
    folder = tmp_path / "run"
    words = command(corpus, clips, folder, "--keep", keep, "--num_workers", 2)
    for epoch in (0, 1):
        process = start(tmp_path, *words)
        wait_until(
            process,
            lambda: (
                (folder / "logs" / "metrics.csv").exists()
                and len((folder / "logs" / "metrics.csv").read_text().splitlines()) > epoch + 1
            ),
        )
        process.kill()
        process.join(60)
    run_script(*words, check=0)
    assert kept(folder) == ([2] if keep == "last" else sorted(int(row[0]) for row in best))
    names, states, table = outcome(undisturbed)
    for name, state in zip(*outcome(folder)[:2]):
        assert equal(state["state_dict"], states[names.index(name)]["state_dict"])
    assert outcome(folder)[2] == table
    assert (folder / "resume.ckpt").exists() == (2 not in kept(folder))


def test_a_run_that_keeps_the_best_goes_on_from_the_last(corpus, clips, tmp_path):
    """The first epoch is made the best by hand."""
    folder = tmp_path / "run"
    words = [command(corpus, clips, folder, "--keep", 1, epochs=epochs) for epochs in (1, 2, 3)]
    run_script(*words[0], check=0)
    table = folder / "logs" / "metrics.csv"
    header, row = table.read_text().splitlines()
    table.write_text(f"{header}\n{row.rpartition(',')[0]},1.5\n")
    run_script(*words[1], check=0)
    assert kept(folder) == [0] and read_resume_point(folder / "resume.ckpt").epochs == 2
    assert "finished (2 epochs)" in run_script(*words[1], check=0).stderr
    assert "resume.ckpt, after 2 epochs" in run_script(*words[2], check=0).stderr
    assert kept(folder) == [0] and len(table.read_text().splitlines()) == 4


@pytest.mark.parametrize("keep", ["0", "1.5", "best", ""])
def test_an_unclear_keep_is_refused(corpus, tmp_path, keep):
    result = run_script(*train_command(corpus, tmp_path / "run", "--keep", keep))
    assert result.returncode == 2 and "--keep" in result.stderr and not (tmp_path / "run").exists()


def test_divergence_stops_with_what_led_to_it(corpus, clips, tmp_path):
    folder = tmp_path / "run"
    state = create("cifar_resnet", 20, 3).state_dict()
    state["conv1.weight"].fill_(1e38)
    torch.save(state, tmp_path / "w.pth")
    line = error_line(
        run_script(*command(corpus, clips, folder, "--pretrained", tmp_path / "w.pth", "--checkpoint_every_n_steps", 1))
    )
    assert "epoch 0, step 1: the loss is inf" in line or "epoch 0, step 1: the loss is nan" in line
    records = EpochSampler(40, 3, True).share(0)[:4]
    assert f"Learning rate 0.001. Batch 0 was of {clips}, records {', '.join(map(str, records))}." in line
    assert not list(folder.rglob("*.ckpt")) and not list(folder.rglob("*.partial"))


def test_divergence_leaves_the_last_good_checkpoint(corpus, clips, tmp_path):
    """An optimiser's step that overflows the weights: its loss was fine, and they are refused before they are saved."""
    folder = tmp_path / "run"
    run_script(*command(corpus, clips, folder, epochs=1), check=0)
    (path,) = (folder / "ckpts").iterdir()
    state = torch.load(path, weights_only=True)
    for moments in state["optimizer_states"][0]["state"].values():
        moments["exp_avg"].fill_(3e38)
        moments["exp_avg_sq"].zero_()
    torch.save(state, path)
    line = error_line(run_script(*command(corpus, clips, folder, "--checkpoint_every_n_steps", 1)))
    assert "epoch 1, step 11: weights are no longer finite numbers" in line and "from before is kept" in line
    for file in folder.rglob("*.ckpt"):
        assert all(bool(value.isfinite().all()) for value in torch.load(file, weights_only=True)["state_dict"].values())
    assert path.exists()


def test_a_full_disk_leaves_the_earlier_checkpoint(corpus, clips, tmp_path):
    """A limit on the size of files, less than a checkpoint takes, stands for the disk."""
    folder = tmp_path / "run"
    run_script(*command(corpus, clips, folder, epochs=1), check=0)
    before = {path: path.read_bytes() for path in folder.rglob("*.ckpt")}
    words = [str(word) for word in command(corpus, clips, folder)]
    result = subprocess.run(
        ["bash", "-c", 'ulimit -f 2000; exec "$@"', "-", sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    line = error_line(result)
    assert "a checkpoint takes 12.9 MB and " in line and " MB are free" in line and str(folder / "ckpts") in line
    assert {path: path.read_bytes() for path in folder.rglob("*.ckpt")} == before
    assert not list(folder.rglob("*.partial"))
    run_script(*command(corpus, clips, folder, epochs=2), check=0)
    assert kept(folder) == [0, 1]


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(corpus, clips, tmp_path):
    folder = tmp_path / "run"
    words = command(corpus, clips, folder, "--checkpoint_every_n_steps", 1, "--num_workers", 2)
    process = start(tmp_path, *words)
    wait_until(process, (folder / "resume.ckpt").exists)
    line = error_line(run_script(*words))
    assert f"{folder}: process {process.pid} on " in line and "is training in it" in line
    assert process.is_alive()
    process.kill()
    process.join(60)
    result = run_script(*words, check=0)
    assert f"process {process.pid} on " in result.stderr and "ended without deleting its lock" in result.stderr


def hold_with_a_child(folder, pids):
    with sole_process(folder):
        child = os.fork()
        if child:
            pids.send(child)
        time.sleep(300)


def test_what_a_dead_process_forked_does_not_hold_its_lock(tmp_path):
    """As loader workers, which live on for seconds."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold_with_a_child, args=(tmp_path / "run", theirs))
    process.start()
    child = ours.recv()
    with pytest.raises(UserError, match=f"process {process.pid} on"), sole_process(tmp_path / "run"):
        pass
    process.kill()
    process.join()
    with sole_process(tmp_path / "run"):
        assert psutil.Process(child).status() == psutil.STATUS_SLEEPING
    os.kill(child, signal.SIGKILL)


def test_without_locks_of_the_file_system_process_and_machine_decide(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock = tmp_path / "run" / ".lock"
    with sole_process(tmp_path / "run"):
        with pytest.raises(UserError, match=f"process {os.getpid()} .*delete .*lock"), sole_process(tmp_path / "run"):
            pass
        mine = lock.read_text()
    assert not (tmp_path / "run").exists()
    gone = multiprocessing.get_context("fork").Process(target=int)
    gone.start()
    gone.join()
    lock.parent.mkdir()
    lock.write_text(json.dumps(json.loads(mine) | {"pid": gone.pid}))
    with sole_process(tmp_path / "run"):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    lock.write_text(json.dumps(json.loads(mine) | {"host": "elsewhere"}))
    with pytest.raises(UserError, match="on elsewhere"), sole_process(tmp_path / "run"):
        pass


def test_the_record_says_what_was_not_the_same(corpus, clips, tmp_path):
    folder = tmp_path / "run"
    run_script(*command(corpus, clips, folder, epochs=1), check=0)
    record = json.loads((folder / "run.json").read_text())
    assert record["nondeterministic"] == []
    record["versions"]["torch"] = "1.7.1"
    (folder / "run.json").write_text(json.dumps(record))
    run_script(*command(corpus, clips, folder, epochs=2), check=0)
    assert json.loads((folder / "run.json").read_text())["nondeterministic"] == [
        f"resumed with torch '{metadata.version('torch')}' instead of '1.7.1'",
    ]


def test_warnings_of_kernels_are_noted():
    logging.captureWarnings(True)
    notes = []
    with DeterminismWarnings(notes.append).listening():
        for _ in range(2):
            warnings.warn(
                "scatter_add_cuda_kernel does not have a deterministic implementation, but you set 'x'. "
                "You can file an issue",
                stacklevel=1,
            )
        warnings.warn("something else", stacklevel=1)
    logging.captureWarnings(False)
    (note,) = set(notes)
    assert "scatter_add_cuda_kernel does not have a deterministic implementation" in note and "file an" not in note
