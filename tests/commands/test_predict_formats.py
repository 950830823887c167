"""predict.py --format: tables for Audacity, Raven and others, many recordings, and --resume."""

import csv
import json
import os
import signal

import numpy as np
import pandas
import pytest
import soundfile
from conftest import CLASSES, FIXTURES, SAMPLE_RATE, as_events, error_line, run_script, start, wait_until
from released import CKPT, clip

from src.models.checkpoint import keep_decisions, read_checkpoint
from src.models.decisions import Decisions
from src.tagging import Tagger
from src.tagging.found import decisions_of, found_in
from src.utils import locks

WINDOWS = "--window", 0.7, "--hop", 0.3
SUFFIXES = {"audacity": ".txt", "raven": ".selections.txt", "csv": ".csv", "json": ".json", "parquet": ".parquet"}
RAVEN = [
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Class", "Confidence", "File Offset (s)", "Begin Path"),
]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Of real soundscapes: one of several windows, one of another rate in a subfolder, a short one, and no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "sub").mkdir()
    parts = [clip(number)[:30000] for number in range(3)]
    soundfile.write(folder / "a.wav", np.concatenate(parts), SAMPLE_RATE)
    soundfile.write(folder / "sub" / "c.flac", np.stack([parts[1], parts[2]], axis=1), 32000)
    soundfile.write(folder / "d.wav", parts[0][:9000], SAMPLE_RATE)
    (folder / "b.wav").write_text("none")
    return folder


@pytest.fixture(scope="module")
def network(trained):
    return next((trained / "r1").rglob("epoch=01*.ckpt"))


