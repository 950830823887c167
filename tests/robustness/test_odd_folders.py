"""Folders as the world makes them, for every command that reads one: nothing is left out without a word."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
from conftest import CLASSES, FIXTURES, SAMPLE_RATE, error_line, raw, run_script, tone_clip, train_command, write_folder
from released import CKPT
from small_sources import contents, generate, noise, regenerate, write_sources

from src.data.audio.files import AUDIO_SUFFIXES
from src.tagging.recordings import audio_files

pytestmark = pytest.mark.processes


@dataclass(frozen=True)
class Reader:
    """A command that reads a folder of files."""

    suffix: str
    nested: bool  # it looks into subfolders

    def make(self, folder):
        """Files in two subfolders, or in the folder itself."""
        for index, name in enumerate(CLASSES[:2] if self.nested else ("",)):
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(3):
                soundfile.write(place / f"{number}.wav", noise(0.5, 10 * index + number), SAMPLE_RATE)

    def run(self, folder, out):
        """Call the command."""
        raise NotImplementedError

    def made(self, out):
        """What it made, by name."""
        return {name.lower(): content for name, content in contents(out).items() if not name.endswith(".json")}


class Packing(Reader):
    def make(self, folder):
        write_folder(folder, 4, 1)

    def run(self, folder, out):
        target = out / "a.lmdb"
        words = ("--mixture_dir", folder, "--lmdb_path", target, "--audio_min_duration", 0.5)
        return run_script("pack_mixtures_into_lmdb.py", *words)

    def made(self, out):
        return raw(out / "a.lmdb")


class Converting(Reader):
    def run(self, folder, out):
        return run_script("scripts/wav2flac.py", "--src_dir", folder, "--tgt_dir", out)


class Trimming(Reader):
    def run(self, folder, out):
        return run_script("scripts/strip_silence_sox.py", "--src_dir", folder, "--tgt_dir", out)


class Events(Reader):
    def make(self, folder):
        write_sources(folder.with_name("sources"))
        shutil.copytree(folder.with_name("sources") / "events", folder)

    def run(self, folder, out):
        words = ("--fg_path", folder, "--bg_path", folder.with_name("sources") / "flat", "--out_folder", out)
        labels = ("--lbl_map", folder.with_name("sources") / "lbl_map.json")
        return run_script("scripts/generate_mixtures.py", *words, *labels, "--num_soundscapes", 3)

    def made(self, out):
        return {name: content for name, content in super().made(out).items() if not name.endswith(".jams")}


class Backgrounds(Events):
    def make(self, folder):
        write_sources(folder.with_name("sources"))
        shutil.copytree(folder.with_name("sources") / "noises", folder)

    def run(self, folder, out):
        words = ("--fg_path", folder.with_name("sources") / "events", "--bg_path", folder, "--out_folder", out)
        labels = ("--lbl_map", folder.with_name("sources") / "lbl_map.json")
        return run_script("scripts/generate_mixtures.py", *words, *labels, "--num_soundscapes", 3)


class Regenerating(Reader):
    def make(self, folder):
        sources = write_sources(folder.with_name("sources"))
        generate(sources, folder.with_name("made"), count=3, check=0)
        for number, file in enumerate(sorted(folder.with_name("made").glob("*.jams"))):
            (folder / f"part{number}").mkdir(parents=True)
            shutil.move(file, folder / f"part{number}" / file.name)

    def run(self, folder, out):
        return regenerate(folder.with_name("sources"), folder, out)


class Tagging(Reader):
    def run(self, folder, out):
        words = ("--ckpt_path", CKPT, "--lbl_map", FIXTURES / "lbl_map.json", "--audio", folder)
        return run_script("predict.py", *words, "--csv", out / "a.csv")

    def made(self, out):
        return (out / "a.csv").read_text().lower().splitlines()


class Preparing(Reader):
    def make(self, folder):
        rows = []
        for number in range(3):
            video = f"{number}" * 11
            place = folder / ("sub" * (number % 2))
            place.mkdir(parents=True, exist_ok=True)
            soundfile.write(place / f"{video}_000000.wav", noise(1, number), SAMPLE_RATE)
            rows.append(f'{video},0,"drum {number}",train\n')
        folder.with_name("vggsound.csv").write_text("".join(rows))

    def run(self, folder, out):
        words = ("--vggsound_csv", folder.with_name("vggsound.csv"), "--clips_dir", folder, "--splits", "train")
        return run_script("scripts/prepare_vggsound.py", *words, "--out_dir", out)

    def made(self, out):
        return raw(out / "lmdbs" / "train.lmdb")


class Owning(Reader):
    def run(self, folder, out):
        words = ("--src", folder, "--out_dir", out, "--clip_seconds", 0.5)
        return run_script("scripts/prepare_own.py", *words)

    def made(self, out):
        return {part: raw(out / f"{part}.lmdb") for part in ("train", "val", "eval")}


READERS = {
    "packing": Packing(".flac", False),
    "converting": Converting(".wav", False),
    "trimming": Trimming(".wav", True),
    "events": Events(".wav", True),
    "backgrounds": Backgrounds(".wav", True),
    "making again": Regenerating(".jams", True),
    "tagging": Tagging(".wav", True),
    "preparing": Preparing(".wav", True),
    "one's own": Owning(".wav", True),
}
readers = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


@readers
def test_an_odd_folder_gives_what_the_plain_one_gives_and_one_line(reader, tmp_path):
    folder = tmp_path / "in"
    reader.make(folder)
    first = reader.run(folder, tmp_path / "plain")
    assert first.returncode == 0 and "left out" not in first.stderr, first.stderr
    files = sorted(folder.rglob(f"*{reader.suffix}"))
    files[0].rename(files[0].with_suffix(reader.suffix.upper()))
    (files[0].parent / f"._{files[1].name}").write_bytes(b"\0\5\x16\7Mac OS X")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / ".Trashes").mkdir()
    (folder / "notes.md").write_text("")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    moved = files[-1]
    shutil.move(moved, tmp_path / moved.name)
    moved.symlink_to(tmp_path / moved.name)
    if reader.nested and files[-1].parent != folder:
        shutil.move(files[-1].parent, tmp_path / "elsewhere")
        files[-1].parent.symlink_to(tmp_path / "elsewhere")
    if reader.nested and not isinstance(reader, Events):  # those are two levels deep, and no more is looked at
        (folder / "round").symlink_to(folder)
    again = reader.run(folder, tmp_path / "odd")
    assert again.returncode == 0, again.stderr
    assert reader.made(tmp_path / "odd") == reader.made(tmp_path / "plain")
    (line,) = [line for line in again.stderr.splitlines() if "left out" in line]
    reasons = ["2 hidden files (such as .DS_Store)", "1 hidden folder (.Trashes)", "1 .md file (notes.md)"]
    reasons += ["1 link to nothing (gone)"]
    reasons += ["1 folder read before (round)"] * (folder / "round").is_symlink()
    assert line.startswith(f"{folder}: left out ") and all(reason in line for reason in reasons), line


def nowhere(path):
    return "no such"


def link_to_nothing(path):
    path.symlink_to("nowhere")
    return "is a link to nothing, and no folder"


def link_to_itself(path):
    path.symlink_to(path)
    return "cannot be read (Too many levels of symbolic links)"


def empty(path):
    path.mkdir()
    return "no "


@readers
@pytest.mark.parametrize("make", [nowhere, link_to_nothing, link_to_itself, empty])
def test_a_folder_that_is_none_gets_the_words_for_that(reader, make, tmp_path):
    if isinstance(reader, (Events, Regenerating)):
        write_sources(tmp_path / "sources")
    (tmp_path / "vggsound.csv").write_text('00000000000,0,"drum",train\n')
    expected = make(tmp_path / "in")
    line = error_line(reader.run(tmp_path / "in", tmp_path / "out"))
    assert str(tmp_path / "in") in line and (expected in line or make is empty and "has none of" in line), line
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix != ".json" and path.is_file()]


@pytest.mark.parametrize("make", [nowhere, link_to_nothing, link_to_itself])
@pytest.mark.parametrize("which", ["events", "noises"])
def test_a_folder_of_sources_that_is_none_gets_the_words_for_that(which, make, tmp_path):
    sources = write_sources(tmp_path / "sources")
    shutil.rmtree(sources / which)
    expected = make(sources / which)
    for line in map(error_line, (regenerate(sources, tmp_path, tmp_path / "a"), generate(sources, tmp_path / "b"))):
        assert f"{sources / which}: {expected}" in line


@pytest.mark.parametrize(
    "make, expected", [(link_to_nothing, None), (link_to_itself, None), (empty, "no WAV files of")]
)
def test_a_class_folder_that_is_none_gets_the_words_for_that(make, expected, tmp_path):
    reader, folder = READERS["events"], tmp_path / "in"
    reader.make(folder)
    shutil.rmtree(folder / "Harp")
    made = make(folder / "Harp")
    line = error_line(reader.run(folder, tmp_path / "out"))
    assert f"{folder / 'Harp'}: " in line and (expected or made) in line


@pytest.mark.parametrize("name", ["packing", "converting", "making again"])
def test_two_files_of_one_stem_are_refused_before_anything_is_made(name, tmp_path):
    reader, folder = READERS[name], tmp_path / "in"
    reader.make(folder)
    file = next(folder.rglob(f"*{reader.suffix}"))
    other = Path(shutil.copy(file, file.with_suffix(reader.suffix.upper())))
    line = error_line(reader.run(folder, tmp_path / "out"))
    assert "in the case of its suffix alone" in line and file.name in line and other.name in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_annotations_in_another_case_go_with_their_clip(tmp_path):
    folder = write_folder(tmp_path / "in", 3, 1)
    reader = READERS["packing"]
    reader.run(folder, tmp_path / "plain")
    (folder / "s000.flac").rename(folder / "s000.FLAC")
    (folder / "s001.txt").rename(folder / "s001.TXT")
    for suffix in ("flac", "txt"):
        (folder / f"s002.{suffix}").rename(folder / f"s002.{suffix.title()}")
    assert reader.run(folder, tmp_path / "odd").returncode == 0
    assert reader.made(tmp_path / "odd") == reader.made(tmp_path / "plain")
    wav = tmp_path / "wav"
    wav.mkdir()
    for number in range(2):
        soundfile.write(wav / f"{number}.wav", tone_clip(["Drum"], number), SAMPLE_RATE)
        (wav / f"{number}.{('txt', 'TXT')[number]}").write_text("0\t1\tDrum\n")
    convert = ("scripts/wav2flac.py", "--src_dir", wav, "--tgt_dir", tmp_path / "flac", "--move_txt")
    run_script(*convert, check=0)
    assert sorted(contents(tmp_path / "flac")) == ["0.flac", "0.txt", "1.flac", "1.txt"]
    show = ("scripts/show_soundscape.py", wav / "1.wav", "--out_png", tmp_path / "1.png")
    assert "0.00 to 1.00 s  Drum" in run_script(*show, check=0).stdout


def test_a_link_to_nothing_that_is_called_like_a_clip_is_named_not_left_out(tmp_path):
    folder = write_folder(tmp_path / "in", 3, 1)
    (folder / "s001.flac").unlink()
    (folder / "s001.flac").symlink_to("nowhere.flac")
    assert "s001.flac: No such file" in error_line(READERS["packing"].run(folder, tmp_path / "out"))


def evaluate(corpus, folder, out):
    words = ("--lbl_map", corpus / "meta" / "lbl_map.json", "--lmdb_path", corpus / "eval.lmdb", "--num_workers", 0)
    return run_script("eval_gise_mixtures.py", "--exp_dir", folder, *words, "--results_csv", out / "r.csv")


def summarise(corpus, folder, out):
    return run_script("scripts/summarise_results.py", folder, "--out_dir", out)


def test_runs_are_found_behind_links_and_what_macos_leaves_is_none_of_them(corpus, tmp_path):
    runs = tmp_path / "runs"
    run_script(*train_command(corpus, runs / "group" / "tiny"), check=0)
    for command in (evaluate, summarise):
        assert "left out" not in command(corpus, runs, tmp_path / "plain").stderr
    for file in [file for file in runs.rglob("*") if file.is_file()]:
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7Mac OS X")
    shutil.move(runs / "group", tmp_path / "elsewhere")
    (runs / "group").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(runs)
    result = evaluate(corpus, runs, tmp_path / "odd")
    assert result.returncode == 0 and f"{runs}: left out 1 hidden file (group/tiny/ckpts/._epoch" in result.stderr
    assert len((tmp_path / "odd" / "r.csv").read_text().splitlines()) == 2
    assert "| 1 |" in summarise(corpus, runs, tmp_path / "odd").stdout


@pytest.mark.parametrize("command", [evaluate, summarise])
@pytest.mark.parametrize("make", [link_to_nothing, link_to_itself, empty])
def test_a_folder_of_runs_that_is_none_gets_the_words_for_that(command, make, corpus, tmp_path):
    expected = make(tmp_path / "in")
    line = error_line(command(corpus, tmp_path / "in", tmp_path))
    words = (expected, "no such file", "is a link that leads in a circle")  # a table may be meant, too
    assert f"{tmp_path / 'in'}: " in line and any(word in line for word in words)


@pytest.mark.parametrize("suffix", ["aifc", "wave", "bwf", "snd", "mpga", "AIF", "Oga"])
def test_all_usual_suffixes_of_audio_are_found_in_folders(suffix, tmp_path):
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    assert [each.path for each in audio_files([str(tmp_path)])] == [
        tmp_path / f"a.{suffix}"
    ] and f".{suffix.lower()}" in AUDIO_SUFFIXES


def test_a_pipe_that_is_called_like_a_clip_hangs_nothing(tmp_path):
    clips = write_folder(tmp_path / "clips", 2, 1)
    (clips / "s001.txt").unlink()
    os.mkfifo(clips / "s001.txt")
    assert "s001.txt: is no plain file" in error_line(READERS["packing"].run(clips, tmp_path / "out"))
    tag = ("predict.py", "--ckpt_path", CKPT, "--lbl_map", FIXTURES / "lbl_map.json", "--audio")
    assert "s001.txt: is no plain file" in run_script(*tag, clips / "s001.txt", check=1).stderr
    for name in ("converting", "tagging"):
        folder = tmp_path / name / "in"
        READERS[name].make(folder)
        os.mkfifo(folder / "pipe.wav")
        result = READERS[name].run(folder, tmp_path / name / "out")
        assert result.returncode == 0 and "left out 1 special file (pipe.wav)" in result.stderr
