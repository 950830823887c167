"""What the system does not allow ends a command in one line, and leaves no process and nothing half done."""

import errno
import os
import resource
import signal
import subprocess
from types import SimpleNamespace

import pytest
from conftest import error_line, run_script, train_command
from hostile import FewProcesses, SharedMemory, few_open_files, may_mount, run_changed
from small_sources import generate, write_sources
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from src.data.clip_dataset import ClipDataset
from src.data.loading import Workers
from src.errors import UserError
from src.utils import limits
from src.utils.limits import CannotStart, in_words, starting, usable_workers


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = write_sources(tmp_path_factory.mktemp("sources"))
    generate(folder, folder / "mixed", count=3, check=0)
    return folder


@pytest.fixture
def given(corpus, trained, sources, tmp_path):
    """What the commands below are about, and where they write."""
    checkpoint, out = next(trained.rglob("epoch=01*.ckpt")), tmp_path / "out"
    return SimpleNamespace(corpus=corpus, trained=trained, sources=sources, checkpoint=checkpoint, out=out)


def training(given, *more, **keywords):
    return train_command(given.corpus, given.out / "run", *more, **keywords)


def mixing(given, script, *more):
    sounds = ("--fg_path", given.sources / "events", "--bg_path", given.sources / "noises")
    return (script, *sounds, "--out_folder", given.out / "made", *more)


def scoring(given, script, *more):
    read = ("--lbl_map", given.corpus / "meta/lbl_map.json", "--lmdb_path", given.corpus / "eval.lmdb")
    return (script, *read, *more)


def packing(given):
    into = ("--lmdb_path", given.out / "a.lmdb", "--audio_min_duration", 0.5)
    return ("pack_mixtures_into_lmdb.py", "--mixture_dir", given.corpus / "train", *into)


COMMANDS = {  # of each kind that takes --num_workers
    "pack": packing,
    "check": lambda given: ("scripts/check_lmdb.py", given.corpus / "train.lmdb"),
    "flac": lambda given: (
        *("scripts/wav2flac.py", "--src_dir", given.sources / "mixed"),
        *("--tgt_dir", given.out / "flac"),
    ),
    "silence": lambda given: (
        *("scripts/strip_silence_sox.py", "--src_dir", given.sources / "events"),
        *("--tgt_dir", given.out / "short"),
    ),
    "mix": lambda given: mixing(
        given,
        *("scripts/generate_mixtures.py", "--num_soundscapes", 3, "--lbl_map", given.sources / "lbl_map.json"),
    ),
    "jams": lambda given: mixing(given, "scripts/generate_from_jams.py", "--jams_dir", given.sources / "mixed"),
    "train": training,
    "train all": lambda given: training(
        given, "--lmdbs_list", given.corpus / "train.lmdb", script="train_all_mixtures.py"
    ),
    "check data": lambda given: training(given, "--check_data"),
    "skip": lambda given: training(given, "--skip_bad_records"),
    "cache": lambda given: training(given, "--cache_samples", given.out / "cache"),
    "precompute": lambda given: training(given, "--set", "audio_config.precompute_features=True"),
    "evaluate": lambda given: scoring(
        *(given, "eval_gise_mixtures.py", "--ckpt_path", given.checkpoint, "--results_csv", given.out / "r.csv")
    ),
    "evaluate all": lambda given: scoring(
        *(given, "eval_all_mixtures.py", "--exp_dir", given.trained / "r1", "--results_csv", given.out / "r.csv")
    ),
    "predict": lambda given: (
        *("predict.py", "--ckpt_path", given.checkpoint, "--audio", given.corpus / "train"),
        *("--format", "csv", "--output", given.out / "events.csv"),
    ),
    "compare": lambda given: scoring(
        *(given, "scripts/compare_checkpoints.py", "--ckpt_path", given.checkpoint),
        *("--other_ckpt_path", given.checkpoint, "--bootstrap", 3),
    ),
}


def require_nothing_made(given):
    """Logs, recipes, and what --cache_samples has made in full may be there."""
    files = {path.name for path in given.out.rglob("*") if path.is_file()}
    begun = (".lock", "recipe.json", "run.json", "hparams.yaml", ".samples")
    assert not {name for name in files if not name.endswith(begun) and "tfevents" not in name}, files


@pytest.mark.parametrize("command", COMMANDS)
def test_too_few_open_files_for_so_many_workers(given, command):
    result = run_changed(few_open_files, *COMMANDS[command](given), "--num_workers", 600)
    line = error_line(result)
    assert "--num_workers: " in line and "`ulimit -n` is 24" in line
    require_nothing_made(given)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "number, error, words",
    [(1, errno.EAGAIN, "the system starts no more processes"), (0, errno.ENOMEM, "there is too little memory")],
)
def test_processes_that_the_system_does_not_start(given, command, number, error, words):
    result = run_changed(FewProcesses(number, error), *COMMANDS[command](given), "--num_workers", 3)
    line = error_line(result)
    assert "--num_workers " in line and words in line
    require_nothing_made(given)


def die_in_a_worker():
    """A loader worker is killed at its first batch, as the system does where memory is short."""
    main = os.getpid()
    get = ClipDataset.__getitems__

    def killed(dataset, keys):
        if os.getpid() != main and any(epoch == 1 for epoch, _ in map(dataset.epoch_and_index, keys)):
            os.kill(os.getpid(), signal.SIGKILL)
        return get(dataset, keys)

    ClipDataset.__getitems__ = killed


