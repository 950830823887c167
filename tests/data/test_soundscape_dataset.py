"""Soundscapes without end: what a clip holds depends on seed, epoch and index alone. Their sounds are packed once."""

import os
import shutil
import sys

import numpy as np
import pytest
import soundfile
from conftest import CLASSES, SAMPLE_RATE, write_lbl_map
from small_sources import write_sources

from src.config.sections import AudioConfig, DataConfig
from src.data.audio.files import read_mono
from src.data.events import Event
from src.data.labels import LabelMap
from src.data.loading import loader
from src.data.sampling import EpochSampler
from src.data.soundscapes import packed as packed_module
from src.data.soundscapes.dataset import SoundscapeDataset
from src.data.soundscapes.distribution import Choices
from src.data.soundscapes.packed import packed, packed_file
from src.data.transforms import training_chain
from src.errors import UserError


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


def opened(sources, seed=0, **data):
    config = DataConfig(
        label_map="",
        isolated_events=str(sources / "events"),
        backgrounds=str(sources / "noises"),
        **{"soundscapes": 8, "duration": 0.7} | data,
    )
    label_map = LabelMap.load(sources / "lbl_map.json")
    return SoundscapeDataset(config, AudioConfig(), label_map, "multilabel", training_chain(64), seed)


def sounds_of(dataset, epoch):
    return [dataset.sound(epoch, index)[0] for index in range(len(dataset))]


def test_a_clip_is_the_same_however_it_is_asked_for_and_new_in_every_epoch(sources):
    dataset = opened(sources)
    first = sounds_of(dataset, 0)
    assert all(clip.dtype == np.int16 and len(clip) == int(0.7 * SAMPLE_RATE) for clip in first)
    again = opened(sources)
    assert all(np.array_equal(again.sound(0, index)[0], first[index]) for index in (5, 2, 7, 0))
    different = [sounds_of(dataset, 1), sounds_of(opened(sources, seed=1), 0), first[1:] + first[:1]]
    for others in different:
        assert not any(np.array_equal(one, other) for one, other in zip(first, others))


def test_targets_and_events_are_those_of_the_sound(sources):
    dataset = opened(sources, duration=3.0)
    counts = set()
    for epoch in range(2):
        for index in range(len(dataset)):
            events, (samples, classes) = dataset.events(epoch, index), dataset.sound(epoch, index)
            assert all(type(event) is Event for event in events)
            assert [label for _, _, label in events] == [CLASSES[one] for one in classes]
            assert all(0 <= onset < offset <= 3.0 + 1e-9 for onset, offset, _ in events)
            _, target = dataset[epoch, index]
            assert set(np.flatnonzero(target)) == set(classes)
            counts.add(len(events))
            # An event is at least 10 dB above the background.
            inside = np.zeros(len(samples), bool)
            for onset, offset, _ in events:
                inside[int(onset * SAMPLE_RATE) : int(offset * SAMPLE_RATE)] = True
            if (~inside).sum() > 1000:
                assert samples[inside].std() > 1.5 * samples[~inside].std()
    assert counts == {1, 2, 3}


@pytest.mark.processes
def test_workers_and_ranks_change_no_clip(sources):
    def batches(workers, rank, ranks):
        dataset = opened(sources)
        dataset.on_device = True
        sampler = EpochSampler(len(dataset), 0, True, rank, ranks)
        sampler.set_epoch(3)
        made = loader(dataset, sampler, 2, workers)
        clips = [clip.clone() for batch in made for clip in batch.inputs.samples]
        return dict(zip(sampler.share(3).tolist(), clips, strict=True))

    alone = batches(0, 0, 1)
    assert sorted(alone) == list(range(8))
    for workers, ranks in ((2, 1), (1, 2), (3, 2)):
        together = {}
        for rank in range(ranks):
            together |= batches(workers, rank, ranks)
        assert together.keys() == alone.keys()
        assert all(np.array_equal(together[index], alone[index]) for index in alone)


def test_numbers_of_events_classes_and_kinds_are_as_likely():
    """Weights are relative. Here 2 classes with 1 and 3 files, and 2 kinds with 1 and 2 files."""
    choices = Choices(np.full(4, 2.0), np.array([3, 1, 1, 1]), np.full(3, 9.0), np.array([1, 0.5, 0.5]), 5.0, 3)
    drawn = [choices.draw(np.random.default_rng((7, number))) for number in range(3000)]
    for found, expected in (
        ([len(one.events) for one in drawn], {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}),
        ([event.source for one in drawn for event in one.events], {0: 1 / 2, 1: 1 / 6, 2: 1 / 6, 3: 1 / 6}),
        ([one.background for one in drawn], {0: 1 / 2, 1: 1 / 4, 2: 1 / 4}),
    ):
        shares = {value: found.count(value) / len(found) for value in set(found)}
        assert shares == pytest.approx(expected, abs=0.03)


