"""A teacher's logits: stored for every record, and given to the clips that are trained on."""

import json
import os

import numpy as np
import pytest
import torch
import yaml
from conftest import CLASSES, FIXTURES, cfg_tree, error_line, run_script, train_command, write_cfg, write_lbl_map

from src.config.loading import load_config
from src.data.batching import Batch
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader, Record
from src.data.lmdb.writer import LMDBWriter
from src.data.loading import open_dataset
from src.data.transforms import evaluation_chain
from src.errors import UserError
from src.learning.teachers import teach
from src.models.checkpoint import read_checkpoint
from src.models.torch_files import torch_file_digest
from src.run_plan import TrainingOptions, plan_run
from src.runs.folder import checkpoint_at
from src.scoring.predictions import InferenceOptions, store_logits
from src.training import train


def options_of(cfg, folder, *overrides, **more):
    sizes = {"num_workers": 0, "random_clip_size": 64, "val_clip_size": 64}
    return TrainingOptions(str(cfg), str(folder), seed=3, overrides=overrides, **sizes, **more)


def trained_on(*where, **more):
    train(options_of(*where, epochs=1, **more))
    return checkpoint_at(where[1])


@pytest.fixture(scope="module")
def folds(corpus, tmp_path_factory):
    """The corpus's training clips with a fold each, one that is no FLAC file, and a cfg for them."""
    folder = tmp_path_factory.mktemp("folds")
    clips = LMDBReader(corpus / "train.lmdb")
    with LMDBWriter(folder / "folds.lmdb", 1e7) as writer:
        for number in range(12):
            record = clips[number]
            writer.add(Record(b"no FLAC" if number == 5 else record.flac, record.label, 1 + number % 2))
    write_lbl_map(folder / "meta" / "lbl_map.json")
    tree = cfg_tree(folder)
    tree["data"] |= {"train_lmdb": str(folder / "folds.lmdb"), "val_lmdb": str(folder / "folds.lmdb")}
    write_cfg(folder / "tiny.cfg", tree)
    return folder


@pytest.fixture(scope="module")
def runs(folds, tmp_path_factory):
    """Checkpoints of a run on each fold."""
    exp = tmp_path_factory.mktemp("runs")
    return [trained_on(folds / "tiny.cfg", exp / str(fold), fold_index=fold, skip_bad_records=True) for fold in (1, 2)]


@pytest.fixture(scope="module")
def stored(folds, runs, tmp_path_factory):
    file = tmp_path_factory.mktemp("stored") / "teacher.pt"
    words = ("--lmdb_path", folds / "folds.lmdb", "--output", file, "--skip_bad_records", "--num_workers", 0)
    result = run_script("scripts/store_logits.py", "--ckpt_path", *runs, *words, check=0)
    assert f"{file}: logits of 12 clips and 3 classes, of 2 checkpoints" in result.stdout
    return file


def open_clips(folds, source=None, **more):
    config = load_config(folds / "tiny.cfg")
    label_map = LabelMap.load(config.data.label_map_path())
    return open_dataset(config, source or config.data.train_lmdb, label_map, evaluation_chain(64), **more)


def test_the_mean_logits_of_all_folds_are_stored(folds, runs, stored):
    content = torch.load(stored, weights_only=True)
    clips = open_clips(folds, skip_bad_records=True)
    networks = [read_checkpoint(path).network().eval() for path in runs]
    clips.transform = evaluation_chain(501)
    with torch.no_grad():
        inputs = torch.from_numpy(np.stack([clips[index][0] for index in range(len(clips))]))[:, None]  # (N, 1, F, T)
        expected = sum(network(inputs) for network in networks) / 2
    assert len(clips) == 11 and content["logits"].shape == (12, 3)
    assert torch.allclose(content["logits"][torch.from_numpy(clips.records)], expected, atol=1e-4)
    assert content["logits"][5].isnan().all() and content["fingerprint"] == clips.fingerprint()
    assert content["checkpoints"] == [torch_file_digest(path) for path in runs]


def test_each_clip_has_the_logits_of_its_record(folds, stored):
    logits = torch.load(stored, weights_only=True)["logits"]
    clips = open_clips(folds, skip_bad_records=True, fold=2, complement=True)
    teach(clips, str(stored), "clips")
    batch = clips.__getitems__([(0, 3), (0, 1)])
    assert isinstance(batch, Batch) and torch.equal(batch.teacher, logits[clips.records[[3, 1]]])


def test_a_manifest_has_a_teacher_of_its_own(corpus, folds, runs, tmp_path):
    manifest, clips = tmp_path / "clips.csv", sorted((corpus / "eval").glob("*.flac"))
    manifest.write_text("files,labels\n" + "".join(f"{clip},Drum\n" for clip in clips))
    store_logits(runs, InferenceOptions(None, num_workers=0, manifest=str(manifest)), str(tmp_path / "t.pt"))
    clips = open_clips(folds, is_lmdb=False, source=str(manifest))
    teach(clips, str(tmp_path / "t.pt"), "clips")
    assert clips.teacher.shape == (6, 3) and np.isfinite(clips.teacher).all()
    with pytest.raises(UserError, match="is of other clips"):
        teach(open_clips(folds, skip_bad_records=True), str(tmp_path / "t.pt"), "clips")


