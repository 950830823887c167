"""Packing many soundscapes: whole or not there, the same however it is done, in memory that does not grow."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np
import pytest
import soundfile
from conftest import (
    CLASSES,
    ROOT,
    SAMPLE_RATE,
    as_another_user,
    error_line,
    raw,
    run_script,
    tone_clip,
    write_folder,
    write_soundscape,
)

from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.preparation.packing import pack_mixtures, soundscape_files
from src.utils.parallel import AHEAD, WorkerKilled, in_another_process, map_in_processes


def pack(folder, target, *more, **options):
    return run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        folder,
        "--lmdb_path",
        target,
        "--audio_min_duration",
        0.5,
        *more,
        **options,
    )


def leftovers(folder):
    return [path.name for path in folder.iterdir() if "partial" in path.name]


@pytest.fixture
def mix(tmp_path):
    return write_folder(tmp_path / "mix", 20, 0)


def test_records_do_not_depend_on_the_number_of_workers(mix, tmp_path):
    write_soundscape(mix, "short", ["Harp"], 77, 3000)  # encoded anew
    lines = set()
    for workers in (1, 2, 5):
        result = pack(mix, tmp_path / f"{workers}.lmdb", "--num_workers", workers, "--write_frequency", 3, check=0)
        lines.add(result.stderr.strip().splitlines()[-1].removeprefix(str(tmp_path / f"{workers}.lmdb")))
    assert raw(tmp_path / "1.lmdb") == raw(tmp_path / "2.lmdb") == raw(tmp_path / "5.lmdb")
    assert len(lines) == 1 and ": 21 records, fingerprint " in lines.pop()


def test_records_do_not_depend_on_the_order_in_which_a_folder_lists_its_files(mix, tmp_path, monkeypatch):
    pack_mixtures([str(mix)], tmp_path / "a.lmdb", min_duration=0.5)
    scandir = os.scandir

    @contextmanager
    def shuffled(path):
        with scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        yield random.Random(3).sample(found, len(found))

    monkeypatch.setattr(os, "scandir", shuffled)
    with os.scandir(mix) as entries:
        assert [entry.name for entry in entries] != sorted(os.listdir(mix))
    assert soundscape_files(mix) == sorted(str(mix / name) for name in os.listdir(mix) if name.endswith(".flac"))
    pack_mixtures([str(mix)], tmp_path / "b.lmdb", min_duration=0.5)
    # Another folder of the same files, made in another order.
    (tmp_path / "copy").mkdir()
    for file in sorted(mix.iterdir(), reverse=True):
        shutil.copy(file, tmp_path / "copy")
    pack_mixtures([str(tmp_path / "copy")], tmp_path / "c.lmdb", min_duration=0.5)
    assert raw(tmp_path / "a.lmdb") == raw(tmp_path / "b.lmdb") == raw(tmp_path / "c.lmdb")


def test_folders_with_equal_file_names_follow_each_other(tmp_path):
    one, two = write_folder(tmp_path / "one", 5, 1), write_folder(tmp_path / "two", 4, 2)
    pack(f"{two};{one}", tmp_path / "a.lmdb", "--num_workers", 3, check=0)
    reader = LMDBReader(tmp_path / "a.lmdb")
    expected = [file.read_bytes() for folder in (two, one) for file in sorted(folder.glob("*.flac"))]
    assert [reader[index].flac for index in range(len(reader))] == expected and len(expected) == 9
    assert (
        "one: is given twice. Its soundscapes are packed as often"
        in pack(f"{one};{one}", tmp_path / "b.lmdb", check=0).stderr
    )
    assert len(LMDBReader(tmp_path / "b.lmdb")) == 10


def test_a_folder_with_a_semicolon_in_its_own_name_is_named(tmp_path):
    folder, other = write_folder(tmp_path / "one;two", 2, 1), write_folder(tmp_path / "other", 1, 2)
    for given in (folder, f"{folder};{other}", f"{other};{folder}"):
        result = pack(given, tmp_path / "a.lmdb")
        assert result.returncode == 2 and f"{str(folder)!r} has ';' in its own name" in result.stderr
        assert not (tmp_path / "a.lmdb").exists()
    (tmp_path / "link").symlink_to(folder)  # as the message advises
    pack(f"{tmp_path / 'link'};{other}", tmp_path / "a.lmdb", check=0)
    assert len(LMDBReader(tmp_path / "a.lmdb")) == 3
    # Where the parts are folders, they are what is meant.
    write_folder(tmp_path / "p", 1, 3), write_folder(tmp_path / "q", 1, 4), write_folder(tmp_path / "p;q", 5, 5)
    run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        "p;q",
        "--lmdb_path",
        "b.lmdb",
        "--audio_min_duration",
        0.5,
        cwd=tmp_path,
        check=0,
    )
    assert len(LMDBReader(tmp_path / "b.lmdb")) == 2


def test_odd_file_names(tmp_path):
    folder = tmp_path / "mix 'ü"
    names = ["-a", "a b", "a;b", "it's", 'say "x"', "名前", "a.b", "line\nbreak", "$HOME", "*"]
    for number, name in enumerate(names):
        write_soundscape(folder, name, [CLASSES[number % 3]], number)
    undecodable = os.fsdecode(b"\xff\xfe")  # no UTF-8
    shutil.copy(folder / "-a.txt", folder / f"{undecodable}.txt")
    shutil.copy(folder / "-a.flac", folder / f"{undecodable}.flac")
    pack(folder, tmp_path / "-a; 'ü.lmdb", "--num_workers", 2, check=0)
    reader = LMDBReader(tmp_path / "-a; 'ü.lmdb")
    assert [reader[i].flac for i in range(11)] == [
        (folder / f"{name}.flac").read_bytes() for name in [*sorted(names), undecodable]
    ]
    (folder / f"{undecodable}.txt").unlink()
    assert "is missing" in error_line(pack(folder, tmp_path / "b.lmdb"))


def test_labels_with_commas_need_another_delimiter(tmp_path):
    write_soundscape(tmp_path / "mix", "a", ["Drum", "Harp"])
    (tmp_path / "mix" / "a.txt").write_text("0\t1\tChirp, tweet\n1\t2\tDrum\n")
    assert "Choose another one" in error_line(pack(tmp_path / "mix", tmp_path / "a.lmdb"))
    pack(tmp_path / "mix", tmp_path / "a.lmdb", "--delimiter", ";", check=0)
    assert [label for label, _ in LMDBReader(tmp_path / "a.lmdb").annotations()] == ["Chirp, tweet;Drum"]
    result = pack(tmp_path / "mix", tmp_path / "a.lmdb", "--delimiter", "")
    assert result.returncode == 2 and "--delimiter: is empty" in result.stderr


@pytest.mark.parametrize("workers", [1, 3])
def test_all_broken_soundscapes_are_named_at_once_and_nothing_is_packed(mix, tmp_path, workers):
    pack(mix, tmp_path / "a.lmdb", check=0)
    before = (tmp_path / "a.lmdb").read_bytes()
    (mix / "s003.flac").write_bytes(b"fLaC")
    (mix / "s007.txt").unlink()
    (mix / "s011.flac").unlink()
    (mix / "s011.flac").mkdir()
    result = pack(mix, tmp_path / "a.lmdb", "--num_workers", workers)
    assert "a.lmdb: is not packed, for 3 of the 20 soundscapes are broken. See above" in error_line(result)
    assert "s003.flac: is" in result.stderr and "s007.txt: is missing" in result.stderr
    assert "s011.flac: Is a directory" in result.stderr
    assert (tmp_path / "a.lmdb").read_bytes() == before and leftovers(tmp_path) == []


def test_packing_does_not_look_for_broken_soundscapes_for_ever(tmp_path):
    folder = write_folder(tmp_path / "mix", 30, 0)
    for file in folder.glob("*.txt"):
        file.unlink()
    result = pack(folder, tmp_path / "a.lmdb", "--num_workers", 2)
    assert "for at least 20 of the 30 soundscapes are broken" in error_line(result)
    assert "s019.txt: is missing" in result.stderr and "s020.txt" not in result.stderr


@pytest.mark.parametrize("frequency", [1, 1000])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_the_earlier_lmdb_as_it_was(mix, tmp_path, frequency, workers):
    """A limit on the size of files stands for the disk's end."""
    first = write_folder(tmp_path / "first", 2, 5)
    pack(first, tmp_path / "a.lmdb", check=0)
    before = raw(tmp_path / "a.lmdb")
    limit = 100_000
    assert sum(file.stat().st_size for file in mix.glob("*.flac")) > 2 * limit
    result = subprocess.run(
        [
            sys.executable,
            ROOT / "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            mix,
            "--lmdb_path",
            tmp_path / "a.lmdb",
            "--audio_min_duration",
            "0.5",
            "--write_frequency",
            str(frequency),
            "--num_workers",
            str(workers),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    line = error_line(result)
    assert "a.lmdb: cannot be written" in line and "Is the disk full?" in line
    assert raw(tmp_path / "a.lmdb") == before and leftovers(tmp_path) == []


def test_a_last_write_that_fails_leaves_no_lmdb(tmp_path, monkeypatch):
    """What is written at the very end, the keys, or the whole of a small set."""
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(b"old", "Harp"))
    put = LMDBWriter._put

    def fail(self, items):
        if b"__keys__" in items:
            raise UserError("no room")
        put(self, items)

    monkeypatch.setattr(LMDBWriter, "_put", fail)
    for name in ("a", "b"):
        with pytest.raises(UserError, match="no room"), LMDBWriter(tmp_path / f"{name}.lmdb") as writer:
            writer.add(Record(b"new", "Harp"))
    assert LMDBReader(tmp_path / "a.lmdb")[0].flac == b"old"
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["a.lmdb"]


def test_places_that_cannot_be_written(mix, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in error_line(pack(mix, tmp_path / "file" / "a.lmdb", "--num_workers", 2))
    (tmp_path / ".b.lmdb.partial").mkdir()
    assert ".b.lmdb.partial" in error_line(pack(mix, tmp_path / "b.lmdb"))
    assert (tmp_path / "file").read_text() == "in the way" and not (tmp_path / "b.lmdb").exists()


def test_a_folder_without_permission(mix, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    pack(mix, folder / "a.lmdb", check=0)
    before = (folder / "a.lmdb").read_bytes()
    folder.chmod(0o500)
    words = (
        sys.executable,
        ROOT / "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        mix,
        "--lmdb_path",
        folder / "a.lmdb",
    )
    result = subprocess.run(words, capture_output=True, text=True, preexec_fn=as_another_user)
    assert f"{folder}/" in error_line(result) and "Permission denied" in error_line(result)
    assert (folder / "a.lmdb").read_bytes() == before


def test_the_file_is_on_the_disk_before_it_gets_its_name_and_the_name_before_packing_ends(mix, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    events = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor):
        events.append(("on the disk", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def logged_replace(source, target):
        events.append(("renamed", os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    pack_mixtures([str(mix)], tmp_path / "out" / "a.lmdb", min_duration=0.5)
    events = events[events.index(("on the disk", ".a.lmdb.partial")) :]  # behind the trial whether there is room
    assert events[:3] == [("on the disk", ".a.lmdb.partial"), ("renamed", "a.lmdb"), ("on the disk", "out")]


STUCK = """\
import runpy, sys
from src.preparation import packing

read_flac, pipe, sys.argv = packing.read_flac, sys.argv[1], sys.argv[2:]

def read_when_the_pipe_is_closed(path, *more):
    if path.name == "s010.flac":
        open(pipe).read()
    return read_flac(path, *more)

packing.read_flac = read_when_the_pipe_is_closed
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def stuck(mix, tmp_path):
    """Starts a packing that comes to a halt half-way, reading from a pipe. It continues when the pipe is closed."""
    started, pipes = [], []
    target, fifo = tmp_path / "a.lmdb", tmp_path / "fifo"
    pack(mix, target, check=0)
    os.mkfifo(fifo)

    def has_reader():
        try:
            pipes.append(open(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "wb"))
        except OSError:  # nobody reads yet
            return False
        return True

    def start(workers):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                STUCK,
                fifo,
                ROOT / "pack_mixtures_into_lmdb.py",
                "--mixture_dir",
                mix,
                "--lmdb_path",
                target,
                "--audio_min_duration",
                "0.5",
                "--num_workers",
                str(workers),
                "--write_frequency",
                "1",
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        wait_until(has_reader)
        time.sleep(0.3)  # a signal between opening the pipe and reading it would wait for the first byte
        return process, pipes[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    for pipe in pipes:
        pipe.close()


def wait_until(condition, timeout=60):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_packing_leaves_the_earlier_lmdb_and_no_process(stuck, mix, tmp_path, workers):
    before = raw(tmp_path / "a.lmdb")
    process, _ = stuck(workers)
    second = pack(mix, tmp_path / "a.lmdb")
    assert "another process is packing into it" in error_line(second)
    workers_of_it = children(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, workers_of_it)))  # they would hold the lock
    assert raw(tmp_path / "a.lmdb") == before
    pack(mix, tmp_path / "a.lmdb", check=0)
    assert raw(tmp_path / "a.lmdb") == before and leftovers(tmp_path) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_packing_leaves_the_earlier_lmdb(stuck, tmp_path, workers):
    before = raw(tmp_path / "a.lmdb")
    process, pipe = stuck(workers)
    process.send_signal(signal.SIGINT)
    if workers > 1:
        time.sleep(0.3)
        pipe.close()  # a worker ends what it has begun
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert raw(tmp_path / "a.lmdb") == before and leftovers(tmp_path) == []


def test_a_transaction_does_not_grow_with_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(LMDBWriter, "LARGEST_TRANSACTION", 10_000)
    with LMDBWriter(tmp_path / "a.lmdb", write_frequency=1_000_000) as writer:
        for index in range(40):
            writer.add(Record(bytes([index]) * 3000, "Harp"))
    with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, readonly=True, lock=False) as env:
        assert env.info()["last_txnid"] >= 10
    reader = LMDBReader(shutil.copy(tmp_path / "a.lmdb", tmp_path / "b.lmdb"))
    assert [reader[index].flac[0] for index in range(40)] == list(range(40))


def touch(folder, number):
    (Path(folder) / str(number)).touch()
    return number


class Touch:
    """A function that leaves a file for each item."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, number):
        return touch(self.folder, number)


@pytest.mark.processes
@pytest.mark.parametrize("chunk", [1, 7])
def test_workers_run_only_so_far_ahead_of_who_takes_their_results(tmp_path, chunk):
    results = map_in_processes(Touch(tmp_path), range(1000), 2, "touching", chunk=chunk)
    assert next(results) == 0
    most = AHEAD * 2 * chunk
    wait_until(lambda: len(list(tmp_path.iterdir())) == most)
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == most
    assert list(results) == list(range(1, 1000)) and len(list(tmp_path.iterdir())) == 1000


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.processes
def test_a_killed_worker_is_told():
    with pytest.raises(WorkerKilled, match="dying: a worker process was killed. Is there too little memory?"):
        list(map_in_processes(die, range(5), 2, "dying"))
    with pytest.raises(WorkerKilled):
        in_another_process(die, 1, "dying")
    assert in_another_process(abs, -3, "living") == 3


def test_a_large_clip_is_larger_than_the_map(tmp_path):
    """The map grows by more than one doubling for one record."""
    folder = tmp_path / "mix"
    folder.mkdir()
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 4_000_000)
    soundfile.write(folder / "a.flac", noise, SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(folder / "b.flac", tone_clip(["Drum"], 1), SAMPLE_RATE, subtype="PCM_16")
    for name in "ab":
        (folder / f"{name}.txt").write_text("0\t1\tDrum\n")
    result = pack(folder, tmp_path / "a.lmdb", "--map_size", 1, check=0)
    assert result.stderr.count("is too small: grown to") >= 3
    assert LMDBReader(tmp_path / "a.lmdb")[0].flac == (folder / "a.flac").read_bytes()
