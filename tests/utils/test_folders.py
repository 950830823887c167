"""Which files of a folder are read: the order, links and loops, what is left out and how that is said."""

import logging
import os
import random
from pathlib import Path

import pytest

from src.errors import UserError
from src.utils.folders import beside, files_in, require_different_stems, subfolders


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def left_out(caplog):
    """The lines that say what was left out."""
    return [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]


def test_files_come_in_the_order_of_sorted_paths_and_nothing_is_said(tmp_path, caplog):
    names = [f"{folder}{name}.wav" for folder in ("", "a/", "a b/", "a/b/", "a-b/", "z/") for name in ("b", "a.c", "ä")]
    random.Random(3).shuffle(names)
    touch(tmp_path, *names)
    caplog.set_level(logging.INFO)
    found = files_in(tmp_path, {".wav"}, "WAV files")
    assert found == [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.wav"))] and len(found) == 18
    assert left_out(caplog) == []


def test_suffixes_are_taken_in_any_case_and_hidden_names_are_not(tmp_path, caplog):
    touch(tmp_path, "a.WAV", "b.Wav", "c.wav", "._c.wav", ".DS_Store", ".git/x.wav", ".1234.partial", "d.wave", "wav")
    caplog.set_level(logging.INFO)
    assert files_in(tmp_path, {".wav"}, "WAV files") == ["a.WAV", "b.Wav", "c.wav"]
    (line,) = left_out(caplog)
    assert line.startswith(f"{tmp_path}: left out 3 hidden files (such as .1234.partial), ")
    for part in ("1 hidden folder (.git)", "1 .wave file (d.wave)", "1 file without a suffix (wav)"):
        assert part in line


def test_annotations_and_the_recipe_are_not_missed(tmp_path, caplog):
    touch(tmp_path, "a.flac", "a.txt", "a.TXT", "a.jams", "recipe.json")
    caplog.set_level(logging.INFO)
    assert files_in(tmp_path, {".flac"}, "soundscapes") == ["a.flac"] and left_out(caplog) == []


def test_of_files_of_one_kind_alone_only_hidden_ones_are_counted(tmp_path, caplog):
    touch(tmp_path, "a/run.json", "A/Run.JSON", "a/._run.json", "a/b.json", "a/b/c.json", "a/notes.md", "._notes.md")
    caplog.set_level(logging.INFO)
    assert files_in(tmp_path, {"/run.json"}, "runs", others=False) == ["A/Run.JSON", "a/run.json"]
    assert left_out(caplog) == []
    assert files_in(tmp_path, {".json"}, "runs", levels=range(1, 2), others=False)[1:] == ["a/b.json", "a/run.json"]
    assert left_out(caplog) == [f"{tmp_path}: left out 1 hidden file (a/._run.json)"]


def test_a_line_names_the_commonest_reasons_alone(tmp_path, caplog):
    touch(tmp_path, "a.wav", *(f"{kind}{number}.x{kind}" for kind in range(50) for number in range(1 + kind % 7)))
    caplog.set_level(logging.INFO)
    files_in(tmp_path, {".wav"}, "WAV files")
    (line,) = left_out(caplog)
    assert line.count(" .x") == 6 and "7 .x" in line and line.endswith(" more") and len(line) < 400


def test_links_are_followed_and_each_folder_is_seen_once_under_its_own_name(tmp_path, caplog):
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    touch(top, "z/own.wav")
    touch(elsewhere, "there.wav", "deep/er.wav")
    (top / "a").symlink_to("z")  # sorted before it
    (top / "file.wav").symlink_to(elsewhere / "there.wav")
    (top / "linked").symlink_to(elsewhere)
    (top / "z" / "up").symlink_to("..")
    (elsewhere / "deep" / "round").symlink_to(top)
    caplog.set_level(logging.INFO)
    found = files_in(top, {".wav"}, "WAV files")
    assert found == ["file.wav", "linked/deep/er.wav", "linked/there.wav", "z/own.wav"]
    assert left_out(caplog)[0].endswith("left out 3 folders read before (such as a)")


def test_what_is_called_like_a_wanted_file_is_for_the_caller_to_judge(tmp_path, caplog):
    touch(tmp_path, "a.wav", "folder.wav/b.txt")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "round.wav").symlink_to("round.wav")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.wav")  # who opens it waits for ever
    caplog.set_level(logging.INFO)
    names = ["a.wav", "folder.wav", "gone.wav", "round.wav"]
    assert files_in(tmp_path, {".wav"}, "WAV files", levels=range(1)) == names
    assert "1 special file (pipe.wav)" in left_out(caplog)[0] and "1 link to nothing (gone)" in left_out(caplog)[0]


def test_levels(tmp_path, caplog):
    touch(tmp_path, "0.wav", "a/1.wav", "b/1.wav", "a/b/2.wav")
    (tmp_path / "c").symlink_to("b")
    caplog.set_level(logging.INFO)
    assert files_in(tmp_path, {".wav"}, "WAV files", levels=range(1)) == ["0.wav"]
    assert left_out(caplog)[-1].endswith("left out 3 folders (such as a)")
    classes = files_in(tmp_path, {".wav"}, "WAV files", levels=range(1, 2))
    assert classes == ["a/1.wav", "b/1.wav", "c/1.wav"]  # two classes may be one folder
    assert left_out(caplog)[-1].endswith("left out 1 file at another depth (0.wav), 1 folder (a/b)")
    assert files_in(tmp_path, {".wav"}, "WAV files", apart_from=tmp_path / "b") == ["0.wav", "a/1.wav", "a/b/2.wav"]
    assert subfolders(tmp_path, "classes") == ["a", "b", "c"]


def test_where_there_are_none_the_error_says_what_there_is(tmp_path):
    touch(tmp_path, "._a.wav", "a.m4a")
    with pytest.raises(UserError, match=r"no WAV files in it\. Left out: 1 hidden file \(\._a\.wav\), 1 \.m4a file"):
        files_in(tmp_path, {".wav"}, "WAV files", none="no WAV files in it")


def test_a_folder_that_cannot_be_read_is_told_as_such(tmp_path, caplog, monkeypatch):
    touch(tmp_path, "a.wav", "locked/b.wav", "open/c.wav")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    caplog.set_level(logging.INFO)
    assert files_in(tmp_path, {".wav"}, "WAV files") == ["a.wav", "open/c.wav"]
    assert left_out(caplog)[0].endswith("left out 1 folder that cannot be read (locked)")
    with pytest.raises(UserError, match=r"locked: cannot be read \(Permission denied\), as a folder of WAV files"):
        files_in(tmp_path / "locked", {".wav"}, "WAV files")


def test_annotations_are_found_in_any_case(tmp_path):
    touch(tmp_path, "a.FLAC", "a.TXT", "b.c.flac", "b.c.tXt", "d.flac", "d.txt", "d.TXT", "e.flac")
    for clip, annotation in (("a.FLAC", "a.TXT"), ("b.c.flac", "b.c.tXt"), ("d.flac", "d.txt"), ("e.flac", "e.txt")):
        assert beside(tmp_path / clip, ".txt") == tmp_path / annotation


def test_two_files_of_one_stem_are_refused():
    require_different_stems("x", ["a.wav", "b.wav", "c/a.wav", "a.b.wav"])
    with pytest.raises(UserError, match=r"x/c/a\.wav: differs from c/a\.WAV in the case of its suffix alone"):
        require_different_stems("x", ["a.wav", "c/a.WAV", "c/a.wav"])