def changed(stored, folder, **more):
    content = torch.load(stored, weights_only=True)
    for name, change in more.items():
        content[name] = change(content[name])
    torch.save(content, folder / "other.pt")
    return folder / "other.pt"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"fingerprint": lambda _: "0" * 64}, "is of other clips than .*folds.lmdb, 12 with fingerprint 000000000000…"),
        ({"fingerprint": lambda _: None}, "is of other clips"),
        ({"logits": lambda logits: logits[:7]}, "is of other clips than .*, 7 with"),
        ({"logits": lambda logits: logits[:, :2]}, "is of other classes than .*lbl_map.json"),
        ({"classes": lambda names: names[::-1]}, "is of other classes than .*lbl_map.json"),
        ({"type": lambda _: "multiclass"}, "is of type multiclass, and model.type is multilabel"),
        (
            {"logits": lambda logits: logits * torch.nan},
            "has no finite logits for 6 of the 6 clips, such as .*record 0",
        ),
        ({"logits": lambda logits: logits.double()}, "holds no logits"),
        ({"logits": lambda logits: logits.tolist()}, "holds no logits"),
        ({"logits": lambda logits: logits.to_sparse()}, "holds no logits"),
        ({"logits": lambda logits: logits.to("meta")}, "holds no logits"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(folds, stored, tmp_path, changes, message):
    file = changed(stored, tmp_path, **changes)
    clips = open_clips(folds, skip_bad_records=True, fold=2, complement=True)
    with pytest.raises(UserError, match=f"{file}: {message}"):
        teach(clips, str(file), str(folds / "folds.lmdb"))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda file: None, "no such file (a teacher's logits was expected)"),
        (os.mkdir, "is no plain file (a teacher's logits was expected)"),
        (os.mkfifo, "is no plain file (a teacher's logits was expected)"),
        (lambda file: file.symlink_to("/dev/zero"), "is no plain file (a teacher's logits was expected)"),
        (lambda file: file.write_bytes(b"no logits"), "is not a teacher's logits, or is truncated"),
        (lambda file: np.save(file, np.zeros(3)) or (file.with_suffix(".pt.npy")).rename(file), "it is a NumPy file"),
        (lambda file: file.write_bytes((FIXTURES / "released_cifar_resnet_20.ckpt").read_bytes()), "holds no logits"),
    ],
)
def test_training_refuses_what_is_no_teacher_before_it_begins(corpus, tmp_path, make, message):
    make(tmp_path / "t.pt")
    words = train_command(corpus, tmp_path / "run", "--set", f"opt.teacher={tmp_path / 't.pt'}")
    line = error_line(run_script(*words))
    assert f"{tmp_path / 't.pt'}: " in line and message in line
    assert not list((tmp_path / "run").rglob("*.ckpt")) and not (tmp_path / "run" / "run.json").exists()


def test_several_lmdbs_do_not_share_a_teacher(corpus, tmp_path):
    more = "--set", "opt.teacher=t.pt", "--lmdbs_list", f"{corpus / 'train.lmdb'};{corpus / 'val.lmdb'}"
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", *more, script="train_all_mixtures.py")))
    assert "--lmdbs_list: names 2 LMDBs, and opt.teacher t.pt is of the clips of one" in line
    assert not (tmp_path / "run").exists()


def test_a_run_belongs_to_its_teacher(folds, stored, tmp_path):
    """Which may be moved, but not be replaced by another."""
    words = {"fold_index": 1, "skip_bad_records": True}
    trained_on(folds / "tiny.cfg", tmp_path / "run", f"opt.teacher={stored}", **words)
    plain = trained_on(folds / "tiny.cfg", tmp_path / "plain", **words)
    assert not torch.equal(
        *(read_checkpoint(path).weights["linear.weight"] for path in (checkpoint_at(tmp_path / "run"), plain))
    )
    moved = tmp_path / "teacher.pt"
    moved.write_bytes(stored.read_bytes())
    options = options_of(folds / "tiny.cfg", tmp_path / "run", f"opt.teacher={moved}", epochs=2, **words)
    assert plan_run(options).resume.epochs == 1
    changed(moved, tmp_path, logits=lambda logits: logits + 1).rename(moved)
    with pytest.raises(UserError, match="belongs to another run, with teacher"):
        plan_run(options)


def test_checkpoints_of_other_classes_have_no_mean(runs, folds, tmp_path):
    tree = yaml.safe_load((folds / "tiny.cfg").read_text())
    (tmp_path / "map.json").write_text(json.dumps({name: index for index, name in enumerate(CLASSES[::-1])}))
    tree["data"]["label_map"] = str(tmp_path / "map.json")
    other = trained_on(write_cfg(tmp_path / "other.cfg", tree), tmp_path / "run", skip_bad_records=True)
    words = ("--lmdb_path", folds / "folds.lmdb", "--output", tmp_path / "t.pt", "--skip_bad_records")
    line = error_line(run_script("scripts/store_logits.py", "--ckpt_path", runs[0], other, *words))
    assert f"{other}: is of other classes" in line and str(runs[0]) in line and not (tmp_path / "t.pt").exists()
