"""Soundscapes at scale: the same however they are made, made again from JAMS files, none half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SAMPLE_RATE, error_line, run_script, write_folder
from small_sources import contents, edit_jams, generate, regenerate, samples, write_sources

from src.data.soundscapes.jams import Event
from src.preparation import soundscapes
from src.preparation.soundscapes_from_jams import find_source
from src.utils.files import whole_file


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    """Nine soundscapes, by one process."""
    folder = tmp_path_factory.mktemp("made") / "mix"
    generate(sources, folder, count=9, check=0)
    return folder


def soundscape_files(folder):
    return {name: data for name, data in contents(folder).items() if name != "recipe.json"}


@pytest.mark.parametrize("workers", [2, 7])
def test_the_number_of_workers_changes_no_byte(sources, made, tmp_path, workers):
    generate(sources, tmp_path / "mix", "--num_workers", workers, count=9, check=0)
    assert contents(tmp_path / "mix") == contents(made) and len(contents(made)) == 9 * 3 + 1


def test_parts_and_other_places_change_no_byte(sources, made, tmp_path):
    moved = shutil.copytree(sources, tmp_path / "elsewhere")
    for part in (2, 0, 1):
        generate(moved, tmp_path / "mix", "--proc_idx", part, "--num_workers", 2, count=3, check=0)
    assert soundscape_files(tmp_path / "mix") == soundscape_files(made)


def test_annotations_name_no_place_of_this_machine(sources, made):
    for file in [*made.glob("*.jams"), *made.glob("*.txt")]:
        text = file.read_text()
        assert str(sources) not in text and '"/' not in text and "/tmp" not in text
    tree = json.loads((made / "soundscape_000000.jams").read_text())
    names = [event["value"]["source_file"] for event in tree["annotations"][0]["data"]]
    assert len(names) >= 2 and all((sources / name).is_file() for name in names)


def test_flac_holds_the_samples_of_the_wav(sources, made, tmp_path):
    generate(sources, tmp_path / "mix", "--format", "flac", "--num_workers", 2, count=9, check=0)
    for wav in made.glob("*.wav"):
        flac = tmp_path / "mix" / f"{wav.stem}.flac"
        info = soundfile.info(flac)
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", SAMPLE_RATE, 1)
        assert np.array_equal(samples(flac), samples(wav)) and len(samples(wav)) == 110250
    assert {name: data for name, data in contents(tmp_path / "mix").items() if not name.endswith(".flac")} == {
        name: data for name, data in contents(made).items() if not name.endswith(".wav")
    }


@pytest.mark.parametrize("lost", [".wav", ".txt", ".jams"])
def test_a_lost_file_comes_back_as_it_was(sources, made, tmp_path, lost):
    folder = shutil.copytree(made, tmp_path / "mix")
    (folder / f"soundscape_000002{lost}").unlink()
    result = generate(sources, folder, count=9, check=0)
    assert "8 of 9 soundscapes are there already" in result.stderr and contents(folder) == contents(made)


def test_backgrounds_in_one_folder_do_not_depend_on_what_lies_beside_it(sources, tmp_path):
    generate(sources, tmp_path / "a", bg="flat", count=3, check=0)
    moved = shutil.copytree(sources, tmp_path / "moved")
    (moved / "another folder").mkdir()
    generate(moved, tmp_path / "b", bg="flat", count=3, check=0)
    assert soundscape_files(tmp_path / "a") == soundscape_files(tmp_path / "b")


def largest_difference(folder, other, suffix=".wav"):
    pairs = [(file, other / file.relative_to(folder).with_suffix(suffix)) for file in folder.rglob("*.wav")]
    return max(np.abs(samples(one) - samples(two)).max() for one, two in pairs)


@pytest.mark.parametrize("bg, audio, workers", [("noises", "wav", 1), ("noises", "flac", 2), ("flat", "wav", 2)])
def test_soundscapes_are_made_again_from_jams(sources, tmp_path, bg, audio, workers):
    generate(sources, tmp_path / "mix" / "train" / "x", bg=bg, check=0)
    generate(sources, tmp_path / "mix" / "val", bg=bg, seed=8, count=2, check=0)
    out = tmp_path / "again"
    regenerate(sources, tmp_path / "mix", out, "--format", audio, "--num_workers", workers, bg=bg, check=0)
    assert largest_difference(tmp_path / "mix", out, f".{audio}") <= 1
    for file in [*(tmp_path / "mix").rglob("*.txt"), *(tmp_path / "mix").rglob("*.jams")]:
        assert (out / file.relative_to(tmp_path / "mix")).read_bytes() == file.read_bytes()
    before = contents(out)
    assert len(before) == 3 * 6 + 1
    (out / "val" / f"soundscape_000001.{audio}").unlink()
    result = regenerate(sources, tmp_path / "mix", out, "--format", audio, bg=bg, check=0)
    assert "5 of 6 soundscapes are there already" in result.stderr and contents(out) == before


def test_one_jams_file_made_on_another_machine(sources, made, tmp_path):
    """As published: absolute paths, into folders that are called otherwise here."""
    jams = shutil.copy(made / "soundscape_000003.jams", tmp_path / "x.y.jams")

    def from_elsewhere(annotation):
        annotation["sandbox"]["scaper"] |= {"fg_path": "/home/me/gise/train", "bg_path": "/home/me/gise/bg"}
        for event in annotation["data"]:
            where = "train" if event["value"]["role"] == "foreground" else "bg"
            path = event["value"]["source_file"].split("/", 1)[1]
            event["value"]["source_file"] = f"/home/me/gise/{where}/{path}"

    edit_jams(jams, from_elsewhere)
    regenerate(sources, jams, tmp_path / "out", check=0)
    assert np.abs(samples(tmp_path / "out" / "x.y.wav") - samples(made / "soundscape_000003.wav")).max() <= 1
    assert sorted(contents(tmp_path / "out")) == ["recipe.json", "x.y.jams", "x.y.txt", "x.y.wav"]


def test_sources_are_found_by_as_much_of_their_path_as_there_is(tmp_path):
    for name in ("train/Gong/a.wav", "val/Gong/a.wav", "flat/a.wav", "a.wav"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_bytes(b"")

    def found(root, source, role="foreground"):
        return str(find_source(tmp_path / root, Event(role, "Gong", 0, 1, source, 0, 1)).relative_to(tmp_path))

    assert found("x", "/their/val/Gong/a.wav") == "x/val/Gong/a.wav"
    assert found("x/train", "/their/val/Gong/a.wav") == "x/train/Gong/a.wav"
    assert found("x/flat", "/their/noises/a.wav", "background") == "x/flat/a.wav"
    for root, source in (("x", "/their/Gong/a.wav"), ("x/flat", "/their/Gong/a.wav"), ("x/train", "../x/a.wav")):
        with pytest.raises(ValueError, match="Gong/a.wav|x/a.wav"):
            found(root, source)


def lose_source(sources, jams):
    name = json.loads(jams.read_text())["annotations"][0]["data"][1]["value"]["source_file"].split("/", 1)[1]
    edit_jams(jams, lambda annotation: annotation["data"][1]["value"].update(source_file=f"/their/{name}x"))
    return [f"{name}x", "is not in"]


def truncate(sources, jams):
    jams.write_text(jams.read_text()[:2000])
    return ["is not a JAMS file, or is truncated"]


def no_text(sources, jams):
    jams.write_bytes(b"\xff\xfe\x00")
    return ["is not a JAMS file, or is truncated"]


def other_json(sources, jams):
    jams.write_text('["soundscapes"]')
    return ["not a JAMS file: it has no list of annotations"]


def other_namespace(sources, jams):
    edit_jams(jams, lambda annotation: annotation.update(namespace="beat"))
    return ["has no annotation in Scaper's namespace"]


def no_sandbox(sources, jams):
    edit_jams(jams, lambda annotation: annotation.update(sandbox={}))
    return ["has no sandbox of Scaper's"]


def poor_sandbox(sources, jams):
    edit_jams(jams, lambda annotation: annotation["sandbox"]["scaper"].pop("ref_db"))
    return ["its Scaper sandbox has no 'ref_db'"]


def trimmed(sources, jams):
    edit_jams(jams, lambda annotation: annotation["sandbox"].update(slice=[{"slice_start": 0, "slice_end": 1}]))
    return ["was trimmed after mixing"]


def odd_rate(rate):
    """A rate for which SoX would end the process, or that is none."""

    def spoil(sources, jams):
        edit_jams(jams, lambda annotation: annotation["sandbox"]["scaper"].update(sr=rate))
        return [f"its sample rate, sr, is {rate}, and 1000 to 384000 Hz are made"]

    spoil.__name__ = f"odd_rate_{rate}"
    return spoil


def odd_event(sources, jams):
    edit_jams(jams, lambda annotation: annotation["data"][1]["value"].pop("source_time"))
    return ["an event in it is not as Scaper writes them", "source_time"]


def no_duration(sources, jams):
    tree = json.loads(jams.read_text())
    tree["file_metadata"]["duration"] = None
    jams.write_text(json.dumps(tree))
    return ["cannot be mixed", "SchemaError"]


def other_release(sources, jams):
    edit_jams(jams, lambda annotation: annotation["data"][1]["value"].update(source_time=100.0))
    return ["Is it another release?"]


def silent(sources, jams):
    edit_jams(jams, lambda annotation: annotation.update(data=[]))
    return ["has no events"]


@pytest.mark.parametrize(
    "spoil",
    [
        lose_source,
        truncate,
        no_text,
        other_json,
        other_namespace,
        no_sandbox,
        poor_sandbox,
        trimmed,
        *map(odd_rate, (0.5, 0, -1, 10**12, "22050", None)),
        odd_event,
        no_duration,
        other_release,
        silent,
    ],
)
def test_a_jams_file_that_gives_no_soundscape_is_named_and_the_others_go_on(sources, made, tmp_path, spoil):
    folder = tmp_path / "jams"
    folder.mkdir()
    for number in range(3):
        shutil.copy(made / f"soundscape_00000{number}.jams", folder)
    expected = spoil(sources, folder / "soundscape_000001.jams")
    result = regenerate(sources, folder, tmp_path / "out", "--num_workers", 2)
    assert "1 of the JAMS files in" in error_line(result)
    lines = [line for line in result.stderr.splitlines() if line.startswith(str(folder / "soundscape_000001.jams"))]
    assert len(lines) == 1 and all(part in lines[0] for part in expected), result.stderr
    assert sorted(contents(tmp_path / "out")) == sorted(
        ["recipe.json", *(f"soundscape_00000{k}.{kind}" for k in (0, 2) for kind in ("jams", "txt", "wav"))]
    )


def test_making_again_refuses(sources, made, tmp_path):
    assert "holds soundscapes with made_from None" in error_line(regenerate(sources, made, made))
    (tmp_path / "theirs").mkdir()
    soundfile.write(tmp_path / "theirs" / "a.flac", np.zeros(100), SAMPLE_RATE)
    assert "no recipe.json" in error_line(regenerate(sources, made, tmp_path / "theirs"))
    assert sorted(contents(tmp_path / "theirs")) == ["a.flac"]
    assert "no JAMS files" in error_line(regenerate(sources, sources, tmp_path / "x"))
    assert "no such folder of JAMS files" in error_line(regenerate(sources, tmp_path / "nowhere", tmp_path / "x"))
    assert "no such folder of backgrounds" in error_line(regenerate(sources, made, tmp_path / "x", bg="nowhere"))
    assert not (tmp_path / "x").exists()
    regenerate(sources, made / "soundscape_000000.jams", tmp_path / "out", check=0)
    before = contents(tmp_path / "out")
    other = tmp_path / "soundscape_000000.jams"
    shutil.copy(made / "soundscape_000001.jams", other)
    result = regenerate(sources, other, tmp_path / "out")
    assert "is there already and says something else" in result.stderr and contents(tmp_path / "out") == before


def test_a_source_that_cannot_be_used_is_named_and_the_other_soundscapes_are_made(sources, tmp_path):
    mine = shutil.copytree(sources, tmp_path / "sources")
    harp, organ = sorted((mine / "events" / "Harp").glob("*.wav")), sorted((mine / "events" / "Organ").glob("*.wav"))
    harp[0].write_text("not audio")
    soundfile.write(harp[1], np.zeros(0), SAMPLE_RATE)
    soundfile.write(organ[0], np.ones(100), SAMPLE_RATE)
    organ[1].write_bytes(organ[1].read_bytes()[:3000])
    result = generate(mine, tmp_path / "mix", "--max_events", 1, "--num_workers", 2, count=16)
    for part in (
        f"{harp[0]}: is not audio",
        f"{harp[1]}: is empty",
        f"{organ[0]}: lasts 4.5 ms",
        f"{organ[1]}: is truncated",
    ):
        assert part in result.stderr
    made = list((tmp_path / "mix").glob("*.wav"))
    assert f"{16 - len(made)} of 16 soundscapes could not be mixed" in error_line(result) and made
    assert all("Drum" in file.with_suffix(".txt").read_text() for file in made)
    # Once the sources are whole, the same command makes what is missing, and the same as ever.
    before = contents(tmp_path / "mix")
    for file in (*harp, *organ):
        shutil.copy(sources / "events" / file.parent.name / file.name, file)
    generate(mine, tmp_path / "mix", "--max_events", 1, count=16, check=0)
    generate(mine, tmp_path / "whole", "--max_events", 1, count=16, check=0)
    assert (
        contents(tmp_path / "mix") == contents(tmp_path / "whole")
        and before.items() <= contents(tmp_path / "mix").items()
    )


def test_a_class_without_sources_and_a_class_without_a_label(sources, tmp_path):
    mine = shutil.copytree(sources, tmp_path / "sources")
    (mine / "events" / "Piano").mkdir()
    assert "class 'Piano' is not in the label map" in error_line(generate(mine, tmp_path / "mix"))
    (mine / "events" / "Piano").rmdir()
    (mine / "events" / ".hidden").mkdir()
    shutil.rmtree(mine / "events" / "Harp")
    assert "no WAV files of class 'Harp'" in error_line(generate(mine, tmp_path / "mix"))
    assert not (tmp_path / "mix").exists()


def test_a_folder_that_cannot_be_written(sources, made, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for result in (
        generate(sources, tmp_path / "file"),
        generate(sources, tmp_path / "file" / "mix"),
        regenerate(sources, made, tmp_path / "file" / "mix"),
        generate(sources, "/proc/mix"),
    ):
        line = error_line(result)
        assert str(tmp_path / "file") in line or "/proc/mix" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_of_other_soundscapes_is_left_alone(sources, made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "mix")
    before = contents(folder)
    assert "with seed 7 instead of 9" in error_line(generate(sources, folder, seed=9, count=10))
    assert "with duration 5.0 instead of 4.0" in error_line(generate(sources, folder, "--duration", 4, count=10))
    assert "with max_events 3 instead of 2" in error_line(generate(sources, folder, "--max_events", 2, count=10))
    assert "with bg_path" in error_line(generate(sources, folder, bg="flat", count=10))
    assert contents(folder) == before
    (tmp_path / "flac").mkdir()
    soundfile.write(tmp_path / "flac" / "a.flac", np.zeros(100), SAMPLE_RATE)
    assert "holds audio files, but no recipe.json" in error_line(generate(sources, tmp_path / "flac"))


@pytest.mark.parametrize("call", ["write", "sync"])
def test_whole_files_on_a_full_disk(tmp_path, monkeypatch, call):
    """The kernel's answer, put in place of the real one. The next test fills a real disk where it may."""
    (tmp_path / "a.wav").write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "sync":
        monkeypatch.setattr("src.utils.files.sync", full)
    with pytest.raises(OSError, match="No space left") as caught, whole_file(tmp_path / "a.wav") as temporary:
        temporary.write_bytes(b"new")
        if call == "write":
            full()
    assert caught.value.filename == str(tmp_path / "a.wav")
    assert contents(tmp_path) == {"a.wav": b"old"}


