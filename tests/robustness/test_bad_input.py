"""A mistake of the user's gets one line, exit status 1, and leaves nothing half-written."""

import json
import shutil

import lmdb
import msgpack
import numpy as np
import pytest
import soundfile
import torch
from conftest import (
    CLASSES,
    SAMPLE_RATE,
    cfg_tree,
    error_line,
    run_script,
    tone_clip,
    train_command,
    write_cfg,
    write_folder,
    write_lbl_map,
    write_soundscape,
)

from src.data.lmdb.store import Record
from src.data.lmdb.writer import LMDBWriter


def pack(folder, target, *more):
    return run_script(
        "pack_mixtures_into_lmdb.py", "--mixture_dir", folder, "--lmdb_path", target, "--audio_min_duration", 0.5, *more
    )


def no_flac(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.flac"):
        file.unlink()
    return [str(folder), "has no FLAC files"]


def only_wav(folder):
    no_flac(folder)
    soundfile.write(folder / "a.wav", tone_clip(["Drum"], 0), SAMPLE_RATE)
    return [str(folder), "scripts/wav2flac.py"]


def no_folder(folder):
    shutil.rmtree(folder)
    return [str(folder), "no such folder of soundscapes"]


def no_txt(folder):
    (folder / "s001.txt").unlink()
    return ["s001.txt", "is missing"]


def empty_txt(folder):
    (folder / "s001.txt").write_text("\n")
    return ["s001.txt", "is empty"]


def txt_without_tabs(folder):
    (folder / "s001.txt").write_text("0.1 0.2 Drum\n")
    return ["s001.txt, line 1", "separated by tabs"]


def label_with_delimiter(folder):
    (folder / "s001.txt").write_text("0.1\t0.2\tDrum, bass\n")
    return ["s001.txt, line 1", "'Drum, bass'", "delimiter ','"]


def truncated(folder):
    file = folder / "s001.flac"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return ["s001.flac", "truncated"]


def not_flac(folder):
    (folder / "s001.flac").write_text("this is not audio")
    return ["s001.flac", "is not a FLAC file"]


def wav_called_flac(folder):
    soundfile.write(folder / "s001.flac", tone_clip(["Drum"], 0), SAMPLE_RATE, format="WAV")
    return ["s001.flac", "is not a FLAC file"]


def empty_file(folder):
    (folder / "s001.flac").write_bytes(b"")
    return ["s001.flac", "is not a FLAC file"]


def wrong_rate(folder):
    soundfile.write(folder / "s001.flac", tone_clip(["Drum"], 0), 44100)
    return ["s001.flac", "44100 Hz, not 22050 Hz"]


def stereo(folder):
    soundfile.write(folder / "s001.flac", np.stack([tone_clip(["Drum"], 0)] * 2, axis=1), SAMPLE_RATE)
    return ["s001.flac", "2 channels"]


def empty_clip(folder):
    soundfile.write(folder / "s001.flac", np.zeros(0), SAMPLE_RATE)
    return ["s001.flac", "empty"]


@pytest.mark.parametrize(
    "spoil",
    [
        no_flac,
        only_wav,
        no_folder,
        no_txt,
        empty_txt,
        txt_without_tabs,
        label_with_delimiter,
        truncated,
        not_flac,
        wav_called_flac,
        empty_file,
        wrong_rate,
        stereo,
        empty_clip,
    ],
)
def test_packing_refuses(tmp_path, spoil):
    folder = write_folder(tmp_path / "mix", 3, 0)
    expected = spoil(folder)
    line = error_line(pack(folder, tmp_path / "out" / "a.lmdb"))
    assert all(part in line for part in expected), line
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--map_size", "0"),
        ("--map_size", "big"),
        ("--write_frequency", "1.5"),
        ("--audio_min_duration", "-1"),
        ("--mixture_dir", ";"),
    ],
)
def test_packing_refuses_flags(tmp_path, flag, value):
    result = pack(write_folder(tmp_path / "mix", 1, 0), tmp_path / "a.lmdb", flag, value)
    assert result.returncode == 2 and flag in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "a.lmdb").exists()


