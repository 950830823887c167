"""The record format: what is released opens here, what is written here looks the same."""

import ctypes
import json
import mmap
import os

import lmdb
import msgpack
import numpy as np
import pytest
import soundfile
from conftest import CLIP, FIXTURES, SAMPLE_RATE, raw, run_script, write_folder, write_soundscape

from src.data.audio.files import decode
from src.data.lmdb.pages import values_in
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.errors import UserError
from src.preparation.packing import pack_mixtures

RELEASED = FIXTURES / "released_mixtures_layout.lmdb"
RELEASED_ESC50 = FIXTURES / "released_esc50_layout.lmdb"


def labels_of(path):
    return [label for label, _ in LMDBReader(path).annotations()]


def shape_of(value):
    """A MessagePack value's first byte of each part: its type and encoding, without its content."""
    return [value[0], value[1], type(msgpack.unpackb(value)[1])]


def test_every_record_of_a_released_lmdb_decodes():
    reader = LMDBReader(RELEASED)
    assert len(reader) == 48
    for index, label in enumerate(labels_of(reader.path)):
        record = reader[index]
        assert record.label == label and record.fold is None and label
        assert decode(record.flac, SAMPLE_RATE).shape == (110250,)


def test_every_record_of_a_released_esc50_lmdb_decodes():
    reader = LMDBReader(RELEASED_ESC50)
    assert sorted(reader[index].fold for index in range(10)) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert labels_of(reader.path) == [reader[index].label for index in range(10)]
    assert all(isinstance(reader[index].label, int) and reader[index].fold in range(1, 6) for index in range(10))
    assert all(len(decode(reader[index].flac, SAMPLE_RATE)) > 0 for index in range(10))


def test_the_audio_alone_is_that_of_the_record():
    for source in (RELEASED, RELEASED_ESC50):
        reader = LMDBReader(source)
        assert all(reader.audio(index) == reader[index].flac for index in range(len(reader)))


@pytest.mark.parametrize("size", [0, 255, 256, 65535, 65536])
def test_audio_of_any_length_is_found(tmp_path, size):
    flac = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with LMDBWriter(tmp_path / "one.lmdb", 1e6) as writer:
        writer.add(Record(flac, "Drum"))
    reader = LMDBReader(tmp_path / "one.lmdb")
    assert reader.audio(0) == reader[0].flac == flac


@pytest.mark.parametrize(
    "value", [b"", b"\x92", b"\x92\xc5\x00", msgpack.packb(("no audio", "Drum")), msgpack.packb(7)]
)
def test_a_record_without_audio_is_told_from_others(tmp_path, value):
    path = tmp_path / "bad.lmdb"
    with lmdb.open(str(path), subdir=False, lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0", value)
        transaction.put(b"__len__", msgpack.packb(1))
    with pytest.raises(UserError, match=r"bad.lmdb, record 0 is not \(flac, label\)"):
        LMDBReader(path).audio(0)


def test_a_released_lmdb_written_again_is_the_same_entry_by_entry(tmp_path):
    for source in (RELEASED, RELEASED_ESC50):
        reader = LMDBReader(source)
        with LMDBWriter(tmp_path / source.name, write_frequency=7) as writer:
            for index in range(len(reader)):
                writer.add(reader[index])
        assert raw(tmp_path / source.name) == raw(source)


def test_packing_gives_the_released_keys_encodings_and_types(tmp_path):
    folder = write_folder(tmp_path / "mix", 3, 0)
    pack_mixtures([folder], tmp_path / "a.lmdb", min_duration=5.0)
    ours, released = raw(tmp_path / "a.lmdb"), raw(RELEASED)
    assert set(ours) == {b"0", b"1", b"2", b"__keys__", b"__len__", b"__events__"}
    assert shape_of(ours[b"0"]) == shape_of(released[b"0"])
    assert msgpack.unpackb(ours[b"__keys__"]) == [b"0", b"1", b"2"] and msgpack.unpackb(ours[b"__len__"]) == 3
    assert ours[b"__keys__"][1] == msgpack.packb(b"0")[0]  # keys are bytes, as in the released files
    assert not (tmp_path / "a.lmdb-lock").exists() and not list(tmp_path.glob("*.partial"))


def test_records_are_in_sorted_file_order_and_keep_the_files_bytes(tmp_path):
    for name, labels in (("b", ["Harp"]), ("a", ["Drum", "Organ", "Drum"]), ("c", ["Organ"])):
        write_soundscape(tmp_path / "mix", name, labels)
    pack_mixtures([tmp_path / "mix"], tmp_path / "one.lmdb", min_duration=0.5)
    pack_mixtures([tmp_path / "mix"], tmp_path / "two.lmdb", min_duration=0.5, write_frequency=1)
    reader = LMDBReader(tmp_path / "one.lmdb")
    assert labels_of(reader.path) == ["Drum,Organ,Drum", "Harp", "Organ"]
    assert reader[0].flac == (tmp_path / "mix" / "a.flac").read_bytes()
    assert raw(tmp_path / "one.lmdb") == raw(tmp_path / "two.lmdb")


def test_short_clips_are_tiled_up_to_the_minimum(tmp_path):
    write_soundscape(tmp_path / "mix", "a", ["Harp"])
    pack_mixtures([tmp_path / "mix"], tmp_path / "a.lmdb", min_duration=2.0)
    packed = decode(LMDBReader(tmp_path / "a.lmdb")[0].flac, SAMPLE_RATE)
    original, _ = soundfile.read(tmp_path / "mix" / "a.flac", dtype="float32")
    assert len(packed) == 2 * SAMPLE_RATE and np.array_equal(packed, np.resize(original, 2 * SAMPLE_RATE))
    assert len(original) == CLIP


def test_several_folders_with_equal_names_stay_apart(tmp_path):
    write_soundscape(tmp_path / "one", "a", ["Harp"], seed=1)
    write_soundscape(tmp_path / "two", "a", ["Organ"], seed=2)
    result = run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        f"{tmp_path / 'one'};{tmp_path / 'two'}",
        "--lmdb_path",
        tmp_path / "sub" / "a.lmdb",
        "--audio_min_duration",
        "0.5",
        check=0,
    )
    assert labels_of(tmp_path / "sub" / "a.lmdb") == ["Harp", "Organ"]
    assert "2 records" in result.stderr


