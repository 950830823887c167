"""Demo corpus, soundscapes and FLAC conversion through their scripts."""

import json

import jams
import numpy as np
import pytest
import soundfile
import torch
from conftest import SAMPLE_RATE, error_line, run_script, write_lbl_map

from src.data.labels import LabelMap
from src.data.soundscapes.sources import event_files, file_weights
from src.preparation.demo_corpus import DRUMS, PITCHED, deal_voices, voices_of


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo corpus of two clips a class and split."""
    folder = tmp_path_factory.mktemp("demo")
    counts = ("--train_clips", 2, "--val_clips", 1, "--eval_clips", 1)
    run_script("scripts/make_demo_corpus.py", "--out_folder", folder, *counts, check=0)
    return folder


def generate(demo, out, *more, count=4):
    return run_script(
        "scripts/generate_mixtures.py",
        "--fg_path",
        demo / "isolated_events/train",
        "--bg_path",
        demo / "noises",
        "--out_folder",
        out,
        "--num_soundscapes",
        count,
        "--lbl_map",
        demo / "meta/lbl_map.json",
        "--seed",
        7,
        *more,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_demo_corpus_is_real_sound_of_many_published_classes(demo):
    names = LabelMap.load(demo / "meta" / "lbl_map.json").names
    published = LabelMap.load("meta/lbl_map.json").mapping
    assert len(names) >= 16 and set(names) <= set(published)
    seen = set()
    for split, count in (("train", 2), ("val", 1), ("eval", 1)):
        assert sorted(path.name for path in (demo / "isolated_events" / split).iterdir()) == sorted(names)
        for file in (demo / "isolated_events" / split).rglob("*.wav"):
            samples, rate = soundfile.read(file)
            assert rate == SAMPLE_RATE and samples.ndim == 1 and len(samples) >= 0.1 * rate
            assert np.abs(samples).max() > 1e-3  # never silent
            seen.add(file.read_bytes())
        assert all(len(list((demo / "isolated_events" / split / name).glob("*.wav"))) == count for name in names)
    assert len(seen) == 4 * len(names)  # no rendering twice
    noises = list((demo / "noises").rglob("*.wav"))
    assert len(noises) >= 4 and all(np.abs(soundfile.read(file)[0]).max() > 1e-3 for file in noises)


@pytest.mark.parametrize("name", sorted([*PITCHED, *DRUMS]))
def test_splits_share_no_voice(name):
    shares = deal_voices(voices_of(name), 3, np.random.default_rng(0))
    assert all(shares) and sum(map(len, shares)) == len(set(sum(shares, []))) == len(voices_of(name))


def test_the_demo_corpus_can_be_made_again_in_part(demo, tmp_path):
    counts = ("--train_clips", 2, "--val_clips", 1, "--eval_clips", 1)
    kept = demo / "isolated_events" / "train" / "Gong" / "001.wav"
    before = kept.read_bytes()
    kept.unlink()
    run_script("scripts/make_demo_corpus.py", "--out_folder", demo, *counts, check=0)
    assert kept.read_bytes() == before
    result = run_script("scripts/make_demo_corpus.py", "--out_folder", demo, *counts, "--seed", 1)
    assert "holds a demo corpus with seed 0 instead of 1" in error_line(result)


def test_soundscapes_are_the_same_however_they_are_made(demo, tmp_path):
    assert generate(demo, tmp_path / "alone").returncode == 0
    assert generate(demo, tmp_path / "together", "--num_workers", 3).returncode == 0
    for part in (1, 0):
        assert generate(demo, tmp_path / "parts", "--proc_idx", part, count=2).returncode == 0
    alone = contents(tmp_path / "alone")
    assert alone == contents(tmp_path / "together") == contents(tmp_path / "parts")
    assert len(alone) == 4 * 3 + 1
    # A lost audio file comes back as it was.
    (tmp_path / "alone" / "soundscape_000002.wav").unlink()
    result = generate(demo, tmp_path / "alone")
    assert "3 of 4 soundscapes are there already" in result.stderr and contents(tmp_path / "alone") == alone


def test_soundscapes_are_made_by_the_recipe(demo, tmp_path):
    assert generate(demo, tmp_path / "mix", "--num_workers", 2, count=12).returncode == 0
    counts = []
    for file in sorted((tmp_path / "mix").glob("*.wav")):
        info = soundfile.info(file)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (SAMPLE_RATE, 1, 110250, "PCM_16")
        events = [line.split("\t") for line in file.with_suffix(".txt").read_text().splitlines()]
        counts.append(len(events))
        assert all(0 <= float(onset) < float(offset) <= 5.0 for onset, offset, _ in events)
        annotation = jams.load(str(file.with_suffix(".jams"))).annotations[0]
        drawn = [event.value for event in annotation if event.value["role"] == "foreground"]
        assert sorted(value["label"] for value in drawn) == sorted(label for _, _, label in events)
        for value in drawn:
            assert 10 <= value["snr"] <= 60 and 0.95 <= value["time_stretch"] <= 1.05 and value["pitch_shift"] is None
            assert f"/{value['label']}/" in value["source_file"]
        assert annotation.sandbox.scaper["ref_db"] == -60
    assert set(counts) == {1, 2, 3}


def test_files_are_drawn_so_that_classes_are_as_likely(tmp_path):
    for name, count in (("Drum", 1), ("Harp", 4), ("Organ", 8)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.wav").write_bytes(b"")
    label_map = LabelMap(("Drum", "Harp", "Organ"))
    files = event_files(tmp_path, label_map)
    weights = file_weights(files, label_map, None)
    assert np.allclose(weights, [1 / 3] + [1 / 12] * 4 + [1 / 24] * 8)
    assert np.allclose(file_weights(files, label_map, [2.0, 0.0, 0.0]), [1] + [0] * 12)


def test_class_weights_of_soundscapes(demo, tmp_path):
    names = LabelMap.load(demo / "meta" / "lbl_map.json").names
    torch.save(torch.tensor([float(name == "Gong") for name in names]), tmp_path / "cw.pt")
    assert generate(demo, tmp_path / "mix", "--cw", tmp_path / "cw.pt").returncode == 0
    lines = "".join(file.read_text() for file in (tmp_path / "mix").glob("*.txt")).splitlines()
    labels = {line.split("\t")[2] for line in lines}
    assert labels == {"Gong"}


def test_backgrounds_may_lie_in_one_folder(demo, tmp_path):
    result = run_script(
        "scripts/generate_mixtures.py",
        "--fg_path",
        demo / "isolated_events/train",
        "--bg_path",
        demo / "noises" / "ambience",
        "--out_folder",
        tmp_path / "mix",
        "--num_soundscapes",
        1,
        "--lbl_map",
        demo / "meta/lbl_map.json",
        check=0,
    )
    assert "Traceback" not in result.stderr and (tmp_path / "mix" / "soundscape_000000.wav").exists()


def test_generating_refuses(demo, tmp_path):
    assert generate(demo, tmp_path / "mix", count=1).returncode == 0
    assert "with seed 7 instead of 8" in error_line(generate(demo, tmp_path / "mix", "--seed", 8, count=1))
    missing = write_lbl_map(tmp_path / "few.json", ("Drum", "Gong"))
    assert "is not in the label map" in error_line(generate(demo, tmp_path / "x", "--lbl_map", missing))
    names = LabelMap.load(demo / "meta" / "lbl_map.json").names
    more = write_lbl_map(tmp_path / "more.json", (*names, "Zipper"))
    assert "no WAV files of class 'Zipper'" in error_line(generate(demo, tmp_path / "x", "--lbl_map", more))
    assert "no such folder of isolated events" in error_line(generate(demo, tmp_path / "x", "--fg_path", "nowhere"))
    assert "no such folder of backgrounds" in error_line(generate(demo, tmp_path / "x", "--bg_path", tmp_path / "no"))
    assert not (tmp_path / "x").exists()
    broken = tmp_path / "events" / "Gong"
    broken.mkdir(parents=True)
    (broken / "a.wav").write_text("not audio")
    gong = write_lbl_map(tmp_path / "gong.json", ("Gong",))
    result = generate(demo, tmp_path / "y", "--fg_path", tmp_path / "events", "--lbl_map", gong)
    assert "4 of 4 soundscapes could not be mixed" in error_line(result)
    assert "soundscape 0: " in result.stderr and "Gong/a.wav: is not audio" in result.stderr
    assert not list((tmp_path / "y").glob("*.wav"))


def convert(src, tgt, *more, check=None):
    return run_script("scripts/wav2flac.py", "--src_dir", src, "--tgt_dir", tgt, *more, check=check)


def test_wav_becomes_16_bit_mono_flac_with_its_annotations(tmp_path):
    src, tgt = tmp_path / "wav", tmp_path / "flac"
    src.mkdir()
    t = np.arange(44100) / 44100
    tone = 0.5 * np.sin(2 * np.pi * 1000 * t)
    soundfile.write(src / "a.wav", np.stack([tone, 0 * tone], axis=1), 44100, subtype="FLOAT")
    soundfile.write(src / "b; 'ü.wav", tone[:22050], SAMPLE_RATE, subtype="PCM_16")
    for name in ("a", "b; 'ü"):
        (src / f"{name}.txt").write_text("0\t1\tDrum\n")
        (src / f"{name}.jams").write_text("{}")
    assert convert(src, tgt, "--move_txt", "--move_jams", "--num_workers", 2).returncode == 0
    assert sorted(path.name for path in tgt.iterdir()) == sorted(
        f"{name}.{suffix}" for name in ("a", "b; 'ü") for suffix in ("flac", "txt", "jams")
    )
    info = soundfile.info(tgt / "a.flac")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (SAMPLE_RATE, 1, "PCM_16", 22050)
    resampled, _ = soundfile.read(tgt / "a.flac")
    expected = 0.25 * np.sin(2 * np.pi * 1000 * np.arange(22050) / SAMPLE_RATE)  # the mean of both channels
    assert np.abs(resampled - expected)[200:-200].max() < 2e-3
    same, _ = soundfile.read(tgt / "b; 'ü.flac", dtype="int16")
    assert np.array_equal(same, soundfile.read(src / "b; 'ü.wav", dtype="int16")[0])
    assert "2 of 2 FLAC files are there already" in convert(src, tgt, "--move_txt").stderr
    # What a later call asks for in addition is made.
    (tgt / "a.txt").unlink()
    assert convert(src, tgt, "--move_txt", check=0) and (tgt / "a.txt").exists()
    convert(src, tgt, "--tgt_sample_rate", 16000)
    assert soundfile.info(tgt / "a.flac").samplerate == 16000


def test_a_file_that_cannot_be_converted_is_named_and_the_others_are_converted(tmp_path):
    src = tmp_path / "wav"
    src.mkdir()
    for name in ("a", "c"):
        soundfile.write(src / f"{name}.wav", np.zeros(100), SAMPLE_RATE)
    (src / "b.wav").write_text("not audio")
    soundfile.write(src / "d.wav", np.zeros(0), SAMPLE_RATE)
    result = convert(src, tmp_path / "flac")
    assert "2 of the files" in error_line(result)
    assert "b.wav: is not audio" in result.stderr and "d.wav: is empty" in result.stderr
    assert sorted(path.name for path in (tmp_path / "flac").iterdir()) == ["a.flac", "c.flac"]
    assert "no WAV files" in error_line(convert(tmp_path / "flac", tmp_path / "x"))
    result = convert(src, tmp_path / "flac2", "--move_txt")
    assert "a.wav: has no a.txt beside it" in result.stderr and not list((tmp_path / "flac2").glob("*.flac"))


def test_the_recipe_is_noted_beside_the_soundscapes(demo, tmp_path):
    assert generate(demo, tmp_path / "mix", count=1).returncode == 0
    recipe = json.loads((tmp_path / "mix" / "recipe.json").read_text())
    assert recipe["seed"] == 7 and recipe["max_events"] == 3 and recipe["duration"] == 5.0
