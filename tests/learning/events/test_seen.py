"""What a network saw of clips, as scores and events on one axis of time, by hand."""

import numpy as np
import pytest
import torch
from conftest import CLASSES

from src.config.sections import AudioConfig
from src.data.audio.files import encode
from src.data.events import Event
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.data.transforms import evaluation_chain
from src.learning.events.psds import PSDS1, psds, psds_curves
from src.learning.events.seen import cut, heard, seen

HOP = 220 / 22050  # s
FRAMES = 100  # of the spectrogram of a clip that is 99 hops long
EVENTS = [Event(20 * HOP, 40 * HOP, CLASSES[0]), Event(70 * HOP, 99 * HOP, CLASSES[1])]


@pytest.fixture(scope="module")
def lmdb(tmp_path_factory):
    path = tmp_path_factory.mktemp("seen") / "a.lmdb"
    with LMDBWriter(path) as writer:
        samples = np.zeros((FRAMES - 1) * 220 + 1)
        writer.add(Record(encode(samples, 22050, "FLAC"), ",".join(CLASSES[:2])), EVENTS)
    return str(path)


@pytest.mark.parametrize(
    "size, stride, first_time, last_time, frames",
    [
        (100, 4, 0, 99.5, 25),  # all of it
        (60, 4, 19.5, 79.5, 15),  # its centre: 20 frames are left out on either side
        (102, 4, 0, 99.5, 26),  # padded by one frame on either side, which are parts of the first and last frame
        (110, 4, 0, 99.5, 26),  # by five: the first of 28 frames shows nothing of the clip itself, nor does the last
        (98, 3, 0.5, 98.5, 33),
    ],
)
def test_scores_and_events_lie_where_they_were_heard(lmdb, size, stride, first_time, last_time, frames):
    """Times are in hops. A network that says what is there, frame by frame, has a PSDS of 1."""
    dataset = LMDBDataset(lmdb, AudioConfig(), LabelMap(CLASSES), "events", evaluation_chain(size))
    dataset.use_frames(stride)
    batch = dataset.__getitems__([(0, 0)])
    scores, truth = seen(batch.frames, batch.spans, dataset)
    assert scores.values.shape == (len(CLASSES), frames)
    assert scores.onset[0] == 0 and np.array_equal(scores.onset[1:], scores.offset[:-1])
    length = (last_time - first_time) * HOP
    assert scores.offset[-1] == pytest.approx(length) and truth.durations[0] == pytest.approx(length)
    for number, event in enumerate(EVENTS):
        onset, offset = (np.clip(time / HOP, first_time, last_time) - first_time for time in event[:2])
        assert truth.onset[number] == pytest.approx(onset * HOP) and truth.offset[number] == pytest.approx(offset * HOP)
        said = scores.values[number] > 0.4
        assert scores.onset[said].min() == pytest.approx(truth.onset[number], abs=stride * HOP)
        assert scores.offset[said].max() == pytest.approx(truth.offset[number], abs=stride * HOP)
    curves = psds_curves(scores, truth, PSDS1, truth.each_clip_once)
    assert psds(curves, truth, truth.each_clip_once, alpha_st=0).value.item() == pytest.approx(1)


def test_events_are_cut_to_what_was_heard():
    events = [Event(0, 1, "a"), Event(1, 3, "b"), Event(2.5, 9, "c"), Event(4, 5, "d")]
    assert cut(events, 1, 4) == [Event(0, 2, "b"), Event(1.5, 3, "c")]


def test_a_clip_that_is_all_padding_behind_its_end_is_scored_once(lmdb):
    """A clip repeated three times to fill a view counts once, with the scores of the middle."""
    dataset = LMDBDataset(lmdb, AudioConfig(), LabelMap(CLASSES), "events", evaluation_chain(300))
    dataset.use_frames(1)
    batch = dataset.__getitems__([(0, 0)])
    numbered = torch.arange(300.0)[None, :, None].expand(1, 300, len(CLASSES))
    scores, _ = seen(numbered, batch.spans, dataset)
    assert scores.values[0].tolist() == list(range(100, 200))


@pytest.mark.parametrize("size", [20, 30, 40, 100, 300])
def test_what_was_heard_are_the_events_of_the_truth(lmdb, size):
    """In hops, views of 20, 30 and 40 frames are from 39.5 to 59.5, from 34.5 to 64.5 and from 29.5 to 69.5.

    So all hear the first event, which ends at 40, and none of them the second one, which begins at 70.
    """
    dataset = LMDBDataset(lmdb, AudioConfig(), LabelMap(CLASSES), "events", evaluation_chain(size))
    dataset.use_frames(1)
    batch = dataset.__getitems__([(0, 0), (0, 0)])
    _, truth = seen(batch.frames, batch.spans[:1], dataset)
    (mask,) = heard(batch.spans[:1], dataset)
    assert mask.tolist() == [True, size >= 100]
    assert truth.label.tolist() == [number for number, was in enumerate(mask) if was]
