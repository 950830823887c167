"""Events of packed clips: kept with their times, read from every storage that has them, told where there are none."""

import hashlib
import math
import pickle
import shutil

import lmdb
import msgpack
import numpy as np
import pytest
import soundfile
from conftest import CLASSES, CLIP, FIXTURES, SAMPLE_RATE, raw, run_script, tone_clip, write_folder, write_soundscape

from src.config.sections import AudioConfig
from src.data.audio.files import decode, encode
from src.data.checks.check import check
from src.data.events import Event, tiled
from src.data.inmemory_lmdb_dataset import InMemoryLMDBDataset, LMDBDataset
from src.data.labels import LabelMap
from src.data.lmdb.fingerprint import fingerprint
from src.data.lmdb.store import EVENTS, LMDBReader, Record, packed_events
from src.data.lmdb.writer import LMDBWriter
from src.data.manifest_dataset import ManifestDataset
from src.data.transforms import evaluation_chain
from src.errors import UserError
from src.preparation.annotations import read_events
from src.preparation.packing import pack_mixtures

RELEASED = FIXTURES / "released_mixtures_layout.lmdb"
AUDIO = AudioConfig(min_duration=0.5)
LABELS = LabelMap(CLASSES)


def pack(folder, target, *more):
    words = ("--mixture_dir", folder, "--lmdb_path", target, "--audio_min_duration", 0.5, *more)
    return run_script("pack_mixtures_into_lmdb.py", *words, check=0)


def flac(seed):
    return encode(tone_clip(["Drum"], seed), SAMPLE_RATE, "FLAC")


def write_lmdb(path, events, *, keep=True, folds=False, **options):
    """An LMDB of a record for each list of events."""
    with LMDBWriter(path, **options) as writer:
        for index, each in enumerate(events):
            record = Record(flac(index), ",".join(event.label for event in each), 1 + index % 3 if folds else None)
            writer.add(record, each if keep else None)
    return path


def some_events(count):
    return [[Event(0.05 * i, 0.05 * i + 0.1, CLASSES[i % 3])] * (1 + i % 2) for i in range(count)]


def put(path, value):
    """Write an entry of events into an LMDB."""
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 24) as env, env.begin(write=True) as transaction:
        transaction.put(EVENTS, value)
    return path


# ---- packed ----


def test_packing_keeps_every_event_as_it_is_listed_whatever_the_number_of_workers(tmp_path):
    folder = write_folder(tmp_path / "mix", 19, 0)
    composed, apart = "Café 名", "Cafe\u0301 名"
    (folder / "s003.txt").write_text(f"0.30000000000000004\t0.4\t{apart}\n0\t0.25\tDrum\n1e-3\t0.5\t{apart}\n")
    end = CLIP / SAMPLE_RATE + 1e-9  # as rounding may give
    (folder / "s004.txt").write_text(f"0.1\t{end!r}\tHarp\n")
    for workers in (1, 3):
        pack(folder, tmp_path / f"{workers}.lmdb", "--num_workers", workers, "--write_frequency", 4)
    assert (tmp_path / "1.lmdb").read_bytes() == (tmp_path / "3.lmdb").read_bytes()
    events = LMDBReader(tmp_path / "3.lmdb").events()
    listed = [read_events(file) for file in sorted(folder.glob("*.txt"))]
    assert events[3] == [(0.30000000000000004, 0.4, composed), (0, 0.25, "Drum"), (0.001, 0.5, composed)]
    assert events[4] == [Event(0.1, end, "Harp")]
    assert events[:3] + events[4:] == listed[:3] + listed[4:] and len(events) == 19
    assert all(type(event) is Event for each in events for event in each)


def test_a_negative_clip_has_no_event(tmp_path):
    folder = write_folder(tmp_path / "mix", 2, 0)
    (folder / "s000.txt").write_text("")
    pack(folder, tmp_path / "a.lmdb", "--allow_empty")
    assert LMDBReader(tmp_path / "a.lmdb").events() == [[], read_events(folder / "s001.txt")]


