"""Drawing a soundscape: its file or its record, its events, its sound."""

import shutil

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE_RATE, error_line, run_script, write_soundscape
from PIL import Image
from small_sources import generate, write_sources

from src.data.events import Event
from src.data.lmdb.store import LMDBReader
from src.data.lmdb.writer import LMDBWriter
from src.preparation.show import draw_soundscape, load_soundscape


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """mix/s.flac and s.txt, and the same in `a:b.lmdb`."""
    folder = tmp_path_factory.mktemp("show")
    write_soundscape(folder / "mix", "s", ["Drum", "Harp", "Drum"])
    run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        folder / "mix",
        "--lmdb_path",
        folder / "a:b.lmdb",
        "--audio_min_duration",
        0.5,
        check=0,
    )
    return folder


def show(source, *more, cwd, check=None):
    return run_script("scripts/show_soundscape.py", source, *more, cwd=cwd, check=check)


def picture(path):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 600
    return pixels


def test_a_file_with_its_events(folder, tmp_path):
    result = show(folder / "mix" / "s.flac", "--out_wav", tmp_path / "x" / "s.wav", cwd=tmp_path, check=0)
    assert "0.10 to 0.30 s  Harp" in result.stdout and result.stdout.count("Drum") == 2
    assert picture(tmp_path / "s.png").std() > 10
    wav, rate = soundfile.read(tmp_path / "x" / "s.wav")
    assert np.array_equal(wav, soundfile.read(folder / "mix" / "s.flac")[0]) and rate == SAMPLE_RATE
    assert soundfile.info(tmp_path / "x" / "s.wav").format == "WAV"


def test_a_record_is_shown_as_its_file_with_the_events(folder, tmp_path):
    more = ("--out_png", tmp_path / "new" / "p.png", "--out_wav", tmp_path / "w.wav")
    lines = show(f"{folder / 'a:b.lmdb'}:0", *more, cwd=tmp_path, check=0).stdout.splitlines()
    of_file = show(folder / "mix" / "s.flac", cwd=tmp_path, check=0).stdout.splitlines()
    assert lines[1:-2] == of_file[1:-1] and "  0.10 to 0.30 s  Harp" in lines
    record, file = (load_soundscape(str(source)) for source in (f"{folder / 'a:b.lmdb'}:0", folder / "mix" / "s.flac"))
    assert record.events == file.events and np.array_equal(record.samples, file.samples)
    picture(tmp_path / "new" / "p.png")
    assert np.array_equal(soundfile.read(tmp_path / "w.wav")[0], soundfile.read(folder / "mix" / "s.flac")[0])


def test_a_record_without_events_lists_its_labels(folder, tmp_path):
    record = LMDBReader(folder / "a:b.lmdb")[0]
    write(tmp_path / "old.lmdb", record)
    result = show(f"{tmp_path / 'old.lmdb'}:0", cwd=tmp_path, check=0)
    assert result.stdout.count("Drum") == 2 and "Harp" in result.stdout and " to " not in result.stdout
    picture(tmp_path / "old_0.png")
    write(tmp_path / "some.lmdb", record, [Event(0.1, 0.3, "Harp")])
    shown = load_soundscape(f"{tmp_path / 'some.lmdb'}:0").events
    assert list(map(str, shown)) == ["0.10 to 0.30 s  Harp", "Drum", "Drum"]


def write(path, record, events=None):
    with LMDBWriter(path) as writer:
        writer.add(record, events)


def test_an_lmdb_in_a_folder(folder, tmp_path):
    (tmp_path / "sub.lmdb").mkdir()
    shutil.copy(folder / "a:b.lmdb", tmp_path / "sub.lmdb" / "data.mdb")
    show(f"{tmp_path / 'sub.lmdb'}:0", cwd=tmp_path, check=0)
    picture(tmp_path / "sub_0.png")


