"""The SNR of a data set's events, from JAMS files that Scaper wrote beside the soundscapes."""

import json
import logging
import shutil
import unicodedata

import numpy as np
import pytest
from small_sources import edit_jams, generate, write_sources

from src.data.events import Event
from src.data.lmdb.store import LMDBReader
from src.data.soundscapes.snr import snr_of_events
from src.errors import UserError
from src.preparation.packing import pack_mixtures

COUNT = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Soundscapes with their JAMS files, and as many others in a folder beside them."""
    sources = write_sources(tmp_path_factory.mktemp("sources"))
    folder = tmp_path_factory.mktemp("made")
    generate(sources, folder / "mix", "--format", "flac", count=2 * COUNT, check=0)
    (folder / "other").mkdir()
    for file in sorted((folder / "mix").glob("soundscape_*"))[3 * COUNT :]:
        file.rename(folder / "other" / file.name)
    return folder


@pytest.fixture
def jams(made, tmp_path):
    """A folder of the soundscapes' JAMS files alone, to be changed."""
    folder = tmp_path / "jams"
    folder.mkdir()
    for file in (made / "mix").glob("*.jams"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def events(made):
    """What an LMDB of the soundscapes says of each."""
    pack_mixtures([str(made / "mix")], str(made / "a.lmdb"))
    return LMDBReader(made / "a.lmdb").require_events()


def foreground(path):
    data = json.loads(path.read_text())["annotations"][0]["data"]
    return [event for event in data if event["value"]["role"] == "foreground"]


@pytest.fixture(scope="module")
def due(made):
    """The SNRs as the files list them: Scaper writes the `.txt` in the same order, and packing sorts by name."""
    files = sorted((made / "mix").glob("*.jams"))
    return [np.array([event["value"]["snr"] for event in foreground(file)]) for file in files]


def same(found, due):
    assert len(found) == len(due) and all(map(np.array_equal, found, due))


def test_the_events_of_an_lmdb_get_the_snr_of_their_jams(jams, events, due):
    assert len(events) == COUNT and {len(each) for each in events} == {1, 2, 3}
    assert all(((10 <= each) & (each <= 60)).all() for each in due)
    same(snr_of_events(jams, events), due)


def test_the_order_of_clips_events_and_files_changes_nothing(made, jams, events, due):
    """In subfolders, under other names, and beside JAMS files of another set."""
    for number, file in enumerate(sorted(jams.glob("*.jams"))):
        place = jams / f"part {number % 2}" / f"{COUNT - number}.jams"
        place.parent.mkdir(exist_ok=True)
        file.rename(place)
    shutil.copytree(made / "other", jams / "train")
    rng = np.random.default_rng(3)
    clips = rng.permutation(COUNT)
    orders = [rng.permutation(len(events[clip])) for clip in clips]
    shuffled = [[events[clip][place] for place in order] for clip, order in zip(clips, orders)]
    same(snr_of_events(jams, shuffled), [due[clip][order] for clip, order in zip(clips, orders)])


def test_a_negative_clip_needs_no_jams(jams, events, due):
    same(snr_of_events(jams, [[], *events]), [np.empty(0), *due])


def test_times_may_be_rounded_to_milliseconds_and_accents_be_characters_of_their_own(jams, events, due):
    file = sorted(jams.glob("*.jams"))[0]
    label, (first, *others) = events[0][0].label, events
    edit_jams(file, lambda annotation: rename(annotation, label, unicodedata.normalize("NFD", "Café")))
    first = [event._replace(label="Café") if event.label == label else event for event in first]
    named = [first, *others]
    for digits in (3, 6):
        rounded = [[Event(round(on, digits), round(off, digits), label) for on, off, label in each] for each in named]
        same(snr_of_events(jams, rounded), due)


def rename(annotation, label, other):
    for event in annotation["data"]:
        if event["value"]["label"] == label:
            event["value"]["label"] = other


def write(path, model, listed):
    """A JAMS file like another one, but with (onset, offset, label, SNR) as its events."""
    shutil.copy(model, path)
    value = foreground(model)[0]["value"]
    data = [
        {"time": on, "duration": off - on, "value": value | {"label": label, "snr": snr}, "confidence": 1.0}
        for on, off, label, snr in listed
    ]
    edit_jams(path, lambda annotation: annotation.update(data=data))


def test_events_of_one_label_that_rounding_puts_in_another_order(made, tmp_path):
    """The first two begin 0.2 ms apart, and as one in the `.txt`. Sorted by its times, the longer one comes last."""
    model = made / "mix" / "soundscape_000000.jams"
    write(tmp_path / "a.jams", model, [(1.0001, 3.0, "Gong", 11), (1.0003, 2.0, "Gong", 22), (1.0, 2.5, "Dog", 33)])
    events = [Event(1.0, 2.0, "Gong"), Event(1.0, 2.5, "Dog"), Event(1.0, 3.0, "Gong")]
    assert [each.tolist() for each in snr_of_events(tmp_path, [events, events[::-1]])] == [[22, 33, 11], [11, 33, 22]]


def test_onsets_and_offsets_in_other_pairs_are_another_soundscape(made, tmp_path):
    write(tmp_path / "a.jams", made / "mix" / "soundscape_000000.jams", [(1, 3, "Gong", 11), (2, 4, "Gong", 22)])
    same(snr_of_events(tmp_path, [[Event(2, 4, "Gong"), Event(1, 3, "Gong")]]), [np.array([22, 11])])
    with pytest.raises(UserError, match="1 of 1 clips"):
        snr_of_events(tmp_path, [[Event(1, 4, "Gong"), Event(2, 3, "Gong")]])


def test_events_are_matched_within_the_tolerance_where_that_can_be(made, tmp_path):
    """In order, both are 0.8 ms apart, 1.6 ms together. The other way they are 0 and 1.5 ms apart, which is too far."""
    listed = [(1.0008, 3.0, "Gong", 11), (1.0015, 3.0008, "Gong", 22)]
    write(tmp_path / "a.jams", made / "mix" / "soundscape_000000.jams", listed)
    events = [[Event(1.0, 3.0, "Gong"), Event(1.0008, 3.0, "Gong")]]
    same(snr_of_events(tmp_path, events), [np.array([11, 22])])


def test_of_several_jams_that_fit_the_nearest_counts(made, tmp_path, caplog):
    """Two that are as near and differ say nothing, and the log counts their events. If they agree, all is well."""
    model = made / "mix" / "soundscape_000000.jams"
    write(tmp_path / "a.jams", model, [(1.0, 3.0, "Gong", 11), (2.0, 4.0, "Dog", 22)])
    write(tmp_path / "b.jams", model, [(1.0004, 3.0, "Gong", 33), (2.0, 4.0, "Dog", 44)])
    events = [[Event(1.0, 3.0, "Gong"), Event(2.0, 4.0, "Dog")], [Event(1.0003, 3.0, "Gong"), Event(2.0, 4.0, "Dog")]]
    assert [each.tolist() for each in snr_of_events(tmp_path, events)] == [[11, 22], [33, 44]]
    write(tmp_path / "c.jams", model, [(2.0, 4.0, "Dog", 22), (1.0, 3.0, "Gong", 55)])
    with caplog.at_level(logging.WARNING):
        found = snr_of_events(tmp_path, events)
    assert np.isnan(found[0]).tolist() == [True, False] and found[0][1] == 22 and found[1].tolist() == [33, 44]
    assert "the SNR of 1 of 4 events is unknown" in caplog.text


def test_a_file_without_snr_gives_nan(jams, events, due):
    file = sorted(jams.glob("*.jams"))[2]
    edit_jams(file, lambda annotation: [event["value"].pop("snr") for event in annotation["data"]])
    found = snr_of_events(jams, events)
    assert np.isnan(found[2]).all() and len(found[2]) == len(due[2])
    same(found[:2] + found[3:], due[:2] + due[3:])


def test_clips_without_their_jams_are_counted(made, jams, events):
    """One is missing, and then another one is that of another soundscape."""
    files = sorted(jams.glob("*.jams"))
    files[3].unlink()
    with pytest.raises(UserError, match=f"1 of {COUNT} clips, such as clip 3. None lists its labels at its times"):
        snr_of_events(jams, events)
    shutil.copy(made / "other" / f"soundscape_{COUNT:06d}.jams", files[1])
    with pytest.raises(UserError, match=f"^{jams}: has no JAMS file for 2 of {COUNT} clips, such as clip 1") as caught:
        snr_of_events(jams, events)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"for {COUNT} of {COUNT} clips, such as clip 0.*another set"):
        snr_of_events(made / "other", events)


def test_a_folder_without_jams_or_with_a_damaged_one_is_refused(jams, events, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no JAMS files in this folder"):
        snr_of_events(tmp_path / "empty", events)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        snr_of_events(tmp_path / "nowhere", events)
    (jams / "x.jams").write_text('{"annotations"')
    with pytest.raises(UserError, match="x.jams: is not a JAMS file, or is truncated"):
        snr_of_events(jams, events)


def test_tiled_clips_are_refused(made, jams):
    """Packed to last six seconds, the soundscapes of five have some events twice, and others that end earlier."""
    pack_mixtures([str(made / "mix")], str(made / "long.lmdb"), min_duration=6)
    tiled = LMDBReader(made / "long.lmdb").require_events()
    assert any(len({event.label for event in each}) < len(each) for each in tiled)
    with pytest.raises(UserError, match="or were short clips repeated when they were packed"):
        snr_of_events(jams, tiled)
