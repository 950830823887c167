"""Log-mels through the commands: what a checkpoint says of them is used wherever it is."""

import csv
import json
import shutil

import pytest
import soundfile
import torch
from conftest import CLASSES, SAMPLE_RATE, cfg_tree, error_line, run_script, tone_clip, train_command, write_cfg

from src.config.loading import load_config
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.learning.normalisation import normalised
from src.models.checkpoint import read_checkpoint
from src.runs.folder import checkpoint_at
from src.scoring.predictions import Candidate, InferenceOptions, predictions

MEASURED = "the log-mels have a mean of"
LOGMEL = {"feature": "logmel", "hop_len": 441, "n_mels": 32}
FRAMES = 35  # of a clip


@pytest.fixture(scope="module")
def place(corpus, tmp_path_factory):
    """A folder with LMDBs of its own, logmel.cfg, and `run`, a run of two epochs."""
    place = tmp_path_factory.mktemp("logmel")
    for name in ("train", "val"):
        shutil.copy(corpus / f"{name}.lmdb", place)
    tree = cfg_tree(corpus) | {"audio_config": LOGMEL}
    tree["data"] |= {"train_lmdb": str(place / "train.lmdb"), "val_lmdb": str(place / "val.lmdb")}
    write_cfg(place / "logmel.cfg", tree)
    assert MEASURED in train(place, place / "run", "--num_workers", 2, epochs=2).stderr
    return place


def train(place, folder, *more, epochs=1, check=0):
    return run_script(*train_command(None, folder, *more, epochs=epochs, cfg=place / "logmel.cfg"), check=check)


