"""Locks between processes: they end with their process, and no child inherits them."""

import fcntl
import multiprocessing
import os
import signal
import time

import pytest

from src.utils import locks

pytestmark = pytest.mark.processes


def hold(path, folder, wait, pipe):
    descriptor = locks.take(path, folder, wait)
    pipe.send(descriptor)
    pipe.recv()
    locks.release(descriptor)
    pipe.send("released")


def holder_of(path, folder=False, wait=False):
    """A process that holds a lock, and its end of a pipe."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(path, folder, wait, theirs), daemon=True)
    process.start()
    return process, ours


def test_a_lock_is_refused_until_its_holder_releases_it(tmp_path):
    process, pipe = holder_of(tmp_path / "a")
    pipe.recv()
    with pytest.raises(BlockingIOError):
        locks.take(tmp_path / "a")
    pipe.send("release it")
    assert pipe.recv() == "released"
    locks.release(locks.take(tmp_path / "a"))
    process.join()


@pytest.mark.parametrize("wait", [False, True])
def test_a_killed_holder_blocks_nothing(tmp_path, wait):
    process, pipe = holder_of(tmp_path / "a")
    pipe.recv()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    locks.release(locks.take(tmp_path / "a", wait=wait))


def test_one_process_does_not_lock_twice(tmp_path):
    descriptor = locks.take(tmp_path / "a")
    with pytest.raises(BlockingIOError):
        locks.take(tmp_path / "a")
    locks.release(descriptor)


def test_a_child_neither_holds_nor_releases_a_lock(tmp_path):
    descriptor = locks.take(tmp_path / "a")
    child = os.fork()
    if not child:
        try:
            locks.release(descriptor)
            time.sleep(300)
        finally:
            os._exit(0)
    try:
        with pytest.raises(BlockingIOError):
            locks.take(tmp_path / "a")
        locks.release(descriptor)
        locks.release(locks.take(tmp_path / "a"))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_that_its_holder_deletes_or_renames_is_made_anew(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def flock_of_a_deleted_file(descriptor, operation):
        if not calls:
            (tmp_path / "a").unlink()
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_a_deleted_file)
    descriptor = locks.take(tmp_path / "a")
    assert calls.count(fcntl.LOCK_EX | fcntl.LOCK_NB) == 2 and os.path.samestat(
        os.fstat(descriptor), os.stat(tmp_path / "a")
    )
    locks.release(descriptor)


def test_a_folder_is_waited_for(tmp_path):
    with locks.exclusive(tmp_path / "folder"):
        process, pipe = holder_of(tmp_path / "folder", folder=True, wait=True)
        assert not pipe.poll(0.5)
    assert pipe.poll(30) and pipe.recv() >= 0
    process.kill()
    process.join()
