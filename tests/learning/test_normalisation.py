"""Mean and deviation of log-mels: measured once, of the clips that a run trains on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import CLASSES, SAMPLE_RATE, cfg_tree, tone_clip

from src.config.loading import parse_config
from src.data.audio.files import encode
from src.data.audio.spectrogram import FeatureExtractor
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.data.transforms import Compose
from src.errors import UserError
from src.learning import normalisation
from src.learning.normalisation import measure, normalised

LABELS = LabelMap(CLASSES)
CLIPS = [10 ** (-number / 20) * tone_clip([CLASSES[number % 3]], number, 4000) for number in range(9)]


def write(path, clips=CLIPS, folds=True):
    with LMDBWriter(path) as writer:
        for number, clip in enumerate(clips):
            record = Record(encode(clip, SAMPLE_RATE, "FLAC"), CLASSES[number % 3], number % 3 + 1 if folds else None)
            writer.add(record)
    return path


@pytest.fixture
def config(tmp_path):
    """Of log-mels of train.lmdb, whose records have the folds 1 to 3, each softer than the one before."""
    write(tmp_path / "train.lmdb")
    return parse_config(cfg_tree(tmp_path) | {"audio_config": {"feature": "logmel", "n_mels": 32}}, "a.cfg")


def level(config, clips):
    """Mean and deviation of the clips' features, all at once."""
    extractor = FeatureExtractor.of(config.audio_config)
    features = np.concatenate([extractor(clip).ravel() for clip in clips])
    return pytest.approx((features.mean(), features.std()), abs=2e-3)


def found(config, **options):
    audio = normalised(config, LABELS, 0, 1, **options).audio_config
    return audio.mean, audio.std


@pytest.fixture
def measurements(monkeypatch):
    """The number of clips of each measurement."""
    counts = []

    def counted(dataset, num_workers):
        counts.append(len(dataset))
        return measure(dataset, num_workers)

    monkeypatch.setattr(normalisation, "measure", counted)
    return counts


def test_they_are_those_of_all_clips_and_nothing_else_of_the_cfg_changes(config):
    mean, std = found(config)
    assert (mean, std) == level(config, CLIPS)
    assert normalised(config, LABELS, 0, 1) == replace(
        config, audio_config=replace(config.audio_config, mean=mean, std=std)
    )
    with_them = FeatureExtractor.of(normalised(config, LABELS, 0, 1).audio_config)
    features = np.concatenate([with_them(clip).ravel() for clip in CLIPS])
    assert (features.mean(), features.std()) == pytest.approx((0, 1), abs=1e-3)


@pytest.mark.processes
def test_any_number_of_processes_finds_the_same(config):
    dataset = LMDBDataset(config.data.train_lmdb, config.audio_config, LABELS, "multilabel", Compose(()))
    assert measure(dataset, 1) == measure(dataset, 2) == found(config)


def test_many_clips_are_measured_at_even_distances(config, monkeypatch):
    monkeypatch.setattr(normalisation, "MOST", 3)
    assert found(config) == level(config, [CLIPS[0], CLIPS[4], CLIPS[8]])


def test_of_folds_the_training_ones_are_measured(config, measurements):
    for fold in (1, 2, 3, 1):
        training = [clip for number, clip in enumerate(CLIPS) if number % 3 + 1 != fold]
        assert found(config, fold=fold) == level(config, training)
    assert found(config) == level(config, CLIPS) and measurements == [6, 6, 6, 9]


def test_a_note_keeps_them_for_each_setting(config, measurements, tmp_path):
    settings = ({}, {"n_mels": 16}, {"f_min": 100.0}, {"f_max": 8000.0}, {"hop_len": 441}, {"n_fft": 2048})
    kinds = [replace(config, audio_config=replace(config.audio_config, **each)) for each in settings]
    first = [found(kind) for kind in kinds]
    assert len(set(first)) == len(kinds) == len(measurements)
    assert [found(kind) for kind in kinds] == first and len(measurements) == len(kinds)
    assert (tmp_path / ".train.lmdb.logmel.json").is_file()


def test_what_is_no_feature_changes_nothing(config, measurements):
    audio, data = config.audio_config, config.data
    found(config)
    for other in (
        replace(config, audio_config=replace(audio, precompute_features=True)),
        replace(config, audio_config=replace(audio, mixup=True)),
        replace(config, data=replace(data, in_memory=False)),
    ):
        assert found(other) == found(config)
    assert len(measurements) == 1