def test_an_existing_folder_holds_the_lmdb_inside(tmp_path):
    folder = write_folder(tmp_path / "mix", 2, 0)
    (tmp_path / "dir.lmdb").mkdir()
    pack_mixtures([folder], tmp_path / "dir.lmdb", min_duration=0.5)
    assert (tmp_path / "dir.lmdb" / "data.mdb").is_file()
    assert len(LMDBReader(tmp_path / "dir.lmdb")) == 2


def test_a_map_too_small_grows_and_loses_nothing(tmp_path):
    folder = write_folder(tmp_path / "mix", 6, 0)
    pack_mixtures([folder], tmp_path / "large.lmdb", min_duration=10.0)
    result = run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        folder,
        "--lmdb_path",
        tmp_path / "a.lmdb",
        "--map_size",
        "1e3",
        "--audio_min_duration",
        "10",
        check=0,
    )
    assert "--map_size 1.05e+06 bytes is too small: grown to 2.1e+06, nothing is lost" in result.stderr
    assert raw(tmp_path / "a.lmdb") == raw(tmp_path / "large.lmdb")


def test_a_failed_packing_leaves_the_earlier_lmdb_as_it_was(tmp_path):
    folder = write_folder(tmp_path / "mix", 3, 0)
    pack_mixtures([folder], tmp_path / "a.lmdb", min_duration=0.5)
    before = (tmp_path / "a.lmdb").read_bytes()
    (folder / "s002.txt").unlink()
    with pytest.raises(UserError):
        pack_mixtures([folder], tmp_path / "a.lmdb", min_duration=0.5, write_frequency=1)
    assert (tmp_path / "a.lmdb").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("a.")] == ["a.lmdb"]


def test_a_second_packing_into_the_same_file_is_refused(tmp_path):
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(b"x", "Harp"))
        with pytest.raises(UserError, match="another process"), LMDBWriter(tmp_path / "a.lmdb"):
            pass
    assert len(LMDBReader(tmp_path / "a.lmdb")) == 1


