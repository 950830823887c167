"""Windows in a row that reach a threshold become one event, and many files get the scores that each has alone."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import FIXTURES, SAMPLE_RATE
from released import CKPT

from src.errors import UserError
from src.models.decisions import EventDecisions
from src.tagging.found import FoundEvent, found_in
from src.tagging.inputs import Length
from src.tagging.tagger import Tagged, Tagger


def tagged(starts, length, scores):
    """Of one class, in windows of 4 s."""
    starts, scores = np.array(starts, dtype=float), np.array(scores, dtype=np.float32)[:, None]
    ends = np.minimum(starts + 4, length)
    return Tagged(Path("a"), Length(length, 1), starts, ends, scores, np.empty((len(starts), 0)), np.empty((1, 0)))


@pytest.mark.parametrize(
    "starts, scores, expected",
    [
        ([0, 2, 4, 6], [0.6, 0.9, 0.7, 0.1], [(0, 8, 0.9)]),
        ([0, 2, 4, 6], [0.6, 0.1, 0.1, 0.5], [(0, 4, 0.6), (6, 10, 0.5)]),
        ([0, 2, 4, 6], [0.6, 0.1, 0.7, 0.8], [(0, 4, 0.6), (4, 10, 0.8)]),  # it fell below in between
        ([0, 4, 6], [0.6, 0.7, 0.8], [(0, 10, 0.8)]),  # they only touch
        ([0, 5, 6], [0.6, 0.7, 0.8], [(0, 4, 0.6), (5, 10, 0.8)]),  # between the first two nothing was scored
        ([0, 2, 4, 6], [0.1, 0.2, 0.3, 0.4], []),
        ([0], [0.5], [(0, 4, 0.5)]),
    ],
)
def test_windows_in_a_row_are_one_event(starts, scores, expected):
    found = found_in(tagged(starts, 10, scores), EventDecisions([1], [0.5]))
    assert found == [FoundEvent(begin, end, 0, pytest.approx(score)) for begin, end, score in expected]
    assert found_in(tagged(starts, 10, scores), EventDecisions([1], [None])) == []


@pytest.mark.processes
def test_many_files_have_the_scores_of_each_alone_whatever_the_workers(tmp_path):
    """In their order. What one that cannot be read is, is told in its place. `at_once` gets each as it is done."""
    rng, files = np.random.default_rng(0), []
    for number, seconds in enumerate((9, 1, 14, 0, 5, 6)):
        files.append(tmp_path / f"{number}.flac")
        samples = 0.1 * rng.standard_normal((seconds * 30000, 2))
        soundfile.write(files[-1], samples, 30000)
    files[4].write_bytes(files[4].read_bytes()[:-3000])  # it breaks off behind its first windows
    tagger = Tagger(CKPT, FIXTURES / "lbl_map.json", window=2, hop=1.5)
    alone = {}
    for number in (0, 1, 2, 5):
        alone[number] = tagger(files[number])
    for num_workers in (0, 1, 4):
        at_once = {}
        found = list(tagger.of_files(files, num_workers, at_once.__setitem__))
        assert len(found) == len(files) and set(at_once) == set(alone)
        for number, one in enumerate(found):
            if number in alone:
                assert one is at_once[number] and one.path == files[number]
                for name in ("starts", "ends", "scores", "embeddings", "picture"):
                    assert np.array_equal(getattr(one, name), getattr(alone[number], name)), name
            else:
                assert isinstance(one, UserError) and f"{files[number]}: is " in str(one)
    assert alone[0].length == (270000, 30000) and len(alone[0].starts) == 6 and alone[0].picture.shape[1] == 2000


def test_a_picture_is_kept_where_it_is_wanted(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, 3 * SAMPLE_RATE), SAMPLE_RATE)
    plain, drawn = (Tagger(CKPT, FIXTURES / "lbl_map.json", 1, 1, drawn=drawn)(tmp_path / "a.wav") for drawn in (0, 1))
    assert plain.picture.shape == (221, 0) and drawn.picture.shape == (221, 2000)
    assert np.array_equal(plain.scores, drawn.scores)
