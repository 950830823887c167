"""What the tests share: a tiny corpus, a cfg for it, and the command lines as a user calls them."""

import ctypes
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Tests side by side share the cores. Set before NumPy and PyTorch start their threads.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // int(workers))))

import lmdb
import numpy as np
import pytest
import soundfile
import yaml

ROOT = Path(__file__).resolve().parent.parent
TESTS = str(ROOT / "tests")
GOLDEN = Path(__file__).resolve().parent / "golden"
FIXTURES = Path(__file__).resolve().parent / "fixtures"
SAMPLE_RATE = 22050
CLASSES = ("Drum", "Harp", "Organ")
TONES = {"Drum": 220.0, "Harp": 1760.0, "Organ": 5000.0}  # Hz
CLIP = 15000  # samples, 69 frames
AUGMENTED = {  # every key of a cfg's section augment, each with a value that changes a run
    "roll": True,
    "gain": 6.0,
    "freq_shift": 30,
    "wave_mix": 0.5,
    "mixup_alpha": 0.3,
    "mixup_max": True,
    "mask_prob": 1.0,
    "freq_mask": 0.6,
    "time_mask": 0.7,
}

# Started in the background of a script, a process ignores SIGINT, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# ---- which tests start processes ----

started = []  # by the test that runs now: how it started a process


def pytest_addoption(parser, pluginmanager):
    """With `-p no:xdist`, take its options from pyproject.toml and do nothing."""
    if not pluginmanager.hasplugin("xdist"):
        parser.addoption("--numprocesses")
        parser.addoption("--dist")


def pytest_itemcollected(item):
    """Mark what starts processes: tests of commands, and what uses `fork`, subprocess or multiprocessing by any way."""
    fixtures = [fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]
    if item.path.parent.name == "commands" or _starts_processes(item.function, *fixtures):
        item.add_marker("processes")


def _starts_processes(*functions):
    """Whether functions, or functions of the tests that they use, name something that starts processes."""
    unseen = list(functions)
    seen = set(unseen)
    for function in unseen:
        for name in _names(function.__code__):
            used = function.__globals__.get(name)
            if used is fork or used is subprocess or used is multiprocessing:
                return True
            if isinstance(used, types.FunctionType) and used not in seen and TESTS in used.__code__.co_filename:
                seen.add(used)
                unseen.append(used)
    return False


def _names(code):
    """All names in a function's code and in the functions within it."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def _note_start(event, arguments):
    if event in ("os.fork", "os.posix_spawn", "os.system", "subprocess.Popen"):
        started.append(f"{event} {arguments}")


_start_process = BaseProcess.start


def _start_noted(process):
    started.append(f"start of {process}")
    _start_process(process)


def pytest_configure():
    sys.addaudithook(_note_start)
    BaseProcess.start = _start_noted  # a fork server's processes are no forks of this one


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    started.clear()


@pytest.fixture(autouse=True)
def only_marked_tests_start_processes(request):
    """`pytest -m "not processes"` is quick because nothing in it starts a process."""
    yield
    if started and not request.node.get_closest_marker("processes"):
        pytest.fail(f"an unmarked test starts a process ({started[0][:200]}). Mark it with pytest.mark.processes.")


# ---- running scripts ----

# Importing PyTorch and Lightning takes longer than most of these runs. Scripts are therefore run in
# processes forked from a server that has imported them, and has done nothing else.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["warm"])
_server_start = threading.Lock()


def fork(target, *arguments):
    """Start `target(*arguments)` in a process forked from the server."""
    with _server_start, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server's only way to find what it preloads
        forkserver.ensure_running()
        process = SERVER.Process(target=target, args=arguments)
        process.start()
    return process


def exit_status(process):
    """Of a process, waited for. Without the lock, a start in another thread might take the status, and leave 255."""
    connection.wait([process.sentinel])
    with _server_start:
        process.join()
    return process.exitcode


def run_script(*arguments, cwd=ROOT, check=None, fresh=False, timeout=300):
    """Run a script of the repository in its own process.

    Args:
        check: the exit status to insist on.
        fresh: start a new interpreter, as a user does.
    """
    words = [str(ROOT / arguments[0]), *map(str, arguments[1:])]
    if fresh:
        result = subprocess.run(
            [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    else:
        result = run_in_forked_process(words, cwd, timeout)
    if check is not None:
        assert result.returncode == check, result.stderr[-3000:]
    return result


def run_in_forked_process(words, cwd, timeout, environment=None):
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = fork(_as_main, words, str(cwd), str(out), str(err), os.environ | (environment or {}))
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"{words} ran for more than {timeout} s: {err.read_text()[-3000:]}")
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def start(folder, *words):
    """Start a script of the repository as the leader of a process group, with out.log and err.log in a folder."""
    words = [str(ROOT / words[0]), *map(str, words[1:])]
    return fork(_lead_a_group, words, str(folder), str(folder / "out.log"), str(folder / "err.log"), dict(os.environ))


def _lead_a_group(*arguments):
    os.setpgid(0, 0)
    _as_main(*arguments)


def wait_until(process, reached, pause=0.002):
    """Wait until `reached()` or the end of a process."""
    deadline = time.monotonic() + 120
    while process.is_alive() and not reached():
        assert time.monotonic() < deadline, f"{process} did not get there in 120 s"
        time.sleep(pause)


def _as_main(words, cwd, out, err, environment):
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    # Streams of their own: the inherited ones remember what the server's descriptors were.
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that a user starts
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


WARM_PYTHON = """\
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    server.sendall(json.dumps([sys.argv[2:], os.getcwd(), os.getpid(), dict(os.environ)]).encode() + b"\\n")
    sys.exit(int(server.makefile().readline()))
