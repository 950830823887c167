"""Linear classifiers on embeddings: what they score, how folds are kept apart, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import CLASSES, FIXTURES, SAMPLE_RATE, error_line, run_script, tone_clip, write_lbl_map
from released import CKPT, LMDB, clip
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from src.data.audio.files import encode
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.models.checkpoint import read_checkpoint
from src.scoring.bootstrap import interval
from src.scoring.predictions import InferenceOptions
from src.scoring.probe import STRENGTHS, Clips, ProbeOptions, embedded, linear_probe, scored
from src.tagging import Tagger

ESC50 = FIXTURES / "released_esc50_layout.lmdb"


def pack(path, labels, folds, length=8000):
    """An LMDB of tones. A label is names, or an index of CLASSES."""
    with LMDBWriter(path) as writer:
        for number, (label, fold) in enumerate(zip(labels, folds)):
            names = [CLASSES[label]] if isinstance(label, int) else [name for name in label.split(",") if name]
            flac = encode(tone_clip(names, number, length), SAMPLE_RATE, "FLAC")
            writer.add(Record(flac, label, fold))
    return path


def probe(*words, check=None):
    """Run the command on a checkpoint of other classes, without loader processes."""
    return run_script("scripts/linear_probe.py", "--ckpt_path", CKPT, "--num_workers", 0, *words, check=check)


def folds_of(count, num_folds=3):
    return [1 + number // 3 % num_folds for number in range(count)]


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["names", "numbers", "several"])
def test_the_classes_are_those_of_the_clips(tmp_path, kind):
    """Three tones, which a network that was trained on other classes tells apart."""
    labels = {
        "names": [CLASSES[number % 3] for number in range(18)],
        "numbers": [number % 3 for number in range(18)],
        "several": [["Drum,Harp", "Harp", "Organ", "", "Drum", "Harp,Organ"][number % 6] for number in range(18)],
    }[kind]
    lmdb = pack(tmp_path / "a.lmdb", labels, folds_of(18))
    found = probe("--lmdb_path", lmdb, "--json", tmp_path / "p.json", check=0)
    figures = json.loads((tmp_path / "p.json").read_text())
    score = "mAP" if kind == "several" else "accuracy"
    assert figures["score"] == score and figures["classes"] == 3
    assert [(fold["name"], fold["clips"]) for fold in figures["folds"]] == [("1", 6), ("2", 6), ("3", 6)]
    scores = [fold["score"] for fold in figures["folds"]]
    assert np.isclose(figures["mean"], np.mean(scores)) and np.isclose(figures["std"], np.std(scores, ddof=1))
    assert figures["low"] <= figures["pooled"] <= figures["high"] and figures["pooled"] > 0.8
    assert f"{score} over folds: {figures['mean']:.4f}" in found.stdout
    assert f"95 % interval {figures['low']:.4f} … {figures['high']:.4f}" in found.stdout
    assert found.stdout == probe("--lmdb_path", lmdb, check=0).stdout


@pytest.mark.processes
def test_without_folds_another_lmdb_is_scored(tmp_path):
    labels = [CLASSES[number % 3] for number in range(15)]
    train = pack(tmp_path / "train.lmdb", labels, [None] * 15)
    test = pack(tmp_path / "test.lmdb", labels[:6], [None] * 6, length=9000)
    line = error_line(probe("--lmdb_path", train))
    assert f"{train}: its records are not of several folds" in line and "--eval_lmdb" in line
    assert "is --lmdb_path itself" in error_line(probe("--lmdb_path", train, "--eval_lmdb", train))
    probe("--lmdb_path", train, "--eval_lmdb", test, "--json", tmp_path / "p.json", check=0)
    figures = json.loads((tmp_path / "p.json").read_text())
    assert [(fold["name"], fold["clips"]) for fold in figures["folds"]] == [(str(test), 6)]
    assert figures["std"] is None and figures["mean"] == figures["pooled"] > 0.6


@pytest.mark.processes
def test_clips_in_the_layout_of_2021_and_their_label_map(tmp_path):
    classes = [str(number) for number in range(50)]
    more = ("--lbl_map", write_lbl_map(tmp_path / "m.json", classes), "--json", tmp_path / "p.json")
    probe("--lmdb_path", ESC50, *more, "--bootstrap", 5, "--num_timesteps", 100, check=0)
    figures = json.loads((tmp_path / "p.json").read_text())
    assert figures["classes"] == 50 and [fold["name"] for fold in figures["folds"]] == list("12345")


@pytest.mark.processes
def test_what_cannot_be_probed_is_refused_in_one_line(tmp_path):
    one = pack(tmp_path / "one.lmdb", ["Drum"] * 4, [1, 1, 2, 2])
    assert "its clips have 1 classes, and a classifier needs two" in error_line(probe("--lmdb_path", one))
    both = pack(tmp_path / "both.lmdb", ["Drum", 1, "Harp", 0], [1, 1, 2, 2])
    assert "some of its labels are names, others numbers" in error_line(probe("--lmdb_path", both))
    few = pack(tmp_path / "few.lmdb", ["Drum", "Drum", "Harp", "Harp"], [1, 1, 2, 2])
    assert "all have the same classes" in error_line(probe("--lmdb_path", few))
    far = pack(tmp_path / "far.lmdb", [0, 1, 2, 0], [1, 1, 2, 2])
    other = write_lbl_map(tmp_path / "m.json", ("Drum", "Harp"))
    line = error_line(probe("--lmdb_path", far, "--lbl_map", other))
    assert "class index 2 is outside 0 to 1" in line and "record 2" in line
    assert "no such LMDB" in error_line(probe("--lmdb_path", tmp_path / "none.lmdb"))


@pytest.mark.processes
def test_bad_records_are_left_out_where_asked(tmp_path):
    labels = [CLASSES[number % 3] for number in range(18)]
    lmdb = tmp_path / "a.lmdb"
    with LMDBWriter(lmdb) as writer:
        for number, (label, fold) in enumerate(zip(labels, folds_of(18))):
            flac = encode(tone_clip([label], number, 8000), SAMPLE_RATE, "FLAC")
            writer.add(Record(b"no audio" if number == 4 else flac, label, fold))
    assert "record 4" in error_line(probe("--lmdb_path", lmdb))
    result = probe("--lmdb_path", lmdb, "--skip_bad_records", "--json", tmp_path / "p.json", check=0)
    assert "skipped: " in result.stderr
    assert [fold["clips"] for fold in json.loads((tmp_path / "p.json").read_text())["folds"]] == [6, 5, 6]


@pytest.mark.processes
def test_clips_that_the_network_was_trained_on_are_told(corpus, trained):
    run = trained / "r1/mixup/tiny/train_8"
    words = ("scripts/linear_probe.py", "--ckpt_path", run, "--num_workers", 0, "--bootstrap", 3)
    for evaluated, known in (("train_8", True), ("eval", False)):
        more = ("--lmdb_path", corpus / "val.lmdb", "--eval_lmdb", corpus / f"{evaluated}.lmdb")
        result = run_script(*words, *more, check=0)
        assert (f"{evaluated}.lmdb: the network was trained or validated on these clips" in result.stderr) == known


def test_training_tells_in_the_score(tmp_path):
    """The released network, and the same one as its run drew it."""
    records = LMDBReader(LMDB)
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        for number in range(len(records)):
            writer.add(Record(records[number].flac, records[number].label, 1 + number % 2))
    clips = InferenceOptions(str(tmp_path / "a.lmdb"), num_timesteps=250, num_workers=0)
    trained, untrained = (
        linear_probe(ProbeOptions(str(CKPT), untrained=given, bootstrap=3), clips) for given in (False, True)
    )
    assert trained.mean > untrained.mean + 0.03 and trained.pooled > untrained.pooled + 0.03


def test_embeddings_of_clips_are_those_of_recordings(tmp_path):
    lmdb = tmp_path / "a.lmdb"
    with LMDBWriter(lmdb) as writer:
        for number in range(3):
            writer.add(Record(encode(clip(number), SAMPLE_RATE, "FLAC"), number, 1 + number))
    checkpoint = replace(read_checkpoint(CKPT), label_map=LabelMap.load(FIXTURES / "lbl_map.json"))
    found = embedded(checkpoint.network(), checkpoint, InferenceOptions(str(lmdb), num_workers=0), [])
    tagger = Tagger(CKPT, FIXTURES / "lbl_map.json")
    for number in range(3):
        expected = tagger.embeddings(clip(number), SAMPLE_RATE)
        assert np.allclose(found.embeddings[number], expected[0], atol=1e-4)
    assert found.folds.tolist() == [1, 2, 3]


def clips_of(count, classes, num_folds, spread, seed=0):
    """Embeddings around one point a class."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    centres = rng.standard_normal((classes, 8))
    return Clips(
        centres[targets] + spread * rng.standard_normal((count, 8)), targets, np.array(folds_of(count, num_folds))
    )


