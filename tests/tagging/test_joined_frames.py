"""Frame scores of windows that overlap, against one pass over the whole recording, and the events that they make."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import FIXTURES, SAMPLE_RATE
from released import CKPT, clip
from torch import nn

from src.data.audio.files import encode
from src.data.events import Event
from src.data.inmemory_lmdb_dataset import LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter
from src.data.transforms import evaluation_chain
from src.errors import UserError
from src.learning.events.clips import FrameScores
from src.learning.events.seen import seen
from src.models.checkpoint import Checkpoint, read_checkpoint
from src.models.decisions import EventDecisions
from src.models.frames import FrameNetwork, clip_logits
from src.tagging.found import FoundEvent, found_events
from src.tagging.frames import with_frames
from src.tagging.recordings import in_memory
from src.tagging.tagger import Tagger

LBL_MAP = FIXTURES / "lbl_map.json"
HOP, STRIDE = 220, 4  # samples of a column, columns of a frame
STEP = HOP * STRIDE
FRAME = STEP / SAMPLE_RATE  # s


class PointFeatures:
    """Column k is the sample at its middle, so that windows see the same as the whole recording does."""

    feature, sample_rate, num_bins, hop_len, frequencies = "spectrogram", SAMPLE_RATE, 1, HOP, np.zeros(1)

    def num_frames(self, num_samples):
        return 1 + (num_samples - 1) // HOP

    def __call__(self, samples):
        return np.ascontiguousarray(samples[None, ::HOP])


class FirstColumn(FrameNetwork):
    """A 1×1 convolution of stride 4: each frame's logits depend on its own first column alone."""

    def __init__(self):
        nn.Module.__init__(self)
        self.stride = STRIDE
        self.layer = nn.Conv2d(1, 18, 1, stride=(1, STRIDE))
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-8, 8, 18)[:, None, None, None])
            self.layer.bias.zero_()

    def forward(self, inputs, of_frames=False):
        logits = self.layer(inputs).mean(dim=2).transpose(1, 2)  # (B, J, C)
        return logits if of_frames else clip_logits(logits)


def tagger_of(window, hop, network, features=None, **more):
    """Of a released checkpoint, with another network and features in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "network", lambda checkpoint: network)
        tagger = Tagger(CKPT, LBL_MAP, window, hop, frames=True, **more)
    assert tagger.inputs.features.hop_len == HOP
    tagger.inputs = replace(tagger.inputs, features=features or tagger.inputs.features)
    return tagger


def tag(tagger, samples):
    return tagger.of_recording(in_memory(samples, SAMPLE_RATE))


def noise(length):
    return np.random.default_rng(length).uniform(-0.9, 0.9, length).astype(np.float32)


def expected(samples):
    """(C, J) scores of one pass: frame j begins with the sample in the middle of its first column."""
    with torch.inference_mode():
        columns = torch.from_numpy(samples[::HOP].copy())[None, None, None]
        return FirstColumn()(columns, of_frames=True)[0].sigmoid().numpy().T


def require_times(scores, length):
    """Frames follow each other, four columns each, from 0 to the recording's end. Column 0 is centred at 0."""
    due = np.append(np.maximum((STRIDE * np.arange(len(scores.onset)) - 0.5) * HOP / SAMPLE_RATE, 0), scores.offset[-1])
    assert np.allclose(scores.onset, due[:-1]) and np.allclose(scores.offset, due[1:])
    assert (scores.offset > scores.onset).all() and scores.offset[-1] <= length / SAMPLE_RATE + 1e-12