def table(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def metrics(folder):
    return (folder / "logs/metrics.csv").read_text()


def level(folder):
    audio = json.loads((folder / "run.json").read_text())["cfg"]["audio_config"]
    return audio["mean"], audio["std"]


def test_a_run_and_its_checkpoints_hold_what_was_measured(place):
    config = load_config(place / "logmel.cfg")
    audio = normalised(config, LabelMap.load(config.data.label_map_path()), 0, 0).audio_config
    assert level(place / "run") == (audio.mean, audio.std)
    assert read_checkpoint(checkpoint_at(place / "run")).config.audio_config == audio
    assert audio.mean is not None and (place / ".train.lmdb.logmel.json").is_file()


def test_the_next_run_is_the_same_without_measuring_and_so_is_one_that_is_told(place, tmp_path):
    mean, std = level(place / "run")
    told = "--set", f"audio_config.mean={mean}", "--set", f"audio_config.std={std}"
    for name, more in (("next", ()), ("told", told)):
        assert MEASURED not in train(place, tmp_path / name, *more, epochs=2).stderr
        assert metrics(tmp_path / name) == metrics(place / "run")


def test_device_and_workers_train_nearly_alike(place, tmp_path):
    train(place, tmp_path / "run", "--features", "device", epochs=2)
    losses = [
        [float(row["train_loss"]) for row in table(at / "logs/metrics.csv")] for at in (place / "run", tmp_path / "run")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_resumed_run_takes_its_record_wherever_the_clips_are(place, tmp_path):
    train(place, tmp_path / "run")
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "train.lmdb"
    shutil.copy(place / "train.lmdb", moved)
    resumed = train(place, tmp_path / "run", "--set", f"data.train_lmdb={moved}", epochs=2)
    assert MEASURED not in resumed.stderr and not (moved.parent / ".train.lmdb.logmel.json").exists()
    assert metrics(tmp_path / "run") == metrics(place / "run")
    first, second = (checkpoint_at(folder / "run") for folder in (place, tmp_path))
    one, other = (read_checkpoint(path).weights for path in (first, second))
    assert first.name == second.name and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "keys, name",
    [
        (("mean=0", "std=1"), "audio_config.mean"),
        (("n_mels=16",), "audio_config.n_mels"),
        (("f_min=50",), "audio_config.f_min"),
        (("feature=melspectrogram", "n_mels=None"), "audio_config.feature"),
    ],
)
def test_a_folder_of_other_log_mels_is_refused(place, keys, name):
    sets = [word for key in keys for word in ("--set", f"audio_config.{key}")]
    assert f"belongs to another run, with {name}" in error_line(
        train(place, place / "run", *sets, epochs=3, check=None)
    )


@pytest.mark.parametrize("mean", ["soft", float("nan"), [1], True])
def test_a_damaged_record_is_named(place, tmp_path, mean):
    shutil.copytree(place / "run", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["cfg"]["audio_config"]["mean"] = mean
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    line = error_line(train(place, tmp_path / "run", epochs=3, check=None))
    assert "run.json" in line and "audio_config.mean" in line


@pytest.fixture
def alone(place, tmp_path, corpus):
    """The run, without its clips, their notes and its cfg. And clips to score it on."""
    gone = place.rename(place.with_name("gone"))
    shutil.copytree(gone / "run", tmp_path / "run")
    shutil.copy(corpus / "eval.lmdb", tmp_path)
    yield tmp_path
    gone.rename(place)


def test_a_checkpoint_is_scored_alike_in_workers_and_on_the_device(alone):
    scores = []
    for features in ("workers", "device"):
        words = ("--exp_dir", alone / "run", "--lmdb_path", alone / "eval.lmdb", "--num_workers", 0)
        to = ("--results_csv", alone / f"{features}.csv", "--features", features, "--untrained")
        result = run_script("eval_gise_mixtures.py", *words, *to, check=0)
        assert f"scored: {FRAMES} frames (0.7 s) from the centre" in result.stderr
        rows = table(alone / f"{features}.csv")
        assert len(rows) == 3 and {row["num_timesteps"] for row in rows} == {str(FRAMES)}
        scores.append([float(row["mAP"]) for row in rows])
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_runs_of_several_features_are_scored_each_on_its_own_frames(alone, corpus):
    run_script(*train_command(corpus, alone / "exp/spectrogram"), check=0)
    (alone / "run").rename(alone / "exp/logmel")
    words = ("--exp_dir", alone / "exp", "--lmdb_path", alone / "eval.lmdb", "--best_only", "--num_workers", 0)
    run_script("eval_gise_mixtures.py", *words, "--results_csv", alone / "a.csv", check=0)
    frames = {
        row["ckpt_path"].split("/ckpts")[0].split("/")[-1]: row["num_timesteps"] for row in table(alone / "a.csv")
    }
    assert frames == {"spectrogram": "501", "logmel": str(FRAMES)}
    before = (alone / "a.csv").read_text()
    run_script("eval_gise_mixtures.py", *words, "--results_csv", alone / "a.csv", check=0)
    assert (alone / "a.csv").read_text() == before
    compared = ("--ckpt_path", alone / "exp/spectrogram", "--other_ckpt_path", alone / "exp/logmel")
    clips = ("--lmdb_path", alone / "eval.lmdb", "--bootstrap", 20)
    assert "mAP" in run_script("scripts/compare_checkpoints.py", *compared, *clips, check=0).stdout


def test_a_recording_is_tagged_as_its_clip_is_evaluated(alone):
    samples = tone_clip(["Harp"], 1, length=2 * SAMPLE_RATE)
    soundfile.write(alone / "a.flac", samples, SAMPLE_RATE, subtype="PCM_16")
    with LMDBWriter(alone / "a.lmdb") as writer:
        writer.add(Record((alone / "a.flac").read_bytes(), "Harp"))
    words = ("--ckpt_path", alone / "run", "--audio", alone / "a.flac", "--csv", alone / "a.csv", "--window", 2)
    run_script("predict.py", *words, "--plot", alone / "a.png", check=0)
    tagged = {row["class"]: float(row["score"]) for row in table(alone / "a.csv")}
    options = InferenceOptions(str(alone / "a.lmdb"), num_workers=0)
    (scored,) = predictions([Candidate(checkpoint_at(alone / "run"))], options)
    assert [tagged[name] for name in CLASSES] == pytest.approx(scored.probabilities[0].tolist(), abs=1e-4)
    assert (alone / "a.png").is_file()


def test_log_mels_of_a_pretrained_network_are_those_of_the_new_clips(place, tmp_path):
    clips = tmp_path / "other.lmdb"
    shutil.copy(place / "val.lmdb", clips)
    result = train(place, tmp_path / "run", "--pretrained", place / "run", "--set", f"data.train_lmdb={clips}")
    assert MEASURED in result.stderr and level(tmp_path / "run") != level(place / "run")
