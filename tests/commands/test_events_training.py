"""model.type events, through the command lines: training, validation, evaluation, tagging and what is refused."""

import csv
import shutil

import numpy as np
import pytest
import torch
from conftest import CLASSES, cfg_tree, error_line, run_script, train_command, write_cfg
from sklearn.metrics import average_precision_score

from src.config.loading import load_config
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.data.lmdb.writer import LMDBWriter
from src.data.loading import open_dataset
from src.data.transforms import evaluation_chain
from src.learning.events.clips import EventTruth, FrameScores
from src.learning.events.psds import PSDS1, psds, psds_curves
from src.models.checkpoint import read_checkpoint
from src.models.frames import FrameNetwork, clip_logits

HOP = 220 / 22050  # s
TWO = "--accelerator", "cpu", "--devices", 2


@pytest.fixture(scope="module")
def events_cfg(corpus):
    """The small configuration, with events of 20 ms, which are two frames of the spectrogram."""
    tree = cfg_tree(corpus)
    tree["model"] |= {"type": "events", "frame_ms": 20}
    return write_cfg(corpus / "events.cfg", tree)


@pytest.fixture(scope="module", params=[(), TWO], ids=["one process", "two processes"])
def trained_on_events(request, corpus, events_cfg, tmp_path_factory):
    folder = tmp_path_factory.mktemp("events") / "r1" / "mixup" / "run"
    run_script(*train_command(corpus, folder, "--use_mixup", *request.param, cfg=events_cfg, epochs=2), check=0)
    return folder


@pytest.fixture(scope="module")
def alone(corpus, events_cfg, tmp_path_factory):
    """A run of one epoch in one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_script(*train_command(corpus, folder, cfg=events_cfg), check=0)
    return folder


def figures(folder):
    with open(folder / "logs" / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_validation_figures_are_those_of_the_checkpoint(corpus, events_cfg, trained_on_events):
    """PSDS of what it says of every frame, and mAP of the linear softmax of the frames."""
    config = load_config(events_cfg)
    label_map = LabelMap.load(config.data.label_map_path())
    clips = open_dataset(config, config.data.val_lmdb, label_map, evaluation_chain(64))
    inputs = torch.from_numpy(np.stack([clips[0, index][0] for index in range(len(clips))]))[:, None]
    targets = np.stack([clips[0, index][1] for index in range(len(clips))])
    seconds = [len(clips.waveform(index)) / 22050 for index in range(len(clips))]
    files = sorted((trained_on_events / "ckpts").iterdir())
    rows = figures(trained_on_events)
    assert len(files) == len(rows) == 2
    for row, file in zip(rows, files):
        network = read_checkpoint(file).network().eval()
        assert isinstance(network, FrameNetwork) and network.stride == 2
        with torch.inference_mode():
            logits = network(inputs, of_frames=True)
        found = average_precision_score(targets, clip_logits(logits).sigmoid().numpy())
        assert float(row["val_mAP"]) == pytest.approx(found, abs=1e-6)
        # All clips are longer than 64 frames. Their centres begin at the middle of a frame, half a hop early.
        scores, edges, events = [], [], []
        for index, (frames, length) in enumerate(zip(logits.sigmoid().numpy(), seconds)):
            start = (clips.features.num_frames(round(length * 22050)) - 64) // 2
            begin, end = max(0, start - 0.5) * HOP, (start + 64 - 0.5) * HOP
            times = np.maximum((start + 2 * np.arange(33) - 0.5) * HOP, 0)
            scores.append(frames)
            edges.append(times - times[0])
            cut = ((max(onset, begin), min(offset, end), label) for onset, offset, label in clips.events(0, index))
            events.append([(onset - begin, offset - begin, label) for onset, offset, label in cut if offset > onset])
        truth = EventTruth.of(events, [each[-1] for each in edges], CLASSES)
        once = truth.each_clip_once
        found = psds(psds_curves(FrameScores.of(scores, edges), truth, PSDS1, once), truth, once, alpha_st=0)
        assert float(row["val_psds"]) == pytest.approx(found.value.item(), abs=1e-6)
        assert f"val_psds={float(row['val_psds']):.3f}.ckpt" in file.name


def test_a_run_of_events_is_evaluated_and_tags_as_every_other(corpus, trained_on_events, tmp_path):
    """The clips' scores are those of the validation, on the same clips and frames."""
    table, weights = tmp_path / "results.csv", tmp_path / "weights"
    run_script(
        *("eval_gise_mixtures.py", "--exp_dir", trained_on_events, "--lmdb_path", corpus / "val.lmdb"),
        *("--num_timesteps", 64, "--num_workers", 0, "--results_csv", table, "--export_weights"),
        *("--export_dir", weights),
        check=0,
    )
    with open(table, newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: int(row["epoch"]))
    for row, epoch in zip(rows, figures(trained_on_events), strict=True):
        assert float(row["mAP"]) == pytest.approx(float(epoch["val_mAP"]), abs=1e-5)
        assert float(row["val_figure"]) == float(epoch["val_psds"])
    exported = torch.load(next(weights.rglob("*.pth")), weights_only=True)
    assert "conv1.weight" in exported and not any("tagger" in name for name in exported)
    audio = next((corpus / "eval").glob("*.flac"))
    csv_file = tmp_path / "tags.csv"
    run_script("predict.py", "--ckpt_path", trained_on_events, "--audio", audio, "--csv", csv_file, check=0)
    assert len(csv_file.read_text().splitlines()) == 1 + len(CLASSES)


