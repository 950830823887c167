"""Keys of `augment` and `opt.balanced`: what a training clip is mixed with, which clips are drawn, what a run does."""

import csv
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import AUGMENTED, CLASSES, SAMPLE_RATE, error_line, run_script, train_command
from scipy.stats import chisquare
from test_datasets import AUDIO, batches_of, labels_of, manifest, same

from src.config.loading import load_config
from src.config.sections import AugmentConfig
from src.data.audio.files import encode
from src.data.datamodule import ClipDataModule
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset, LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.data.manifest_dataset import ManifestDataset
from src.data.sampling import CLIP, MIXUP, NETWORK, ORDER, PARTNER, SOUNDSCAPE, Dealing, EpochSampler
from src.data.transforms import training_chain

LOGMEL = "audio_config.feature=logmel"  # which alone has a gain
EVERYTHING = [f"augment.{key}={value}" for key, value in AUGMENTED.items()]


def lmdb_of(path, *clips, **arguments):
    """An opened LMDB of (samples, label) or (samples, label, fold) clips, of which half are mixed with another one."""
    with LMDBWriter(path) as writer:
        for samples, *annotation in clips:
            writer.add(Record(encode(samples, SAMPLE_RATE, "FLAC"), *annotation))
    dataset = LMDBDataset(str(path), AUDIO, LabelMap(CLASSES), "multilabel", training_chain(64), 5, **arguments)
    dataset.wave_mix = 0.5
    return dataset


def silent(label, *fold):
    return np.zeros(2000), label, *fold


# ---- two clips at once ----


def test_a_mixed_clip_is_the_sum_with_the_labels_of_both(tmp_path):
    """Full scale twice is no overflow, and the shorter clip is repeated."""
    clips = [0.9 * np.sin(np.arange(length) / 9) for length in (3000, 4000, 7000)]
    dataset = lmdb_of(tmp_path / "a.lmdb", *zip(clips, CLASSES))
    alone, pairs = 0, set()
    for epoch in range(300):
        samples, classes, _ = dataset.mixed_sound(epoch, 1)
        expected = [np.resize(dataset.waveform(index) / 32768, len(samples)) for index in classes]
        assert np.abs(samples * (1.0 if len(classes) > 1 else 2**-15) - sum(expected)).max() < 1e-6
        alone += len(classes) == 1
        pairs.add((*classes, len(samples)))
        assert np.array_equal(dataset[epoch, 1][1], [float(index in classes) for index in range(3)])
    assert pairs == {(1, 4000), (1, 0, 4000), (1, 2, 7000)} and 115 < alone < 185
    assert max(np.abs(dataset.mixed_sound(epoch, 0)[0]).max() for epoch in range(9)) > 1.2


def test_partners_are_any_other_clip_as_likely(tmp_path):
    """Drawn from a stream of their own, of seed, epoch and clip."""
    dataset = lmdb_of(tmp_path / "a.lmdb", *(silent(CLASSES[index % 3]) for index in range(5)))
    dataset.wave_mix, partners = 1.0, []
    dataset.sound = lambda epoch, index: (np.zeros(1, np.float32), np.array([index]))
    for epoch in range(1000):
        clip, partner = dataset.mixed_sound(epoch, 3)[1]
        partners.append(partner)
        rng = np.random.default_rng((5, PARTNER, epoch, 3))
        assert rng.random() < 1 and partner == (3 + rng.integers(1, 5)) % 5
    counts = np.bincount(partners, minlength=5)
    assert len({ORDER, CLIP, MIXUP, NETWORK, PARTNER, SOUNDSCAPE}) == 6
    assert clip == 3 and counts[3] == 0 and chisquare(np.delete(counts, 3)).pvalue > 0.001


def test_partners_are_of_the_same_folds(tmp_path):
    """And no clip that is validated on."""
    clips = [silent(CLASSES[number % 3], 1 + number % 3) for number in range(12)]
    dataset = lmdb_of(tmp_path / "a.lmdb", *clips, fold=2, complement=True)
    heard = np.array([dataset[epoch, index][1] for epoch in range(30) for index in range(len(dataset))])
    assert not heard[:, 1].any() and (heard.sum(axis=1) == 2).sum() > 20


