"""Sounds that are cut, hold no numbers, or are encoded in an unusual way, through every command that reads audio."""

import csv
import re
import shutil

import numpy as np
import pytest
import soundfile
from conftest import FIXTURES, SAMPLE_RATE, error_line, run_script, train_command, write_folder
from released import CKPT
from small_sources import generate, write_sources
from sounds import encoded, id3_tag, mp3, without_length, without_xing

from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter

pytestmark = pytest.mark.processes

NOISE = 0.2 * np.random.default_rng(0).standard_normal(SAMPLE_RATE)
SECONDS = 3
SOUND = np.concatenate([NOISE, 0 * NOISE, NOISE]).astype(np.float32)
WITH_NAN, WITH_INFINITY = SOUND.copy(), SOUND.copy()
WITH_NAN[30000], WITH_INFINITY[100] = np.nan, -np.inf

FAULTS = {
    "NaN": (encoded(WITH_NAN, "WAV", "FLOAT"), "no finite numbers"),
    "infinity": (encoded(WITH_INFINITY, "AIFF", "DOUBLE"), "no finite numbers"),
    "half": (encoded(SOUND, "WAV", "PCM_16")[: 2 * len(SOUND) // 2], "is truncated"),
    "half GSM": (encoded(SOUND, "WAV", "GSM610")[:5000], "is truncated"),
}
UNUSUAL = {
    "GSM 6.10": encoded(SOUND, "WAV", "GSM610"),
    "G.723": encoded(SOUND, "AU", "G723_24"),
    "MP3 without a length": without_xing(mp3(SOUND)),
    "from a pipe": without_length(encoded(SOUND, "FLAC", "PCM_16")),
    "a tag in front": id3_tag() + encoded(SOUND, "WAV", "PCM_16"),
}


@pytest.fixture(scope="module")
def soundscapes(tmp_path_factory):
    """sources/ of Scaper's, and made/ of them."""
    folder = tmp_path_factory.mktemp("soundscapes")
    generate(write_sources(folder / "sources"), folder / "made", count=5, check=0)
    return folder


class Command:
    """A command over the sound and another one.

    Attributes:
        status: what it ends with where the sound is refused.
        least: seconds that come of the sound, or None where its length is not seen.
    """

    status, least, named = 1, None, "bad"

    def __init__(self, folder, corpus, soundscapes):
        self.folder, self.corpus, self.soundscapes = folder, corpus, soundscapes
        self.out = folder / "out"

    def write(self, data, *names):
        """The sound, and a good one beside it."""
        for name in names or ("bad.wav",):
            path = self.folder / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (path.parent / "good.wav").write_bytes(encoded(SOUND, "WAV"))
        return self.folder / "in"

    def lmdb(self, data):
        with LMDBWriter(self.folder / "a.lmdb", 1e7) as writer:
            for seed, audio in enumerate(
                [encoded(SOUND, "FLAC"), data, *[encoded(SOUND[:k], "FLAC") for k in (9000, 8000)]]
            ):
                writer.add(Record(audio, ("Drum", "Harp", "Organ")[seed % 3]))
        return self.folder / "a.lmdb"

    def goes_on(self):
        """Whether all that needs only the other sounds was done."""
        return True


class Predict(Command):
    least = SECONDS

    def words(self, data):
        table = ("--csv", self.folder / "scores.csv", "--lbl_map", FIXTURES / "lbl_map.json")
        return "predict.py", "--ckpt_path", CKPT, "--audio", self.write(data), *table

    def ends(self, name):
        with open(self.folder / "scores.csv") as stream:
            return {float(row["end"]) for row in csv.DictReader(stream) if row["file"].endswith(name)}

    def goes_on(self):
        return max(self.ends("good.wav")) == SECONDS and not self.ends("bad.wav")

    def seconds(self):
        return max(self.ends("bad.wav"))


class Convert(Command):
    least = SECONDS

    def words(self, data):
        return "scripts/wav2flac.py", "--src_dir", self.write(data), "--tgt_dir", self.out

    def goes_on(self):
        return [path.name for path in self.out.glob("*.flac")] == ["good.flac"]

    def seconds(self):
        return soundfile.info(self.out / "bad.flac").duration


class Strip(Command):
    least = 1.9

    def words(self, data):
        return "scripts/strip_silence_sox.py", "--src_dir", self.write(data), "--tgt_dir", self.out

    def goes_on(self):
        return [path.name for path in self.out.glob("*.wav")] == ["good.wav"]

    def seconds(self):
        return soundfile.info(self.out / "bad.wav").duration


class Mix(Command):
    """The sound is every event of a class."""

    def words(self, data):
        sources = shutil.copytree(self.soundscapes / "sources", self.folder / "sources")
        for file in (sources / "events" / "Drum").iterdir():
            file.rename(file.with_name(f"bad{file.name}")).write_bytes(data)
        fixed = ("--bg_path", sources / "noises", "--lbl_map", sources / "lbl_map.json", "--seed", 7)
        made = ("--out_folder", self.out, "--num_soundscapes", 5)
        return "scripts/generate_mixtures.py", "--fg_path", sources / "events", *fixed, *made

    def goes_on(self):
        return 0 < len(list(self.out.glob("*.wav"))) < 5


class MixAgain(Command):
    named = "Drum"

    def words(self, data):
        sources = shutil.copytree(self.soundscapes / "sources", self.folder / "sources")
        for file in (sources / "events" / "Drum").iterdir():
            file.write_bytes(data)
        fixed = ("--fg_path", sources / "events", "--bg_path", sources / "noises", "--out_folder", self.out)
        return "scripts/generate_from_jams.py", "--jams_dir", self.soundscapes / "made", *fixed

    def goes_on(self):
        return 0 < len(list(self.out.glob("*.wav"))) < 5


class PrepareVGGSound(Command):
    status, least, table = 0, SECONDS, "train"

    def words(self, data):
        (self.folder / "list.csv").write_text(
            "".join(
                f'{v}bad78901,1,"Drum",{s}\n{v}good8901,1,"Drum",{s}\n' for v, s in (("a01", "train"), ("b01", "test"))
            )
        )
        self.clips = self.write(data, *(f"{v}bad78901_000001.wav" for v in ("a01", "b01")))
        for v in ("a01", "b01"):
            shutil.copy(self.clips / "good.wav", self.clips / f"{v}good8901_000001.wav")
        where = ("--clips_dir", self.clips, "--out_dir", self.out)
        return "scripts/prepare_vggsound.py", "--vggsound_csv", self.folder / "list.csv", *where

    def goes_on(self):
        return (self.out / "meta/train_ids.txt").read_text() == "a01good8901_000001\n"

    def seconds(self):
        return soundfile.info(self.out / "flac/train/a01bad78901_000001.flac").duration


class PrepareESC50(Command):
    status, least = 0, SECONDS

    def words(self, data):
        names = [f"{fold}-{k}-A-0.wav" for fold in range(1, 6) for k in (1, 2)]
        folder = self.write(data, *(f"audio/{name}" for name in names))
        for name in names[1:]:
            shutil.copy(folder / "audio/good.wav", folder / "audio" / name)
        (folder / "audio" / names[0]).rename(folder / "audio" / "1-bad-A-0.wav")
        rows = [f"{name},{name[0]},0,dog,False,1,A" for name in ["1-bad-A-0.wav", *names[1:]]]
        (folder / "meta").mkdir()
        (folder / "meta/esc50.csv").write_text(
            "\n".join(["filename,fold,target,category,esc10,src_file,take", *rows, ""])
        )
        return "scripts/prepare_esc50.py", "--src_dir", folder, "--out_dir", self.out

    def goes_on(self):
        return len(LMDBReader(self.out / "lmdbs/esc50.lmdb")) == 9

    def seconds(self):
        return soundfile.info(self.out / "flac/esc50/1-bad-A-0.flac").duration


class PrepareAudioSet(Command):
    status, least = 0, SECONDS

    def words(self, data):
        folder = self.write(data, "bad45678901_0.wav")
        (folder / "good.wav").rename(folder / "good5678901_0.wav")
        rows = "".join(f'{name}, 0.000, 10.000, "/m/1"\n' for name in ("bad45678901", "good5678901"))
        (self.folder / "train_segments.csv").write_text("# a\n# b\n# c\n" + rows)
        (self.folder / "names.csv").write_text("index,mid,display_name\n0,/m/1,Drum\n")
        lists = ("--segments_csv", self.folder / "train_segments.csv", "--class_labels", self.folder / "names.csv")
        return "scripts/prepare_audioset.py", *lists, "--clips_dir", folder, "--out_dir", self.out

    def goes_on(self):
        return [path.stem for path in self.out.glob("flac/*/*.flac")] == ["good5678901_0"]

    def seconds(self):
        return soundfile.info(next(self.out.glob("flac/*/bad*.flac"))).duration


class PrepareOwn(Command):
    status, least = 0, SECONDS

    def words(self, data):
        folder = self.write(data, "Drum/bad.wav", "Drum/good.wav")
        for k in range(1, 4):
            (folder / "Drum" / f"good{k}.wav").write_bytes(encoded(SOUND[k:], "WAV"))
        return "scripts/prepare_own.py", "--src", folder, "--out_dir", self.out, "--clip_seconds", 10

    def goes_on(self):
        return sum(len(LMDBReader(self.out / f"{part}.lmdb")) for part in ("train", "val", "eval")) == 4

    def seconds(self):
        return soundfile.info(next(self.out.glob("flac/*/Drum__bad.flac"))).duration


class Check(Command):
    named, least = "record 1", SECONDS

    def words(self, data):
        return "scripts/check_lmdb.py", self.lmdb(data), "--json", self.folder / "check.json"

    def seconds(self):
        return float(re.search(r'"longest": ([\d.]+)', (self.folder / "check.json").read_text())[1])


class Show(Command):
    least = SECONDS

    def words(self, data):
        (self.write(data) / "bad.txt").write_text("0\t1\tDrum\n")
        out = ("--out_png", self.folder / "a.png", "--out_wav", self.folder / "a.wav")
        return "scripts/show_soundscape.py", self.folder / "in/bad.wav", *out

    def seconds(self):
        return soundfile.info(self.folder / "a.wav").duration


class ShowRecord(Show):
    named = "record 1"

    def words(self, data):
        return "scripts/show_soundscape.py", f"{self.lmdb(data)}:1", *super().words(data)[2:]


class TrainOnFiles(Command):
    def words(self, data):
        folder = self.write(data)
        path = self.folder / "manifest.csv"
        path.write_text("files,labels\n" + f"{folder}/good.wav,Harp\n{folder}/bad.wav,Drum\n" * 2)
        settings = ("data.is_lmdb=False", f"data.train_manifest={path}", f"data.val_manifest={path}")
        return train_command(self.corpus, self.out, *(word for one in settings for word in ("--set", one)))


class TrainOnFilesOfAnyRate(TrainOnFiles):
    def words(self, data):
        return *super().words(data), "--set", "audio_config.resample=True"


class ScoreFiles(Command):
    def words(self, data):
        folder, label = self.write(data), LabelMap.load(FIXTURES / "lbl_map.json").names[0]
        path = self.folder / "manifest.csv"
        path.write_text("files,labels\n" + f"{folder}/good.wav,{label}\n{folder}/bad.wav,{label}\n" * 2)
        flags = ("--manifest", path, "--lbl_map", FIXTURES / "lbl_map.json", "--num_workers", 0)
        return "eval_gise_mixtures.py", "--ckpt_path", CKPT, *flags, "--results_csv", self.folder / "r.csv"


class ScoreFilesOfAnyRate(ScoreFiles):
    def words(self, data):
        return *super().words(data), "--resample"


class CompareFiles(ScoreFiles):
    def words(self, data):
        words = super().words(data)[1:-2]
        return "scripts/compare_checkpoints.py", "--other_ckpt_path", CKPT, *words, "--bootstrap", 2


class TrainOnRecords(Command):
    named = "record 1"

    def words(self, data):
        return train_command(self.corpus, self.out, "--set", f"data.train_lmdb={self.lmdb(data)}")


class ValidateOnRecords(Command):
    named = "record 1"

    def words(self, data):
        return train_command(self.corpus, self.out, "--set", f"data.val_lmdb={self.lmdb(data)}")


COMMANDS = [
    Predict,
    Convert,
    Strip,
    Mix,
    MixAgain,
    PrepareVGGSound,
    PrepareESC50,
    PrepareAudioSet,
    PrepareOwn,
    Check,
    Show,
    ShowRecord,
    TrainOnFiles,
    TrainOnFilesOfAnyRate,
    ScoreFiles,
    ScoreFilesOfAnyRate,
    CompareFiles,
    TrainOnRecords,
    ValidateOnRecords,
]
every_command = pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)


@pytest.mark.parametrize("fault", FAULTS)
@every_command
def test_what_is_no_whole_sound_is_named_and_the_others_go_on(tmp_path, corpus, soundscapes, kind, fault):
    command, (data, reason) = kind(tmp_path, corpus, soundscapes), FAULTS[fault]
    result = run_script(*command.words(data))
    if command.status:
        error_line(result)
    assert result.returncode == command.status, result.stderr[-2000:]
    told = [line for line in (result.stdout + result.stderr).splitlines() if command.named in line and reason in line]
    assert told and "Traceback" not in result.stderr and "opt.lr" not in result.stderr
    assert command.goes_on() and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("fault", ["NaN", "half"])
def test_a_loader_worker_has_the_same_words(tmp_path, corpus, soundscapes, fault):
    words = TrainOnRecords(tmp_path, corpus, soundscapes).words(FAULTS[fault][0])
    here, there = (error_line(run_script(*words, "--num_workers", number)) for number in (0, 1))
    assert here == there and "record 1: " in here


@pytest.mark.parametrize("encoding", UNUSUAL)
@every_command
def test_an_unusual_sound_is_read_to_its_end(tmp_path, corpus, soundscapes, kind, encoding):
    command = kind(tmp_path, corpus, soundscapes)
    run_script(*command.words(UNUSUAL[encoding]), check=0)
    if command.least:
        assert command.least <= command.seconds() < SECONDS + 0.2


@pytest.mark.parametrize("tag", [b"", id3_tag(), id3_tag(9000), id3_tag() * 2])
@pytest.mark.parametrize("written", [bytes, without_length])
def test_flac_behind_a_tag_or_from_a_pipe_is_packed_as_usual(tmp_path, tag, written):
    folder = write_folder(tmp_path / "mix", 2, 0)
    for file in sorted(folder.glob("*.flac")):
        file.write_bytes(tag + written(data := file.read_bytes()))
    run_script(
        "pack_mixtures_into_lmdb.py",
        "--mixture_dir",
        folder,
        "--lmdb_path",
        tmp_path / "a.lmdb",
        "--audio_min_duration",
        0.5,
        check=0,
    )
    assert LMDBReader(tmp_path / "a.lmdb").audio(1) == data


def test_predict_does_not_look_beside_a_file(tmp_path):
    (tmp_path / "a.mp3").write_bytes(mp3(SOUND))
    (tmp_path / "._a.mp3").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + b"\0" * 300)
    run_script(
        "predict.py",
        "--ckpt_path",
        CKPT,
        "--lbl_map",
        FIXTURES / "lbl_map.json",
        "--audio",
        tmp_path / "a.mp3",
        check=0,
    )
