"""Runs and results say which records they use, and data is checked before training on request."""

import csv
import json
import shutil

import pytest
from conftest import error_line, run_script, train_command, write_folder

from src.data.lmdb.fingerprint import fingerprint
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter


def of(path):
    return fingerprint(LMDBReader(path))


def test_runs_and_results_carry_the_fingerprints_of_their_data(corpus, tmp_path):
    run_script(*train_command(corpus, tmp_path / "e/r1/g/run"), check=0)
    record = json.loads((tmp_path / "e/r1/g/run/run.json").read_text())
    assert record["data"] == {"train": of(corpus / "train.lmdb"), "val": of(corpus / "val.lmdb")}
    run_script(
        "eval_gise_mixtures.py",
        "--exp_dir",
        tmp_path / "e/r1",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--num_workers",
        0,
        check=0,
    )
    with open(tmp_path / "r.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["train_data"] == of(corpus / "train.lmdb") and row["eval_data"] == of(corpus / "eval.lmdb")


def test_a_run_does_not_go_on_with_other_records_under_the_same_name(corpus, tmp_path):
    for name in ("train", "val"):
        shutil.copy(corpus / f"{name}.lmdb", tmp_path / f"{name}.lmdb")
    more = [word for name in ("train", "val") for word in ("--set", f"data.{name}_lmdb={tmp_path / name}.lmdb")]
    run_script(*train_command(corpus, tmp_path / "run", *more), check=0)
    run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        write_folder(tmp_path / "other", 12, 9),
        "--lmdb_path",
        tmp_path / "train.lmdb",
        "--audio_min_duration",
        0.5,
        check=0,
    )
    before = (tmp_path / "run/run.json").read_bytes()
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", *more, epochs=2)))
    assert "belongs to a run on other train data" in line and (tmp_path / "run/run.json").read_bytes() == before


def test_sound_data_is_checked_and_trained_on(corpus, tmp_path):
    result = run_script(*train_command(corpus, tmp_path / "run", "--check_data"), check=0)
    assert "checked, without an error" in result.stderr and len(list((tmp_path / "run/ckpts").iterdir())) == 1


@pytest.mark.parametrize("defect, message", [("leak", "share 6 clips"), ("broken", "record 1")])
def test_data_with_errors_is_not_trained_on(corpus, tmp_path, defect, message):
    reader = LMDBReader(corpus / "val.lmdb")
    with LMDBWriter(tmp_path / "train.lmdb", 1e7) as writer:
        for index in range(len(reader)):
            record = reader[index]
            broken = defect == "broken" and index == 1
            writer.add(Record(record.flac[:200] if broken else record.flac, record.label))
    val = corpus / ("val.lmdb" if defect == "leak" else "eval.lmdb")
    line = error_line(
        run_script(
            *train_command(
                corpus,
                tmp_path / "run",
                "--check_data",
                "--set",
                f"data.train_lmdb={tmp_path / 'train.lmdb'}",
                "--set",
                f"data.val_lmdb={val}",
            )
        )
    )
    assert message in line and not (tmp_path / "run").exists()
