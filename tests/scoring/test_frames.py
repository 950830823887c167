"""Which frames of a clip are scored, and what is said of it."""

import logging

import numpy as np
import pytest
from conftest import SAMPLE_RATE

from src.config.sections import AudioConfig
from src.data.audio.files import encode
from src.data.clip_dataset import ClipDataset
from src.data.labels import LabelMap
from src.data.transforms import evaluation_chain
from src.scoring.frames import LOOKED_AT, durations, frames_to_score, report_frames


class Clips(ClipDataset):
    """FLAC of these lengths in seconds. One of None is no audio."""

    def __init__(self, *lengths, **audio):
        self.lengths, self.asked_for = lengths, []
        super().__init__("a" * len(lengths), AudioConfig(**audio), LabelMap(["a"]), "multilabel", evaluation_chain(1))

    def __len__(self):
        return len(self.lengths)

    def where(self, index):
        return f"clip {index}"

    def stored(self, index):
        self.asked_for.append(index)
        seconds = self.lengths[index]
        return b"none" if seconds is None else encode(np.zeros(round(seconds * SAMPLE_RATE)), SAMPLE_RATE, "FLAC")

    def waveform(self, index):
        raise NotImplementedError


@pytest.mark.parametrize(
    "lengths, frames",
    [
        ((5.0,), 501),
        ((5.02, 1.0), 501),
        ((0.5,), 501),
        ((5.2,), 1001),
        ((10.0,), 1001),
        ((5.0, 10.0, 3.0), 1001),
        ((30.0,), 1001),
        ((None, 10.0), 1001),
        ((None,), 501),
    ],
)
def test_the_published_number_of_frames_for_the_clips_length(lengths, frames):
    assert frames_to_score(Clips(*lengths)) == frames


@pytest.mark.parametrize("lengths, frames", [((5.0,), 251), ((0.5, 10.0, None), 501), ((None,), 251), ((0.001,), 1)])
def test_of_log_mels_all_frames_of_the_longest_clip(lengths, frames):
    assert frames_to_score(Clips(*lengths, feature="logmel", hop_len=441)) == frames


def test_few_clips_are_looked_at_from_the_first_to_the_last():
    clips = Clips(*[0.1] * 999)
    assert durations(clips) == [0.1] * LOOKED_AT
    assert clips.asked_for[0] == 0 and clips.asked_for[-1] == 998 and len(set(clips.asked_for)) == LOOKED_AT


FIVE = "501 frames (5.0 s)"


@pytest.mark.parametrize(
    "lengths, frames, more, line, warning",
    [
        ((5.0,), 501, {}, f"scored: {FIVE} from the centre of each clip (--num_timesteps)", None),
        ((10.0,), 1001, {}, "scored: 1001 frames (10.0 s) from the centre of each clip (--num_timesteps)", None),
        (
            (10.0,),
            501,
            {},
            f"scored: {FIVE} from the centre of each clip (--num_timesteps)",
            "clips last 10.0 s, of which 5.0 s are scored: --num_timesteps 1003 scores all",
        ),
        (
            (3.0, 7.5),
            501,
            {},
            f"scored: {FIVE} from the centre of each clip (--num_timesteps). Clips last 3.0 to 7.5 s: shorter ones are "
            "repeated up to it",
            "clips last 3.0 to 7.5 s, of which 5.0 s are scored: --num_timesteps 752 scores all",
        ),
        (
            (5.0,),
            1000,
            {"flag": "--val_clip_size"},
            "scored: 1000 frames (10.0 s) from the centre of each clip (--val_clip_size). Clips last 5.0 s: shorter "
            "ones are repeated up to it",
            None,
        ),
        ((5.0,), 300, {"crop": False}, "scored: all of each clip, at least 300 frames (3.0 s) (--num_timesteps)", None),
        ((None,), 501, {}, f"scored: {FIVE} from the centre of each clip (--num_timesteps)", None),
    ],
)
def test_what_is_scored_is_said(caplog, lengths, frames, more, line, warning):
    caplog.set_level(logging.INFO)
    report_frames(Clips(*lengths), frames, **more)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("INFO", line)] + ([("WARNING", warning)] if warning else [])


def test_the_number_of_frames_that_scores_all_is_that_of_the_clips(caplog):
    clips = Clips(1.0, hop_len=441)
    report_frames(clips, 20)
    needed = int(caplog.records[-1].getMessage().split()[-3])
    caplog.clear()
    assert needed == clips.features.num_frames(SAMPLE_RATE)
    report_frames(clips, needed)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
