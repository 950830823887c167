"""Targets of frames: where a tone marks an event, the spectrogram has it in the frames whose target says so."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import CLASSES, SAMPLE_RATE
from hypothesis import given
from hypothesis import strategies as st

from src.config.sections import AudioConfig, AugmentConfig
from src.data.audio.files import encode
from src.data.device_features import DeviceFeatures
from src.data.events import Event, frame_targets
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.data.transforms import Bands, View, evaluation_chain, training_chain

LABEL_MAP = LabelMap(CLASSES)
HOP, BAND_WIDTH = 220, SAMPLE_RATE / 2 / 32
TONES = {label: (8 + 8 * number) * BAND_WIDTH for number, label in enumerate(CLASSES)}  # Hz, in the middle of nothing
AUDIO = AudioConfig(n_fft=62, hop_len=HOP, win_len=62)  # 32 bins, and windows shorter than a hop: no tone spreads

EVERYTHING = AugmentConfig(roll=True, freq_shift=2, mask_prob=1.0, time_mask=0.3, freq_mask=0.0)
CHAINS = {
    "nothing": (training_chain(300, AugmentConfig(mask_prob=0.0)), 0.0),
    "crop": (training_chain(100, AugmentConfig(mask_prob=0.0)), 0.0),
    "padding": (training_chain(350, AugmentConfig(mask_prob=0.0)), 0.0),
    "roll": (training_chain(300, AugmentConfig(roll=True, mask_prob=0.0)), 0.0),
    "masks": (training_chain(300, replace(EVERYTHING, roll=False, freq_shift=0)), 0.0),
    "two clips": (training_chain(300, AugmentConfig(mask_prob=0.0)), 1.0),
    "everything": (training_chain(120, EVERYTHING), 0.5),
    "evaluation": (evaluation_chain(350), 0.0),
}


def marked_clip(rng, length):
    """Samples of which each event is a tone, and the events, which begin and end between two frames."""
    t, events = np.arange(length) / SAMPLE_RATE, []
    samples = np.zeros(length)
    for label in rng.choice(CLASSES, size=2, replace=False):
        first = int(rng.integers(0, length // HOP - 40))
        onset, offset = ((first + frames) * HOP / SAMPLE_RATE for frames in (0.6, rng.integers(5, 60) + 0.4))
        inside = (t >= onset) & (t < offset)
        samples += 0.3 * inside * np.sin(2 * np.pi * TONES[label] * t)
        events.append(Event(onset, min(offset, length / SAMPLE_RATE), str(label)))
    return samples, events


def dataset_of(path, chain, wave_mix):
    """Ten clips, of two lengths."""
    rng = np.random.default_rng(7)
    with LMDBWriter(path) as writer:
        for number in range(10):
            samples, events = marked_clip(rng, (300 - 30 * (number % 2)) * HOP)
            labels = ",".join(event.label for event in events)
            writer.add(Record(encode(samples, SAMPLE_RATE, "FLAC"), labels), events)
    dataset = LMDBDataset(str(path), AUDIO, LABEL_MAP, "events", chain, 3)
    dataset.wave_mix = wave_mix
    dataset.use_frames(1)
    return dataset


@pytest.mark.parametrize("on_device", [False, True], ids=["workers", "device"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_tone_is_where_the_target_is(tmp_path, name, on_device):
    dataset = dataset_of(tmp_path / "a.lmdb", *CHAINS[name])
    dataset.on_device = on_device
    heard = 0
    for epoch in range(3):
        batch = dataset.__getitems__([(epoch, index) for index in range(len(dataset))])
        inputs = DeviceFeatures(dataset.features)(batch.inputs) if on_device else batch.inputs  # (B, 1, F, T)
        assert batch.frames.shape == (len(dataset), inputs.shape[3], len(CLASSES))
        for spectrogram, targets in zip(inputs[:, 0].numpy(), batch.frames.numpy()):
            loud = spectrogram > max(spectrogram.min() + 40, spectrogram.max() - 25)
            for c, label in enumerate(CLASSES):
                row = round(TONES[label] / (SAMPLE_RATE / 62))
                sounds = loud[row - 2 : row + 3].any(axis=0)  # (T,), wherever a shift has put it
                whole = (targets[:, c] < 1e-6) | (targets[:, c] > 1 - 1e-6)
                ends = np.float32([0.9, 0.5])  # of an event, and of a clip
                assert np.isin(targets[~whole, c].round(4), ends).all()
                assert np.array_equal(sounds, targets[:, c] > 0.4), (name, epoch, label)
                heard += sounds.sum()
    assert heard > 100


def test_a_coarser_frame_says_how_much_of_it_an_event_sounds():
    """Columns 2 to 4 of 8 in part, and 7 whole, in frames of three columns. The last frame has two."""
    view, hop = View.whole(4, 8), 0.01
    events = [Event(0.018, 0.0425, CLASSES[1]), Event(0.065, 1.0, CLASSES[1])]  # from 0.7 of column 2 to 0.75 of 4
    found = frame_targets(view, events, LABEL_MAP, hop, 3)
    assert found.shape == (3, len(CLASSES))
    assert np.allclose(found[:, 1], [0.7 / 3, 1.75 / 3, 1 / 2])
    assert not found[:, [0, 2]].any()


def test_an_event_that_lasts_no_time_is_none():
    assert not frame_targets(View.whole(4, 8), [Event(0.03, 0.03, CLASSES[0])], LABEL_MAP, 0.01, 4).any()


def test_events_of_a_class_that_overlap_count_once_and_masks_take_them_away():
    view = View(4, 10, 0, 10, bands=(Bands(0, 0, 3, 2), Bands(0, 4, 0, 0)))
    events = [Event(0.015, 0.055, CLASSES[0]), Event(0.035, 0.065, CLASSES[0])]  # frames 2 to 5, 4 to 6
    assert np.allclose(frame_targets(view, events, LABEL_MAP, 0.01, 1)[:, 0], [0, 0, 1, 0, 0, 1, 1, 0, 0, 0])


@given(st.data())
def test_what_is_shown_of_a_clip_is_what_a_view_shows(data):
    """Of a spectrogram whose frames are numbered, a view has the numbers that `shown` gives."""
    draw = data.draw
    length, size = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    bands = draw(st.lists(st.tuples(st.just(0), st.just(0), st.integers(0, size), st.integers(0, 5)), max_size=2))
    view = View(
        num_bins=2,
        num_frames=length,
        first=draw(st.integers(-20, 20)),
        size=size,
        wrap=draw(st.booleans()),
        bands=tuple(Bands(row, rows, min(column, size - 1), columns) for row, rows, column, columns in bands),
        roll=draw(st.integers(0, length - 1)),
    )
    if not view.wrap and not (view.first < length and view.first + size > 0):
        return  # no chain looks past a clip
    seen = view.of(np.tile(1 + np.arange(length), (2, 1)))[0]
    shown = view.shown()
    assert np.array_equal(seen[shown >= 0], 1 + shown[shown >= 0])
    assert len(set(seen[shown < 0])) <= 1
