"""Clips as examples: every storage gives the same, and no worker changes what is drawn."""

import csv
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import FIXTURES, SAMPLE_RATE, cfg_tree, tone_clip, write_folder

from src.config.loading import load_config
from src.config.sections import AudioConfig
from src.data.audio.files import encode, read_mono
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset, LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb import read_ahead
from src.data.lmdb.fingerprint import fingerprint
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.data.loading import loader, open_dataset
from src.data.manifest_dataset import ManifestDataset
from src.data.sampling import EpochSampler
from src.data.transforms import evaluation_chain, training_chain
from src.errors import UserError
from src.preparation.packing import pack_mixtures

AUDIO = AudioConfig(min_duration=0.5)


def labels_of(corpus):
    return LabelMap.load(corpus / "meta" / "lbl_map.json")


def manifest(corpus, path, split="train"):
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["files", "labels"])
        for file in sorted((corpus / split).glob("*.flac")):
            events = file.with_suffix(".txt").read_text().splitlines()
            writer.writerow([file, ",".join(line.split("\t")[2] for line in events)])
    return path


def test_every_storage_gives_the_same_examples(corpus, tmp_path):
    arguments = (AUDIO, labels_of(corpus), "multilabel", training_chain(64), 5)
    lmdb = str(corpus / "train.lmdb")
    precomputed = (AudioConfig(min_duration=0.5, precompute_features=True), *arguments[1:])
    sets = [
        InMemoryLMDBDataset(lmdb, *arguments),
        LMDBDataset(lmdb, *arguments),
        ManifestDataset(str(manifest(corpus, tmp_path / "train.csv")), *arguments),
        InMemoryLMDBDataset(lmdb, *precomputed),
    ]
    assert [len(one) for one in sets] == [12] * 4
    for index in range(12):
        spectrogram, target = sets[0][3, index]
        assert spectrogram.shape == (221, 64) and spectrogram.dtype == np.float32 and target.sum() >= 1
        for other in sets[1:]:
            assert np.array_equal(other[3, index][0], spectrogram) and np.array_equal(other[3, index][1], target)


def test_the_configuration_chooses_the_storage(corpus, tmp_path):
    common = labels_of(corpus), evaluation_chain(64)
    config, lmdb = load_config(corpus / "tiny.cfg"), str(corpus / "val.lmdb")
    assert type(open_dataset(config, lmdb, *common)) is InMemoryLMDBDataset
    on_disk = load_config(corpus / "tiny.cfg", ["data.in_memory=False"])
    assert type(open_dataset(on_disk, lmdb, *common)) is LMDBDataset
    path = str(manifest(corpus, tmp_path / "a.csv"))
    of_files = ["data.is_lmdb=False", f"data.train_manifest={path}", f"data.val_manifest={path}"]
    config_of_files = load_config(corpus / "tiny.cfg", of_files)
    assert type(open_dataset(config_of_files, path, *common)) is ManifestDataset
    assert type(open_dataset(config, path, *common, is_lmdb=False)) is ManifestDataset  # whatever it was trained on
    assert type(open_dataset(config_of_files, lmdb, *common, is_lmdb=True)) is InMemoryLMDBDataset


def test_a_manifest_has_the_fingerprint_of_an_lmdb_of_the_same_files_without_events(corpus, tmp_path):
    path = str(manifest(corpus, tmp_path / "a.csv", "val"))
    dataset = ManifestDataset(path, AUDIO, labels_of(corpus), "multilabel", evaluation_chain(64))
    assert dataset.fingerprint(wait=False) is None
    pack_mixtures([str(corpus / "val")], str(tmp_path / "val.lmdb"), min_duration=0.5, keep_events=False)
    assert dataset.fingerprint() == fingerprint(LMDBReader(tmp_path / "val.lmdb"))
    assert dataset.fingerprint() != fingerprint(LMDBReader(corpus / "val.lmdb"))  # which has events too


def test_a_file_that_changes_while_a_manifest_is_in_use_changes_its_fingerprint(corpus, tmp_path):
    copy = shutil.copy(next((corpus / "val").glob("*.flac")), tmp_path)
    (tmp_path / "a.csv").write_text(f"files,labels\n{copy},Drum\n")
    dataset = ManifestDataset(str(tmp_path / "a.csv"), AUDIO, labels_of(corpus), "multilabel", evaluation_chain(64))
    before = dataset.fingerprint()
    times = os.stat(copy)
    Path(copy).write_bytes(Path(copy).read_bytes()[::-1])
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert dataset.fingerprint() != before