"""


@pytest.fixture(scope="session")
def warm_python():
    """An interpreter for shell scripts that start many: it runs `SCRIPT ARGUMENT...` in a process forked as above."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        address, client, python = (f"{folder}/{name}" for name in ("socket", "client.py", "python"))
        Path(client).write_text(WARM_PYTHON)
        Path(python).write_text(f'''#!/bin/sh
case "$1" in -c | -) exec "{sys.executable}" "$@" ;; esac
exec "{sys.executable}" -SI {client} {address} "$@"
''')
        os.chmod(python, 0o755)
        server.bind(address)
        server.listen()
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield python


def _serve(server):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_run_for, args=(connection,), daemon=True).start()


def _run_for(client_end):
    with client_end:
        words, cwd, client, environment = json.loads(client_end.makefile().readline())
        words[0] = os.path.join(cwd, words[0])
        process = fork(_as_main, words, cwd, f"/proc/{client}/fd/1", f"/proc/{client}/fd/2", environment)
        status = exit_status(process)
        client_end.sendall(f"{status if status >= 0 else 128 - status}\n".encode())


def error_line(result):
    """The one line of a user's mistake: status 1, no traceback, the last line says what is wrong."""
    assert result.returncode == 1, (result.returncode, result.stderr[-3000:])
    assert "Traceback" not in result.stderr, result.stderr[-3000:]
    line = result.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert ": error: " in line, result.stderr[-3000:]
    return line


LIBC = ctypes.CDLL(None)


def as_another_user():
    """Let root's next program write only where its files' modes allow it. Others' programs do so anyway."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        LIBC.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


# ---- small data ----


def raw(path):
    """Every entry of an LMDB file as bytes, read from a copy, for LMDB opens no file twice in a process."""
    with tempfile.TemporaryDirectory() as folder:
        copy = str(shutil.copy(path, Path(folder) / "copy.lmdb"))
        with lmdb.open(copy, subdir=False, readonly=True, lock=False) as env, env.begin() as transaction:
            return dict(transaction.cursor().iternext())


def tone_clip(labels, seed, length=CLIP):
    """(length,) samples: a tone a label in a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(length) / SAMPLE_RATE
    samples = 0.01 * rng.standard_normal(length)
    for label in labels:
        samples += 0.2 * np.sin(2 * np.pi * TONES[label] * rng.uniform(0.9, 1.1) * t)
    return samples