def test_a_truncated_lmdb_is_refused_not_read_past_its_end(tmp_path):
    whole = RELEASED.read_bytes()
    for size in (len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        (tmp_path / f"{size}.lmdb").write_bytes(whole[:size])
        with pytest.raises(UserError, match="is truncated: "):
            LMDBReader(tmp_path / f"{size}.lmdb")


def test_a_file_replaced_in_use_is_refused(tmp_path):
    def write(count):
        with LMDBWriter(tmp_path / "a.lmdb") as writer:
            for _ in range(count):
                writer.add(Record(b"x" * count, "Harp"))

    write(1)
    old = LMDBReader(tmp_path / "a.lmdb")
    write(2)
    assert old[0].flac == b"x"  # what this process has mapped stays
    new = LMDBReader(tmp_path / "a.lmdb")
    assert new[1].flac == b"xx"
    with pytest.raises(UserError, match="was replaced or removed while it was in use"):
        old[0]


@pytest.mark.parametrize("label", [["Harp"], b"Harp", None, 1.5])
def test_a_label_of_another_type_is_refused(tmp_path, label):
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(b"x", label))
    with pytest.raises(UserError, match="record 0 is not"):
        labels_of(tmp_path / "a.lmdb")


def test_a_map_size_beyond_the_machine_is_refused(tmp_path):
    for size in (1e15, 1e20):
        with pytest.raises(UserError, match="--map_size"), LMDBWriter(tmp_path / "a.lmdb", map_size=size):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_file_is_read_anew(tmp_path):
    for count in (1, 2):
        with LMDBWriter(tmp_path / "a.lmdb") as writer:
            for _ in range(count):
                writer.add(Record(b"x" * count, "Harp"))
        assert len(LMDBReader(tmp_path / "a.lmdb")) == count
        assert LMDBReader(tmp_path / "a.lmdb")[count - 1].flac == b"x" * count


@pytest.mark.parametrize("size", [1, 200, 300, 70000])
def test_labels_are_found_behind_audio_of_any_size(tmp_path, size):
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        writer.add(Record(b"f" * size, "Ünïcode,名"))
        writer.add(Record(b"f" * size, 7, 3))
    (tmp_path / ".a.lmdb.labels.json").unlink()
    for _ in range(2):  # read from the file, and then from the note on it
        assert LMDBReader(tmp_path / "a.lmdb").annotations() == [("Ünïcode,名", None), (7, 3)]
    assert (tmp_path / ".a.lmdb.labels.json").is_file()


@pytest.mark.parametrize("note", ["", "[]", "{", '"labels"', "[[[[", "other file", "other count", "other types"])
def test_a_note_on_labels_that_does_not_fit_is_not_believed(tmp_path, note):
    for name in "ab":
        with LMDBWriter(tmp_path / f"{name}.lmdb") as writer:
            writer.add(Record(b"x", f"Harp {name}"))
    path = tmp_path / ".a.lmdb.labels.json"
    if note == "other file":
        path.write_bytes((tmp_path / ".b.lmdb.labels.json").read_bytes())
    elif note.startswith("other"):
        kept = json.loads(path.read_text())
        kept["labels"] = [["Organ", None]] * 2 if note == "other count" else [["Organ"]]
        path.write_text(json.dumps(kept))
    else:
        path.write_text(note)
    assert labels_of(tmp_path / "a.lmdb") == ["Harp a"]


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_values_are_found_where_lmdb_finds_them(tmp_path, count):
    sizes = np.random.default_rng(0).integers(1, 9000, count)  # some share a page, some have pages of their own
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        for index, size in enumerate(sizes):
            writer.add(Record(bytes([index % 256]) * size, f"Harp {index}"))
    with (
        lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, readonly=True, lock=False) as environment,
        environment.begin() as transaction,
        values_in(tmp_path / "a.lmdb") as values,
    ):
        assert {key: bytes(value) for key, value in values.items()} == dict(transaction.cursor())


def test_labels_are_read_without_the_audio(tmp_path):
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        for index in range(8):
            writer.add(Record(b"x" * 2**20, f"Harp {index}"))
    (tmp_path / ".a.lmdb.labels.json").unlink()
    with open(tmp_path / "a.lmdb", "rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if in_memory(stream):
            pytest.skip("this file system keeps files in memory")
        assert labels_of(tmp_path / "a.lmdb") == [f"Harp {index}" for index in range(8)]
        assert 0 < in_memory(stream) < 0.1


def in_memory(stream):
    """The share of a file that is in the page cache."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pages = np.zeros(-(-len(data) // mmap.PAGESIZE), np.uint8)
        address = np.frombuffer(data, np.uint8).ctypes.data
        assert (
            ctypes.CDLL(None).mincore(
                ctypes.c_void_p(address), ctypes.c_size_t(len(data)), pages.ctypes.data_as(ctypes.c_void_p)
            )
            == 0
        )
    return (pages & 1).mean()