def test_the_entry_is_as_the_format_says_and_nothing_else_has_changed(tmp_path):
    """The reader of 2021 asks for `__len__`, `__keys__` and these keys. All of them are as without events."""
    folder = write_folder(tmp_path / "mix", 5, 0)
    pack(folder, tmp_path / "new.lmdb")
    pack_mixtures([str(folder)], str(tmp_path / "old.lmdb"), min_duration=0.5, keep_events=False)
    new, old = raw(tmp_path / "new.lmdb"), raw(tmp_path / "old.lmdb")
    stored = msgpack.unpackb(new.pop(EVENTS))
    assert stored == [[list(event) for event in read_events(file)] for file in sorted(folder.glob("*.txt"))]
    assert all(type(time) is float for events in stored for *times, _ in events for time in times)
    assert new == old and set(old) == {b"0", b"1", b"2", b"3", b"4", b"__keys__", b"__len__"}
    copy = shutil.copy(tmp_path / "new.lmdb", tmp_path / "copy.lmdb")
    with lmdb.open(str(copy), subdir=False, readonly=True, lock=False) as env, env.begin() as transaction:
        assert msgpack.unpackb(transaction.get(b"__len__")) == 5
        for file, key in zip(sorted(folder.glob("*.flac")), msgpack.unpackb(transaction.get(b"__keys__")), strict=True):
            audio, label = msgpack.unpackb(transaction.get(key))
            assert audio == file.read_bytes()
            assert label.split(",") == [event.label for event in read_events(file.with_suffix(".txt"))]


def test_some_records_with_events_and_some_without_are_a_mistake_of_ours(tmp_path):
    for first, second in (([], None), (None, [])):
        with pytest.raises(AssertionError, match="some records"), LMDBWriter(tmp_path / "a.lmdb") as writer:
            writer.add(Record(b"x", "Drum"), first)
            writer.add(Record(b"x", "Drum"), second)
    assert list(tmp_path.iterdir()) == []


# ---- tiled ----


def test_events_are_repeated_with_their_clip():
    """A clip of 1 s up to 2.5 s. What reaches past its end stops there, and what begins behind it never sounds."""
    events = [Event(0.2, 0.75, "a"), Event(0.875, 1.5, "b"), Event(0.5, 0.5, "c"), Event(1.25, 2, "d")]
    assert tiled(events, 100, 250, 100) == [
        *((0.2, 0.75, "a"), (0.875, 1.0, "b"), (0.5, 0.5, "c")),
        *((1.2, 1.75, "a"), (1.875, 2.0, "b"), (1.5, 1.5, "c")),
        (2.2, 2.5, "a"),
    ]
    assert tiled(events, 250, 250, 100) == tiled(events, 300, 250, 100) == events  # not tiled
    assert tiled([], 1, 5, 1) == []


@pytest.mark.parametrize("length", [4410, 7000, 22049])
def test_events_of_a_tiled_clip_are_where_its_sound_is(tmp_path, length):
    samples = np.zeros(length)
    onset, offset = 1000, 3500
    samples[onset:offset] = 0.5 * np.sin(np.arange(offset - onset))
    (tmp_path / "mix").mkdir()
    soundfile.write(tmp_path / "mix" / "a.flac", samples, SAMPLE_RATE, subtype="PCM_16")
    (tmp_path / "mix" / "a.txt").write_text(f"{onset / SAMPLE_RATE}\t{offset / SAMPLE_RATE}\tDrum\n")
    pack(tmp_path / "mix", tmp_path / "a.lmdb", "--audio_min_duration", 2)
    reader = LMDBReader(tmp_path / "a.lmdb")
    ((*events,),) = reader.events()
    assert len(events) == math.ceil((2 * SAMPLE_RATE - onset) / length)
    assert {event.label for event in events} == {"Drum"}
    inside = np.zeros(2 * SAMPLE_RATE, bool)
    for event in events:
        inside[round(event.onset * SAMPLE_RATE) : round(event.offset * SAMPLE_RATE)] = True
    sound = decode(reader[0].flac, SAMPLE_RATE)
    assert len(sound) == 2 * SAMPLE_RATE and not sound[~inside].any() and np.mean(sound[inside] != 0) > 0.99
    assert check([tmp_path / "a.lmdb"]).errors == check([tmp_path / "a.lmdb"]).warnings == []


# ---- read ----


