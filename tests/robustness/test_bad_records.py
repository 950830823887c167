"""Broken records: by default they stop a run, with --skip_bad_records they are listed and left out."""

import csv
import json

import numpy as np
import pytest
from conftest import CLASSES, error_line, run_script, tone_clip, train_command

from src.data.audio.files import encode
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter


def flac(seed, rate=22050):
    return encode(tone_clip([CLASSES[seed % 3]], seed), rate, "FLAC")


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 40]) + data[middle + 40 :]


BROKEN = {
    "flipped": flipped(flac(1)),
    "truncated": flac(2)[:3000],
    "no FLAC": b"RIFF" * 100,
    "rate": flac(3, 44100),
    "empty": b"",
}


@pytest.fixture
def broken(tmp_path):
    """An LMDB of 14 good records, and a broken one of each kind after the second."""
    records = [Record(flac(seed), CLASSES[seed % 3]) for seed in range(14)]
    records[2:2] = [Record(data, "Harp") for data in BROKEN.values()]
    with LMDBWriter(tmp_path / "train.lmdb", 1e7) as writer:
        for record in records:
            writer.add(record)
    return tmp_path / "train.lmdb"


def command(corpus, folder, lmdb, *more):
    return train_command(corpus, folder, "--set", f"data.train_lmdb={lmdb}", *more)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_stops_at_a_broken_record_and_names_it(corpus, tmp_path, kind, workers):
    with LMDBWriter(tmp_path / "one.lmdb", 1e7) as writer:
        for seed in range(4):
            writer.add(Record(BROKEN[kind] if seed == 2 else flac(seed), "Harp"))
    line = error_line(run_script(*command(corpus, tmp_path / "run", tmp_path / "one.lmdb", "--num_workers", workers)))
    assert f"{tmp_path / 'one.lmdb'}, record 2" in line
    assert not list((tmp_path / "run").glob("ckpts/*"))


@pytest.mark.parametrize(
    "more", [(), ("--features", "device"), ("--cache_samples", "cache"), ("--set", "data.in_memory=False")]
)
def test_broken_records_are_counted_listed_and_left_out(corpus, tmp_path, broken, more):
    more = [tmp_path / word if word == "cache" else word for word in more]
    result = run_script(*command(corpus, tmp_path / "run", broken, "--skip_bad_records", *more), check=0)
    assert f"{broken}: 5 of 19 records are skipped" in result.stderr
    for number in range(2, 7):
        assert f"skipped: {broken}, record {number}" in result.stderr
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["num_train_clips"] == 14 and record["data"]["train"]
    assert record["skipped"] == {"train": [2, 3, 4, 5, 6], "val": []}


def test_a_record_that_is_no_message_is_left_out_too(corpus, tmp_path, broken):
    import lmdb

    with lmdb.open(str(broken), subdir=False, lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"0", b"\xff\xff")
    result = run_script(*command(corpus, tmp_path / "run", broken, "--skip_bad_records"), check=0)
    assert "6 of 19 records are skipped" in result.stderr
    assert "record 0" in error_line(run_script(*command(corpus, tmp_path / "other", broken)))


def test_nothing_but_broken_records_is_an_error(corpus, tmp_path):
    with LMDBWriter(tmp_path / "all.lmdb", 1e7) as writer:
        writer.add(Record(b"x", "Harp"))
    line = error_line(run_script(*command(corpus, tmp_path / "run", tmp_path / "all.lmdb", "--skip_bad_records")))
    assert "none of its 1 records can be used" in line


def test_the_cache_gives_the_same_run_and_is_made_once(corpus, tmp_path):
    plain, cached, again = (tmp_path / name for name in ("plain", "cached", "again"))
    run_script(*train_command(corpus, plain), check=0)
    run_script(*train_command(corpus, cached, "--cache_samples", tmp_path / "cache"), check=0)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(files) == 2
    run_script(*train_command(corpus, again, "--cache_samples", tmp_path / "cache", "--num_workers", 2), check=0)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    tables = {(folder / "logs/metrics.csv").read_text() for folder in (plain, cached, again)}
    assert len(tables) == 1


def test_a_cache_is_of_the_file_as_it_is(corpus, tmp_path, broken):
    from src.data.lmdb.sample_cache import open_cache

    reader = LMDBReader(broken)
    cache = open_cache(tmp_path / "cache", reader, 22050, 2, without={2, 3, 4, 5, 6})
    assert len(cache[2]) == 0
    expected = tone_clip([CLASSES[0]], 0)
    assert np.abs(cache[0] / 2**15 - expected).max() < 2**-15
    with LMDBWriter(broken, 1e7) as writer:
        writer.add(Record(flac(9), "Harp"))
    assert len(open_cache(tmp_path / "cache", LMDBReader(broken), 22050, 1)[0]) == len(cache[0])
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_an_evaluation_leaves_them_out_on_request(corpus, trained, tmp_path, broken):
    checkpoint = sorted(trained.rglob("*.ckpt"))[0]
    words = [
        "eval_gise_mixtures.py",
        "--ckpt_path",
        checkpoint,
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        broken,
        "--num_timesteps",
        64,
        "--num_workers",
        1,
        "--results_csv",
    ]
    assert f"{broken}, record 2" in error_line(run_script(*words, tmp_path / "a.csv"))
    rows = []
    for features in ("workers", "device"):
        run_script(*words, tmp_path / f"{features}.csv", "--skip_bad_records", "--features", features, check=0)
        with open(tmp_path / f"{features}.csv", newline="") as stream:
            rows += csv.DictReader(stream)
    assert [row["num_eval_clips"] for row in rows] == ["14", "14"]
    assert float(rows[0]["mAP"]) == pytest.approx(float(rows[1]["mAP"]), abs=0.02)