def test_sounds_are_packed_once_and_anew_when_they_change(sources, tmp_path, monkeypatch):
    sources = shutil.copytree(sources, tmp_path / "x")
    first = opened(sources).fingerprint()
    places = [packed_file(sources / name, SAMPLE_RATE) for name in ("events", "noises")]
    assert all(place.parent == sources and place.is_file() for place in places)
    inodes = [place.stat().st_ino for place in places]
    with monkeypatch.context() as patch:
        patch.setattr(packed_module, "_pack", lambda *_: pytest.fail("they are packed already"))
        assert opened(sources).fingerprint() == opened(sources).fingerprint(wait=False) == first
    sound = next((sources / "events" / "Harp").glob("*.wav"))
    soundfile.write(sound, soundfile.read(sound)[0][::-1], SAMPLE_RATE)
    assert opened(sources).fingerprint() != first
    assert [place.stat().st_ino == inode for place, inode in zip(places, inodes)] == [False, True]
    shutil.copy(sound, sound.with_name("another.wav"))
    assert len(opened(sources)._events.lengths) == 7


def test_packed_sounds_are_whole_mono_and_at_the_rate(sources, monkeypatch):
    files = sorted(str(file) for file in (sources / "events" / "Drum").glob("*.wav"))
    monkeypatch.setattr(packed_module, "KEPT", 0)
    fresh = packed(sources / "events" / "Drum", [(file, "Drum") for file in files], SAMPLE_RATE)
    monkeypatch.setattr(packed_module, "KEPT", 1 << 16)  # bytes, which one of them has
    kept = packed(sources / "events" / "Drum", [(file, "Drum") for file in files], SAMPLE_RATE)
    for index, file in enumerate(files):
        whole = read_mono(file, SAMPLE_RATE)
        assert fresh.lengths[index] == len(whole)
        for start, stop in ((0, len(whole)), (5000, 9000), (len(whole) - 10, len(whole) + 10)):
            assert np.abs(fresh.part(index, start, stop) - whole[start:stop]).max() <= 2**-15
            assert np.array_equal(kept.part(index, start, stop), fresh.part(index, start, stop))
    assert not fresh._kept and len(kept._kept) == 1


def test_a_file_of_somebody_elses_is_not_overwritten(sources, tmp_path):
    sources = shutil.copytree(sources, tmp_path / "x", ignore=shutil.ignore_patterns("*.lmdb", ".*"))
    place = packed_file(sources / "events", SAMPLE_RATE)
    place.write_bytes(b"mine")
    with pytest.raises(UserError, match="is there already, and nothing says .* Move it away"):
        opened(sources)
    assert place.read_bytes() == b"mine"


@pytest.mark.parametrize("moment", ["fingerprint", "remember"])
def test_a_packing_that_ended_before_its_note_is_done_again(sources, tmp_path, monkeypatch, moment):
    """By a kill, or by a full disk, when the LMDB had its name already."""
    sources = shutil.copytree(sources, tmp_path / "x", ignore=shutil.ignore_patterns("*.lmdb", ".*"))
    with monkeypatch.context() as patch:
        if moment == "remember":
            patch.setattr(packed_module, "remember", lambda *_: None)
            opened(sources)
        else:
            patch.setattr("src.data.lmdb.writer.remember", lambda *_: sys.exit())
            with pytest.raises(SystemExit):
                opened(sources)
    assert packed_file(sources / "events", SAMPLE_RATE).is_file()
    inode = packed_file(sources / "events", SAMPLE_RATE).stat().st_ino
    assert np.array_equal(opened(sources).sound(0, 0)[0], opened(sources).sound(0, 0)[0])
    assert packed_file(sources / "events", SAMPLE_RATE).stat().st_ino != inode


def test_a_link_is_packed_beside_itself(sources, tmp_path):
    os.symlink(sources / "events", tmp_path / "events")
    os.symlink(sources / "noises", tmp_path / "noises")
    shutil.copy(sources / "lbl_map.json", tmp_path)
    dataset = opened(tmp_path)
    assert packed_file(tmp_path / "events", SAMPLE_RATE).is_file()
    assert np.array_equal(dataset.sound(0, 0)[0], opened(sources).sound(0, 0)[0])


def test_damage_is_refused_by_name(sources, tmp_path):
    sources = shutil.copytree(sources, tmp_path / "x")
    dataset = opened(sources)
    place = packed_file(sources / "events", SAMPLE_RATE)
    dataset._events.reader.unmap()
    content = place.read_bytes()
    place.write_bytes(content.replace(b"fLaC", b"fLaX"))
    with pytest.raises(UserError, match="events.22050.lmdb, record . is not .*damaged"):
        sounds_of(dataset, 0)


def test_one_class_a_clip(sources):
    config = DataConfig(
        label_map="",
        isolated_events=str(sources / "events"),
        backgrounds=str(sources / "flat"),
        soundscapes=4,
        max_events=1,
        duration=1.0,
    )
    label_map = LabelMap.load(write_lbl_map(sources / "lbl_map.json"))
    dataset = SoundscapeDataset(config, AudioConfig(), label_map, "multiclass", training_chain(64), 0)
    targets = [dataset[epoch, index][1] for epoch in range(3) for index in range(4)]
    assert set(targets) <= {0, 1, 2} and len(set(targets)) > 1