def write_soundscape(folder, name, labels, seed=0, length=CLIP):
    """NAME.flac and NAME.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.flac", tone_clip(labels, seed, length), SAMPLE_RATE, subtype="PCM_16")
    events = "".join(f"{0.1 * k}\t{0.1 * k + 0.2}\t{label}\n" for k, label in enumerate(labels))
    (folder / f"{name}.txt").write_text(events)


def write_folder(folder, count, seed):
    """`count` soundscapes of one or two events."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        labels = [CLASSES[number % 3]] + ([CLASSES[rng.integers(3)]] if rng.random() < 0.4 else [])
        write_soundscape(folder, f"s{number:03d}", labels, seed=1000 * seed + number)
    return folder


def write_lbl_map(path, classes=CLASSES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: index for index, name in enumerate(classes)}))
    return path


def cfg_tree(folder):
    """A small configuration on the corpus in `folder`, as nested dicts."""
    return {
        "protocol": "paper",
        "model": {"arch": "cifar_resnet", "model_depth": 20, "num_classes": 3, "pool": "avgpool", "type": "multilabel"},
        "opt": {"optimizer": "Adam", "lr": "1e-3", "batch_size": 4, "scheduler": "reduce"},
        "audio_config": {
            "feature": "spectrogram",
            "n_fft": 441,
            "hop_len": 220,
            "win_len": 441,
            "sample_rate": 22050,
            "normalize": False,
            "min_duration": 0.5,
        },
        "data": {
            "meta_root": str(folder / "meta"),
            "label_map": "lbl_map.json",
            "is_lmdb": True,
            "in_memory": True,
            "train_lmdb": str(folder / "train.lmdb"),
            "val_lmdb": str(folder / "val.lmdb"),
        },
    }


def write_cfg(path, tree):
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folders train/ (12 clips), val/ and eval/ (6), their LMDBs, meta/lbl_map.json and tiny.cfg."""
    folder = tmp_path_factory.mktemp("corpus")
    write_lbl_map(folder / "meta" / "lbl_map.json")
    for split, count, seed in (("train", 12, 1), ("val", 6, 2), ("eval", 6, 3)):
        write_folder(folder / split, count, seed)
        run_script(
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            folder / split,
            "--lmdb_path",
            folder / f"{split}.lmdb",
            "--audio_min_duration",
            "0.5",
            check=0,
        )
    write_cfg(folder / "tiny.cfg", cfg_tree(folder))
    return folder


def train_command(corpus, expdir, *more, script="train_gise_mixtures.py", epochs=1, cfg=None):
    """The words of a quick training run."""
    return (
        script,
        "--cfg_file",
        cfg or corpus / "tiny.cfg",
        "-e",
        expdir,
        "--epochs",
        epochs,
        "--num_workers",
        0,
        "--random_clip_size",
        64,
        "--val_clip_size",
        64,
        "--seed",
        3,
        *more,
    )


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory):
    """An experiment folder r1/mixup/tiny/<train LMDB>/ of train_all_mixtures.py, two sizes, two epochs each."""
    exp = tmp_path_factory.mktemp("experiment")
    for number in (4, 8):
        run_script(
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            write_folder(corpus / f"train_{number}", number, 4),
            "--lmdb_path",
            corpus / f"train_{number}.lmdb",
            "--audio_min_duration",
            0.5,
            check=0,
        )
    run_script(
        *train_command(
            corpus,
            exp / "r1" / "mixup" / "tiny",
            "--use_mixup",
            "--lmdbs_list",
            f"{corpus / 'train_8.lmdb'};{corpus / 'train_4.lmdb'}",
            script="train_all_mixtures.py",
            epochs=2,
        ),
        check=0,
    )
    return exp


def as_events(checkpoint, path, **decisions):
    """Write a tagger's checkpoint as that of a network of events, with the thresholds and filters given, if any."""
    from src.models.decisions import EVENT_DECISIONS
    from src.models.safe_loading import read_torch_file
    from src.models.torch_files import write_torch_file

    content = read_torch_file(checkpoint, "a checkpoint")
    content["hyper_parameters"]["cfg"]["model"]["type"] = "events"
    write_torch_file(path, content | ({EVENT_DECISIONS: decisions} if decisions else {}))
    return path