def test_an_lmdb_without_events_opens_and_says_so_where_they_are_needed(tmp_path):
    old = write_lmdb(tmp_path / "old.lmdb", some_events(3), keep=False)
    for path in (old, RELEASED, FIXTURES / "released_esc50_layout.lmdb"):
        reader = LMDBReader(path)
        assert reader.events() is None and reader.stored_beside() == []
        with pytest.raises(UserError, match=rf"^{path}: has no events\. It was packed before they were kept, [^\n]+$"):
            reader.require_events()
    dataset = LMDBDataset(str(old), AUDIO, LABELS, "multilabel", evaluation_chain(64))
    assert dataset[0][0].shape == (221, 64)
    with pytest.raises(UserError, match="old.lmdb: has no events"):
        dataset.events(0, 0)


TWO = [[[0.0, 1.0, "Drum"]], []]
DAMAGED = {
    "nothing": b"",
    "no MessagePack": b"\xc1",
    "cut": msgpack.packb(TWO)[:-3],
    "more behind": msgpack.packb(TWO) + b"\0",
    "a wild length": b"\xdd\xff\xff\xff\xff",
    "deep": b"\x91" * 5000,
    "a number": 2,
    "none": None,
    "text": "ab",
    "too few": TWO[:1],
    "too many": [*TWO, []],
    "records as an object": {0: [], 1: []},
    "a record that is none": [TWO[0], None],
    "a record that is an object": [TWO[0], {}],
    "a record that is empty text": [TWO[0], ""],
    "an event that is a number": [[3.0], []],
    "an event that is text": [["abc"], []],
    "no label": [[[0.0, 1.0]], []],
    "a column more": [[[0.0, 1.0, "Drum", 1.0]], []],
    "onset is text": [[["0.0", 1.0, "Drum"]], []],
    "offset is whole": [[[0.0, 1, "Drum"]], []],
    "onset is true": [[[True, 1.0, "Drum"]], []],
    "onset is none": [[[None, 1.0, "Drum"]], []],
    "onset is NaN": [[[math.nan, 1.0, "Drum"]], []],
    "offset is endless": [[[0.0, math.inf, "Drum"]], []],
    "label is a number": [[[0.0, 1.0, 3]], []],
    "label is bytes": [[[0.0, 1.0, b"Drum"]], []],
    "label is empty": [[[0.0, 1.0, ""]], []],
    "label is no UTF-8": msgpack.packb([[[0.0, 1.0, "Drum"]], []]).replace(b"Drum", b"Dr\xff\xfe"),
    "a time stamp": [[[msgpack.Timestamp(1), 1.0, "Drum"]], []],
}


