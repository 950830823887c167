"""prepare_own.py, from a tree of class folders and from each kind of table, to a score by the commands it prints."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SAMPLE_RATE, error_line, run_script

from src.config.loading import load_config
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.preparation.annotations import read_events
from src.tagging import Tagger

RATES = (SAMPLE_RATE, 44100, 16000)
CLASSES = {"bell": 400.0, "dog bark": 1500.0, "rain": 5000.0}  # Hz
CLIP = 0.3  # s
SHORT = ("--clip_seconds", CLIP, "--epochs", 1)


def tone(label, seed, rate, seconds=CLIP):
    t = np.arange(round(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(t))
    return sum(0.2 * np.sin(2 * np.pi * CLASSES[name] * t) for name in label.split(",") if name) + noise


def write(path, label, seed, seconds=CLIP):
    """A file at one of three rates, some of them of two channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = RATES[seed % 3]
    samples = tone(label, seed, rate, seconds)
    soundfile.write(path, np.stack([samples] * (1 + seed % 2), axis=1), rate, subtype="PCM_16")


def write_tree(folder):
    """Five files a class with suffixes in either case, one file cut in three, one broken, one double, a loose one."""
    for number, label in enumerate(CLASSES):
        for k in range(5):
            long = (label, k) == ("bell", 4)
            path = folder / ("deep" * (k % 2)) / label / f"{k}.{'WAV' if k % 2 else 'wav'}"
            write(path, label, 10 * number + k, seconds=0.8 if long else CLIP)
    (folder / "rain" / "broken.flac").write_bytes(b"fLaC and no more")
    shutil.copy(folder / "rain" / "0.wav", folder / "rain" / "copy.wav")
    write(folder / "loose.wav", "rain", 99)
    return folder


TABLES = {  # head, and rows of a file with these labels
    "label": ("filename,label", lambda name, labels: [f"{name},{labels[0]}"]),
    "labels": ("filename\tlabels", lambda name, labels: [f"{name}\t{','.join(labels)}"]),
    "events": (
        "filename\tonset\toffset\tevent_label",
        lambda name, labels: [f"{name}\t{0.1 * k}\t{0.1 * k + 0.2}\t{label}" for k, label in enumerate(labels)],
    ),
    "columns": (
        f"file,{','.join(CLASSES)}",
        lambda name, labels: [",".join([name, *(str(int(label in labels)) for label in CLASSES)])],
    ),
}


