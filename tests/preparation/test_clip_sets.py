"""ESC-50, AudioSet and VGGSound, from their official layouts to LMDBs, through the command lines."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import FIXTURES, ROOT, SAMPLE_RATE, error_line, run_script

from src.config.sections import AudioConfig
from src.data.audio.files import decode
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.data.transforms import Compose

pytestmark = pytest.mark.processes

SECONDS = 0.4  # of the clips made here
ESC50 = [  # file, fold, target, category
    ("1-100032-A-0.wav", 1, 0, "dog"),
    ("1-100038-A-14.wav", 1, 14, "chirping_birds"),
    ("2-100210-A-36.wav", 2, 36, "vacuum_cleaner"),
    ("3-101296-A-19.wav", 3, 19, "thunderstorm"),
    ("4-101404-A-34.wav", 4, 34, "can_opening"),
    ("5-103415-A-2.wav", 5, 2, "pig"),
]
CLASS_LABELS = [  # mid, display name. The official file's order is not the alphabet's
    ("/m/09x0r", "Speech"),
    ("/m/068hy", "Domestic animals, pets"),
    ("/m/0bt9lr", "Dog"),
    ("/m/07q6cd_", "Squeak"),
    ("/m/0jbk", "Animal"),
]
SEGMENTS = [  # video, start, end, mids
    ("--4gqARaEJE", "0.000", "10.000", "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"),
    ("KZVnYaoUF3M", "70.000", "80.000", "/m/09x0r"),
    ("-0RWZT-miFs", "420.000", "430.000", "/m/0bt9lr,/m/0jbk"),
    ("a_b_c_30_40", "30.000", "38.500", "/m/07q6cd_"),
    ("Yjust11char", "5.000", "15.000", "/m/0jbk"),
    ("gonegonegon", "30.000", "40.000", "/m/0jbk"),
    ("brokenbroke", "30.000", "40.000", "/m/0bt9lr"),
]
VGGSOUND = [  # video, start, label, split
    ("---g-f_I2yQ", 1, "people marching", "test"),
    ("--0PQM4-hqg", 30, "waterfall burbling", "train"),
    ("--56QUhyDQM", 185, "playing tennis", "train"),
    ("-_8_Ukdbkc0", 9, "railroad car, train wagon", "train"),
    ("notthereatA", 12, "playing tennis", "test"),
]


def write_audio(path, rate=44100, channels=2, seconds=SECONDS, tone=440.0, **options):
    """A tone in the left channel, half as loud in the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(rate * seconds)) / rate
    samples = 0.4 * np.sin(2 * np.pi * tone * t)[:, None] * ([1.0] + [0.5] * (channels - 1))
    soundfile.write(path, samples, rate, **options)
    return path


def write_esc50(folder, rows=ESC50):
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    for number, (name, *_) in enumerate(rows):
        write_audio(folder / "audio" / name, channels=1, tone=300.0 + 100 * number)
    write_esc50_csv(folder, rows)
    return folder


def write_esc50_csv(folder, rows):
    lines = [f"{name},{fold},{target},{category},False,100032,A" for name, fold, target, category in rows]
    (folder / "meta" / "esc50.csv").write_text(
        "\n".join(["filename,fold,target,category,esc10,src_file,take", *lines, ""])
    )


def write_class_labels(path, rows=CLASS_LABELS):
    lines = [f'{number},{mid},"{name}"' for number, (mid, name) in enumerate(rows)]
    path.write_text("\n".join(["index,mid,display_name", *lines, ""]))
    return path


def write_segments(path, rows=SEGMENTS):
    lines = [f'{video}, {start}, {end}, "{mids}"' for video, start, end, mids in rows]
    path.write_text(
        "\n".join(
            [
                "# Segments csv created Sun Mar  5 10:54:31 2017",
                "# num_ytids=7, num_segs=7, num_unique_labels=5, num_positive_labels=11",
                "# YTID, start_seconds, end_seconds, positive_labels",
                *lines,
                "",
            ]
        )
    )
    return path


def write_vggsound(path, rows=VGGSOUND):
    path.write_text("".join(f'{video},{start},"{label}",{split}\n' for video, start, label, split in rows))
    return path


@dataclass(frozen=True)
class Case:
    """A data set in its official layout, and how it is prepared."""

    script: str
    words: tuple
    sets: dict  # name of the LMDB -> [(id, label, fold)] of the clips that can be packed
    classes: int
    target_type: str
    missing: dict = field(default_factory=dict)  # name of the LMDB -> [(id, file name, part of the reason)]

    def run(self, out, *more, check=0):
        return run_script(f"scripts/{self.script}", *self.words, "--out_dir", out, *more, check=check)