@pytest.mark.parametrize("value", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_entry_is_refused_and_records_are_read_all_the_same(tmp_path, value):
    path = write_lmdb(tmp_path / "a.lmdb", some_events(2), keep=False)
    put(path, value if isinstance(value, bytes) else msgpack.packb(value))
    reader = LMDBReader(path)
    for read in (reader.events, reader.require_events):
        with pytest.raises(UserError, match=rf"^{path}: its __events__ entry cannot be read\. The file is damaged$"):
            read()
    assert reader[1].label == "Harp,Harp" and len(reader.annotations()) == 2
    assert fingerprint(reader) == by_hand(path)


def test_a_sound_entry_of_another_writer_is_read(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", some_events(2), keep=False)
    assert LMDBReader(put(path, msgpack.packb(TWO))).events() == [[Event(0.0, 1.0, "Drum")], []]


# ---- data sets ----


@pytest.mark.parametrize("storage", [LMDBDataset, InMemoryLMDBDataset])
@pytest.mark.parametrize("complement", [False, True])
def test_events_are_those_of_the_chosen_records(tmp_path, storage, complement):
    events = some_events(10)
    path = str(write_lmdb(tmp_path / "a.lmdb", events, folds=True))
    arguments = (path, AUDIO, LABELS, "multilabel", evaluation_chain(64))
    chosen = [index for index in range(10) if (index % 3 == 1) != complement]
    dataset = storage(*arguments, fold=2, complement=complement)
    assert [dataset.events(epoch, index) for epoch in (0, 7) for index in range(len(dataset))] == 2 * [
        events[index] for index in chosen
    ]
    for index, record in enumerate(chosen):
        assert [event.label for event in dataset.events(0, index)] == [CLASSES[i] for i in dataset.class_indices(index)]
        assert np.array_equal(dataset.waveform(index), decode(flac(record), SAMPLE_RATE, dtype="int16"))
    assert pickle.loads(pickle.dumps(dataset)).events(0, 1) == events[chosen[1]]


def test_events_are_those_of_the_records_that_can_be_used(tmp_path):
    events = some_events(6)
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        for index, each in enumerate(events):
            audio = b"broken" if index in (1, 2) else flac(index)
            writer.add(Record(audio, ",".join(event.label for event in each)), each)
    arguments = (str(tmp_path / "a.lmdb"), AUDIO, LABELS, "multilabel", evaluation_chain(64))
    dataset = LMDBDataset(*arguments, skip_bad_records=True)
    assert [dataset.events(0, index) for index in range(len(dataset))] == [events[index] for index in (0, 3, 4, 5)]


def test_a_manifest_has_no_events(tmp_path):
    write_soundscape(tmp_path, "a", ["Drum"])
    (tmp_path / "m.csv").write_text(f"files,labels\n{tmp_path / 'a.flac'},Drum\n")
    dataset = ManifestDataset(str(tmp_path / "m.csv"), AUDIO, LABELS, "multilabel", evaluation_chain(64))
    with pytest.raises(UserError, match=r"m\.csv, .*a\.flac: has labels, but no events\."):
        dataset.events(0, 0)


# ---- the fingerprint ----


def by_hand(path, with_events=True):
    """The fingerprint as src/data/lmdb/fingerprint.py describes it."""
    entries = raw(path)
    values = [entries[str(index).encode()] for index in range(msgpack.unpackb(entries[b"__len__"]))]
    values += [entries[EVENTS]] if with_events and EVENTS in entries else []
    return hashlib.sha256(b"".join(hashlib.sha256(value).digest() for value in values)).hexdigest()


@pytest.mark.processes
def test_writer_checker_and_reader_agree_on_the_fingerprint(tmp_path):
    path = tmp_path / "a.lmdb"
    with LMDBWriter(path) as writer:
        for index, each in enumerate(some_events(5)):
            writer.add(Record(flac(index), "Drum"), each)
        expected = writer.fingerprint
    note = tmp_path / ".a.lmdb.fingerprint.json"
    assert expected == by_hand(path) and expected in note.read_text()
    note.unlink()
    assert check([path]).reports[0].fingerprint == expected and expected in note.read_text()
    note.unlink()
    assert fingerprint(LMDBReader(path)) == expected
    assert by_hand(path, with_events=False) == fingerprint(
        LMDBReader(write_lmdb(tmp_path / "b.lmdb", [[Event(0, 1, "Drum")]] * 5, keep=False))
    )


def test_the_fingerprint_tells_every_change_of_an_event_and_no_layout(tmp_path):
    base = some_events(4)

    def changed(**fields):
        return [*base[:2], [base[2][0]._replace(**fields)], base[3]]

    variants = [base, changed(onset=0.11), changed(offset=0.7), base[:3] + [base[3][:1]], [[]] * 4, None]
    found = []
    for number, events in enumerate(variants):
        for layout, options in enumerate(({}, {"map_size": 1}, {"write_frequency": 1})):
            path = tmp_path / f"{number}_{layout}.lmdb"
            with LMDBWriter(path, **options) as writer:
                for index in range(4):
                    writer.add(Record(flac(index), "Drum"), events and events[index])
            (tmp_path / f".{path.name}.fingerprint.json").unlink()
            found.append((number, fingerprint(LMDBReader(path))))
    assert len(set(found)) == len({value for _, value in found}) == len(variants)


def test_events_of_many_records_are_one_entry(tmp_path):
    with LMDBWriter(tmp_path / "a.lmdb", map_size=1) as writer:  # which grows
        for index in range(20_000):
            writer.add(Record(b"x", "Drum,Harp"), [Event(index, index + 0.5, "Drum"), Event(0.1, 0.2, "Harp")])
    reader = LMDBReader(tmp_path / "a.lmdb")
    events = reader.events()
    assert len(events) == 20_000 and events[19_999] == [(19_999, 19_999.5, "Drum"), (0.1, 0.2, "Harp")]
    assert events[0][0].label is events[5][0].label  # one text for all
    assert reader.stored_beside()[0][3:] == b"".join(map(packed_events, events))
