"""--cache_samples device: the same batches of samples that lie where the network is. Here that is the CPU."""

import csv
import io
import logging

import numpy as np
import pytest
import soundfile
import torch
import torch.distributed as dist
from conftest import AUGMENTED, CLASSES, error_line, fork, run_script, train_command

from src.config.sections import AudioConfig, AugmentConfig
from src.data.audio.files import encode
from src.data.batching import Held
from src.data.device_features import DeviceFeatures
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb import device_cache
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.data.loading import batches_on
from src.data.sampling import EpochSampler
from src.data.transforms import training_chain
from src.errors import UserError

CPU = torch.device("cpu")
LENGTHS = (30000, 30000, 9000, 30000, 3000, 100, 30000, 20000, 30000)  # samples
EVERYTHING = AugmentConfig(roll=True, gain=6.0, freq_shift=20, mask_prob=0.8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("clips") / "clips.lmdb", np.random.default_rng(0)
    with LMDBWriter(path) as writer:
        for number, length in enumerate(LENGTHS):
            samples = 0.02 * rng.standard_normal(length) + 0.3 * np.sin(np.arange(length) / (3 + number))
            writer.add(Record(encode(samples, 22050, "FLAC"), CLASSES[number % 3]))
    return path


def opened(path, cache=None, wave_mix=0.0):
    chain = training_chain(64, EVERYTHING)
    dataset = LMDBDataset(
        str(path), AudioConfig(), LabelMap(tuple(CLASSES)), "multilabel", chain, 7, cache_samples=cache
    )
    dataset.wave_mix = wave_mix
    dataset.teacher = np.arange(3.0 * len(dataset), dtype=np.float32).reshape(-1, 3)
    return dataset


def batches(dataset, sampler, size=4):
    """Of two epochs, the second one begun within."""
    sampler.resume(1, size)
    loader = batches_on(CPU, dataset, sampler, size, 0, "device", drop_last=sampler.training)
    found = list(loader)
    sampler.set_epoch(2)
    return [*found, *loader]


def assert_same(found, expected):
    assert len(found) == len(expected) > 2
    for one, other in zip(found, expected):
        assert isinstance(one.inputs, Held)
        samples = one.inputs.samples()
        assert samples.samples.dtype == other.inputs.samples.dtype
        assert torch.equal(samples.samples, other.inputs.samples)
        assert np.array_equal(samples.lengths, other.inputs.lengths)
        assert samples.views.tolist() == other.inputs.views.tolist()
        assert torch.equal(one.targets, other.targets) and torch.equal(one.teacher, other.teacher)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wave_mix", [0.0, 0.5, 1.0])
def test_batches_are_the_same_to_the_last_bit(clips, training, wave_mix):
    expected = batches(opened(clips, None, wave_mix), EpochSampler(len(LENGTHS), 7, training))
    held = opened(clips, "device", wave_mix)
    assert_same(batches(held, EpochSampler(len(LENGTHS), 7, training)), expected)
    make = DeviceFeatures(held.features)
    assert torch.equal(make(batches(held, EpochSampler(len(LENGTHS), 7, training))[0].inputs), make(expected[0].inputs))


def test_events_over_time_are_the_same(corpus):
    def frames(cache):
        dataset = opened(corpus / "train.lmdb", cache, wave_mix=0.5)
        dataset.use_frames(8)
        return [(one.frames, one.spans) for one in batches(dataset, EpochSampler(len(dataset), 7, True))]

    for found, expected in zip(frames("device"), frames(None)):
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_where_memory_is_short_it_is_said_and_clips_are_read(clips, monkeypatch, caplog):
    sampler = EpochSampler(len(LENGTHS), 7, True)
    expected = batches(opened(clips), sampler)
    monkeypatch.setattr(device_cache, "free_memory", lambda device, ranks: 4 * sum(LENGTHS) - 1)
    found = batches(opened(clips, "device"), sampler)
    assert "needs 0.0 GB on cpu" in caplog.text and "Clips are read as without the flag" in caplog.text
    assert all(torch.equal(one.inputs.samples, other.inputs.samples) for one, other in zip(found, expected))
    monkeypatch.setattr(device_cache, "free_memory", lambda device, ranks: 4 * sum(LENGTHS))
    assert isinstance(batches(opened(clips, "device"), sampler)[0].inputs, Held)


def a_rank(rank, ranks, clips, folder):
    """One process of several, of which none has memory for all clips."""
    logging.disable()
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=ranks)
    device_cache.free_memory = lambda device, ranks: 3 * sum(LENGTHS)
    dataset, sampler = opened(clips, "device", 0.5), EpochSampler(len(LENGTHS), 7, True, rank, ranks)
    found = [one._replace(inputs=one.inputs.samples()) for one in batches(dataset, sampler, 2)]
    torch.save((len(dataset.held._samples), [tuple(one.inputs) for one in found]), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.processes
def test_processes_without_room_for_all_clips_send_each_other_theirs(clips, tmp_path):
    ranks = [fork(a_rank, rank, 2, clips, tmp_path) for rank in range(2)]
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    for rank in range(2):
        sampler = EpochSampler(len(LENGTHS), 7, True, rank, 2)
        expected = batches(opened(clips, None, 0.5), sampler, 2)
        size, found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert size == sum(LENGTHS[rank::2]) + max(LENGTHS) and len(found) == len(expected)
        for (samples, lengths, views), other in zip(found, expected):
            assert torch.equal(samples, other.inputs.samples) and np.array_equal(lengths, other.inputs.lengths)
            assert views.tolist() == other.inputs.views.tolist()


def table(folder):
    return (folder / "logs" / "metrics.csv").read_text()


def test_training_and_evaluation_give_the_same_figures(corpus, tmp_path):
    """Those of --features device, whose arithmetic is the same."""
    values = {"audio_config.feature": "logmel"} | {f"augment.{key}": value for key, value in AUGMENTED.items()}
    more = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    rows = []
    for name, flags in (("without", ("--features", "device")), ("with", ("--cache_samples", "device"))):
        result = run_script(*train_command(corpus, tmp_path / name, "--use_mixup", *more, *flags, epochs=2), check=0)
        assert ("train.lmdb: 12 clips on cpu, 0.0 GB" in result.stderr) == (name == "with")
        words = "--exp_dir", tmp_path / "without", "--lmdb_path", corpus / "eval.lmdb", "--num_workers", 0
        scores = tmp_path / f"{name}.csv"
        run_script("eval_gise_mixtures.py", *words, "--results_csv", scores, *flags, check=0)
        with open(scores, newline="") as stream:
            rows.append([{**row, "evaluated": ""} for row in csv.DictReader(stream)])
    assert table(tmp_path / "with") == table(tmp_path / "without")
    assert rows[0] == rows[1] and len(rows[0]) == 2


def test_two_processes_give_the_same_figures(corpus, tmp_path):
    for name, flags in (("without", ("--features", "device")), ("with", ("--cache_samples", "device"))):
        devices = "--devices", 2, "--accelerator", "cpu", "--set", "opt.batch_size=2"
        run_script(*train_command(corpus, tmp_path / name, *devices, *flags), check=0)
    assert table(tmp_path / "with") == table(tmp_path / "without")


def test_a_folder_may_be_called_device(corpus, tmp_path):
    run_script(*train_command(corpus, tmp_path / "run", "--cache_samples", "./device"), cwd=tmp_path, check=0)
    assert len(list((tmp_path / "device").glob("*.samples"))) == 2


def test_spectrograms_made_elsewhere_are_refused(corpus, tmp_path):
    for what, flags in (
        ("--features workers", ("--features", "workers")),
        ("audio_config.precompute_features", ("--set", "audio_config.precompute_features=True")),
    ):
        command = train_command(corpus, tmp_path / what, "--cache_samples", "device", *flags)
        assert f"--cache_samples device: spectrograms are made there, and not as {what}" in error_line(
            run_script(*command)
        )


def test_other_than_16_bits_are_refused(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(3000), 22050, format="FLAC", subtype="PCM_24")
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(buffer.getvalue(), CLASSES[0]))
    with pytest.raises(UserError, match="a.lmdb, record 0: is not 16-bit FLAC"):
        batches(opened(tmp_path / "a.lmdb", "device"), EpochSampler(1, 7, False))