def test_a_clip_that_is_the_only_one_stays_alone(tmp_path):
    dataset = lmdb_of(tmp_path / "a.lmdb", silent("Harp"))
    dataset.wave_mix = 1.0
    assert len(dataset.mixed_sound(0, 0)[1]) == 1


def test_every_storage_gives_the_same_mixed_clips(corpus, tmp_path):
    common = (AUDIO, labels_of(corpus), "multilabel", training_chain(64), 5)
    lmdb = str(corpus / "train.lmdb")
    first, *others = (
        InMemoryLMDBDataset(lmdb, *common),
        LMDBDataset(lmdb, *common),
        LMDBDataset(lmdb, *common, cache_samples=str(tmp_path)),
        ManifestDataset(str(manifest(corpus, tmp_path / "train.csv")), *common),
    )
    plain = [first[3, index] for index in range(12)]
    for dataset in (first, *others):
        dataset.wave_mix = 0.5
    mixed = [first[3, index] for index in range(12)]
    assert 2 < sum(not np.array_equal(ours[0], theirs[0]) for ours, theirs in zip(plain, mixed)) < 10
    for other in others:
        for index, (spectrogram, target) in enumerate(mixed):
            assert np.array_equal(other[3, index][0], spectrogram) and np.array_equal(other[3, index][1], target)


def test_mixing_leaves_all_other_draws_as_they_were(corpus):
    dataset = InMemoryLMDBDataset(
        str(corpus / "train.lmdb"), AUDIO, labels_of(corpus), "multilabel", training_chain(64)
    )
    views = [dataset.view(1, index, 69) for index in range(12)]
    dataset.wave_mix = 1.0
    dataset.__getitems__([(1, index) for index in range(12)])
    assert [dataset.view(1, index, 69) for index in range(12)] == views


# ---- clips of rare classes more often ----


def test_weights_of_clips_by_hand(tmp_path):
    """A class that sounds twice in a clip counts once. A clip without any has the smallest chance."""
    labels = ["Drum", "Drum", "Drum,Harp,Harp", "", "Harp", "Drum", "Organ,Organ"]
    weights = lmdb_of(tmp_path / "a.lmdb", *map(silent, labels)).balancing_weights()
    expected = np.array([1 / 4, 1 / 4, 1 / 4 + 1 / 2, 1 / 4, 1 / 2, 1 / 4, 1])
    assert weights == pytest.approx(expected / expected.sum(), rel=1e-12)
    assert list(lmdb_of(tmp_path / "b.lmdb", *map(silent, ["", ""])).balancing_weights()) == [0.5, 0.5]


def test_balanced_epochs_draw_each_clip_as_its_weight_says():
    weights = np.array([1, 2, 3, 4, 10]) / 20
    drawn = np.concatenate([EpochSampler(5, 0, True, weights=weights).share(epoch) for epoch in range(2000)])
    assert chisquare(np.bincount(drawn), 10000 * weights).pvalue > 0.001