def test_a_file_whose_name_looks_like_a_record(folder, tmp_path):
    for suffix in (".flac", ".txt"):
        shutil.copy(folder / "mix" / f"s{suffix}", tmp_path / f"$x_{{:0{suffix}")
    shutil.copy(folder / "mix" / "s.flac", tmp_path / "a.lmdb:3")
    assert "Harp" in show("$x_{:0.flac", cwd=tmp_path, check=0).stdout
    picture(tmp_path / "$x_{:0.png")
    assert load_soundscape(str(tmp_path / "a.lmdb:3")).events == ()


def test_signs_that_the_font_lacks_are_told_in_one_line(tmp_path):
    write_soundscape(tmp_path, "a", ["Drum"])
    (tmp_path / "a.txt").write_text("0\t1\t太鼓\n0\t1\tハープ\n")
    (line,) = show(tmp_path / "a.flac", cwd=tmp_path, check=0).stderr.splitlines()
    assert line.startswith("a.png: Glyph ") and line.endswith(" and 4 more")


def test_events_come_from_the_jams_where_there_is_no_txt(tmp_path):
    sources = write_sources(tmp_path / "sources")
    generate(sources, tmp_path / "mix", count=1, check=0)
    file = tmp_path / "mix" / "soundscape_000000.wav"
    from_txt = load_soundscape(str(file)).events
    file.with_suffix(".txt").unlink()
    assert load_soundscape(str(file)).events == from_txt and len(from_txt) >= 1


def test_the_events_are_drawn_on_the_time_axis(folder, tmp_path):
    """Moving one changes the picture below the spectrogram, and there alone."""
    soundscape = load_soundscape(str(folder / "mix" / "s.flac"))
    draw_soundscape(tmp_path / "with.png", soundscape)
    (event,) = [event for event in soundscape.events if event.label == "Harp"]
    moved = [type(event)("Harp", 0.4, 0.6) if other is event else other for other in soundscape.events]
    draw_soundscape(
        tmp_path / "moved.png", type(soundscape)(soundscape.name, soundscape.samples, SAMPLE_RATE, tuple(moved))
    )
    different = (picture(tmp_path / "with.png") != picture(tmp_path / "moved.png")).any(axis=2)
    rows = np.flatnonzero(different.any(axis=1))
    assert len(rows) and rows.min() > 0.6 * different.shape[0]


def test_showing_refuses(folder, tmp_path):
    lmdb = folder / "a:b.lmdb"
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(100), SAMPLE_RATE)
    bad = shutil.copy(folder / "mix" / "s.flac", tmp_path / "bad.flac")
    (tmp_path / "bad.txt").write_text("a\tb\tDrum\n")
    (tmp_path / "text.wav").write_text("text")
    damaged = tmp_path / "damaged.lmdb"
    write(damaged, LMDBReader(lmdb)[0], [Event(0.1, float("nan"), "Harp")])
    for source, message in (
        (f"{lmdb}:1", "has no record 1. Its 1 records begin with 0"),
        (lmdb, "Add :INDEX"),
        (f"{lmdb}:-1", "no such file"),
        (f"{damaged}:0", "damaged.lmdb: its __events__ entry cannot be read"),
        (f"{lmdb}:²", "no such file"),
        (tmp_path / "nowhere.wav", "no such file"),
        (f"{tmp_path / 'nowhere.lmdb'}:0", "no such LMDB"),
        (tmp_path, "Add :INDEX"),
        (short, "has 100 samples. It needs 441"),
        (bad, "bad.txt, line 1: 'a\\tb\\tDrum' is not onset, offset and label"),
        (tmp_path / "text.wav", "is not audio"),
        (f"{tmp_path / 'text.wav'}:0", "is not an LMDB"),
    ):
        assert message in error_line(show(source, cwd=tmp_path)), source
    assert not list(tmp_path.glob("*.png"))
    (tmp_path / "file").write_text("in the way")
    line = error_line(show(folder / "mix" / "s.flac", "--out_png", tmp_path / "file" / "p.png", cwd=tmp_path))
    assert str(tmp_path / "file") in line
