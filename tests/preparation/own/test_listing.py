"""Folders and tables of recordings: classes, parts, folds, groups, and what is said of what does not fit."""

import math
import os
import unicodedata

import pytest

from src.errors import UserError
from src.preparation.own.listing import grouping, read_folder
from src.preparation.own.table import read_table


def tree(folder, *names):
    """Files that nobody opens."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def classes(listing):
    """Name → classes."""
    return {each.name: {event.label for event in each.events} for each in listing.recordings}


def sides(listing):
    return {each.name: each.side for each in listing.recordings}


# ---- folders ----


def test_the_folder_that_holds_a_file_is_its_class_at_any_depth(tmp_path):
    tree(
        tmp_path,
        "dog/a.wav",
        "animals/cat/b.WAV",
        "animals/cat/x/y/c.Flac",
        "loose.wav",
        "dog/notes.txt",
        ".hidden/d.wav",
    )
    found = read_folder(tmp_path)
    assert classes(found) == {"dog/a.wav": {"dog"}, "animals/cat/b.WAV": {"cat"}, "animals/cat/x/y/c.Flac": {"y"}}
    assert found.left_out == {"loose.wav": "lies in no class folder"}
    assert all((each.events[0].onset, each.events[0].offset) == (0, math.inf) for each in found.recordings)
    assert set(sides(found).values()) == {None}


def test_the_class_may_be_a_folder_above(tmp_path):
    tree(tmp_path, "s1/dog/x/a.wav", "s1/cat/b.wav", "s2/c.wav")
    found = read_folder(tmp_path, class_level=2)
    assert classes(found) == {"s1/dog/x/a.wav": {"dog"}, "s1/cat/b.wav": {"cat"}} and list(found.left_out) == [
        "s2/c.wav"
    ]


@pytest.mark.parametrize(
    "names, given",
    [
        (("train", "val", "eval"), ["train", "val", "eval"]),
        (("Training", "Validation", "TEST"), ["train", "val", "eval"]),
        (("train", "dev"), ["train", "val"]),
        (("train", "valid", "evaluation"), ["train", "val", "eval"]),
        (("train", "test"), ["train", "eval"]),
    ],
)
def test_folders_called_like_parts_give_the_split(tmp_path, names, given):
    for name in names:
        tree(tmp_path, f"{name}/dog/a.wav", f"{name}/deep/cat/b.wav", f"{name}/loose.wav")
    found = read_folder(tmp_path)
    assert sides(found) == {
        f"{name}/{rest}": side for name, side in zip(names, given) for rest in ("dog/a.wav", "deep/cat/b.wav")
    }
    assert set().union(*classes(found).values()) == {"dog", "cat"} and len(found.left_out) == len(names)
    assert "give the split" in found.notes[0]


@pytest.mark.parametrize("tops", [("train", "bus"), ("train", "training"), ("val", "test"), ("train", "test", "bus")])
def test_other_folders_are_classes_though_one_is_called_train(tmp_path, tops):
    tree(tmp_path, *(f"{top}/a.wav" for top in tops))
    found = read_folder(tmp_path)
    assert classes(found) == {f"{top}/a.wav": {top} for top in tops} and set(sides(found).values()) == {None}
    assert "taken for a class" in found.notes[0]


def test_a_class_is_called_the_same_however_it_is_spelt(tmp_path):
    tree(tmp_path, "k\u00f6ln/a.wav", "x/ko\u0308ln/b.wav", "two  words /c.wav", "line\nbreak/d.wav")
    names = set().union(*classes(read_folder(tmp_path)).values())
    assert names == {"k\u00f6ln", "two words", "line break"}


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no audio files"):
        read_folder(tree(tmp_path / "a", "dog/a.txt"))
    with pytest.raises(UserError, match="no recording lies in a class folder, such as a.wav"):
        read_folder(tree(tmp_path / "b", "a.wav"))
    os.makedirs(os.fsencode(tmp_path / "c") + b"/\xff")
    (tmp_path / "c" / os.fsdecode(b"\xff") / "a.wav").write_bytes(b"")
    with pytest.raises(UserError, match="is not in UTF-8"):
        read_folder(tmp_path / "c")


def test_what_was_made_is_not_read(tmp_path):
    tree(tmp_path, "dog/a.wav", "dog/flac/train/a.flac", "dog/flac/recipe.json", "dog/flac/b.flac", "cat/flac/x/c.flac")
    assert classes(read_folder(tmp_path)) == {
        "dog/a.wav": {"dog"},
        "dog/flac/b.flac": {"flac"},
        "cat/flac/x/c.flac": {"x"},
    }
    assert list(classes(read_folder(tmp_path / "dog" / "flac"))) == ["train/a.flac"]  # asked for by its name
    (tmp_path / "dog" / "a.wav").unlink()
    (tmp_path / "dog" / "flac" / "b.flac").unlink()
    with pytest.raises(UserError, match="no recording lies in a class folder. Expected"):
        read_folder(tmp_path / "dog")


# ---- groups ----


@pytest.mark.parametrize(
    "group_by, name, row, group",
    [
        (None, "a/b/c.wav", {}, "a/b/c.wav"),
        ("folder", "a/b/c.wav", {}, "b"),
        ("folder:1", "a/b/c.wav", {}, "a"),
        ("folder:2", "a/b/c.wav", {}, "b"),
        (r"(\d+)-", "a/12-3.wav", {}, "12"),
        (r"site\d", "site4/x.wav", {}, "site4"),
        (r"x(\d)|y(\d)", "y7.wav", {}, "7"),
        ("day", "a.wav", {"day": "monday"}, "monday"),
        ("day", "a.wav", {"day": ""}, "a.wav"),
        ("folder", "a/b.wav", {"folder": "mine"}, "mine"),
    ],
)
def test_groups(group_by, name, row, group):
    assert grouping(group_by, row)(name, row) == group


@pytest.mark.parametrize(
    "group_by, words",
    [("folder:3", "folder:3: does not fit the file a/b.wav"), ("sit", "no such column (day)"), ("folder", "c.wav")],
)
def test_a_file_that_a_group_does_not_fit_is_named(group_by, words):
    with pytest.raises(UserError) as error:
        grouping(group_by, ["day"])("c.wav" if group_by == "folder" else "a/b.wav", {"day": "1"})
    assert words in str(error.value)


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(UserError, match="--group_by \\(: is neither a column, nor folder, folder:N or a regular"):
        grouping("(", [])


# ---- tables ----


def table(folder, text, name="t.csv", encoding="utf-8"):
    tree(folder, "a.wav", "sub/b.WAV", "c.flac")
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


EACH = {"a.wav": {"x"}, "sub/b.WAV": {"x", "y z"}, "c.flac": {"y z"}}
TABLES = {
    "label": 'filename,label\na.wav,x\nsub/b.WAV,"x,y z"\nc.flac,y z\n',
    "tab": "filename\tlabels\na.wav\tx\nsub/b.WAV\tx,y z\nc.flac\ty z\n",
    "semicolon": "File;Class\na.wav;x\nsub/b.WAV;x, y z\nc.flac;y z\n",
    "excel": '\ufefffname,category\r\na.wav,x\r\nsub/b.WAV,"y z,x"\r\nc.flac,y z\r\n',
    "a row a label": "path,label\na.wav,x\nsub/b.WAV,x\nsub/b.WAV,y z\n./c.flac,y z\n",
    "without suffix": 'fname,labels\na,x\nsub/b,"x,y z"\nc,y z\n',
    "columns": "filename,x,length,y z\na.wav,1.0,3.5,0\nsub/b.WAV,1.0,2,1\nc.flac,0,1,1\n",
    "columns and others": "file,split,x,fold,y z\na.wav,train,1,1,0\nsub/b.WAV,val,1,1,1\nc.flac,test,0,1,1\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_labels(tmp_path, kind):
    found = read_table(table(tmp_path, TABLES[kind]))
    without = kind == "without suffix"
    assert classes(found) == {name.split(".")[0] if without else name: EACH[name] for name in EACH}
    assert not found.left_out and [each.file.name for each in found.recordings] == ["a.wav", "c.flac", "b.WAV"]
    given = {"train", "val", "eval"} if "split" in TABLES[kind] else {None}
    assert set(sides(found).values()) == given


def test_labels_may_be_separated_otherwise(tmp_path):
    found = read_table(
        table(tmp_path, "file,label\na.wav,one, of two|b\n".replace("one, of two|b", '"one, of two|b"')),
        label_separator="|",
    )
    assert classes(found) == {"a.wav": {"one, of two", "b"}}


@pytest.mark.parametrize("name", ["event_label", "label"])
def test_tables_of_events(tmp_path, name):
    rows = "a.wav\t0.75\t2.5\ty\na.wav\t0.5\t1\tx\nc.flac\t\t\t\n"
    found = read_table(table(tmp_path, f"filename\tonset\toffset\t{name}\n{rows}", "t.tsv"))
    one, empty = found.recordings
    assert one.events == ((0.5, 1, "x"), (0.75, 2.5, "y")) and empty.events == () and empty.name == "c.flac"


@pytest.mark.parametrize(
    "column, values, given",
    [
        ("split", ["train", "Validation", "TEST"], ["train", "val", "eval"]),
        ("fold", ["1", "2", "3"], [1, 2, 3]),
        ("fold", ["0", "10", "9"], [1, 3, 2]),
        ("split", ["north", "south", "south"], [1, 2, 2]),
    ],
)
def test_a_column_gives_parts_or_folds(tmp_path, column, values, given):
    rows = "".join(f"{name},x,{value}\n" for name, value in zip(EACH, values))
    found = read_table(table(tmp_path, f"filename,label,{column}\n{rows}"))
    assert sides(found) == dict(zip(EACH, given))
    other = read_table(table(tmp_path, f"filename,label,Other\n{rows}"), split_by="Other")
    assert sides(other) == sides(found)


def test_missing_files_are_left_out(tmp_path):
    found = read_table(table(tmp_path, "filename,label\na.wav,x\nno.wav,x\nsub,x\n"))
    assert classes(found) == {"a.wav": {"x"}} and found.left_out == dict.fromkeys(("no.wav", "sub"), "no such file")


def test_a_name_that_no_file_can_have_is_left_out(tmp_path):
    names = ("x" * 5000, "a\0.wav", "a.wav/b", ".")
    found = read_table(table(tmp_path, "filename,label\na.wav,x\n" + "".join(f"{name},x\n" for name in names)))
    assert list(classes(found)) == ["a.wav"] and found.left_out == dict.fromkeys(sorted(names), "no such file")


@pytest.mark.parametrize("written, on_disk", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_file_is_found_by_its_name_in_either_form(tmp_path, written, on_disk):
    tree(tmp_path, unicodedata.normalize(on_disk, "gl\u00f6ckchen.wav"))
    name = unicodedata.normalize(written, "gl\u00f6ckchen.wav")
    (found,) = read_table(table(tmp_path, f"file,label\n{name},x\n")).recordings
    assert found.name == name and found.file.exists()


def test_names_start_from_another_folder(tmp_path):
    path = table(tmp_path / "audio", f"filename,label\na.wav,x\n{tmp_path}/audio/sub/b.WAV,x\n").rename(
        tmp_path / "t.csv"
    )
    assert classes(read_table(path, tmp_path / "audio")) == {"a.wav": {"x"}, "sub/b.WAV": {"x"}}
    with pytest.raises(UserError, match="none of its 2 files is there, such as .*Give --audio_dir"):
        read_table(path, tmp_path / "nowhere")


REFUSED = {
    "no rows": ("filename,label\n", "lists no recordings"),
    "nothing": ("", "is empty"),
    "no files": ("name,label\na.wav,x\n", "has no column of file names. Call it one of filename, "),
    "no labels": ("filename,size\na.wav,3\n", "has no column of labels"),
    "no file": ("filename,label\na.wav,x\n,x\n", "line 3: names no file"),
    "blank": ("\nfilename,label\na.wav,x\n", "its first line is empty"),
    "a class without a name": ("filename,\na.wav,1\nc.flac,0\n", "has no column of labels"),
    "cells": ("filename,label\na.wav,x,y\n", "another number of columns"),
    "twice": ("filename,FILENAME,label\na.wav,b.wav,x\n", "two columns of one name"),
    "onset": (
        "filename,onset,offset,label\na.wav,0,1,x\na.wav,two,3,x\n",
        "line 3: onset and offset are 'two' and '3'",
    ),
    "order": ("filename,onset,offset,label\na.wav,3,2,x\n", "line 2: onset and offset are '3' and '2'"),
    "below 0": ("filename,onset,offset,label\na.wav,-1,2,x\n", "0 ≤ onset ≤ offset"),
    "not finite": ("filename,onset,offset,label\na.wav,nan,2,x\n", "line 2: onset and offset are 'nan'"),
    "part": ("filename,label,split\na.wav,x,train\nc.flac,x,trn\n", "line 3: column 'split' is 'trn'"),
    "no part": ("filename,label,split\na.wav,x,train\nc.flac,x,\n", "line 3: column 'split' is ''"),
    "one fold": ("filename,label,fold\na.wav,x,1\nc.flac,x,1\n", "line 2: column 'fold' gives no part"),
    "no fold": ("filename,label,fold\na.wav,x,1\nc.flac,x,2\nsub/b.WAV,x,\n", "line 4: column 'fold' gives no part"),
    "two parts": ("filename,label,split\na.wav,x,train\na.wav,y,val\n", "line 3: a.wav has another part or group"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tables_that_are_refused(tmp_path, kind):
    text, words = REFUSED[kind]
    with pytest.raises(UserError) as error:
        read_table(table(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path / 't.csv'}") and words in str(error.value)


def test_a_table_that_is_not_in_utf_8_or_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"line 2: the class name .* is not in UTF-8"):
        read_table(table(tmp_path, "filename,label\na.wav,k\u00f6ln\n", encoding="latin-1"))
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        with pytest.raises(UserError, match="is not text in UTF-8, and a folder or a table of recordings was expected"):
            read_table(table(tmp_path, "filename,label\na.wav,x\n", encoding=encoding))
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "no.csv")
    with pytest.raises(UserError, match="has no column 'site'"):
        read_table(table(tmp_path, "filename,label\na.wav,x\n"), split_by="site")