def esc50_case(folder):
    write_esc50(folder)
    (folder / "audio" / ESC50[1][0]).unlink()
    (folder / "audio" / ESC50[4][0]).write_text("not audio")
    kept = [(Path(name).stem, target, fold) for name, fold, target, _ in (*ESC50[:1], *ESC50[2:4], *ESC50[5:])]
    missing = [("1-100038-A-14", "", "no file"), ("4-101404-A-34", "4-101404-A-34.wav", "is not audio")]
    return Case("prepare_esc50.py", ("--src_dir", folder), {"esc50": kept}, 50, "multiclass", {"esc50": missing})


def audioset_case(folder):
    clips = folder / "my clips; é"
    write_audio(clips / "--4gqARaEJE_0.wav")
    write_audio(clips / "a" / "KZVnYaoUF3M.ogg", format="OGG", subtype="VORBIS")
    write_audio(clips / "a" / "b" / "Y-0RWZT-miFs.MP3", format="MP3")
    write_audio(clips / "a_b_c_30_40_30000_38500.Flac", rate=32000, channels=3, format="FLAC")
    write_audio(clips / "Yjust11char.opus", rate=48000, format="OGG", subtype="OPUS")
    (clips / "brokenbroke_30.wav").write_bytes((clips / "--4gqARaEJE_0.wav").read_bytes()[:20])
    names = dict(CLASS_LABELS)
    kept = [
        (f"{video}_{int(float(start))}", ";".join(names[mid] for mid in mids.split(",")), None)
        for video, start, _, mids in SEGMENTS[:5]
    ]
    missing = [("gonegonegon_30", "", "no file"), ("brokenbroke_30", "brokenbroke_30.wav", "is not audio")]
    words = (
        "--segments_csv",
        write_segments(folder / "balanced_train_segments.csv"),
        "--class_labels",
        write_class_labels(folder / "class_labels_indices.csv"),
        "--clips_dir",
        clips,
    )
    return Case("prepare_audioset.py", words, {"balanced_train": kept}, 5, "multilabel", {"balanced_train": missing})


def vggsound_case(folder):
    clips = folder / "video"
    write_audio(clips / "---g-f_I2yQ_000001.wav")
    write_audio(clips / "--0PQM4-hqg_30.flac", rate=SAMPLE_RATE, channels=1)
    write_audio(clips / "sub" / "--56QUhyDQM_000185.ogg", format="OGG", subtype="VORBIS")
    write_audio(clips / "sub" / "-_8_Ukdbkc0_000009.WAV", rate=8000, format="WAV")
    sets = {
        split: [(f"{video}_{start:06d}", label, None) for video, start, label, its in VGGSOUND[:4] if its == split]
        for split in ("train", "test")
    }
    words = ("--vggsound_csv", write_vggsound(folder / "vggsound.csv"), "--clips_dir", clips)
    return Case(
        "prepare_vggsound.py",
        words,
        sets,
        4,
        "multiclass",
        {"test": [("notthereatA_000012", "", "no file")], "train": []},
    )


CASES = {"esc50": esc50_case, "audioset": audioset_case, "vggsound": vggsound_case}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    return CASES[request.param](tmp_path / "official")