@pytest.fixture(scope="module")
def of_events(network, sounds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    plain = as_events(network, folder / "plain.ckpt")
    middle = np.median(Tagger(plain, None, 0.7, 0.3)(sounds / "a.wav").frames.values, axis=1)
    found = {"medians": [1, 3, 1], "thresholds": [float(middle[0]), float(middle[1]), None]}
    return as_events(network, folder / "events.ckpt", **found)


@pytest.fixture(scope="module")
def threshold(network, sounds):
    """Which windows reach now and then."""
    return float(np.median(Tagger(network, None, 0.7, 0.3)(sounds / "a.wav").scores))


def due(checkpoint, sounds, threshold=None):
    """Recording below the folder -> its duration and its rows."""
    tagger = Tagger(checkpoint, None, 0.7, 0.3)
    found = {}
    for name in ("a.wav", "d.wav", "sub/c.flac"):
        tagged, info = tagger(sounds / name), soundfile.info(sounds / name)
        events = found_in(tagged, decisions_of(tagger, threshold))
        found[name] = (
            info.duration,
            [(e.onset, min(e.offset, info.duration), CLASSES[e.label], e.confidence) for e in events],
        )
    return found


def lines_of(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def read(path, kind, sounds):
    """Rows of (file or None, start, end, class, score or None), by each format's documented layout."""
    if kind == "audacity":
        return [(None, float(begin), float(end), label, None) for begin, end, label in lines_of(path)]
    if kind == "raven":
        head, *rows = lines_of(path)
        assert head == RAVEN
        assert [row[:3] for row in rows] == [[str(k), "Spectrogram 1", "1"] for k in range(1, len(rows) + 1)]
        rows = [dict(zip(head, row)) for row in rows]
        for row in rows:
            nyquist = soundfile.info(row["Begin Path"]).samplerate / 2
            assert 0 == float(row["Low Freq (Hz)"]) < float(row["High Freq (Hz)"]) == min(nyquist, SAMPLE_RATE / 2)
        return [
            (
                *(row["Begin Path"], float(row["Begin Time (s)"]), float(row["End Time (s)"]), row["Class"]),
                *(float(row["Confidence"]), float(row["File Offset (s)"])),
            )
            for row in rows
        ]
    if kind == "json":
        return [
            (one["file"], *(event[key] for key in ("start", "end", "class", "score")))
            for one in json.loads(path.read_text())
            for event in one["events"]
        ]
    if kind == "csv":
        with open(path, newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [(r["file"], float(r["start"]), float(r["end"]), r["class"], float(r["score"])) for r in rows]
    table = pandas.read_parquet(path)
    assert list(table.columns) == ["file", "start", "end", "class", "score"]
    assert all(table[name].dtype == np.float64 for name in ("start", "end", "score"))
    return list(table.itertuples(index=False, name=None))


def expected(found, kind, sounds):
    """What `read` should give of recordings, in their order."""
    rows, before = [], 0.0
    for name, (duration, events) in found.items():
        shift = before if kind in ("audacity", "raven") else 0.0
        for begin, end, label, score in events:
            row = (str(sounds / name), begin + shift, end + shift, label, score)
            rows.append((None, *row[1:4], None) if kind == "audacity" else row + ((begin,) if kind == "raven" else ()))
        before += duration
    return rows


def require_same(found, due):
    assert len(found) == len(due) > 0
    for one, other in zip(found, due):
        assert [value for value in one if not isinstance(value, float)] == [
            value for value in other if not isinstance(value, float)
        ]
        numbers = [[value for value in row if isinstance(value, float)] for row in (one, other)]
        assert np.allclose(*numbers, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_one_file_for_all_is_read_back(network, sounds, threshold, tmp_path, kind):
    """Windows in a row that reach the threshold are one row. What cannot be read is named, the others are there."""
    path = tmp_path / f"all{SUFFIXES[kind]}"
    words = "--audio", sounds, *WINDOWS, "--threshold", threshold, "--format", kind, "--output", path
    result = run_script("predict.py", "--ckpt_path", network, *words)
    assert "1 of 4 recordings could not be read" in error_line(result) and "b.wav: is not audio" in result.stderr
    found = due(network, sounds, threshold)
    require_same(read(path, kind, sounds), expected(found, kind, sounds))
    lengths = [end - begin for _, events in found.values() for begin, end, *_ in events]
    assert max(lengths) > 0.95 and len({round(length, 3) for length in lengths}) > 2  # some are of several windows
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_for_each_recording_of_a_network_of_events(of_events, sounds, tmp_path, kind):
    """Its rows are the events, by the checkpoint's filters and thresholds. Files lie as the recordings do."""
    words = "--audio", sounds, *WINDOWS, "--format", kind, "--output_folder", tmp_path, "--num_workers", 2
    result = run_script("predict.py", "--ckpt_path", of_events, *words)
    assert "1 of 4 recordings could not be read" in error_line(result)
    found = due(of_events, sounds)
    names = {name: name.rpartition(".")[0] + SUFFIXES[kind] for name in found}
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {*names.values(), "recipe.json"}
    assert {row[2] for _, events in found.values() for row in events} == {"Drum", "Harp"}
    for name in ("a.wav", "sub/c.flac"):
        require_same(read(tmp_path / names[name], kind, sounds), expected({name: found[name]}, kind, sounds))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_where_nothing_is_found_there_is_a_file_all_the_same(network, sounds, tmp_path, kind):
    path = tmp_path / f"none{SUFFIXES[kind]}"
    words = "--audio", sounds / "d.wav", "--threshold", 2, "--format", kind, "--output", path
    run_script("predict.py", "--ckpt_path", network, *words, check=0)
    assert read(path, kind, sounds) == []


def test_thresholds_are_the_checkpoints_or_half(network, of_events, sounds, tmp_path):
    decided = tmp_path / "decided.ckpt"
    keep_decisions(read_checkpoint(network), Decisions("F1", [0.25, None, 0.75], 1.0), output=decided)
    released = decisions_of(Tagger(CKPT, FIXTURES / "lbl_map.json"))
    assert released.thresholds == [0.5] * 18 and released.medians == [1] * 18
    assert decisions_of(Tagger(decided)).thresholds == [0.25, None, 0.75]
    assert decisions_of(Tagger(decided), 0.1).thresholds == [0.1] * 3
    assert decisions_of(Tagger(of_events), 0.1).medians == [1, 3, 1]


# ---- resuming ----


def command(network, sounds, *more):
    return "predict.py", "--ckpt_path", network, "--audio", sounds / "a.wav", sounds / "sub" / "c.flac", *WINDOWS, *more


def test_resume_leaves_out_what_is_done_and_no_older_than_its_recording(network, sounds, tmp_path):
    folder = tmp_path / "out"
    words = "--threshold", 0.1, "--format", "csv", "--output_folder", folder
    run_script(*command(network, sounds, *words), check=0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "a.csv").unlink()
    os.utime(folder / "c.csv", (1, 1))  # older than its recording
    result = run_script(*command(network, sounds, *words, "--resume"), check=0)
    assert "done already" not in result.stderr and "c.flac" in result.stdout
    (folder / "a.csv").unlink()
    result = run_script(*command(network, sounds, *words, "--resume"), check=0)
    assert "1 of 2 recordings are done already" in result.stderr and "c.flac" not in result.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    result = run_script(*command(network, sounds, *words, "--resume", "--hop", 0.2))
    assert "holds results with hop 0.3 instead of 0.2: choose another --output_folder" in error_line(result)


@pytest.mark.parametrize("where", ["--output", "--output_folder"])
def test_a_killed_run_resumes_to_the_same_files(network, sounds, tmp_path, where):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(6):
        (many / f"{number}.wav").symlink_to(sounds / "a.wav")

    def words(place):
        table = place / ("all.csv" if where == "--output" else "tables")
        settings = "--window", 0.7, "--hop", 0.02, "--threshold", 0.1, "--format", "csv", where, table, "--resume"
        return "predict.py", "--ckpt_path", network, "--audio", many, *settings

    def results(place):
        found = {path for path in place.rglob("*") if path.suffix in (".csv", ".json") and path.name != "recipe.json"}
        return {path.relative_to(place): path.read_bytes() for path in found}

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    run_script(*words(whole), check=0)
    process = start(killed, *words(killed))
    wait_until(process, lambda: results(killed))
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    there = results(killed)
    assert 0 < len(there) < 6 and not (killed / "all.csv").exists()
    assert there.items() <= results(whole).items() or where == "--output"
    result = run_script(*words(killed), check=0)
    assert f"{len(there)} of 6 recordings are done already" in result.stderr
    assert results(killed) == results(whole)
    if where == "--output":
        again = run_script(*words(killed), check=0)
        assert "6 of 6 recordings are done already" in again.stderr and not again.stdout
        assert results(killed) == results(whole)
        run_script(*[word for word in words(killed) if word != "--resume"], check=0)
        assert (
            not list(killed.glob(".*.parts")) and (killed / "all.csv").read_bytes() == (whole / "all.csv").read_bytes()
        )


def test_two_runs_into_one_file_are_refused(network, sounds, tmp_path):
    """The second one would delete what the first one keeps until its end."""
    parts = tmp_path / ".a.csv.parts"
    words = command(network, sounds, "--format", "csv", "--output", tmp_path / "a.csv")
    with locks.exclusive(parts):
        (parts / "recipe.json").write_text("{}")
        assert "a.csv: another run is writing it" in error_line(run_script(*words))
        assert (parts / "recipe.json").read_text() == "{}"
    run_script(*words, check=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


# ---- bad input ----


@pytest.mark.parametrize(
    "more, words",
    [
        (("--format", "csv"), "--format and one of --output and --output_folder need each other"),
        (("--output", "a.csv"), "--format and one of --output and --output_folder need each other"),
        (("--format", "raven", "--output", "a.csv"), ".csv means another format than raven, which has"),
        (("--format", "csv", "--output", "a.TXT"), ".txt means another format than csv, which has .csv"),
        (("--format", "json", "--output", "a.parquet"), ".parquet means another format than json"),
        (("--format", "audacity", "--output", "a.selections.txt"), "means another format than audacity"),
        (("--resume",), "--resume: "),
        (("--format", "csv", "--output", "a.csv", "--resume", "--csv", "b.csv"), "--resume: --csv would lack"),
        (("--format", "csv", "--output", "a.csv", "--csv", "./a.csv"), "is to be written, and the same file"),
        (("--format", "csv", "--output_folder", "{sounds}"), "{sounds}: holds audio files, but no recipe.json"),
        (("--format", "csv", "--output_folder", "taken"), "a.csv: is there, and this command did not write it"),
        (("--format", "csv", "--output", "/dev/stdout", "--resume"), "--resume: /dev/stdout is no plain file"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(network, sounds, tmp_path, more, words):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a.csv").write_text("mine")
    more = [word.format(sounds=sounds) for word in more]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run_script("predict.py", "--ckpt_path", network, "--audio", sounds / "a.wav", *more, cwd=tmp_path)
    assert words.format(sounds=sounds) in error_line(result)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (sounds / "recipe.json").exists()


def test_two_recordings_of_one_name_are_refused(network, sounds, tmp_path):
    (tmp_path / "a.flac").write_bytes((sounds / "sub" / "c.flac").read_bytes())
    words = "--audio", sounds / "a.wav", tmp_path / "a.flac", "--format", "json", "--output_folder", tmp_path / "out"
    line = error_line(run_script("predict.py", "--ckpt_path", network, *words))
    assert "a.flac: its results would be" in line and "as those of" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", SUFFIXES)
def test_odd_names_break_no_table(network, sounds, tmp_path, kind):
    """A tab or a line end in a name becomes a space where cells know no quotes. Bytes that are no UTF-8 stay."""
    odd = os.fsdecode('tab\there,\nand "quotes" \xe9 '.encode() + b"\xff.wav")
    (tmp_path / odd).write_bytes((sounds / "a.wav").read_bytes())
    out = tmp_path / f"out{SUFFIXES[kind]}"
    words = "--audio", tmp_path / odd, *WINDOWS, "--threshold", 0, "--format", kind, "--output", out
    run_script("predict.py", "--ckpt_path", network, *words, check=0)
    rows = out.read_bytes()
    if kind in ("audacity", "raven"):
        lines = rows.decode(errors="surrogateescape").split("\n")
        assert {line.count("\t") for line in lines[:-1]} == {2 if kind == "audacity" else 10} and lines[-1] == ""
        assert len(lines) - 1 == len(CLASSES) + (kind == "raven")
        if kind == "raven":
            assert lines[1].endswith(str(tmp_path / odd).replace("\t", " ").replace("\n", " "))
    elif kind == "parquet":
        assert pandas.read_parquet(out)["file"][0] == str(tmp_path / odd).replace("\udcff", "\\xff")
    elif kind == "json":
        assert json.loads(rows)[0]["file"] == str(tmp_path / odd)
    else:
        with open(out, newline="", encoding="utf-8", errors="surrogateescape") as stream:
            assert next(csv.DictReader(stream))["file"] == str(tmp_path / odd)