@pytest.mark.parametrize(
    "window, hop",
    [(1, 0.5), (1, 1), (0.65, 0.3), (0.66, 0.66), (0.5, 0.17), (2, 0.01), (0.3, 0.299), (0.05, 0.05)],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_frame_scores_are_those_of_one_pass(window, hop, batch_size):
    """Also where windows and hops are no whole numbers of frames, and where the recording is none of windows."""
    tagger = tagger_of(window, hop, FirstColumn(), PointFeatures(), batch_size=batch_size)
    tagger.require_frames()
    assert tagger.inputs.hop % STEP == 0 and tagger.inputs.hop <= max(round(hop * SAMPLE_RATE), STEP)
    for length in (5 * SAMPLE_RATE, 4 * SAMPLE_RATE + 12345):
        samples = noise(length)
        tagged = tag(tagger, samples)
        due, found = expected(samples), tagged.frames.values
        places = tagged.starts * SAMPLE_RATE / STEP
        assert len(places) > 2 and np.allclose(places, np.round(places)) and tagged.ends[-1] == length / SAMPLE_RATE
        # A frame of which the last window has not the first column is a part of the frame before it.
        assert due.shape[1] - 1 <= found.shape[1] <= due.shape[1]
        assert np.allclose(found, due[:, : found.shape[1]], atol=1e-6)
        require_times(tagged.frames, length)


@pytest.mark.parametrize("length", [22000, 22001, 22049, 22050, 22051, 22930, 22931])
def test_recordings_about_as_long_as_a_window(length):
    """Of whole frames, of exactly one window, of one sample more, and of a window and a frame and one sample more."""
    samples = noise(length)
    tagged = tag(tagger_of(1, 0.5, FirstColumn(), PointFeatures()), samples)
    last = 0 if length <= SAMPLE_RATE else STEP if length <= SAMPLE_RATE + STEP else 2 * STEP
    assert np.allclose(tagged.starts * SAMPLE_RATE, [0, last] if last else [0])
    due, found = expected(samples), tagged.frames.values
    assert due.shape[1] - 1 <= found.shape[1] <= due.shape[1]
    assert np.allclose(found, due[:, : found.shape[1]], atol=1e-6)
    require_times(tagged.frames, length)


@pytest.mark.parametrize("length", [1, 2, 109, 110, 111, 219, 220, 221, 880, 881, 5000])
def test_of_a_recording_shorter_than_a_window_only_itself_is_told(length):
    """Its window is filled with repetitions of it. The first and the last frame may lack what is of these."""
    tagged = tag(tagger_of(1, 0.5, FirstColumn(), PointFeatures()), noise(length))
    (start,), (end,), scores = tagged.starts, tagged.ends, tagged.frames
    assert start == scores.onset[0] == 0 and end == length / SAMPLE_RATE
    assert np.array_equal(scores.onset[1:], scores.offset[:-1]) and (scores.offset > scores.onset).all()
    assert end - 0.5 * HOP / SAMPLE_RATE - 1e-12 <= scores.offset[-1] <= end


@pytest.fixture(scope="module")
def released():
    """The released weights, made to score frames."""
    return Tagger(CKPT, LBL_MAP, 1, 0.5, frames=True)


@pytest.mark.parametrize("length", [1, 300, 5000, 12345, 21999, 22000, 22050])
def test_a_clip_of_one_window_has_the_frame_scores_of_the_evaluation(released, tmp_path, length):
    """Of the released weights, where the evaluation sees as many frames as the window has."""
    samples, tagger = (0.9 * clip()[:length]).astype(np.float32), released
    assert isinstance(tagger.network.network, FrameNetwork) and tagger.inputs.stride == STRIDE
    names = tagger.classes
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(encode(samples, SAMPLE_RATE, "FLAC"), names[0]), [Event(0, 1e-5, names[0])])
    chain = evaluation_chain(tagger.inputs.window // HOP)
    dataset = LMDBDataset(str(tmp_path / "a.lmdb"), read_checkpoint(CKPT).config.audio_config, LabelMap(names),
                          "events", chain)  # fmt: skip
    dataset.use_frames(STRIDE)
    batch = dataset.__getitems__([(0, 0)])
    with torch.inference_mode():
        outputs = tagger.network.network(batch.inputs, of_frames=True).sigmoid()
    due, _ = seen(outputs, batch.spans, dataset)
    found = tag(tagger, dataset.waveform(0).astype(np.float32) / 2**15).frames
    assert np.allclose(found.values, due.values, atol=1e-5)
    assert np.allclose(found.onset, due.onset) and np.allclose(found.offset[:-1], due.offset[:-1])
    assert found.offset[-1] == pytest.approx(min(due.offset[-1], length / SAMPLE_RATE))


ONLY_LAST = EventDecisions([1] * 18, [None] * 17 + [0.5])


@pytest.mark.parametrize("window, hop", [(1, 1), (1, 0.5), (0.7, 0.2), (5, 2.5)])
def test_an_event_across_windows_is_found_once_and_uncut(window, hop):
    """From the 20th to the 40th frame, over the border at 1 s, and from the 100th to the end."""
    samples = np.full(5 * SAMPLE_RATE, -0.5, np.float32)
    samples[20 * STEP : 40 * STEP] = samples[100 * STEP :] = 0.5
    tagged = tag(tagger_of(window, hop, FirstColumn(), PointFeatures()), samples)
    first, second = found_events(tagged.frames, ONLY_LAST)
    begin, *times = ((frame * STEP - 0.5 * HOP) / SAMPLE_RATE for frame in (20, 40, 100))
    # The largest weight is 8, and the probability of half of it 1 / (1 + exp(-4)).
    confidence = 1 / (1 + np.exp(-4))
    assert first == pytest.approx((begin, times[0], 17, confidence), abs=1e-6)
    assert second[0] == pytest.approx(times[1]) and 5 - FRAME <= second[1] <= 5
    assert second[2:] == pytest.approx((17, confidence), abs=1e-6)


class Loudest(FrameNetwork):
    """All classes are as loud as the loudest bin, in tens of dB above the window's mean, in the mean over a frame."""

    def __init__(self):
        nn.Module.__init__(self)
        self.stride = STRIDE

    def forward(self, inputs, of_frames=False):
        pooled = nn.functional.avg_pool1d(inputs.amax(dim=2), STRIDE, ceil_mode=True)  # (B, 1, J)
        logits = (pooled.transpose(1, 2) / 10 - 2).expand(-1, -1, 18)
        return logits if of_frames else clip_logits(logits)


@pytest.mark.parametrize("onset, offset", [(1.0, 2.0), (0.333, 0.777), (0, 0.5), (4.123, 5.0), (0.95, 4.05)])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 16000])
def test_a_tones_frames_lie_where_the_tone_is(onset, offset, rate):
    t = np.arange(5 * rate) / rate
    samples = (0.5 * np.sin(2 * np.pi * 1000 * t) * ((t >= onset) & (t < offset))).astype(np.float32)
    samples += 1e-4 * np.random.default_rng(0).standard_normal(len(t)).astype(np.float32)
    tagger = tagger_of(1, 0.5, Loudest())
    tagged = tagger.of_recording(in_memory(samples, rate))
    decisions = EventDecisions([1] * 18, [0.5] + [None] * 17)
    (event,) = found_events(tagged.frames, decisions)
    assert event.onset == pytest.approx(onset, abs=FRAME) and event.offset == pytest.approx(offset, abs=FRAME)
    assert event.offset <= tagged.ends[-1] == 5 and event.onset >= 0