def test_classes_of_balanced_epochs_are_as_frequent(tmp_path):
    """With one class a clip, each class is drawn as often as the others."""
    dataset = lmdb_of(tmp_path / "a.lmdb", *map(silent, ["Drum"] * 24 + ["Harp"] * 5 + ["Organ"]))
    weights = dataset.balancing_weights()
    drawn = np.concatenate([EpochSampler(30, 0, True, weights=weights).share(epoch) for epoch in range(200)])
    classes = [int(dataset.class_indices(index)[0]) for index in drawn]
    assert chisquare(np.bincount(classes)).pvalue > 0.001


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_share_a_balanced_epoch(ranks):
    weights = np.arange(1, 14) / 91
    whole, later = (EpochSampler(13, 4, True, weights=weights).share(epoch) for epoch in (2, 3))
    samplers = [EpochSampler(13, 4, True, rank, ranks, weights) for rank in range(ranks)]
    shares = [sampler.share(2) for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
    dealt = [int(shares[place % ranks][place // ranks]) for place in range(ranks * len(shares[0]))]
    assert dealt == np.resize(whole, len(dealt)).tolist() and whole.tolist() != later.tolist()
    samplers[0].resume(2, 2)
    assert list(samplers[0]) == [(2, int(index)) for index in shares[0][2:]]


# ---- the data module ----


def opened(corpus, *overrides):
    config = load_config(corpus / "tiny.cfg", overrides)
    return ClipDataModule(config, labels_of(corpus), 64, 64, num_workers=0, seed=5)


def test_validation_is_never_augmented(corpus):
    plain, augmented = opened(corpus, LOGMEL), opened(corpus, LOGMEL, *EVERYTHING, "opt.balanced=True")
    for split, is_equal in (("val_set", True), ("train_set", False)):
        ours, theirs = (
            getattr(data, split).__getitems__([(3, index) for index in range(6)]) for data in (plain, augmented)
        )
        assert torch.equal(ours.inputs, theirs.inputs) == torch.equal(ours.targets, theirs.targets) == is_equal


def test_gain_is_in_decibels_whatever_the_deviation(corpus):
    level = LOGMEL, "augment.gain=6", "audio_config.mean=-40"
    one, ten = (opened(corpus, *level, f"audio_config.std={std}").train_set.view(0, 3, 90) for std in (1, 10))
    assert one.gain and one.gain == pytest.approx(10 * ten.gain)


@pytest.mark.processes
def test_augmented_batches_do_not_depend_on_the_workers(corpus):
    dataset = opened(corpus, LOGMEL, *EVERYTHING).train_set
    alone = batches_of(dataset, 0, epoch=1)
    assert same(alone, batches_of(dataset, 2, epoch=1)) and same(
        alone, batches_of(dataset, 3, epoch=1, context="spawn")
    )
    assert not same(alone, batches_of(dataset, 0, epoch=2))


def test_messages_name_the_records_of_a_balanced_batch(corpus):
    data = opened(corpus, "opt.balanced=True")
    drawn = EpochSampler(12, 5, True, 1, 2, data.train_set.balancing_weights()).share(7)
    data.deal(Dealing(2, 1, 2))
    assert data.records_of_batch(7, 0, 1).endswith(f"records {', '.join(map(str, drawn[:4]))}")


# ---- whole runs ----


def train_loss(folder):
    with open(folder / "logs" / "metrics.csv", newline="") as stream:
        return [row["train_loss"] for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def plain_loss(corpus, tmp_path_factory):
    """Of a run with mixup and none of the keys."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    run_script(*train_command(corpus, folder, "--use_mixup", "--set", LOGMEL), check=0)
    return train_loss(folder)


def test_every_key_is_tried():
    assert AUGMENTED.keys() == asdict(AugmentConfig()).keys()


@pytest.mark.parametrize("override", [*EVERYTHING, "opt.balanced=True"])
def test_every_key_changes_a_run(corpus, tmp_path, plain_loss, override):
    words = "--use_mixup", "--set", LOGMEL, "--set", override
    run_script(*train_command(corpus, tmp_path / "run", *words), check=0)
    assert train_loss(tmp_path / "run") != plain_loss


def test_defaults_change_nothing(corpus, tmp_path, plain_loss):
    defaults = {f"augment.{key}": value for key, value in asdict(AugmentConfig()).items()} | {"opt.balanced": False}
    words = [word for key, value in defaults.items() for word in ("--set", f"{key}={value}")]
    run_script(*train_command(corpus, tmp_path / "run", "--use_mixup", "--set", LOGMEL, *words), check=0)
    assert train_loss(tmp_path / "run") == plain_loss


@pytest.mark.parametrize(
    "override, message",
    [
        ("augment.mixup_alpha=0.3", "augment.mixup_alpha is 0.3, and nothing is mixed. Set audio_config.mixup=True"),
        ("augment.mixup_max=True", "augment.mixup_max is True, and nothing is mixed. Set audio_config.mixup=True"),
        ("augment.freq_shift=221", "augment.freq_shift is 221. It should be below 221, the bins or bands"),
    ],
)
def test_what_would_change_nothing_or_all_is_refused(corpus, tmp_path, override, message):
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", "--set", override)))
    assert f"tiny.cfg: {message}" in line and not list(tmp_path.rglob("*.*"))