def test_a_run_whose_loader_worker_is_killed_is_resumed(given):
    run_script(*training(given, "-e", given.out / "undisturbed", epochs=2), check=0)
    words = training(given, "--num_workers", 2, epochs=2)
    result = run_changed(die_in_a_worker, *words)
    assert "a worker process was killed. Is there too little memory?" in error_line(result)
    assert len(list((given.out / "run/ckpts").iterdir())) == 1
    run_script(*words, check=0)
    tables = {(given.out / name / "logs/metrics.csv").read_text() for name in ("undisturbed", "run")}
    assert len(tables) == 1


def die_in_any_worker():
    main = os.getpid()

    def killed(*_):
        assert os.getpid() != main
        os.kill(os.getpid(), signal.SIGKILL)

    ClipDataset.__getitems__ = killed


@pytest.mark.parametrize("command", ["train", "evaluate", "evaluate all", "compare"])
def test_loader_workers_that_are_killed_are_told(given, command):
    result = run_changed(die_in_any_worker, *COMMANDS[command](given), "--num_workers", 2)
    assert "a worker process was killed. Is there too little memory?" in error_line(result)
    assert not list(given.out.rglob("*.c[sk][vp]*"))


@pytest.fixture(scope="module")
def mounting():
    if not may_mount():
        pytest.skip("mounting needs root here")


LARGE = ("--random_clip_size", 500, "--val_clip_size", 500)  # frames: a batch has 1.8 MB, more than there is


@pytest.mark.parametrize("kind", ["small", "full", "read-only", "missing"])
def test_training_with_another_shared_memory(mounting, given, kind):
    run_script(*training(given, *LARGE, "-e", given.out / "undisturbed"), check=0)
    result = run_changed(SharedMemory(kind), *training(given, *LARGE, "--num_workers", 2))
    assert result.returncode == 0, result.stderr[-3000:]
    tables = {(given.out / name / "logs/metrics.csv").read_text() for name in ("undisturbed", "run")}
    assert len(tables) == 1
    assert result.stderr.count("/dev/shm cannot be used") == (kind != "small")
    assert ("--num_workers. Docker gives more shared memory with --shm-size" in result.stderr) == (kind != "small")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["small", "missing"])
def test_every_command_with_another_shared_memory(mounting, given, command, kind):
    result = run_changed(SharedMemory(kind), *COMMANDS[command](given), "--num_workers", 3)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr and result.stderr.count("/dev/shm cannot be used") == (kind == "missing")


# ---- without processes ----


def test_a_number_of_workers_that_fits_is_given(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(os, "listdir", lambda _: ["0"] * 8)
    assert usable_workers(249, 4) == 249
    with pytest.raises(
        CannotStart, match="600 processes need 2428 open files, and `ulimit -n` is 1024. Raise it, or give 249 at"
    ):
        usable_workers(600, 4)
    with pytest.raises(CannotStart, match="or give 124 at most"):
        usable_workers(125, 4, pools=2)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (24, 24))
    with pytest.raises(CannotStart, match="`ulimit -n` is 24. Raise it$"):
        usable_workers(2, 2)
    assert usable_workers(0, 4) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.ENOSYS, errno.EACCES])
def test_without_semaphores_there_are_no_workers(monkeypatch, caplog, number):
    def refuse():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(limits.multiprocessing, "Lock", refuse)
    limits._say_once.cache_clear()
    assert usable_workers(4, 2) == usable_workers(4, 2) == 0
    assert caplog.text.count(f"/dev/shm cannot be used ({os.strerror(number)})") == 1 and "--shm-size" in caplog.text


@pytest.mark.parametrize(
    "error, words",
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "a worker process was killed"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "a worker process was killed"),
        (RuntimeError("received 0 items of ancdata"), "`ulimit -n` is"),
        (
            OSError("Caught OSError in DataLoader worker\nOSError: [Errno 24] Too many open files: 'a'"),
            "`ulimit -n` is",
        ),
        (RuntimeError("Error while creating shared memory segment /dev/shm/nccl (No space left)"), "--shm-size"),
        (RuntimeError("unable to open shared memory object </x>: Read-only file system (30)"), "--shm-size"),
        (RuntimeError("can't start new thread"), "--num_workers"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), "out of memory"),
        (MemoryError(), "out of memory. Is"),
    ],
)
def test_words_for_what_others_say(error, words):
    assert words in in_words(error)


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), RuntimeError(), OSError(5, "Input/output error")])
def test_other_errors_are_not_the_systems(error):
    assert in_words(error) is None
    with pytest.raises(type(error)), starting("--num_workers 3"):
        raise error


def no_more_programs():
    """As `FewProcesses`, for processes that run a program of their own."""

    def refuse(*_, **__):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    subprocess.Popen = refuse


def test_processes_that_train_together_cannot_be_started(given):
    result = run_changed(no_more_programs, *training(given, "--devices", 3, "--accelerator", "cpu"))
    assert "--devices 3: not all could be started, as the system starts no more processes" in error_line(result)
    require_nothing_made(given)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_that_is_killed_while_it_sends_is_named(monkeypatch, error):
    """Its half-sent message is an error of the connection, which names no cause."""

    def next_batch(self):
        raise error

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__next__", next_batch)
    workers = object.__new__(Workers)
    workers._shutdown = True  # there are none
    with pytest.raises(UserError, match="a worker process was killed"):
        next(workers)