def test_events_by_hand():
    """Two classes, of which the first is filtered: what is behind the filter is its confidence. Equal ones count."""
    scores = FrameScores.of([np.array([[0.9, 0.1], [0.2, 0.5], [0.7, 0.6], [0.6, 0.4], [0.1, 0.5]])], 0.1)
    # Medians of three, of the first class: 0.9, 0.7, 0.6, 0.6, 0.1.
    assert found_events(scores, EventDecisions([3, 1], [0.6, 0.5])) == [
        FoundEvent(0.0, pytest.approx(0.4), 0, 0.9),
        FoundEvent(pytest.approx(0.1), pytest.approx(0.3), 1, 0.6),
        FoundEvent(pytest.approx(0.4), pytest.approx(0.5), 1, 0.5),
    ]
    assert found_events(scores, EventDecisions([1, 1], [None, 0.61])) == []
    assert [event.onset for event in found_events(scores, EventDecisions.plain(2))] == pytest.approx([0, 0.1, 0.2, 0.4])


def test_what_leaves_frames_out_is_refused():
    """And so is what has none. Windows alone can be scored all the same."""
    apart = tagger_of(1, 1.5, FirstColumn())
    assert tag(apart, noise(3 * SAMPLE_RATE)).frames is None
    with pytest.raises(UserError, match="the hop is longer than the window"):
        apart.require_frames()
    with pytest.raises(UserError, match="is a tagger, and scores no frames"):
        Tagger(CKPT, LBL_MAP).require_frames()
    checkpoint = read_checkpoint(CKPT)
    assert with_frames(checkpoint).config.model.type == "events"
    object.__setattr__(checkpoint.config.model, "type", "multiclass")
    with pytest.raises(UserError, match=r"has one class a clip \(model.type multiclass\), and no frame scores"):
        with_frames(checkpoint)
