"""predict.py: recordings of any kind, scored as in evaluation."""

import csv
import os

import numpy as np
import pytest
import soundfile
from conftest import FIXTURES, SAMPLE_RATE, error_line, run_script, write_lbl_map
from released import CKPT, FIRST_RECORD, clip

from src.tagging import Tagger

LBL_MAP = FIXTURES / "lbl_map.json"


def predict(*more, check=None):
    return run_script("predict.py", "--ckpt_path", CKPT, "--lbl_map", LBL_MAP, *more, check=check)


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_five_second_clip_gets_the_scores_of_the_evaluation(tmp_path):
    soundfile.write(tmp_path / "a.flac", clip(), SAMPLE_RATE, subtype="PCM_16")
    predict("--audio", tmp_path / "a.flac", "--csv", tmp_path / "a.csv", check=0)
    rows = rows_of(tmp_path / "a.csv")
    assert len(rows) == 18 and {(row["start"], row["end"]) for row in rows} == {("0.000", "5.000")}
    assert np.abs(np.array([float(row["score"]) for row in rows]) - FIRST_RECORD).max() < 1e-5


def test_long_and_very_short_recordings(tmp_path):
    folder = tmp_path / "my recordings; ü"
    folder.mkdir()
    soundfile.write(folder / "long.wav", np.concatenate([clip(k) for k in range(4)]), SAMPLE_RATE)
    soundfile.write(folder / "short.wav", clip()[:2205], SAMPLE_RATE)
    soundfile.write(folder / "one.wav", clip()[:1], SAMPLE_RATE)
    result = predict(
        "--audio", folder, "--csv", tmp_path / "a.csv", "--plot", tmp_path / "a.png", "--hop", 5, "--top_k", 3, check=0
    )
    rows = rows_of(tmp_path / "a.csv")
    starts = sorted({float(row["start"]) for row in rows if row["file"].endswith("long.wav")})
    assert starts == [0, 5, 10, 15] and len(rows) == 18 * (4 + 1 + 1)
    assert len(list(tmp_path.glob("a_*.png"))) == 3 and "20.0 s, 4 windows" in result.stdout
    shown = result.stdout.split("long.wav")[1].splitlines()[1:4]
    scores = [float(line.split()[0]) for line in shown]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    # Scored window by window as each clip alone.
    tagger = Tagger(CKPT, LBL_MAP, hop=5.0)
    soundfile.write(tmp_path / "second.wav", clip(1), SAMPLE_RATE)
    assert np.abs(tagger(folder / "long.wav").scores[1] - tagger(tmp_path / "second.wav").scores[0]).max() < 1e-5


def test_a_threshold_hides_what_does_not_reach_it(tmp_path):
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    shown = [
        line
        for line in predict("--audio", tmp_path / "a.wav", "--threshold", 0.17, check=0).stdout.splitlines()
        if line.startswith("  ")
    ]
    assert len(shown) == sum(score >= 0.17 for score in FIRST_RECORD)


def test_the_checkpoints_own_label_map(trained, tmp_path):
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    ckpt = next((trained / "r1").rglob("epoch=01*.ckpt"))
    result = run_script("predict.py", "--ckpt_path", ckpt, "--audio", tmp_path / "a.wav", "--top_k", 9, check=0)
    assert sorted(line.split()[1] for line in result.stdout.splitlines()[1:]) == ["Drum", "Harp", "Organ"]


def test_what_cannot_be_read_is_reported_and_the_rest_is_tagged(tmp_path):
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    (tmp_path / "b.wav").write_text("not audio")
    soundfile.write(tmp_path / "c.wav", np.zeros(0), SAMPLE_RATE)
    for name in ("d.mp3", "e.ogg", "f.flac"):
        soundfile.write(tmp_path / name, np.concatenate([clip(0), clip(1)]), SAMPLE_RATE)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
    (tmp_path / "h.raw").write_bytes(bytes(1000))
    result = predict("--audio", tmp_path, tmp_path / "h.raw", "--csv", tmp_path / "out.csv")
    assert "6 of 7 recordings could not be read" in error_line(result)
    assert "b.wav: is not audio" in result.stderr and "c.wav: is empty" in result.stderr
    assert all(f"{name}: is truncated" in result.stderr for name in ("d.mp3", "e.ogg"))
    assert "f.flac: is not audio, or is truncated" in result.stderr and "h.raw: is not audio" in result.stderr
    assert "a.wav" in result.stdout
    rows = [row for row in rows_of(tmp_path / "out.csv") if row["file"].endswith("a.wav")]
    assert len(rows) == 18