def test_packing_into_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = error_line(pack(write_folder(tmp_path / "mix", 1, 0), tmp_path / "file" / "a.lmdb"))
    assert str(tmp_path / "file") in line
    assert (tmp_path / "file").read_text() == "in the way"


def refused(corpus, tmp_path, *more, cfg=None):
    """The error line of a training run that leaves no run folder behind."""
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", *more, cfg=cfg)))
    assert not (tmp_path / "run").exists(), list((tmp_path / "run").rglob("*"))
    return line


def train_on(corpus, tmp_path, path, *more):
    return refused(corpus, tmp_path, "--set", f"data.train_lmdb={json.dumps(str(path))}", *more)


def test_an_lmdb_that_does_not_exist(corpus, tmp_path):
    assert "nowhere.lmdb: no such LMDB" in train_on(corpus, tmp_path, tmp_path / "nowhere.lmdb")
    (tmp_path / "folder.lmdb").mkdir()
    assert "folder without data.mdb" in train_on(corpus, tmp_path, tmp_path / "folder.lmdb")


def test_a_file_that_is_no_lmdb(corpus, tmp_path):
    (tmp_path / "text.lmdb").write_text("not an LMDB" * 1000)
    line = train_on(corpus, tmp_path, tmp_path / "text.lmdb")
    assert "text.lmdb: is not an LMDB" in line


def test_a_truncated_lmdb(corpus, tmp_path):
    (tmp_path / "cut.lmdb").write_bytes((corpus / "train.lmdb").read_bytes()[:3000])
    line = train_on(corpus, tmp_path, tmp_path / "cut.lmdb")
    assert "cut.lmdb: is not an LMDB, or is damaged" in line


def test_an_lmdb_without_len(corpus, tmp_path):
    with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"0", msgpack.packb((b"", "Drum")))
    assert "a.lmdb: has no __len__" in train_on(corpus, tmp_path, tmp_path / "a.lmdb")


def test_an_lmdb_without_records(corpus, tmp_path):
    with LMDBWriter(tmp_path / "a.lmdb"):
        pass
    assert "a.lmdb: holds no clips" in train_on(corpus, tmp_path, tmp_path / "a.lmdb")


def test_an_lmdb_with_another_len(corpus, tmp_path):
    with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"__len__", msgpack.packb(3))
    assert "a.lmdb, record 0 is missing, though __len__ is 3" in train_on(corpus, tmp_path, tmp_path / "a.lmdb")