@pytest.mark.parametrize("more", [(), ("--set", "model.head=gru")], ids=["linear", "gru"])
def test_a_tagger_warm_starts_a_network_of_events(corpus, events_cfg, tmp_path, more):
    tagger = tmp_path / "tagger"
    run_script(*train_command(corpus, tagger), check=0)
    words = "--pretrained", tagger, "--set", "opt.lr=1e-12", *more
    run_script(*train_command(corpus, tmp_path / "run", *words, cfg=events_cfg), check=0)
    before, after = (
        read_checkpoint(next((folder / "ckpts").iterdir())).weights for folder in (tagger, tmp_path / "run")
    )
    assert torch.allclose(before["layer3.2.conv2.weight"], after["layer3.2.conv2.weight"], atol=1e-6)
    assert any(name.startswith("gru.") for name in after) == bool(more)


def test_clips_without_events_are_refused_before_anything_is_written(corpus, events_cfg, tmp_path):
    old, reader = tmp_path / "old.lmdb", LMDBReader(corpus / "train.lmdb")
    with LMDBWriter(old) as writer:
        for index in range(len(reader)):
            writer.add(reader[index])
    words = train_command(corpus, tmp_path / "run", "--set", f"data.train_lmdb={old}", cfg=events_cfg)
    line = error_line(run_script(*words))
    assert f"{old}: has no events." in line and "pack_mixtures_into_lmdb.py" in line
    assert not (tmp_path / "run").exists()
    other = shutil.copy(corpus / "train.lmdb", tmp_path / "other.lmdb")
    with LMDBWriter(other) as writer:
        for index, events in enumerate(reader.events()):
            writer.add(reader[index], [event._replace(label="Gong") for event in events])
    words = train_command(corpus, tmp_path / "run", "--set", f"data.train_lmdb={other}", cfg=events_cfg)
    assert "an event's label, 'Gong', is not in the label map" in error_line(run_script(*words))


@pytest.mark.parametrize(
    "override, said",
    [
        ("model.frame_ms=9", "model.frame_ms is 9.0. It should be no less than hop_len lasts"),
        ("model.head=lstm", "model.head is 'lstm'"),
        ("opt.frame_weight=-1", "opt.frame_weight is -1"),
        ("data.is_lmdb=False", "data.train_manifest is None"),
    ],
)
def test_keys_that_do_not_fit_are_refused(corpus, events_cfg, tmp_path, override, said):
    assert said in error_line(run_script(*train_command(corpus, tmp_path / "run", "--set", override, cfg=events_cfg)))


@pytest.mark.parametrize("key", ["frame_weight", "clip_weight"])
def test_weights_of_losses_are_for_events(corpus, tmp_path, key):
    words = train_command(corpus, tmp_path / "run", "--set", f"opt.{key}=0.5")
    assert f"opt.{key} is 0.5. It should be 1 unless type is events" in error_line(run_script(*words))


def test_a_recurrent_layer_is_for_events_and_a_length_of_frames_for_all(corpus, tmp_path):
    """A tagger's frames have a length too, when predict.py makes it score them."""
    words = train_command(corpus, tmp_path / "run", "--set", "model.head=gru")
    assert "model.head is 'gru'. It should be linear unless type is events" in error_line(run_script(*words))
    taggers = load_config(corpus / "tiny.cfg", ("model.frame_ms=320",)).model
    assert taggers.frame_ms == 320 and taggers.type == "multilabel"


def test_one_of_the_losses_has_a_weight(corpus, events_cfg, tmp_path):
    words = "--set", "opt.frame_weight=0", "--set", "opt.clip_weight=0"
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", *words, cfg=events_cfg)))
    assert "It should be above 0 where clip_weight is 0" in line


