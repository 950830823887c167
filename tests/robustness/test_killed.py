"""What long work leaves behind when its whole process group is killed at any moment."""

import os
import signal
import time

import numpy as np
import pytest
from conftest import run_script, start, wait_until, write_folder
from small_sources import contents, write_sources

from src.data.lmdb.store import LMDBReader


def kill_when(process, reached, pause):
    """Kill a process group `pause` seconds after `reached()`. Returns whether it was still at work then."""
    wait_until(process, reached, 0.001)
    time.sleep(pause)
    working = process.is_alive()
    if working:
        os.killpg(process.pid, signal.SIGKILL)
    process.join(60)
    return working


def finished(folder):
    """Name → bytes of what exists under its final name."""
    return {name: data for name, data in contents(folder).items() if not name.endswith(".partial")}


@pytest.mark.parametrize("script, workers, times", [("generate", 2, 8), ("again", 2, 3), ("flac", 1, 3)])
def test_soundscapes_survive_being_killed(tmp_path, script, workers, times):
    sources, count = write_sources(tmp_path / "sources"), 5 * times
    made = (
        "scripts/generate_mixtures.py",
        "--fg_path",
        sources / "events",
        "--bg_path",
        sources / "noises",
        "--num_soundscapes",
        count,
        "--lbl_map",
        sources / "lbl_map.json",
        "--out_folder",
    )
    again = (
        "scripts/generate_from_jams.py",
        "--fg_path",
        sources / "events",
        "--bg_path",
        sources / "noises",
        "--jams_dir",
        tmp_path / "mix",
        "--out_folder",
    )
    flac = ("scripts/wav2flac.py", "--move_txt", "--move_jams", "--src_dir", tmp_path / "mix", "--tgt_dir")
    words = {"generate": made, "again": again, "flac": flac}[script]
    if script != "generate":
        run_script(*made, tmp_path / "mix", "--num_workers", 2, check=0)
    run_script(*words, tmp_path / "undisturbed", "--num_workers", 2, check=0)
    expected = contents(tmp_path / "undisturbed")
    out, sound = tmp_path / "killed", ".flac" if script == "flac" else ".wav"
    rng, kills = np.random.default_rng(5), 0
    for _ in range(times):
        before = len(list(out.glob(f"*{sound}")))
        target = before + int(rng.integers(1, 4))
        process = start(tmp_path, *words, out, "--num_workers", workers)
        kills += kill_when(process, lambda: len(list(out.glob(f"*{sound}"))) >= target, rng.uniform(0, 0.05))
        found = finished(out)
        assert all(expected[name] == data for name, data in found.items())  # nothing that is not whole
        for name in found:
            if name.endswith(sound):
                assert {name.replace(sound, ".txt"), name.replace(sound, ".jams")} <= set(found)
    assert kills and not (tmp_path / "out.log").read_text()
    run_script(*words, out, "--num_workers", workers, check=0)
    assert finished(out) == expected


def test_an_lmdb_survives_being_killed(tmp_path):
    old, new = write_folder(tmp_path / "old", 3, 1), write_folder(tmp_path / "new", 60, 2)

    def words(folder, target):
        return (
            "pack_mixtures_into_lmdb.py",
            "--mixture_dir",
            folder,
            "--lmdb_path",
            target,
            "--audio_min_duration",
            0.5,
            "--write_frequency",
            1,
        )

    run_script(*words(new, tmp_path / "undisturbed.lmdb"), check=0)
    expected = (tmp_path / "undisturbed.lmdb").read_bytes()
    target, partial = tmp_path / "killed" / "a.lmdb", tmp_path / "killed" / ".a.lmdb.partial"
    run_script(*words(old, target), check=0)
    before = target.read_bytes()
    rng, kills = np.random.default_rng(6), 0
    for _ in range(8):
        size = rng.uniform(0, 0.9) * len(expected)
        left = partial.stat().st_mtime_ns if partial.exists() else 0  # by the one that was killed before
        process = start(tmp_path, *words(new, target))
        kills += kill_when(
            process,
            lambda: partial.exists() and left < partial.stat().st_mtime_ns and partial.stat().st_size > size,
            rng.uniform(0, 0.01),
        )
        assert target.read_bytes() in (before, expected) and len(LMDBReader(target)) in (3, 60)
        if target.read_bytes() == expected:  # it was done before it could be killed
            run_script(*words(old, target), check=0)
    assert kills
    run_script(*words(new, target), check=0)
    assert set(finished(target.parent)) == {"a.lmdb", ".a.lmdb.fingerprint.json", ".a.lmdb.labels.json"}
    assert target.read_bytes() == expected
