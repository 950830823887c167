"""Training on new soundscapes in every epoch, as users call it: the same run however it goes, and what is refused."""

import json
import shutil

import pytest
import soundfile
import torch
from conftest import SAMPLE_RATE, error_line, run_script, train_command
from small_sources import write_sources

from src.data.soundscapes.packed import packed_file
from src.models.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


def train(corpus, sources, folder, *more, epochs=2, check=0, **values):
    """A run on eight soundscapes an epoch."""
    data = {
        "train_lmdb": "None",
        "isolated_events": sources / "events",
        "backgrounds": sources / "noises",
        "soundscapes": 8,
        "duration": 0.7,
    }
    settings = [word for key, value in (data | values).items() for word in ("--set", f"data.{key}={value}")]
    return run_script(*train_command(corpus, folder, *settings, *more, epochs=epochs), check=check)


def outcome(folder):
    """Names and weights of all checkpoints, and the table of figures."""
    files = sorted((folder / "ckpts").iterdir())
    return [file.name for file in files], (folder / "logs" / "metrics.csv").read_text(), list(map(weights_of, files))


def weights_of(file):
    return torch.cat([one.flatten().double() for one in read_checkpoint(file).weights.values()])


@pytest.fixture(scope="module")
def undisturbed(corpus, sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(corpus, sources, folder, epochs=3)
    return folder


def test_a_resumed_run_with_workers_is_the_undisturbed_one(corpus, sources, undisturbed, tmp_path):
    train(corpus, sources, tmp_path / "run", epochs=1)
    moved = shutil.copytree(sources, tmp_path / "moved" / "sources", ignore=shutil.ignore_patterns("*.lmdb", ".*"))
    result = train(corpus, moved, tmp_path / "run", "--num_workers", 2, epochs=3)
    assert "resuming from" in result.stderr
    (names, table, weights), (other_names, other_table, other_weights) = map(outcome, (tmp_path / "run", undisturbed))
    assert (names, table) == (other_names, other_table) and all(map(torch.equal, weights, other_weights))
    assert "skipped" in train(corpus, sources, tmp_path / "run", epochs=3).stderr


def test_their_events_are_learnt(corpus, sources, undisturbed, tmp_path):
    """The targets of frames are those of what was mixed, in the first epoch and in the second."""
    train(corpus, sources, tmp_path / "run", "--set", "model.type=events", "--set", "audio_config.resample=True")
    names, table, _ = outcome(tmp_path / "run")
    assert len(names) == 2 and "val_psds,val_mAP" in table
    assert all("_val_psds=" in name for name in names)


@pytest.mark.parametrize("change", [{"soundscapes": 9}, {"max_events": 2}, {"duration": 0.8}, {"backgrounds": "flat"}])
def test_each_key_changes_the_run_and_belongs_to_it(corpus, sources, undisturbed, tmp_path, change):
    change = {key: sources / value if key == "backgrounds" else value for key, value in change.items()}
    train(corpus, sources, tmp_path / "other", epochs=1, **change)
    assert not torch.equal(outcome(tmp_path / "other")[2][0], outcome(undisturbed)[2][0])
    (key,) = change
    assert f"belongs to another run, with data.{key}" in error_line(
        train(corpus, sources, undisturbed, epochs=4, check=1, **change)
    )


def test_a_run_belongs_to_its_sounds(corpus, sources, tmp_path):
    sources = shutil.copytree(sources, tmp_path / "sources", ignore=shutil.ignore_patterns("*.lmdb", ".*"))
    train(corpus, sources, tmp_path / "run", epochs=1)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"].keys() == {"train", "val"}
    background = next((sources / "noises").rglob("*.wav"))
    soundfile.write(background, soundfile.read(background)[0] / 2, SAMPLE_RATE)
    line = error_line(train(corpus, sources, tmp_path / "run", epochs=2, check=1))
    assert "belongs to a run on other train data, with fingerprint" in line


def test_two_processes_pack_once(corpus, sources, tmp_path):
    sources = shutil.copytree(sources, tmp_path / "sources", ignore=shutil.ignore_patterns("*.lmdb", ".*"))
    result = train(corpus, sources, tmp_path / "run", "--accelerator", "cpu", "--devices", 2, epochs=1)
    # The second process, which may be the one that packs, says nothing. An LMDB replaced in use would end the run.
    assert result.stderr.count("events.22050.lmdb: 6 sounds, packed once") <= 1
    assert packed_file(sources / "events", SAMPLE_RATE).is_file()
    again = train(corpus, sources, tmp_path / "again", epochs=1)
    assert "packed once" not in again.stderr


def test_data_are_checked_where_they_are_stored(corpus, sources, tmp_path):
    result = train(corpus, sources, tmp_path / "run", "--check_data", epochs=1)
    assert "checked, without an error: " in result.stderr and "val.lmdb" in result.stderr


def without_a_class(folder):
    shutil.rmtree(folder / "events" / "Harp")
    return "no WAV files of class 'Harp', which the label map"


def with_another_class(folder):
    shutil.copytree(folder / "events" / "Harp", folder / "events" / "Lyre")
    return "class 'Lyre' is not in the label map"


def unreadable(folder):
    (folder / "events" / "Harp" / "x.wav").write_bytes(b"RIFF and no more")
    return "Harp/x.wav: is not audio"


def unreadable_background(folder):
    (folder / "noises" / "loud" / "x.wav").write_bytes(b"")
    return "loud/x.wav: is not audio"


def too_short(folder):
    soundfile.write(folder / "events" / "Harp" / "x.wav", [0.1] * 200, SAMPLE_RATE)
    return "Harp/x.wav: lasts 9.1 ms"


def no_backgrounds(folder):
    shutil.rmtree(folder / "noises")
    (folder / "noises").mkdir()
    return "no background WAV files in it"


def no_events(folder):
    shutil.rmtree(folder / "events")
    return "events: no such folder of isolated events"


def no_room(folder):
    (folder / "events.22050.lmdb").mkdir()
    return "is a folder, and a file was expected. The sounds are packed beside their folder"


@pytest.mark.parametrize(
    "broken",
    [
        without_a_class,
        with_another_class,
        unreadable,
        unreadable_background,
        too_short,
        no_backgrounds,
        no_events,
        no_room,
    ],
)
def test_sounds_that_cannot_be_mixed_are_refused_at_the_start(corpus, sources, tmp_path, broken):
    sources = shutil.copytree(sources, tmp_path / "sources", ignore=shutil.ignore_patterns("*.lmdb", ".*"))
    message = broken(sources)
    assert message in error_line(train(corpus, sources, tmp_path / "run", check=1))
    assert not (tmp_path / "run").exists() and not list(sources.glob("*events*.lmdb/*"))


@pytest.mark.parametrize("flags", [["--skip_bad_records"], ["--cache_samples", "x"]])
def test_flags_for_stored_clips_are_refused(corpus, sources, tmp_path, flags):
    line = error_line(train(corpus, sources, tmp_path / "run", *flags, check=1))
    assert f"events: clips are mixed of it, and {flags[0]} are for LMDBs" in line
