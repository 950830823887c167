"""The command lines of the original's README, as printed there, on a few clips in place of the data.

Each is run as it stands, with <EXPERIMENT_DIR> and <RUN_INDEX> filled in. What makes it short is added at its end.
"""

import csv
import json
import shlex
import shutil

import pytest
from conftest import ROOT, run_script, write_lbl_map, write_soundscape

from src.data.labels import LabelMap

PACK = """
python pack_mixtures_into_lmdb.py --mixture_dir "mixtures_flac/train" --lmdb_path mixtures_lmdb/train.lmdb --map_size 2e10
python pack_mixtures_into_lmdb.py --mixture_dir "mixtures_flac/val" --lmdb_path mixtures_lmdb/val.lmdb --map_size 2e10
python pack_mixtures_into_lmdb.py --mixture_dir "mixtures_flac/eval" --lmdb_path mixtures_lmdb/eval.lmdb --map_size 2e10
"""  # noqa: E501
TRAIN_ALL = r"""
python train_all_mixtures.py --cfg_file ./cfgs_v2/v3_silence_trimmed/resnet_18_lmdb.cfg \
        -e <EXPERIMENT_DIR> --epochs 50 --use_mixup --gpus "0, 1, 2, 3" \
        --num_workers 6 --prefetch_factor 4 \
        --lmdbs_list "mixtures_lmdb/train_5k.lmdb;mixtures_lmdb/train_10k.lmdb;mixtures_lmdb/train_15k.lmdb"
"""
EVAL_ALL = "python eval_all_mixtures.py --lbl_map meta/lbl_map.json --lmdb_path mixtures_lmdb/eval.lmdb --exp_dir <EXPERIMENT_DIR>/r<RUN_INDEX> --results_csv <EXPERIMENT_DIR>/r<RUN_INDEX>/results.csv"  # noqa: E501
EVAL_60K = "python eval_gise_mixtures.py --lbl_map meta/lbl_map.json --lmdb_path mixtures_lmdb/eval.lmdb --exp_dir <EXPERIMENT_DIR>/r<RUN_INDEX> --export_weights --export_dir exported_weights/r<RUN_INDEX> --results_csv <EXPERIMENT_DIR>/r<RUN_INDEX>/results.csv"  # noqa: E501
EVAL_AUDIOSET = "python eval_gise_mixtures.py --lbl_map audioset/meta/lbl_map.json --lmdb_path audioset/lmdbs/eval.lmdb --exp_dir <EXPERIMENT_DIR>_ft/r<RUN_INDEX> --results_csv <EXPERIMENT_DIR>_ft/r<RUN_INDEX>/results.csv --num_timesteps 1001"  # noqa: E501
SHORT = (
    "--epochs",
    "1",
    "--random_clip_size",
    "32",
    "--val_clip_size",
    "32",
    "--set",
    "opt.batch_size=2",
    "--num_workers",
    "1",
)
TRAIN_ONE = "python train_gise_mixtures.py --cfg_file cfgs_v2/gise_mixtures_60k/resnet_18_lmdb.cfg"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the repository's cfgs and label map in it, and soundscapes where the README has them."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "cfgs_v2", folder / "cfgs_v2")
    shutil.copytree(ROOT / "meta", folder / "meta")
    names = LabelMap.load(ROOT / "meta/lbl_map.json").names
    for split, first in (("train", 0), ("val", 10), ("eval", 20)):
        for number in range(4):
            write_soundscape(
                folder / "mixtures_flac" / split, f"s{number}", ["Drum", "Harp"][: 1 + number % 2], seed=first + number
            )
    assert {"Drum", "Harp"} <= set(names)
    for command in PACK.strip().splitlines():
        run(command, folder)
    for size in (5, 10, 15):
        shutil.copy(folder / "mixtures_lmdb/train.lmdb", folder / f"mixtures_lmdb/train_{size}k.lmdb")
    return folder


def run(command, folder, *more):
    words = shlex.split(command.replace("<EXPERIMENT_DIR>", "exp").replace("<RUN_INDEX>", "1").replace("\\\n", ""))
    assert words.pop(0) == "python"
    return run_script(*words, *more, cwd=folder, check=0)


def table(path):
    with open(path, newline="") as stream:
        return list(csv.reader(stream))


def test_soundscapes_v_map(checkout):
    run(TRAIN_ALL.replace("<EXPERIMENT_DIR>", "<EXPERIMENT_DIR>/r1/mixup/resnet_18"), checkout, *SHORT)
    assert sorted(path.parent.name for path in checkout.glob("exp/r1/mixup/resnet_18/*/run.json")) == [
        "train_10k",
        "train_15k",
        "train_5k",
    ]
    run(EVAL_ALL, checkout)
    header, *rows = table(checkout / "exp/r1/results.csv")
    assert header[:7] == ["Model", "run", "train_set", "mAP", "mAUC", "dprime", "ckpt_path"] and len(rows) == 3


def test_cnn_baselines_and_audioset(checkout):
    for name in ("exp2/r1/mixup/resnet_18", "exp2_ft/r1/mixup/resnet_18"):
        run(TRAIN_ONE, checkout, "-e", name, *SHORT)
    run(EVAL_60K.replace("<EXPERIMENT_DIR>", "exp2"), checkout)
    header, row = table(checkout / "exp2/r1/results.csv")
    assert header[:5] == ["Model", "mAP", "mAUC", "dprime", "ckpt_path"] and row[0] == "resnet_18"
    (exported,) = (checkout / "exported_weights/r1/mixup/resnet_18").iterdir()
    assert exported.name.startswith("mAP=") and exported.name.endswith("_num_classes=51.pth")
    write_lbl_map(checkout / "audioset/meta/lbl_map.json", LabelMap.load(ROOT / "meta/lbl_map.json").names)
    (checkout / "audioset/lmdbs").mkdir()
    shutil.copy(checkout / "mixtures_lmdb/eval.lmdb", checkout / "audioset/lmdbs/eval.lmdb")
    run(EVAL_AUDIOSET.replace("<EXPERIMENT_DIR>", "exp2"), checkout)
    header, row = table(checkout / "exp2_ft/r1/results.csv")
    assert row[header.index("num_timesteps")] == "1001"


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_the_data_root_moves_every_path_of_a_cfg(checkout, tmp_path, monkeypatch, by):
    more = ["--data_root", checkout]
    if by == "variable":
        monkeypatch.setenv("GISE_DATA_ROOT", str(checkout))
        more = []
    cfg = ROOT / "cfgs_v2/gise_mixtures_60k/cifar_resnet_44_lmdb.cfg"
    run_script(
        "train_gise_mixtures.py", "--cfg_file", cfg, "-e", tmp_path / "run", *SHORT, *more, cwd=tmp_path, check=0
    )
    data = json.loads((tmp_path / "run/run.json").read_text())["cfg"]["data"]
    assert data["train_lmdb"] == str(checkout / "mixtures_lmdb/train.lmdb")
    assert data["val_lmdb"] == str(checkout / "mixtures_lmdb/val.lmdb") and data["meta_root"] == str(checkout / "meta")