def test_a_fold_is_scored_by_what_was_trained_on_the_others():
    clips = clips_of(90, 3, 3, 1.5)
    found = scored([clips], 3, ["a.lmdb"], ProbeOptions("a.ckpt", bootstrap=200))
    right = []
    for fold in found.folds:
        train, test = (clips[clips.folds != int(fold.name)], clips[clips.folds == int(fold.name)])
        scale = StandardScaler().fit(train.embeddings)
        model = LogisticRegression(C=fold.strength, max_iter=1000)
        model.fit(scale.transform(train.embeddings), train.targets)
        right.append(model.predict(scale.transform(test.embeddings)) == test.targets)
        assert np.isclose(right[-1].mean(), fold.score) and fold.strength in STRENGTHS
    right = np.concatenate(right)
    rng = np.random.default_rng(5)
    drawn = np.array([right[rng.integers(len(right), size=len(right))].mean() for _ in range(2000)])
    assert np.isclose(found.pooled, right.mean())
    assert np.allclose((found.low, found.high), interval(drawn), atol=0.04)


def test_labels_without_a_cause_are_guessed():
    """What was seen in training would be known by heart."""
    clips = clips_of(120, 2, 4, 1)
    rng = np.random.default_rng(1)
    noise = Clips(rng.standard_normal((120, 60)), rng.permutation(clips.targets), clips.folds)
    assert scored([noise], 2, ["a.lmdb"], ProbeOptions("a.ckpt", bootstrap=5)).pooled < 0.65


def test_classes_that_a_fold_lacks_are_left_to_the_others():
    clips = clips_of(60, 3, 2, 0.1)
    lacking = clips[(clips.targets != 2) | (clips.folds == 1)]
    found = scored([lacking], 3, ["a.lmdb"], ProbeOptions("a.ckpt", bootstrap=5))
    assert [fold.clips for fold in found.folds] == [30, 20]
    assert found.folds[0].score == pytest.approx(2 / 3) and found.folds[1].score == 1