def test_another_file_is_measured_anew(config, measurements, tmp_path):
    loud = found(config)
    write(tmp_path / "soft.lmdb", [clip / 100 for clip in CLIPS])
    (tmp_path / "soft.lmdb").replace(tmp_path / "train.lmdb")
    soft = found(config)
    assert soft[0] < loud[0] - 30
    assert found(config) == soft and len(measurements) == 2


@pytest.mark.parametrize(
    "kept",
    [
        None,
        3,
        "text",
        [],
        {},
        [None, None],
        ["a", 2],
        [1],
        [1, 2, 3],
        [-40, 0],
        [-40, -1],
        [float("nan"), 1],
        [1e300, 1],
        [10**400, 1],
    ],
)
def test_a_note_that_somebody_else_wrote_is_written_anew(config, measurements, tmp_path, kept):
    right, note = found(config), tmp_path / ".train.lmdb.logmel.json"
    content = json.loads(note.read_text())
    (key,) = content["logmel"]
    for damaged in (content | {"logmel": {key: kept}}, content | {"logmel": kept}, kept):
        note.write_text(json.dumps(damaged))
        assert found(config) == right == found(config)
    assert len(measurements) == 4


def test_a_folder_that_takes_no_notes_costs_a_measurement(config, measurements, tmp_path):
    (tmp_path / ".train.lmdb.logmel.json").mkdir()
    assert found(config) == found(config) and len(measurements) == 2


def test_an_lmdb_in_a_folder_has_its_note_inside(config, measurements, tmp_path):
    (tmp_path / "sub").mkdir()
    shutil.copy(tmp_path / "train.lmdb", tmp_path / "sub" / "data.mdb")
    inside = replace(config, data=replace(config.data, train_lmdb=str(tmp_path / "sub")))
    assert found(inside) == found(inside) == found(config) and len(measurements) == 2


@pytest.mark.parametrize("tiled", [None, 0.5])
def test_a_manifest_is_measured_without_a_note(config, measurements, tmp_path, tiled):
    rows = ["files,labels"]
    for number, clip in enumerate(CLIPS):
        (tmp_path / f"{number}.flac").write_bytes(encode(clip, SAMPLE_RATE, "FLAC"))
        rows.append(f"{tmp_path / str(number)}.flac,Drum")
    manifest = tmp_path / "train.csv"
    manifest.write_text("\n".join(rows) + "\n")
    before = set(tmp_path.iterdir())
    data = replace(config.data, is_lmdb=False, train_manifest=str(manifest), val_manifest=str(manifest))
    listed = replace(config, data=data, audio_config=replace(config.audio_config, min_duration=tiled))
    clips = CLIPS if tiled is None else [np.resize(clip, 11025) for clip in CLIPS]
    assert found(listed) == found(listed) == level(config, clips) and len(measurements) == 2
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("audio", [{"feature": "spectrogram"}, {"feature": "logmel", "mean": -40.0, "std": 16.0}])
def test_nothing_is_measured_where_nothing_is_missing(config, measurements, audio):
    other = parse_config(config.as_dict() | {"audio_config": audio}, "a.cfg")
    assert normalised(other, LABELS, 0, 1) is other and not measurements


def test_silence_has_no_deviation(config, tmp_path):
    write(tmp_path / "silent.lmdb", [np.zeros(4000)] * 3)
    silent = replace(config, data=replace(config.data, train_lmdb=str(tmp_path / "silent.lmdb")))
    with pytest.raises(UserError, match=r"silent.lmdb: its clips are all silent.* set audio_config.mean and std"):
        found(silent)


def test_a_broken_record_is_named_or_left_out(config, tmp_path):
    with LMDBWriter(tmp_path / "broken.lmdb") as writer:
        for number, clip in enumerate(CLIPS):
            flac = encode(clip, SAMPLE_RATE, "FLAC")
            writer.add(Record(b"none" if number == 4 else flac, CLASSES[number % 3]))
    broken = replace(config, data=replace(config.data, train_lmdb=str(tmp_path / "broken.lmdb")))
    with pytest.raises(UserError, match="broken.lmdb, record 4"):
        found(broken)
    assert found(broken, skip_bad_records=True) == level(config, CLIPS[:4] + CLIPS[5:])