def write_table(folder, kind):
    """A table of 15 files, of which one is missing, and from which some have two labels."""
    head, rows_of = TABLES[kind]
    lines = [head]
    for number in range(15):
        name = f"wav/{number}.wav"
        labels = [list(CLASSES)[number % 3], list(CLASSES)[(number // 3) % 3]]
        labels = list(dict.fromkeys(labels))[: 1 if kind == "label" else 2]
        if number:
            write(folder / name, ",".join(labels), number)
        lines += rows_of(name, labels)
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def write_source(folder, kind):
    return write_tree(folder / "sounds") if kind == "tree" else write_table(folder, kind)


def prepare(src, out, *more, check=0, cwd=ROOT):
    return run_script("scripts/prepare_own.py", "--src", src, "--out_dir", out, *SHORT, *more, cwd=cwd, check=check)


def report(out):
    return json.loads((out / "report.json").read_text())


def records(path):
    reader = LMDBReader(path)
    return [reader[index] for index in range(len(reader))]


def clip_names(out):
    """Part → names of its clips."""
    return {
        part.name: sorted(file.stem for file in part.glob("*.flac"))
        for part in sorted((out / "flac").iterdir())
        if part.is_dir()
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tree and its data, which nothing changes."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(write_tree(folder / "sounds"), folder / "data")
    return folder / "sounds", folder / "data"


# ---- to a score ----


@pytest.mark.parametrize(
    "kind, folds", [("tree", 0), *((kind, 0) for kind in TABLES), ("tree", 2), ("labels", 2)], ids=str
)
def test_what_is_printed_trains_scores_and_tags(tmp_path, warm_python, kind, folds):
    src = write_source(tmp_path, kind)
    for name in ("scripts", *(path.name for path in ROOT.glob("*.py"))):
        (tmp_path / name).symlink_to(ROOT / name)
    out = "it's mine"
    result = prepare(src, out, *(("--folds", folds) if folds else ()), cwd=tmp_path)
    head, lines = result.stdout.split(f"# To train, score and tag, as bash {shlex.quote(f'{out}/commands.sh')} does:\n")
    assert head.strip() == (tmp_path / out / "report.txt").read_text().strip()
    script = f"set -e\ncd {shlex.quote(str(tmp_path))}\n{lines.replace(' || break;', ';')}"
    assert (tmp_path / out / "commands.sh").read_text() == script
    path = f"{Path(warm_python).parent}{os.pathsep}{os.environ['PATH']}"
    for line in lines.splitlines():
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert ran.returncode == 0, (line, ran.stderr[-3000:])
    runs = tmp_path / "my_runs" / out
    rows = list(csv.DictReader((runs / "results.csv").open(newline="")))
    assert [row["fold"] for row in rows] == (["1", "2"] if folds else [""])
    assert all(0 <= float(row["mAP"]) <= 1 and float(row["num_timesteps"]) == 31 for row in rows)
    assert all(bool(row["accuracy"]) == (kind in ("tree", "label")) for row in rows)
    if folds:
        (mean,) = csv.DictReader((runs / "summary" / "summary.csv").open(newline=""))
        assert float(mean["mAP_mean"]) == pytest.approx(np.mean([float(row["mAP"]) for row in rows]))
        assert mean["folds"] == str(folds) and f"1 × {folds} folds" in (runs / "summary" / "summary.md").read_text()
    tags, decisions = (list(csv.DictReader((runs / f"{name}.csv").open(newline=""))) for name in ("tags", "decisions"))
    part = "all" if folds else "eval"
    assert {Path(row["file"]).stem for row in tags} == set(clip_names(tmp_path / out)[part])
    file, name = decisions[0]["file"], decisions[0]["class"]
    (score,) = [row["score"] for row in tags if (row["file"], row["class"]) == (file, name)]
    assert float(decisions[0]["score"]) == pytest.approx(float(score), abs=1e-6)
    present = decisions[0]["threshold"] and float(decisions[0]["score"]) >= float(decisions[0]["threshold"])
    assert decisions[0]["decision"] == ("present" if present else "absent")
    tagger = Tagger(runs / "r1" / "fold_1" if folds else runs, window=CLIP, hop=CLIP / 2)
    scores = tagger.scores(*soundfile.read(tmp_path / file, dtype="float32"))  # (1, C)
    assert [f"{value:.6f}" for value in scores[0]] == [row["score"] for row in tags if row["file"] == file]


def test_the_script_of_commands_ends_with_the_first_that_fails(tmp_path, warm_python):
    """Also where it is called from another folder, and within the loop over folds."""
    result = prepare(write_tree(tmp_path / "sounds"), "data", "--folds", 2, cwd=tmp_path)
    (tmp_path / "my_runs").write_text("in the way")
    path = f"{Path(warm_python).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", tmp_path / "data" / "commands.sh"], cwd="/", env=os.environ | {"PATH": path}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert "|| break" in result.stdout and ran.returncode == 1
    assert ran.stderr.count(": error: ") == 1 and "train_esc50_classifier.py: error: my_runs" in ran.stderr


# ---- what is made ----


def test_a_tree_becomes_clips_of_three_parts(prepared):
    out = prepared[1]
    names = clip_names(out)
    assert LabelMap.load(out / "lbl_map.json").names == tuple(CLASSES)
    clips = [name for part in ("train", "val", "eval") for name in names[part]]
    assert len(clips) == len(set(clips)) == 4 + 3 + 5 + 6 and "deep__dog bark__1" in clips and "rain__copy" in clips
    for part in ("train", "val", "eval"):
        for name, record in zip(names[part], records(out / f"{part}.lmdb"), strict=True):
            label = name.removeprefix("deep__").split("__")[0]
            assert (record.label, record.fold) == (label, None)
            clip = out / "flac" / part / f"{name}.flac"
            samples = soundfile.read(clip, dtype="int16")[0]
            length = round(CLIP * SAMPLE_RATE)
            stored = soundfile.read(io.BytesIO(record.flac), dtype="int16")[0]
            assert np.array_equal(stored, np.resize(samples, length))  # packing repeats what is shorter
            assert read_events(clip.with_suffix(".txt")) == [(0, round(len(samples) / SAMPLE_RATE, 4), label)]
    config = load_config(out / "mine.cfg")
    assert config.model.type == "multiclass" and config.model.num_classes == 3
    assert config.opt.batch_size == len(names["train"]) // 4
    found = report(out)
    assert found["recordings"] == 16 and found["clips"] == 18 and found["cut"] == 1
    assert found["left_out"]["loose.wav"] == "lies in no class folder"
    assert "is not audio" in found["left_out"]["rain/broken.flac"]
    assert found["doubles"] == [["rain/0.wav", "rain/copy.wav"]]
    assert any({"rain__0", "rain__copy"} <= set(names[part]) for part in names)
    assert [Path(lmdb["path"]).stem for lmdb in found["check"]["lmdbs"]] == ["train", "val", "eval"]
    assert found["check"]["lmdbs"][0]["classes"]["rain"]["clips"] == sum("rain" in name for name in names["train"])
    text = (out / "report.txt").read_text()
    short = sum(len(soundfile.read(clip)[0]) < round(CLIP * SAMPLE_RATE) for clip in (out / "flac").rglob("*.flac"))
    assert found["short"] == short > 0
    for words in (
        f"{short} clips are shorter than 0.3 s, and are repeated up to it in the LMDBs",
        "16 recordings, 18 clips, 2 files left out",
        "type: multiclass, for each clip has one class",
        "with seed 1",
        "equal audio: rain/0.wav = rain/copy.wav",
        "clips of a class",
    ):
        assert words in text


def test_long_recordings_are_cut_and_their_clips_stay_together(tmp_path):
    for number in range(6):
        write(tmp_path / "s" / "rain" / f"{number}.wav", "rain", number, seconds=1.0)
        write(tmp_path / "s" / "bell" / f"{number}.wav", "bell", 10 + number, seconds=0.72)
    out = tmp_path / "data"
    prepare(tmp_path / "s", out, "--overlap", 0.1)
    of_recording = {}
    for part, names in clip_names(out).items():
        for name in names:
            of_recording.setdefault(name.rsplit("_", 1)[0], {}).setdefault(part, []).append(name)
    assert len(of_recording) == 12 and all(len(parts) == 1 for parts in of_recording.values())
    counts = {name: sum(map(len, parts.values())) for name, parts in of_recording.items()}
    assert counts == {name: 5 if "rain" in name else 3 for name in counts}
    found = report(out)
    assert found["cut"] == 12 and found["seconds_left_out"] < 12 * CLIP / 2


@pytest.mark.parametrize(
    "more, groups",
    [(("--group_by", "folder:2"), 6), (("--group_by", r"site(\d)"), 6), (("--group_by", "folder:2", "--folds", 3), 6)],
)
def test_no_group_is_on_two_sides(tmp_path, more, groups):
    for number, label in enumerate(CLASSES):
        for k in range(12):
            write(tmp_path / "s" / label / f"site{k % groups}" / f"{k}.wav", label, 20 * number + k)
    out = tmp_path / "data"
    prepare(tmp_path / "s", out, "--class_level", 1, *more)
    sides = {}
    if "--folds" in more:
        for name, record in zip(clip_names(out)["all"], records(out / "all.lmdb")):
            sides.setdefault(name.split("__")[1], set()).add(record.fold)
    else:
        for part, names in clip_names(out).items():
            for name in names:
                sides.setdefault(name.split("__")[1], set()).add(part)
    assert len(sides) == groups and all(len(found) == 1 for found in sides.values())
    assert set.union(*sides.values()) == ({1, 2, 3} if "--folds" in more else {"train", "val", "eval"})


@pytest.mark.parametrize("kind", ["tree", "events"])
def test_the_same_seed_gives_the_same_data_wherever_they_lie_and_however_many_work(tmp_path, kind):
    prepare(write_source(tmp_path / "a", kind), tmp_path / "data_a")
    src = write_source(tmp_path / "elsewhere" / "b", kind)
    if kind == "events":
        head, *rows = src.read_text().splitlines()
        src.write_text("\n".join([head, *sorted(rows, reverse=True)]))
    prepare(src, tmp_path / "data_b", "--num_workers", 2)
    assert clip_names(tmp_path / "data_a") == clip_names(tmp_path / "data_b")
    a, b = (
        [lmdb["fingerprint"] for lmdb in report(tmp_path / name)["check"]["lmdbs"]] for name in ("data_a", "data_b")
    )
    assert a == b
    prepare(src, tmp_path / "data_c", "--seed", 2)
    assert clip_names(tmp_path / "data_c") != clip_names(tmp_path / "data_a")


def test_events_of_a_table_are_kept_and_labels_of_whole_recordings_are_no_events(tmp_path, prepared):
    out = tmp_path / "data"
    prepare(write_source(tmp_path, "events"), out)
    for part, names in clip_names(out).items():
        reader = LMDBReader(out / f"{part}.lmdb")
        listed = [read_events(out / "flac" / part / f"{name}.txt") for name in names]
        assert reader.events() == listed and all(listed)
        assert {event[:2] for each in listed for event in each} <= {(0.0, 0.2), (0.1, 0.3)}
    assert [lmdb["events"] is None for lmdb in report(out)["check"]["lmdbs"]] == [False] * 3
    assert all(LMDBReader(prepared[1] / f"{part}.lmdb").events() is None for part in ("train", "val", "eval"))


GIVEN = "filename,label,split,site\n"


def write_given(folder, rows):
    """A table with the columns of GIVEN, and its files."""
    for number, row in enumerate(rows):
        name, label, *_ = row.split(",")
        write(folder / name, label, number)
    (folder / "t.csv").write_text(GIVEN + "".join(f"{row}\n" for row in rows))
    return folder / "t.csv"


def test_a_given_split_is_kept_and_what_is_wrong_with_it_is_said(tmp_path):
    rows = [
        f"{label}{k}.wav,{label},{part},{k}" for label in CLASSES for k, part in enumerate(("train", "val", "test"))
    ]
    src = write_given(tmp_path, rows)
    shutil.copy(tmp_path / "bell0.wav", tmp_path / "bell2.wav")
    result = prepare(src, tmp_path / "data")
    assert clip_names(tmp_path / "data") == {
        part: sorted(f"{label}{k}" for label in CLASSES) for k, part in ((2, "eval"), (0, "train"), (1, "val"))
    }
    assert "split: as given" in result.stdout
    assert "warning: equal audio in different parts: bell0.wav (train), bell2.wav (eval)" in result.stdout
    result = prepare(src, tmp_path / "grouped", "--group_by", "label")
    assert (
        "warning: the given split has recordings of one group in different parts: bell, dog bark, rain" in result.stdout
    )


@pytest.mark.parametrize("given", [("train",), ("train", "val"), ("train", "test")])
def test_parts_that_are_not_given_are_made_of_train(tmp_path, given):
    rows = [
        f"{label}{k}.wav,{label},{part},{k}"
        for label in CLASSES
        for part in given
        for k in range(10 * (part == "train") or 2)
    ]
    rows = [f"{number}-{row}" for number, row in enumerate(rows)]
    src = write_given(tmp_path, [row for row in rows])
    out = tmp_path / "data"
    result = prepare(src, out)
    names = clip_names(out)
    own = {part: {row.split(".")[0] for row in rows if f",{part}," in row} for part in given}
    for part, made in (("val", "val"), ("test", "eval")):
        if part in given:
            assert set(names[made]) == own[part]
        else:
            assert set(names[made]) < own["train"]
            for label in CLASSES:
                assert sum(label in name for name in names[made]) in (1, 2, 3)  # of ten
    assert "some of train's are taken" in result.stdout


def test_folds_of_a_column_are_kept(tmp_path):
    rows = [f"{label}{k}.wav,{label},{k},x" for label in CLASSES for k in range(4)]
    out = tmp_path / "data"
    result = prepare(write_given(tmp_path, rows), out)
    assert "gives 4 folds in this order: 0, 1, 2, 3" in result.stdout and "for fold in 1 2 3 4; do" in result.stdout
    stored = dict(zip(clip_names(out)["all"], records(out / "all.lmdb"), strict=True))
    assert {name: record.fold for name, record in stored.items()} == {
        f"{label}{k}": k + 1 for label in CLASSES for k in range(4)
    }


def test_a_fold_that_has_no_clip_is_not_trained(tmp_path):
    src = write_given(tmp_path, [f"{label}{k}.wav,{label},{k},x" for label in CLASSES for k in range(1, 5)])
    for label in CLASSES:
        (tmp_path / f"{label}3.wav").write_text("x")
    assert "for fold in 1 2 4; do" in prepare(src, tmp_path / "data").stdout
    result = prepare(src, tmp_path / "other", "--folds", 2)
    assert "the given split is not used, for --folds 2" in result.stdout and "for fold in 1 2; do" in result.stdout


def test_a_thousand_left_out_files_are_not_all_printed(tmp_path):
    parts = ("train", "val", "test")
    src = write_given(tmp_path, [f"{label}{part}.wav,{label},{part},x" for label in CLASSES for part in parts])
    with src.open("a") as stream:
        stream.writelines(f"gone{k}.wav,bell,train,x\n" for k in range(1000))
    text = prepare(src, tmp_path / "data").stdout
    assert "and 980 more such lines, see report.json" in text and text.count("no such file") == 20
    assert len(report(tmp_path / "data")["left_out"]) == 1000


def test_negative_clips_are_kept_with_several_classes_and_left_out_with_one(tmp_path):
    rows = [f"{number}.wav,{label},," for number, label in enumerate([*CLASSES] * 6 + [""] * 5)]
    src = write_given(tmp_path, rows)
    src.write_text(src.read_text().replace("split,site", "x,y"))
    result = prepare(src, tmp_path / "several")
    assert "type: multilabel, for 5 of 23 clips have no class" in result.stdout
    assert labels_of(tmp_path / "several").count("") == 5
    result = prepare(src, tmp_path / "one", "--type", "multiclass")
    assert "5 clips without a class are left out" in result.stdout and len(labels_of(tmp_path / "one")) == 18


def labels_of(out):
    """Of all records."""
    return [record.label for part in ("train", "val", "eval") for record in records(out / f"{part}.lmdb")]


def test_class_names_with_commas_get_another_delimiter(tmp_path):
    for label in ("Bark, loud", "a;b"):
        for k in range(4):
            write(tmp_path / "s" / label / f"{k}.wav", "bell", 10 * len(label) + k)
    prepare(tmp_path / "s", tmp_path / "data")
    assert load_config(tmp_path / "data" / "mine.cfg").audio_config.delimiter == "|"
    assert set(labels_of(tmp_path / "data")) == {"Bark, loud", "a;b"}


def test_what_is_too_small_or_lost_is_said(tmp_path):
    for k in range(8):
        write(tmp_path / "s" / "rain" / f"{k}.wav", "rain", k)
    for k in range(2):
        write(tmp_path / "s" / "bell" / f"{k}.wav", "bell", 20 + k)
    (tmp_path / "s" / "gone").mkdir()
    (tmp_path / "s" / "gone" / "a.wav").write_text("x")
    t = np.arange(44100) / 44100
    soundfile.write(tmp_path / "s" / "rain" / "high.wav", 0.3 * np.sin(2 * np.pi * 15000 * t[:13230]), 44100)
    text = prepare(tmp_path / "s", tmp_path / "data").stdout
    assert "class bell: is too small to split, with 2 recordings or groups" in text
    assert "classes without a readable clip, which the label map lacks: gone" in text
    assert "lose more than 1% of their energy, above 11025 Hz: 1. The most: 100% of rain/high.wav" in text
    assert LabelMap.load(tmp_path / "data" / "lbl_map.json").names == ("bell", "rain")


# ---- again, and what is refused ----


def test_a_cfg_that_was_changed_by_hand_is_kept(tmp_path):
    src, cfg = write_tree(tmp_path / "sounds"), tmp_path / "out" / "mine.cfg"
    prepare(src, tmp_path / "out")
    made = cfg.read_text()
    cfg.write_text(made.replace("lr: 3e-4", "lr: 1e-3"))
    result = prepare(src, tmp_path / "out")
    assert cfg.read_text() == made and "mine.cfg: is written anew" in result.stderr
    assert cfg.with_name("mine.cfg.old").read_text() == made.replace("lr: 3e-4", "lr: 1e-3") != made
    assert "is written anew" not in prepare(src, tmp_path / "out").stderr


def test_the_same_command_resumes_and_deletes_what_no_recording_gives_any_more(tmp_path):
    src, out = write_tree(tmp_path / "sounds"), tmp_path / "data"
    prepare(src, out)
    before = {file: file.stat().st_ino for file in out.rglob("*.flac")}
    first = report(out)
    broken = sorted(before)[0]
    broken.write_bytes(b"fLaC")
    (out / "flac" / "train" / "stray.flac").write_bytes(b"fLaC")
    prepare(src, out)
    after = {file: file.stat().st_ino for file in out.rglob("*.flac")}
    assert {file for file in before if after[file] != before[file]} == {broken} and set(after) == set(before)
    assert report(out) == first
    (src / "rain" / "copy.wav").unlink()
    prepare(src, out)
    assert "rain__copy" not in str(clip_names(out)) and report(out)["clips"] == first["clips"] - 1


@pytest.mark.parametrize(
    "more, words",
    [
        (("--seed", 2), "with seed 1 instead of 2"),
        (("--clip_seconds", 1), "with clip_seconds 0.3 instead of 1.0"),
        (("--folds", 2), "with folds None instead of 2"),
        (("--split", 0.5, 0.25, 0.25), "with split [0.6, 0.2, 0.2] instead of [0.5, 0.25, 0.25]"),
        (("--type", "multilabel"), "with type 'auto' instead of 'multilabel'"),
        (("--src", "other"), "with src '"),
    ],
)
def test_a_folder_of_other_settings_is_refused(tmp_path, prepared, more, words):
    src, out = prepared
    if more[0] == "--src":
        more = ("--src", write_tree(tmp_path / "other"))
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.*")}
    line = error_line(prepare(src, out, *more, check=None))
    assert words in line and "choose another --out_dir" in line
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.*")} == before


@pytest.mark.parametrize(
    "more, words",
    [
        (("--overlap", CLIP), "--overlap 0.3: should be 0 or more, and below --clip_seconds 0.3"),
        (("--overlap", -1), "--overlap -1: should be 0 or more"),
        (("--overlap", "nan"), "--overlap nan: should be 0 or more"),
        (("--folds", 1), "--folds 1: there should be two at least"),
        (("--folds", 40), "no clip is left for fold "),
        (("--folds", "1e12"), "no clip is left for fold "),
        (("--clip_seconds", 1e-9), "--clip_seconds 1e-09: is shorter than a frame of 220 samples or 0.00998 s"),
        (("--sample_rate", 100), "--clip_seconds 0.3: is shorter than a frame of 220 samples or 2.2 s"),
        (("--sample_rate", 655_351), "--sample_rate 655351: FLAC files have 655350 Hz at most"),
        (("--sample_rate", "1e12"), "FLAC files have 655350 Hz at most"),
        (("--audio_dir", "x"), "--audio_dir: is of no use, for --src"),
        (("--split_by", "x"), "--split_by: is of no use, for --src"),
        (("--class_level", 5), "no recording lies in a class folder"),
        (("--group_by", "folder:9"), "--group_by folder:9: does not fit the file"),
        (("--group_by", "("), "is neither a column, nor folder"),
        (("--src", "nowhere.csv"), "nowhere.csv: no such file (a folder or a table of recordings was expected)"),
        (("--src", "nowhere"), "nowhere: no such folder of recordings"),
    ],
)
def test_mistakes_are_said_in_one_line_and_nothing_is_lost(tmp_path, prepared, more, words):
    assert words in error_line(prepare(prepared[0], tmp_path / "data", *more, check=None))
    assert not list(tmp_path.rglob("*.flac")) and not list(tmp_path.rglob("*.lmdb"))


def test_sources_that_give_nothing_are_refused(tmp_path):
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "b.wav").write_text("x")
    line = error_line(prepare(tmp_path / "broken", tmp_path / "data", check=None))
    assert "none of 1 recordings can be read, such as: " in line and "b.wav: is not audio" in line
    src = write_given(tmp_path, ["1.wav,bell,,", "2.wav,rain,,"])
    src.write_text(src.read_text().replace("split,site", "x,y"))
    line = error_line(prepare(src, tmp_path / "few", check=None))
    assert "no clip is left for " in line and "2 recordings or groups are too few for 3 sides" in line
    src.write_text(src.read_text().replace("bell", "bell,rain").replace(",bell,rain,", ',"bell,rain",'))
    line = error_line(prepare(src, tmp_path / "two", "--type", "multiclass", check=None))
    assert "--type multiclass: clip 1 has the classes bell, rain. Leave --type out" in line
    src = write_given(tmp_path, ["1.wav,bell,val,", "2.wav,rain,val,"])
    line = error_line(prepare(src, tmp_path / "untrained", check=None))
    assert "no recordings are given to train on, only for val" in line
    own = write_tree(tmp_path / "own")
    assert "is --src itself" in error_line(prepare(own, own, check=None))
    (tmp_path / "foreign" / "flac").mkdir(parents=True)
    write(tmp_path / "foreign" / "flac" / "a.wav", "bell", 1)
    assert "audio files, but no recipe.json" in error_line(prepare(own, tmp_path / "foreign", check=None))