def test_a_label_that_is_not_in_the_map(corpus, tmp_path):
    write_soundscape(tmp_path / "mix", "a", ["Drum"])
    (tmp_path / "mix" / "a.txt").write_text("0\t1\tBagpipe\n")
    assert pack(tmp_path / "mix", tmp_path / "a.lmdb").returncode == 0
    line = train_on(corpus, tmp_path, tmp_path / "a.lmdb")
    assert "a.lmdb, record 0: label 'Bagpipe' is not in the label map" in line
    assert line.endswith("lbl_map.json. Is it another data set's map?")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "samples, rate, message",
    [
        (None, None, "is not audio"),
        (tone_clip(["Drum"], 0), 44100, "44100 Hz, not 22050 Hz"),
        (np.stack([tone_clip(["Drum"], 0)] * 2, axis=1), SAMPLE_RATE, "2 channels"),
    ],
)
def test_a_broken_record_is_named_even_by_a_loader_worker(corpus, tmp_path, workers, samples, rate, message):
    if samples is not None:
        soundfile.write(tmp_path / "x.flac", samples, rate)
        broken = (tmp_path / "x.flac").read_bytes()
    else:
        broken = b"fLaC broken"
    with LMDBWriter(tmp_path / "a.lmdb") as writer:
        for _ in range(4):
            writer.add(Record(broken, "Drum"))
    result = run_script(
        *train_command(
            corpus, tmp_path / "run", "--num_workers", workers, "--set", f"data.train_lmdb={tmp_path / 'a.lmdb'}"
        )
    )
    line = error_line(result)
    assert "a.lmdb, record" in line and message in line
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": {"depht": 18}}, "unknown key 'model.depht'"),
        ({"opt": None}, "section 'opt'"),
        ({"opt": {"batch_size": "many"}}, "opt.batch_size is 'many'. It should be a whole number"),
        ({"model": {"num_classes": 4}}, "has 3 classes. One of them is another data set's"),
        ({"model": {"arch": "vgg"}}, "model.arch is 'vgg', and must be one of resnet, cifar_resnet"),
        ({"model": {"model_depth": 19}}, "model.model_depth is 19. cifar_resnet has 20, 32, 44, 56, 110"),
        ({"model": {"pretrained": "nowhere.pth"}}, "nowhere.pth: no such file (a file of weights for model.pretrained"),
        ({"data": {"val_lmdb": "nowhere.lmdb"}}, "nowhere.lmdb: no such LMDB"),
        ({"opt": {"batch_size": 13}}, "12 training clips do not fill one batch of opt.batch_size 13"),
        ({"data": {"label_map": "nowhere.json"}}, "nowhere.json: no such label map"),
        ({"audio_config": {"bg_files": "x"}}, "mixers are retired"),
    ],
)
def test_a_cfg_that_does_not_fit(corpus, tmp_path, change, message):
    tree = cfg_tree(corpus)
    for section, keys in change.items():
        if keys is None:
            del tree[section]
        else:
            tree[section] |= keys
    cfg = write_cfg(tmp_path / "bad.cfg", tree)
    line = refused(corpus, tmp_path, cfg=cfg)
    assert message in line, line


@pytest.mark.parametrize(
    "more, message",
    [
        (("--cfg_file", "nowhere.cfg"), "nowhere.cfg: is missing. Expected a cfg file"),
        (("--use_mixers",), "mixers are retired"),
        (("--cw", "nowhere.pt"), "nowhere.pt: no such file (a tensor of class weights (--cw) was expected"),
        (("--resume_from", "nowhere.ckpt"), "nowhere.ckpt: no such file (a checkpoint to resume from was expected"),
        (("--set", "opt.lr"), "--set opt.lr: expected SECTION.KEY=VALUE"),
    ],
)
def test_flags_that_do_not_fit(corpus, tmp_path, more, message):
    assert message in refused(corpus, tmp_path, *more)


@pytest.mark.parametrize(
    "flag, value",
    [("--epochs", "0"), ("--gpus", "all"), ("--num_workers", "-1"), ("--random_clip_size", "x"), ("--seed", "-3")],
)
def test_flags_that_are_no_numbers(corpus, tmp_path, flag, value):
    result = run_script(*train_command(corpus, tmp_path / "run", flag, value))
    assert result.returncode == 2 and flag in result.stderr and not (tmp_path / "run").exists()


def test_class_weights_of_another_length(corpus, tmp_path):
    torch.save(torch.ones(5), tmp_path / "cw.pt")
    assert "holds (5,), where a tensor of 3 class weights" in refused(corpus, tmp_path, "--cw", tmp_path / "cw.pt")


def test_class_weights_and_the_focal_loss(corpus, tmp_path):
    torch.save(torch.ones(3), tmp_path / "cw.pt")
    assert "no place in the focal loss" in refused(
        corpus, tmp_path, "--cw", tmp_path / "cw.pt", "--set", "opt.focal_loss=True"
    )