def on_a_small_disk(kilobytes, folder, *words):
    """Run a script that writes into `folder` while a file system of so many kilobytes is mounted there.

    What it leaves there is copied to `folder` afterwards.
    """
    folder.mkdir()
    script = (
        f'mount -t tmpfs -o size={kilobytes}k none "$0" || exit 99; "$@"; status=$?; cp -a "$0" "$0.copy"; exit $status'
    )
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, folder, sys.executable, ROOT / words[0], *map(str, words[1:])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    if result.returncode == 99 or "unshare" in result.stderr:
        pytest.skip(f"this machine mounts no small file system: {result.stderr.strip()}")
    return result, folder.with_name(folder.name + ".copy")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_generating_on_a_full_disk(sources, made, tmp_path):
    words = (
        "--fg_path",
        sources / "events",
        "--bg_path",
        sources / "noises",
        "--num_soundscapes",
        9,
        "--lbl_map",
        sources / "lbl_map.json",
        "--seed",
        7,
        "--out_folder",
        tmp_path / "mix",
    )
    result, left = on_a_small_disk(1000, tmp_path / "mix", "scripts/generate_mixtures.py", *words)
    line = error_line(result)
    assert "No space left on device" in line and "soundscape_00000" in line
    found, expected = contents(left), contents(made)
    assert 3 * 3 + 1 <= len(found) < len(expected) and all(expected[name] == data for name, data in found.items())
    assert all(
        {name.replace(".wav", ".txt"), name.replace(".wav", ".jams")} <= set(found)
        for name in found
        if name.endswith(".wav")
    )


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
@pytest.mark.parametrize("frequency", [1, 1000])
def test_packing_on_a_full_disk(tmp_path, frequency):
    """Where the last transaction does not fit, and where the first one does not."""
    mix = write_folder(tmp_path / "clips", 12, 5)
    result, left = on_a_small_disk(
        200,
        tmp_path / "lmdb",
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        mix,
        "--lmdb_path",
        tmp_path / "lmdb" / "a.lmdb",
        "--audio_min_duration",
        0.5,
        "--write_frequency",
        frequency,
    )
    assert "a.lmdb: cannot be written" in error_line(result) and "Is the disk full?" in error_line(result)
    assert contents(left) == {}


def test_nothing_is_mixed_where_sox_has_no_room(sources, tmp_path, monkeypatch):
    """On a full /tmp, SoX's bindings would carry on with less of the sound, and say nothing that Python hears."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(soundscapes.shutil, "disk_usage", lambda path: usage if path == "/tmp" else None)
    recipe = soundscapes.Recipe(str(sources / "events"), str(sources / "noises"), 1)
    label_map = soundscapes.LabelMap.load(sources / "lbl_map.json")
    with pytest.raises(OSError, match="which SoX needs"):
        soundscapes.generate_soundscapes(recipe, tmp_path / "mix", range(2), label_map)
    assert sorted(contents(tmp_path / "mix")) == ["recipe.json"]


def test_help_names_the_flags():
    text = run_script("scripts/generate_from_jams.py", "--help", check=0).stdout
    for flag in ("--jams_dir", "--fg_path", "--bg_path", "--out_folder", "--format", "--num_workers"):
        assert flag in text