def results(out):
    """Relative path → bytes of all that a user gets, but for the FLAC files."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in ("lmdbs", "meta")
        for path in sorted((out / folder).rglob("[!.]*"))
    }


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_clip_that_can_be_read_is_packed_and_the_others_are_listed(case, tmp_path):
    result = case.run(tmp_path / "out")
    for name, clips in case.sets.items():
        reader = LMDBReader(tmp_path / "out" / "lmdbs" / f"{name}.lmdb")
        records = [reader[index] for index in range(len(reader))]
        assert [(record.label, record.fold) for record in records] == [(label, fold) for _, label, fold in clips]
        for record, (clip_id, *_) in zip(records, clips):
            assert record.flac == (tmp_path / "out" / "flac" / name / f"{clip_id}.flac").read_bytes()
            samples = decode(record.flac, SAMPLE_RATE, clip_id)  # refuses other rates, and stereo
            assert abs(len(samples) / SAMPLE_RATE - SECONDS) < 0.1 and 0.1 < np.abs(samples).max() < 0.5
        ids = (tmp_path / "out/meta" / f"{name}_ids.txt").read_text().splitlines()
        assert ids == [clip_id for clip_id, *_ in clips]
        missing = rows_of(tmp_path / "out/meta" / f"{name}_missing.csv")
        assert [(row["id"], Path(row["file"]).name) for row in missing] == [
            (clip_id, file) for clip_id, file, _ in case.missing[name]
        ]
        assert all(reason in row["reason"] for row, (_, _, reason) in zip(missing, case.missing[name]))
        unreadable = [row for row in missing if row["file"]]
        assert all(row["reason"] in result.stderr for row in unreadable)
        assert (
            f"{name}: {len(clips)} of {len(clips) + len(missing)} clips packed, "
            f"{len(missing) - len(unreadable)} missing, {len(unreadable)} unreadable"
        ) in result.stderr


def test_the_data_sets_classes_open_them_with_the_right_targets(case, tmp_path):
    case.run(tmp_path / "out")
    label_map = LabelMap.load(tmp_path / "out" / "meta" / "lbl_map.json")
    assert len(label_map) == case.classes
    for name, clips in case.sets.items():
        dataset = InMemoryLMDBDataset(
            str(tmp_path / "out" / "lmdbs" / f"{name}.lmdb"),
            AudioConfig(delimiter=";"),
            label_map,
            case.target_type,
            Compose(()),
        )
        assert len(dataset) == len(clips)
        for index, (_, label, _) in enumerate(clips):
            spectrogram, target = dataset[index]
            assert spectrogram.shape[0] == 221
            if case.target_type == "multilabel":
                assert {label_map.names[c] for c in np.flatnonzero(target)} == set(label.split(";"))
            else:
                assert target == label or label_map.names[target] == label


def test_label_maps(tmp_path):
    maps = {}
    for name, make in CASES.items():
        make(tmp_path / name).run(tmp_path / f"{name}_out")
        maps[name] = json.loads((tmp_path / f"{name}_out" / "meta" / "lbl_map.json").read_text())
    assert maps["audioset"] == {"Animal": 0, "Dog": 1, "Domestic animals, pets": 2, "Speech": 3, "Squeak": 4}
    assert maps["vggsound"] == {
        "people marching": 0,
        "playing tennis": 1,
        "railroad car, train wagon": 2,
        "waterfall burbling": 3,
    }
    official = {name: target for _, _, target, name in ESC50}
    assert maps["esc50"].items() >= official.items() and sorted(maps["esc50"].values()) == list(range(50))
    assert maps["esc50"]["hand_saw"] == 49 and maps["esc50"]["crickets"] == 13


def test_esc50_records_have_the_released_fields(tmp_path):
    esc50_case(tmp_path / "esc").run(tmp_path / "out")
    ours = LMDBReader(tmp_path / "out" / "lmdbs" / "esc50.lmdb")[0]
    released = LMDBReader(FIXTURES / "released_esc50_layout.lmdb")[0]
    assert [type(value) for value in vars(ours).values()] == [type(value) for value in vars(released).values()]
    assert vars(ours).keys() == vars(released).keys() and ours.flac[:4] == released.flac[:4]


def test_folds_of_esc50(tmp_path):
    case = esc50_case(tmp_path / "esc")
    case.run(tmp_path / "out")
    label_map = LabelMap.load(tmp_path / "out" / "meta" / "lbl_map.json")
    for complement, expected in ((False, [36]), (True, [0, 19, 2])):
        dataset = InMemoryLMDBDataset(
            str(tmp_path / "out" / "lmdbs" / "esc50.lmdb"),
            AudioConfig(),
            label_map,
            "multiclass",
            Compose(()),
            fold=2,
            complement=complement,
        )
        assert [dataset[index][1] for index in range(len(dataset))] == expected


def test_channels_are_averaged_and_resampled(tmp_path):
    audioset_case(tmp_path / "official").run(tmp_path / "out")
    samples = decode(tmp_path / "out/flac/balanced_train/a_b_c_30_40_30.flac", SAMPLE_RATE)
    t = np.arange(len(samples)) / SAMPLE_RATE
    expected = 0.4 * (1 + 0.5 + 0.5) / 3 * np.sin(2 * np.pi * 440 * t)
    assert np.abs(samples - expected)[200:-200].max() < 2e-3


def test_the_number_of_workers_does_not_matter_and_nothing_is_converted_twice(case, tmp_path):
    case.run(tmp_path / "one")
    case.run(tmp_path / "two", "--num_workers", 2)
    assert results(tmp_path / "one") == results(tmp_path / "two")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "flac").rglob("*.flac")}
    first = results(tmp_path / "one")
    case.run(tmp_path / "one", "--num_workers", 2)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "flac").rglob("*.flac")} == before
    assert results(tmp_path / "one") == first and len(before) == sum(map(len, case.sets.values()))


def test_what_is_lost_or_damaged_is_made_again(case, tmp_path):
    out = tmp_path / "out"
    case.run(out)
    first = results(out)
    lost, *_, damaged = sorted((out / "flac").rglob("*.flac"))
    whole = damaged.read_bytes()
    lost.unlink()
    damaged.write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(out / "lmdbs")
    case.run(out)
    assert results(out) == first and damaged.read_bytes() == whole and lost.exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, how):
    folder = write_esc50(tmp_path / "esc", ESC50[:1])
    many = [(f"1-{number}-A-0.wav", 1, 0, "dog") for number in range(3000)]
    for name, *_ in many:
        os.link(folder / "audio" / ESC50[0][0], folder / "audio" / name)
    write_esc50_csv(folder, many)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "scripts/prepare_esc50.py",
            "--src_dir",
            folder,
            "--out_dir",
            out,
            "--num_workers",
            "2",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("flac/esc50/*.flac"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    _, output = process.communicate(timeout=60)  # until the workers have ended too, for they hold the pipe
    assert "Traceback" not in output and not list(out.glob("lmdbs/*"))
    if how == signal.SIGINT:
        assert process.returncode == 130 and "interrupted. What was complete is kept" in output, output[-2000:]
    done = {path: path.stat().st_mtime_ns for path in out.glob("flac/esc50/*.flac")}
    assert 5 <= len(done) < 3000
    write_esc50_csv(folder, many[:40])
    run_script("scripts/prepare_esc50.py", "--src_dir", folder, "--out_dir", out, check=0)
    run_script("scripts/prepare_esc50.py", "--src_dir", folder, "--out_dir", tmp_path / "undisturbed", check=0)
    assert results(out) == results(tmp_path / "undisturbed")
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())


def test_a_clip_that_comes_later_is_packed_in_its_place(tmp_path):
    case = vggsound_case(tmp_path / "official")
    late = tmp_path / "official/video/--0PQM4-hqg_30.flac"
    kept = late.read_bytes()
    late.unlink()
    case.run(tmp_path / "out")
    assert len(LMDBReader(tmp_path / "out/lmdbs/train.lmdb")) == 2
    late.write_bytes(kept)
    case.run(tmp_path / "out")
    case.run(tmp_path / "fresh")
    assert results(tmp_path / "out") == results(tmp_path / "fresh")


def test_of_two_files_the_readable_then_the_surest_name_then_the_first_path(tmp_path):
    clips = tmp_path / "clips"
    segments = write_segments(tmp_path / "eval_segments.csv", SEGMENTS[:1])
    command = (
        "scripts/prepare_audioset.py",
        "--segments_csv",
        segments,
        "--class_labels",
        write_class_labels(tmp_path / "labels.csv"),
        "--clips_dir",
        clips,
    )
    worst_first = [
        ("--4gqARaEJE_0.m4a", 500),
        ("Y--4gqARaEJE.wav", 600),
        ("--4gqARaEJE.wav", 700),
        ("--4gqARaEJE_0_10000.wav", 800),
        ("z/--4gqARaEJE_0.wav", 900),
        ("a/--4gqARaEJE_0.wav", 1000),
    ]
    (clips / "not").mkdir(parents=True)
    write_audio(clips / "not" / "--4gqARaEJE_0_9000.wav")  # the milliseconds of another clip
    for name, tone in worst_first:
        write_audio(clips / name, tone=tone, format="WAV")
        out = tmp_path / f"out_{tone}"
        result = run_script(*command, "--out_dir", out)
        if name.endswith(".m4a"):
            assert "none of the 1 clips that are there can be read" in error_line(result)
            assert ".m4a is not among the formats that can be read" in result.stderr
            continue
        assert result.returncode == 0
        samples = decode(LMDBReader(out / "lmdbs/eval.lmdb")[0].flac, SAMPLE_RATE)
        peak = np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples)
        assert abs(peak - tone) < 5


def test_a_bare_video_name_is_not_taken_where_two_clips_are_of_that_video(tmp_path):
    rows = [("KZVnYaoUF3M", "70.000", "80.000", "/m/09x0r"), ("KZVnYaoUF3M", "90.000", "100.000", "/m/0jbk")]
    clips = tmp_path / "clips"
    write_audio(clips / "KZVnYaoUF3M.wav")
    write_audio(clips / "KZVnYaoUF3M_90.wav")
    run_script(
        "scripts/prepare_audioset.py",
        "--segments_csv",
        write_segments(tmp_path / "eval_segments.csv", rows),
        "--class_labels",
        write_class_labels(tmp_path / "labels.csv"),
        "--clips_dir",
        clips,
        "--out_dir",
        tmp_path / "out",
        check=0,
    )
    assert (tmp_path / "out/meta/eval_ids.txt").read_text() == "KZVnYaoUF3M_90\n"


def test_a_whole_video_is_not_taken_for_its_clip(tmp_path):
    case = audioset_case(tmp_path / "official")
    write_audio(tmp_path / "official/my clips; é/gonegonegon.wav", rate=4000, seconds=12)
    result = case.run(tmp_path / "out")
    reason = "gonegonegon.wav: lasts 12.0 s, and 11 s at most were expected. Is it the whole recording"
    assert reason in result.stderr and "0 missing, 2 unreadable" in result.stderr


def test_samples_that_are_no_numbers_are_not_packed(tmp_path):
    case = vggsound_case(tmp_path / "official")
    soundfile.write(
        tmp_path / "official/video/notthereatA_000012.wav", np.array([0.1, np.nan, 0.2]), SAMPLE_RATE, subtype="FLOAT"
    )
    assert "notthereatA_000012.wav: holds samples that are no finite numbers" in case.run(tmp_path / "out").stderr


def test_links_to_folders_are_followed_even_in_circles(tmp_path):
    case = vggsound_case(tmp_path / "official")
    clips = tmp_path / "official" / "video"
    shutil.move(clips / "sub", tmp_path / "elsewhere")
    (clips / "sub").symlink_to(tmp_path / "elsewhere")
    (clips / "circle").symlink_to(clips)
    result = case.run(tmp_path / "out")
    assert "train: 3 of 3 clips packed" in result.stderr


def test_ones_own_flac_files_are_no_sources(tmp_path):
    case = vggsound_case(tmp_path / "official")
    clips = tmp_path / "official" / "video"
    case.run(clips)  # --out_dir is --clips_dir
    first = results(clips)
    (clips / "--0PQM4-hqg_30.flac").unlink()
    assert "train: 2 of 3 clips packed, 1 missing" in case.run(clips).stderr
    assert results(clips).keys() == first.keys()


def test_only_the_clips_of_an_id_list(tmp_path):
    case = audioset_case(tmp_path / "official")
    (tmp_path / "ids.txt").write_text("gonegonegon_30\n\nKZVnYaoUF3M_70\n--4gqARaEJE_0\n")
    result = case.run(tmp_path / "out", "--ids", tmp_path / "ids.txt", "--name", "few")
    assert (tmp_path / "out/meta/few_ids.txt").read_text() == "--4gqARaEJE_0\nKZVnYaoUF3M_70\n"  # in the CSV's order
    assert "few: 2 of 3 clips packed, 1 missing, 0 unreadable" in result.stderr
    assert len(LMDBReader(tmp_path / "out/lmdbs/few.lmdb")) == 2
    assert len(LabelMap.load(tmp_path / "out/meta/lbl_map.json")) == 5
    # What was used can be used again.
    case.run(tmp_path / "again", "--ids", tmp_path / "out/meta/few_ids.txt", "--name", "few")
    assert (tmp_path / "again/lmdbs/few.lmdb").read_bytes() == (tmp_path / "out/lmdbs/few.lmdb").read_bytes()


@pytest.mark.parametrize(
    "lines",
    [
        "KZVnYaoUF3M_70.wav\r\n--4gqARaEJE_0.flac\r\n",
        "KZVnYaoUF3M\nY--4gqARaEJE",
        "KZVnYaoUF3M_70000_80000\n--4gqARaEJE\n",
    ],
)
def test_an_id_list_may_have_the_names_that_files_have(tmp_path, lines):
    case = audioset_case(tmp_path / "official")
    (tmp_path / "ids.txt").write_bytes(lines.encode())
    case.run(tmp_path / "out", "--ids", tmp_path / "ids.txt", "--name", "few")
    assert (tmp_path / "out/meta/few_ids.txt").read_text() == "--4gqARaEJE_0\nKZVnYaoUF3M_70\n"


def test_clips_of_one_video_are_packed_as_one_group(tmp_path):
    case = audioset_case(tmp_path / "official")
    write_segments(
        tmp_path / "official/balanced_train_segments.csv", [*SEGMENTS, ("KZVnYaoUF3M", "10.000", "20.000", "/m/09x0r")]
    )
    write_audio(tmp_path / "official/my clips; é/KZVnYaoUF3M_10.wav")
    write_audio(tmp_path / "official/my clips; é/KZVnYaoUF3M_70.wav")
    case.run(tmp_path / "out")
    ids = (tmp_path / "out/meta/balanced_train_ids.txt").read_text().split()
    groups = LMDBReader(tmp_path / "out/lmdbs/balanced_train.lmdb").groups()
    assert groups == [[one.rpartition("_")[0] for one in ids].index(one.rpartition("_")[0]) for one in ids]
    assert len(set(groups)) == len(ids) - 1


def test_one_split_alone(tmp_path):
    vggsound_case(tmp_path / "official").run(tmp_path / "out", "--splits", "test")
    assert [path.name for path in (tmp_path / "out/lmdbs").glob("[!.]*")] == ["test.lmdb"]
    assert len(LabelMap.load(tmp_path / "out/meta/lbl_map.json")) == 4


def test_a_clip_listed_twice_in_the_same_way_counts_once(tmp_path):
    case = vggsound_case(tmp_path / "official")
    write_vggsound(tmp_path / "official/vggsound.csv", [*VGGSOUND, VGGSOUND[1]])
    assert "train: 3 of 3 clips packed" in case.run(tmp_path / "out").stderr


def make_ids(*words):
    return run_script("data/audioset/make_id_lists.py", *words)


def test_id_lists_of_the_official_segment_files(tmp_path):
    audioset_case(tmp_path / "official")
    train = tmp_path / "official/balanced_train_segments.csv"
    evaluation = write_segments(tmp_path / "eval_segments.csv", SEGMENTS[1:2])
    assert make_ids("--segments_csv", train, evaluation, "--out_dir", tmp_path / "ids").returncode == 0
    assert (tmp_path / "ids/eval_ids.txt").read_text() == "KZVnYaoUF3M_70\n"
    assert (tmp_path / "ids/balanced_train_ids.txt").read_text().splitlines() == [
        "--4gqARaEJE_0",
        "KZVnYaoUF3M_70",
        "-0RWZT-miFs_420",
        "a_b_c_30_40_30",
        "Yjust11char_5",
        "gonegonegon_30",
        "brokenbroke_30",
    ]
    clips = tmp_path / "official" / "my clips; é"
    line = error_line(make_ids("--segments_csv", train, "--out_dir", tmp_path / "ids", "--clips_dir", clips))
    assert "balanced_train_ids.txt: is there already, with other ids" in line
    assert "gonegonegon_30" in (tmp_path / "ids/balanced_train_ids.txt").read_text()
    result = make_ids("--segments_csv", train, "--out_dir", tmp_path / "had", "--clips_dir", clips)
    assert result.returncode == 0 and "6 of the 7 clips" in result.stderr
    assert "gonegonegon" not in (tmp_path / "had/balanced_train_ids.txt").read_text()
    line = error_line(make_ids("--segments_csv", train, "--out_dir", tmp_path / "no", "--clips_dir", tmp_path / "ids"))
    assert "would be empty" in line and not (tmp_path / "no").exists()
    assert "Is it an official AudioSet segment CSV?" in error_line(
        make_ids("--segments_csv", tmp_path / "official/class_labels_indices.csv", "--out_dir", tmp_path / "no")
    )


# Bad input: one line, and nothing written.


def refused(case, out, *more):
    line = error_line(case.run(out, *more, check=None))
    assert not out.exists(), list(out.rglob("*"))
    return line


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "esc50.csv: lists no clips"),
        (
            [*ESC50[:2], ("a.wav", 1, 3, "dog")],
            "esc50.csv, line 4: category 'dog' has target 3, but officially target 3 is 'cow'",
        ),
        ([("a.wav", 6, 0, "dog")], "esc50.csv, line 2: fold '6' is not a whole number from 1 to 5"),
        ([("a.wav", 0, 0, "dog")], "line 2: fold '0' is not a whole number from 1 to 5"),
        ([("a.wav", 1, 50, "dog")], "line 2: target '50' is not a whole number from 0 to 49"),
        ([("a.wav", 1, "x", "dog")], "line 2: target 'x' is not a whole number"),
        ([("../a.wav", 1, 0, "dog")], "line 2: '../a.wav' is no plain file name"),
        ([("", 1, 0, "dog")], "line 2: '' is no plain file name"),
        ([ESC50[0], (ESC50[0][0], 2, 0, "dog")], "line 3: clip 1-100032-A-0 is listed before"),
    ],
)
def test_esc50_refuses_lines(tmp_path, rows, message):
    case = esc50_case(tmp_path / "esc")
    write_esc50_csv(tmp_path / "esc", rows)
    line = refused(case, tmp_path / "out")
    assert message in line, line


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "esc50.csv: has no column 'filename'. Is it ESC-50's meta/esc50.csv?"),
        (b"a,b\n1,2\n", "esc50.csv: has no column 'filename'"),
        (b"\xff\xfe\x00", "esc50.csv: is not text in UTF-8. Expected ESC-50's meta/esc50.csv"),
        (b"filename,fold,target,category\na.wav,1,0\n", "esc50.csv, line 2: has 3 fields where the first line has 4"),
    ],
)
def test_esc50_refuses_files_of_another_kind(tmp_path, content, message):
    case = esc50_case(tmp_path / "esc")
    (tmp_path / "esc" / "meta" / "esc50.csv").write_bytes(content)
    line = refused(case, tmp_path / "out")
    assert message in line, line


def test_esc50_refuses_folders_of_another_kind(tmp_path):
    case = esc50_case(tmp_path / "esc")
    for file in (tmp_path / "esc" / "audio").iterdir():
        file.unlink()
    line = refused(case, tmp_path / "out")
    assert "audio: has none of the 6 clips of 'esc50'" in line and "such as 1-100032-A-0.wav" in line
    (tmp_path / "esc" / "audio").rmdir()
    assert "audio: no such folder of clips" in refused(case, tmp_path / "out")
    (tmp_path / "esc" / "meta" / "esc50.csv").unlink()
    assert "esc50.csv: is missing. Expected ESC-50's meta/esc50.csv" in refused(case, tmp_path / "out")


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("x", "0", "10")], 'line 4: is not YTID, start_seconds, end_seconds, "positive_labels"'),
        ([("x", "0", "ten", "/m/0jbk")], "line 4: is not YTID"),
        ([("x", "10", "0", "/m/0jbk")], "line 4: the clip begins at 10 s and ends at 0 s"),
        ([("x", "nan", "nan", "/m/0jbk")], "line 4: the clip begins at nan s"),
        ([("../x", "0", "10", "/m/0jbk")], "line 4: '../x' is not a YouTube id"),
        ([("x", "0", "10", "")], "line 4: '' is not a list of class ids"),
        ([("x", "0", "10", "/m/0jbk,/m/none")], "line 4: class id '/m/none' is not in"),
        ([("x", "0", "10", "/m/0jbk"), ("x", "0", "10", "/m/0bt9lr")], "line 5: clip x_0 is listed before"),
        ([], "eval_segments.csv: lists no clips"),
    ],
)
def test_audioset_refuses_segments(tmp_path, rows, message):
    case = audioset_case(tmp_path / "official")
    segments = tmp_path / "eval_segments.csv"
    write_segments(segments, [])
    with open(segments, "a") as stream:
        csv.writer(stream).writerows(rows)
    line = refused(case, tmp_path / "out", "--segments_csv", segments)
    assert message in line, line


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "other.csv: is missing. Expected AudioSet's class_labels_indices.csv"),
        ("mid,name\n", "other.csv: has no column 'index'. Is it AudioSet's class_labels_indices.csv?"),
        ("index,mid,display_name\n", "other.csv: lists no classes"),
        (
            "index,mid,display_name\n0,/m/0jbk,A\n1,/m/0jbl,A\n",
            "other.csv, line 3: class 'A' (/m/0jbl) is listed twice",
        ),
        ("index,mid,display_name\n0,/m/0jbk,A;B\n", "other.csv, line 2: 'A;B' is not a class name"),
    ],
)
def test_audioset_refuses_class_labels(tmp_path, text, message):
    case = audioset_case(tmp_path / "official")
    if text is not None:
        (tmp_path / "other.csv").write_text(text)
    line = refused(case, tmp_path / "out", "--class_labels", tmp_path / "other.csv")
    assert message in line, line


def test_audioset_refuses_files_of_another_kind(tmp_path):
    case = audioset_case(tmp_path / "official")
    labels = tmp_path / "official" / "class_labels_indices.csv"
    assert "line 1: is not YTID" in refused(case, tmp_path / "out", "--segments_csv", labels)
    assert "nowhere.csv: is missing. Expected an official AudioSet segment CSV" in refused(
        case, tmp_path / "out", "--segments_csv", "nowhere.csv"
    )
    (tmp_path / "ids.txt").write_text("KZVnYaoUF3M_70\nelsewhere_10\nelsewhere_20\n")
    line = refused(case, tmp_path / "out", "--ids", tmp_path / "ids.txt")
    assert "ids.txt, line 2: 'elsewhere_10' is not the id of a clip in" in line and "2 such lines" in line
    (tmp_path / "empty.txt").write_text("\n")
    assert "lists no clips" in refused(case, tmp_path / "out", "--ids", tmp_path / "empty.txt")
    assert "is missing. Expected a list of clip ids" in refused(case, tmp_path / "out", "--ids", "nowhere.txt")
    assert "--name 'a/b': is no plain name" in refused(case, tmp_path / "out", "--name", "a/b")
    line = refused(case, tmp_path / "out", "--clips_dir", tmp_path / "out_of_place")
    assert "out_of_place: no such folder of clips" in line
    (tmp_path / "empty").mkdir()
    line = refused(case, tmp_path / "out", "--clips_dir", tmp_path / "empty")
    assert "none of the 7 clips of 'balanced_train'" in line and "such as --4gqARaEJE_0.wav or" in line


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("x", "1.5", "a", "train")], 'line 1: is not YTID, start second, "label", train or test'),
        ([("x", "1", "a", "val")], "line 1: is not YTID"),
        ([("x y", "1", "a", "test")], "line 1: 'x y' is not a YouTube id"),
        ([("x", "1", "", "test")], "line 1: '' is not a class name"),
        ([("x", "1", "a;b", "test")], "line 1: 'a;b' is not a class name, without the delimiter ';'"),
        ([("x", "1", "a", "test"), ("x", "1", "b", "test")], "line 2: clip x_000001 is listed before"),
        ([("x", "1", "a", "test"), ("x", "1", "a", "train")], "line 2: clip x_000001 is in both splits"),
        ([("x", "1", "a", "test")], "vggsound.csv: lists no clips of 'train'"),
        ([("x", "1", "a", "test"), ("---g-f_I2yQ", "1", "a", "train")], "none of the 1 clips of 'test'"),
    ],
)
def test_vggsound_refuses(tmp_path, rows, message):
    case = vggsound_case(tmp_path / "official")
    write_vggsound(tmp_path / "official" / "vggsound.csv", rows)
    line = refused(case, tmp_path / "out")
    assert message in line, line


def test_a_folder_of_another_data_set_is_left_alone(tmp_path):
    vggsound_case(tmp_path / "vgg").run(tmp_path / "out")
    before = results(tmp_path / "out")
    line = error_line(esc50_case(tmp_path / "esc").run(tmp_path / "out", check=None))
    assert "lbl_map.json: has other classes than ESC-50" in line
    assert "hoose another --out_dir" in line
    assert results(tmp_path / "out") == before and not (tmp_path / "out/flac/esc50").exists()


def test_clips_of_two_folders_are_not_mixed(tmp_path):
    case = vggsound_case(tmp_path / "vgg")
    case.run(tmp_path / "out")
    before = results(tmp_path / "out")
    shutil.copytree(tmp_path / "vgg" / "video", tmp_path / "other")
    line = error_line(case.run(tmp_path / "out", "--clips_dir", tmp_path / "other", check=None))
    assert "holds clips of train with clips_dir" in line and "hoose another --out_dir" in line
    assert results(tmp_path / "out") == before
    (tmp_path / "out/flac/train/recipe.json").unlink()
    line = error_line(case.run(tmp_path / "out", check=None))
    assert "no recipe.json that says how they were made: choose another --out_dir" in line


def test_two_sets_of_audioset_share_one_folder(tmp_path):
    case = audioset_case(tmp_path / "official")
    case.run(tmp_path / "out")
    before = (tmp_path / "out/lmdbs/balanced_train.lmdb").read_bytes()
    shutil.copytree(tmp_path / "official/my clips; é", tmp_path / "other")
    case.run(
        tmp_path / "out",
        "--segments_csv",
        write_segments(tmp_path / "eval_segments.csv", SEGMENTS[:2]),
        "--clips_dir",
        tmp_path / "other",
    )
    assert len(LMDBReader(tmp_path / "out/lmdbs/eval.lmdb")) == 2
    assert (tmp_path / "out/lmdbs/balanced_train.lmdb").read_bytes() == before


def test_when_no_clip_can_be_read_an_earlier_lmdb_stays(tmp_path):
    case = vggsound_case(tmp_path / "official")
    case.run(tmp_path / "out", "--splits", "test")
    before = results(tmp_path / "out")
    (tmp_path / "official/video/---g-f_I2yQ_000001.wav").write_text("not audio")
    shutil.rmtree(tmp_path / "out/flac")
    result = case.run(tmp_path / "out", "--splits", "test", check=None)
    assert "test: none of the 1 clips that are there can be read. See above" in error_line(result)
    assert "---g-f_I2yQ_000001.wav: is not audio" in result.stderr and results(tmp_path / "out") == before