@pytest.mark.parametrize("override", ["opt.frame_weight=0.5", "opt.clip_weight=0", "model.frame_ms=80"])
def test_every_key_changes_a_run(corpus, events_cfg, alone, tmp_path, override):
    run_script(*train_command(corpus, tmp_path / "run", "--set", override, cfg=events_cfg), check=0)
    assert figures(tmp_path / "run")[0]["train_loss"] != figures(alone)[0]["train_loss"]


def test_the_values_that_keys_have_anyway_change_nothing(corpus, events_cfg, alone, tmp_path):
    words = "--set", "opt.frame_weight=1", "--set", "model.head=linear"
    run_script(*train_command(corpus, tmp_path / "run", *words, cfg=events_cfg), check=0)
    assert figures(tmp_path / "run") == figures(alone)


def changed_events(corpus, path, change):
    """The training LMDB with other events."""
    reader = LMDBReader(corpus / "train.lmdb")
    with LMDBWriter(path) as writer:
        for index, events in enumerate(reader.events()):
            writer.add(reader[index], [new for number, event in enumerate(events) for new in change(index, event)])
    return path


def test_clips_that_lack_events_are_counted_and_clips_without_any_are_refused(corpus, events_cfg, tmp_path):
    """Events that last no time are none. Those outside the clip, or of all of it, are taken."""
    points = changed_events(corpus, tmp_path / "points.lmdb", lambda _, event: [event._replace(offset=event.onset)])
    for split in ("train", "val"):
        words = train_command(corpus, tmp_path / "run", "--set", f"data.{split}_lmdb={points}", cfg=events_cfg)
        assert f"{points}: no event of it lasts" in error_line(run_script(*words))
    odd = {0: [], 1: [(50, 60)], 2: [(-3, 99)], 3: [(0.3, 0.3)]}
    some = changed_events(
        corpus,
        tmp_path / "some.lmdb",
        lambda index, event: [event._replace(onset=a, offset=b) for a, b in odd.get(index, [event[:2]])],
    )
    words = "--set", f"data.train_lmdb={some}", "--set", f"data.val_lmdb={some}"
    result = run_script(*train_command(corpus, tmp_path / "odd", *words, cfg=events_cfg), check=0)
    assert f"{some}: 2 of 12 clips have a class without an event that lasts" in result.stderr


def test_each_of_several_lmdbs_has_events_before_any_is_trained_on(corpus, events_cfg, tmp_path):
    old, reader = tmp_path / "old.lmdb", LMDBReader(corpus / "val.lmdb")
    with LMDBWriter(old) as writer:
        for index in range(len(reader)):
            writer.add(reader[index])
    words = train_command(corpus, tmp_path / "runs", cfg=events_cfg, script="train_all_mixtures.py")
    result = run_script(*words, "--lmdbs_list", f"{corpus / 'eval.lmdb'};{old}")
    assert f"{old}: has no events" in error_line(result) and not (tmp_path / "runs").exists()


def test_a_taggers_logits_teach_a_network_of_events(corpus, events_cfg, alone, tmp_path):
    run_script(*train_command(corpus, tmp_path / "tagger"), check=0)
    teacher = tmp_path / "teacher.pt"
    clips = "--lmdb_path", corpus / "train.lmdb", "--num_workers", 0, "--output", teacher
    run_script("scripts/store_logits.py", "--ckpt_path", tmp_path / "tagger", *clips, check=0)
    run_script(*train_command(corpus, tmp_path / "run", "--set", f"opt.teacher={teacher}", cfg=events_cfg), check=0)
    assert figures(tmp_path / "run")[0]["train_loss"] != figures(alone)[0]["train_loss"]


def test_averaged_weights_of_events_go_on_as_if_undisturbed(corpus, events_cfg, tmp_path):
    words = "--set", "opt.ema_decay=0.9", "--set", "model.head=gru"
    for folder, epochs in (("run", 1), ("run", 2), ("undisturbed", 2)):
        run_script(*train_command(corpus, tmp_path / folder, *words, cfg=events_cfg, epochs=epochs), check=0)
    assert figures(tmp_path / "run") == figures(tmp_path / "undisturbed")
    file = sorted((tmp_path / "run" / "ckpts").iterdir())[-1]
    assert not any("tagger" in name for name in read_checkpoint(file).weights)
    assert read_checkpoint(file).network() is not None


def test_what_needs_a_tagger_says_so(corpus, events_cfg, tmp_path):
    words = train_command(corpus, tmp_path / "run", script="train_esc50_classifier.py", cfg=events_cfg)
    assert "model.type is events, and this script validates on whole clips" in error_line(run_script(*words))