@pytest.mark.processes
def test_files_of_any_rate_are_those_that_read_mono_gives(corpus, tmp_path):
    samples = tone_clip(["Drum"], 0, 44100)
    soundfile.write(tmp_path / "a.wav", np.stack([samples, samples[::-1]], axis=1), 44100)
    soundfile.write(tmp_path / "b.flac", samples[:22050], SAMPLE_RATE)
    (tmp_path / "a.csv").write_text(f"files,labels\n{tmp_path}/a.wav,Drum\n{tmp_path}/b.flac,Harp\n")
    audio, others = AudioConfig(resample=True), (labels_of(corpus), "multilabel", evaluation_chain(64))
    dataset = ManifestDataset(str(tmp_path / "a.csv"), audio, *others)
    assert np.array_equal(dataset.waveform(0), read_mono(tmp_path / "a.wav", SAMPLE_RATE))
    plain = ManifestDataset(str(tmp_path / "a.csv"), AudioConfig(), *others)
    assert np.array_equal(dataset.waveform(1), plain.waveform(1))  # nothing to convert
    (here,), (there,) = (list(loader(dataset, EpochSampler(2, 0, False), 2, workers)) for workers in (0, 1))
    assert torch.equal(here[0], there[0])


def test_manifest_clips_are_tiled_up_to_min_duration(tmp_path, corpus):
    write_folder(tmp_path / "train", 1, 0)
    path = manifest(tmp_path, tmp_path / "a.csv")
    dataset = ManifestDataset(
        str(path), AudioConfig(min_duration=2.0), labels_of(corpus), "multilabel", evaluation_chain(64)
    )
    original, _ = soundfile.read(tmp_path / "train" / "s000.flac", dtype="float32")
    assert np.array_equal(dataset.waveform(0), np.resize(original, 2 * SAMPLE_RATE))


def batches_of(dataset, num_workers, epoch, context=None):
    sampler = EpochSampler(len(dataset), dataset.seed, training=True)
    sampler.set_epoch(epoch)
    batches = loader(dataset, sampler, 4, num_workers, drop_last=True)
    batches.multiprocessing_context = context
    return [(inputs.clone(), targets.clone()) for inputs, targets, *_ in batches]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other))


def test_batches_do_not_depend_on_the_workers(corpus):
    arguments = (AUDIO, labels_of(corpus), "multilabel", training_chain(64), 5)
    dataset = InMemoryLMDBDataset(str(corpus / "train.lmdb"), *arguments)
    alone = batches_of(dataset, 0, epoch=1)
    assert len(alone) == 3 and alone[0][0].shape == (4, 1, 221, 64) and alone[0][1].shape == (4, 3)
    assert same(alone, batches_of(dataset, 2, epoch=1))
    assert same(alone, batches_of(dataset, 3, epoch=1, context="spawn"))
    assert not same(alone, batches_of(dataset, 0, epoch=2))
    other_seed = InMemoryLMDBDataset(str(corpus / "train.lmdb"), *arguments[:-1], 6)
    assert not same(alone, batches_of(other_seed, 0, epoch=1))


def test_precomputed_spectrograms_reach_spawned_workers(corpus):
    audio = AudioConfig(min_duration=0.5, precompute_features=True)
    dataset = InMemoryLMDBDataset(
        str(corpus / "train.lmdb"), audio, labels_of(corpus), "multilabel", training_chain(64)
    )
    assert same(batches_of(dataset, 0, 0), batches_of(dataset, 2, 0, context="spawn"))


def test_a_clips_draws_are_those_of_seed_epoch_and_index(corpus):
    arguments = (AUDIO, labels_of(corpus), "multilabel", training_chain(30))
    dataset = InMemoryLMDBDataset(str(corpus / "train.lmdb"), *arguments, 5)
    first = [dataset[2, index][0] for index in range(12)]
    backwards = [dataset[2, index][0] for index in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, backwards))
    assert sum(np.array_equal(a, dataset[3, index][0]) for index, a in enumerate(first)) < 4


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_the_sampler_deals_out_every_record(ranks):
    epochs = []
    for epoch in range(2):
        shares = []
        for rank in range(ranks):
            sampler = EpochSampler(13, 0, True, rank, ranks)
            sampler.set_epoch(epoch)
            share = list(sampler)
            assert len(share) == len(sampler) and all(key[0] == epoch for key in share)
            shares.append([index for _, index in share])
        assert len({len(share) for share in shares}) == 1
        dealt = sum(shares, [])
        assert set(dealt) == set(range(13)) and len(dealt) - 13 < ranks
        epochs.append(shares)
    assert epochs[0] != epochs[1]
    once = sum(([index for _, index in EpochSampler(13, 0, False, rank, ranks)] for rank in range(ranks)), [])
    assert sorted(once) == list(range(13))
    assert [len(EpochSampler(13, 0, False, rank, ranks)) for rank in range(ranks)] == [
        len(list(EpochSampler(13, 0, False, rank, ranks))) for rank in range(ranks)
    ]


def test_shorter_spectrograms_are_padded_with_zeros_on_the_right(tmp_path, corpus):
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        for seed, length in enumerate((9000, 15000, 12000)):
            writer.add(Record(encode(tone_clip(["Harp"], seed, length), SAMPLE_RATE, "FLAC"), "Harp"))
    dataset = LMDBDataset(
        str(tmp_path / "a.lmdb"), AUDIO, labels_of(corpus), "multilabel", evaluation_chain(20, crop=False)
    )
    inputs = dataset.__getitems__([0, 1, 2]).inputs
    assert inputs.shape == (3, 1, 221, 69) and inputs.dtype == torch.float32
    for index, frames in enumerate((41, 69, 55)):
        assert np.array_equal(inputs[index, 0, :, :frames], dataset[index][0])
        assert not inputs[index, 0, :, frames:].any()