def test_predicting_refuses(tmp_path, trained):
    ckpt = next((trained / "r1").rglob("epoch=01*.ckpt"))
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    (tmp_path / "empty").mkdir()
    line = error_line(run_script("predict.py", "--ckpt_path", CKPT, "--audio", tmp_path / "a.wav"))
    assert "carries no label map" in line and "--lbl_map" in line
    line = error_line(predict("--audio", tmp_path / "a.wav", "--lbl_map", "meta/lbl_map.json"))
    assert "model.num_classes is 18, but the label map meta/lbl_map.json has 51 classes" in line
    line = error_line(
        run_script(
            "predict.py",
            "--ckpt_path",
            ckpt,
            "--audio",
            tmp_path / "a.wav",
            "--lbl_map",
            write_lbl_map(tmp_path / "other.json", ("Harp", "Drum", "Organ")),
        )
    )
    assert "class 0 is 'Harp'" in line and "was trained with 'Drum' there" in line
    line = error_line(predict("--audio", tmp_path / "a.wav", "--plot", "out.xyz"))
    assert "--plot out.xyz: a picture ends in" in line
    assert "is a folder" in error_line(predict("--audio", tmp_path / "a.wav", "--csv", tmp_path))
    (tmp_path / "cut.ckpt").write_bytes(CKPT.read_bytes()[:5000])
    line = error_line(run_script("predict.py", "--ckpt_path", tmp_path / "cut.ckpt", "--audio", tmp_path / "a.wav"))
    assert "is not a checkpoint, or is truncated" in line
    assert "no audio files in this folder" in error_line(predict("--audio", tmp_path / "empty"))
    assert "nowhere.wav: no such file or folder" in error_line(predict("--audio", "nowhere.wav"))
    assert "no where.wav: no such file or folder" in error_line(predict("--audio", "no\nwhere.wav"))


@pytest.mark.parametrize("of", ["windows", "recordings"])
def test_embeddings_are_written_for_windows_or_recordings(tmp_path, of):
    names = ["long.wav", os.fsdecode(b"odd\xff.wav"), "short.wav"]
    for name, samples in zip(names, (np.concatenate([clip(0), clip(1)]), clip(2), clip(3)[:2205])):
        with open(tmp_path / name, "wb") as file:
            soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    (tmp_path / "broken.wav").write_text("not audio")
    given = ("--audio", tmp_path, "--embeddings", tmp_path / "e.npz", "--csv", tmp_path / "s.csv")
    result = predict(*given, "--embeddings_of", of)
    assert "1 of 4 recordings could not be read" in error_line(result)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as stored:
        found = dict(stored)
    tagged = [Tagger(CKPT, LBL_MAP)(tmp_path / name) for name in names]
    if of == "windows":
        rows = [(each.path, *row) for each in tagged for row in zip(each.embeddings, each.starts, each.ends)]
    else:
        rows = [(each.path, each.embeddings.mean(axis=0), 0, each.ends[-1]) for each in tagged]
    files, embeddings, starts, ends = zip(*rows)
    assert found.keys() == {"embeddings", "files", "starts", "ends"}
    assert found["embeddings"].dtype == np.float32 and np.array_equal(found["embeddings"], embeddings)
    assert found["files"].tolist() == list(map(str, files))
    assert np.array_equal(found["starts"], starts) and np.array_equal(found["ends"], ends)
    # The same windows have their scores in the table.
    lines = (tmp_path / "s.csv").read_bytes().count(b"\n")
    assert lines == 1 + 18 * sum(len(each.starts) for each in tagged)


def test_embeddings_of_nothing_are_an_empty_array(tmp_path):
    (tmp_path / "broken.wav").write_text("not audio")
    error_line(predict("--audio", tmp_path / "broken.wav", "--embeddings", tmp_path / "e.npz"))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as stored:
        assert stored["embeddings"].shape == (0, 128) and len(stored["files"]) == 0


def test_scores_in_a_program_are_those_of_the_command(tmp_path):
    samples = np.stack([np.concatenate([clip(0), clip(1)]), np.concatenate([clip(2), clip(3)])], axis=1)
    soundfile.write(tmp_path / "a.flac", samples, 44100)
    predict("--audio", tmp_path / "a.flac", "--csv", tmp_path / "s.csv", "--embeddings", tmp_path / "e.npz", check=0)
    tagger = Tagger(CKPT, LBL_MAP)
    samples, rate = soundfile.read(tmp_path / "a.flac", dtype="float32")
    told = [row["score"] for row in rows_of(tmp_path / "s.csv")]
    assert [f"{score:.6f}" for score in tagger.scores(samples, rate).ravel()] == told
    with np.load(tmp_path / "e.npz") as stored:
        assert np.array_equal(stored["embeddings"], tagger.embeddings(samples, rate))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(tmp_path, device):
    soundfile.write(tmp_path / "a.wav", clip(), SAMPLE_RATE)
    line = error_line(predict("--audio", tmp_path / "a.wav", "--device", device))
    assert f"PyTorch cannot use '{device}' here" in line and "'cpu' is always there" in line