@pytest.mark.parametrize("content", [b"", b"h", b"a", b"\x80", b"PK\x03\x04", b"plain text\n"])
def test_files_that_torch_did_not_write(corpus, tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    assert "x.pt: is not a tensor of class weights" in refused(corpus, tmp_path, "--cw", tmp_path / "x.pt")


def test_resuming_from_what_is_no_checkpoint_of_this_network(corpus, trained, tmp_path):
    (tmp_path / "x.ckpt").write_text("text")
    assert "x.ckpt: is not a checkpoint" in refused(corpus, tmp_path, "--resume_from", tmp_path / "x.ckpt")
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    assert "is it a .pth of weights?" in refused(corpus, tmp_path, "--resume_from", tmp_path / "w.pth")
    other = next((trained / "r1").rglob("epoch=01*.ckpt"))
    resnet = ("--set", "model.arch=resnet", "--set", "model.model_depth=18")
    line = refused(corpus, tmp_path, "--resume_from", other, *resnet)
    assert "is of another network than the cfg's" in line
    assert "conv1.weight [32, 1, 7, 7] instead of [64, 1, 7, 7]" in line


def test_two_lmdbs_of_one_name(corpus, tmp_path):
    shutil.copy(corpus / "train.lmdb", tmp_path / "train.lmdb")
    result = run_script(
        *train_command(
            corpus,
            tmp_path / "run",
            "--lmdbs_list",
            f"{corpus / 'train.lmdb'};{tmp_path / 'train.lmdb'}",
            script="train_all_mixtures.py",
        )
    )
    assert "two LMDBs are called train" in error_line(result) and not (tmp_path / "run").exists()


def evaluate(corpus, tmp_path, *more, lbl_map=None, lmdb_path=None):
    result = run_script(
        "eval_gise_mixtures.py",
        "--lbl_map",
        lbl_map or corpus / "meta/lbl_map.json",
        "--lmdb_path",
        lmdb_path or corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        *more,
    )
    line = error_line(result)
    assert not (tmp_path / "r.csv").exists()
    return line


def test_evaluation_refuses(corpus, trained, tmp_path):
    ckpt = next((trained / "r1").rglob("epoch=01*.ckpt"))
    assert "nowhere.ckpt: no such file" in evaluate(corpus, tmp_path, "--ckpt_path", "nowhere.ckpt")
    assert "no such folder of checkpoints" in evaluate(corpus, tmp_path, "--exp_dir", tmp_path / "nowhere")
    assert "no checkpoints match" in evaluate(corpus, tmp_path, "--exp_dir", corpus)
    (tmp_path / "cut.ckpt").write_bytes(ckpt.read_bytes()[:1000])
    assert "is not a checkpoint, or is truncated" in evaluate(corpus, tmp_path, "--ckpt_path", tmp_path / "cut.ckpt")
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    assert "is it a .pth of weights" in evaluate(corpus, tmp_path, "--ckpt_path", tmp_path / "w.pth")
    four = write_lbl_map(tmp_path / "four.json", (*CLASSES, "Piano"))
    assert "the label map" in evaluate(corpus, tmp_path, "--ckpt_path", ckpt, lbl_map=four)
    other = write_lbl_map(tmp_path / "other.json", ("Drum", "Piano", "Organ"))
    assert "class 1 is 'Piano'" in evaluate(corpus, tmp_path, "--ckpt_path", ckpt, lbl_map=other)
    assert "no such LMDB" in evaluate(corpus, tmp_path, "--ckpt_path", ckpt, lmdb_path=tmp_path / "nowhere.lmdb")


def test_a_results_table_of_other_columns_is_left_alone(corpus, trained, tmp_path):
    (tmp_path / "r.csv").write_text("my,notes\n1,2\n")
    ckpt = next((trained / "r1").rglob("epoch=01*.ckpt"))
    result = run_script(
        "eval_gise_mixtures.py",
        "--lbl_map",
        corpus / "meta/lbl_map.json",
        "--lmdb_path",
        corpus / "eval.lmdb",
        "--results_csv",
        tmp_path / "r.csv",
        "--ckpt_path",
        ckpt,
    )
    assert "without the column 'ckpt_path'" in error_line(result)
    assert (tmp_path / "r.csv").read_text() == "my,notes\n1,2\n"