def test_esc50_records_have_class_indices():
    names = LabelMap(tuple(f"class {index}" for index in range(50)))
    dataset = InMemoryLMDBDataset(
        str(FIXTURES / "released_esc50_layout.lmdb"), AUDIO, names, "multiclass", evaluation_chain(64)
    )
    assert all(0 <= dataset[index][1] < 50 for index in range(10))


def test_labels_are_checked_when_the_set_is_opened(corpus):
    two = LabelMap(("Drum", "Harp"), "two.json")
    with pytest.raises(UserError, match="'Organ' is not in the label map two.json"):
        LMDBDataset(str(corpus / "train.lmdb"), AUDIO, two, "multilabel", evaluation_chain(64))


def test_multiclass_wants_one_label_a_clip(corpus):
    with pytest.raises(UserError, match="needs one"):
        LMDBDataset(str(corpus / "train.lmdb"), AUDIO, labels_of(corpus), "multiclass", evaluation_chain(64))


def test_a_delimiter_that_does_not_fit_is_named(tmp_path, corpus):
    pack_mixtures([corpus / "train"], tmp_path / "a.lmdb", min_duration=0.5, delimiter=";")
    with pytest.raises(UserError, match="does audio_config.delimiter fit"):
        LMDBDataset(str(tmp_path / "a.lmdb"), AUDIO, labels_of(corpus), "multilabel", evaluation_chain(64))
    semicolons = AudioConfig(delimiter=";")
    assert len(LMDBDataset(str(tmp_path / "a.lmdb"), semicolons, labels_of(corpus), "multilabel", evaluation_chain(64)))


def own_memory():
    """Bytes that this process shares with no file and no other process's mapping of one."""
    fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return 1024 * int(fields["Anonymous"].split()[0])


def _own_memory_around_reading(dataset, queue):
    before = own_memory()
    for index in range(len(dataset)):
        dataset.reader[index]
    queue.put((before, own_memory()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_one_copy_of_the_records(tmp_path, method):
    """A worker that reads all of a 64 MB set keeps next to nothing of it to itself."""
    storage, arguments = big_lmdb(tmp_path / "big.lmdb", 64)
    dataset = storage(*arguments)
    assert len(pickle.dumps(dataset)) < 100_000
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=_own_memory_around_reading, args=(dataset, queue))
    worker.start()
    before, after = queue.get(timeout=120)
    worker.join()
    assert after - before < 16e6, (before, after)


def big_lmdb(path, megabytes):
    rng = np.random.default_rng(0)
    with LMDBWriter(path) as writer:
        for _ in range(megabytes):
            writer.add(Record(rng.bytes(1 << 20), "Harp"))
    return InMemoryLMDBDataset, (str(path), AUDIO, LabelMap(("Harp",)), "multilabel", evaluation_chain(64))


def read_from_disk():
    """Bytes that this process has had read from disk."""
    fields = dict(line.split(":") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def out_of_the_cache(path):
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.processes
def test_opening_does_not_read_the_whole_file_and_read_ahead_does(tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "SMALL", 1 << 20)
    storage, arguments = big_lmdb(tmp_path / "big.lmdb", 96)
    out_of_the_cache(tmp_path / "big.lmdb")
    before = read_from_disk()
    dataset = storage(*arguments)
    assert read_from_disk() - before < 24e6
    dataset.read_ahead()
    dataset._ahead._process.join(60)
    assert dataset._ahead._process.exitcode == 0
    before = read_from_disk()
    assert dataset.reader[95].label == "Harp" and read_from_disk() == before


@pytest.mark.processes
def test_an_unknown_fingerprint_is_found_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "SMALL", 1 << 20)
    storage, arguments = big_lmdb(tmp_path / "big.lmdb", 4)
    expected = fingerprint(LMDBReader(tmp_path / "big.lmdb"))
    (tmp_path / ".big.lmdb.fingerprint.json").unlink()
    dataset = storage(*arguments)
    assert dataset.fingerprint(wait=False) is None
    dataset.read_ahead()
    pickle.dumps(dataset)
    assert dataset.fingerprint() == expected == dataset.fingerprint(wait=False)


def test_a_set_larger_than_the_free_memory_is_not_read_ahead(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(read_ahead, "SMALL", 1 << 20)
    monkeypatch.setattr(read_ahead, "available_memory", lambda: 3 << 20)
    storage, arguments = big_lmdb(tmp_path / "big.lmdb", 4)
    dataset = storage(*arguments)
    dataset.read_ahead()
    assert dataset._ahead._process is None and "read from disk as they come" in caplog.text


def test_relative_label_maps_lie_under_meta_root(tmp_path, corpus):
    from conftest import write_cfg

    config = load_config(write_cfg(tmp_path / "a.cfg", cfg_tree(corpus)))
    assert os.fspath(config.data.label_map_path()) == str(corpus / "meta" / "lbl_map.json")
