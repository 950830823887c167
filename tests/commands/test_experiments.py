"""The experiment scripts, run by a shell: all of them in miniature, then what they say and survive."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT

NETWORKS_4_GPUS = ("resnet_18", "resnet_34", "cifar_resnet_44", "cifar_resnet_56")
NETWORKS_1_GPU = {"resnet_50": 64, "efficientnet-b0": 128, "efficientnet-b1": 64, "densenet_121": 64}
SETS = (
    "train_5k",
    "train_10k",
    "train_15k",
    "train_20k",
    "train_30k",
    "train_40k",
    "train_50k",
    "train",
    "train_70k",
    "train_80k",
    "train_90k",
    "train_100k",
)
RUN_FOLDERS = [
    *(f"sizes/r1/mixup/resnet_18_lmdb_adam_64x4_adam_mixers/{name}" for name in SETS),
    *(f"60k/r1/mixup/{name}_lmdb_adam_64x4_adam_mixers" for name in NETWORKS_4_GPUS),
    *(f"60k/r1/mixup/{name}_lmdb_adam_{batch}x1_adam_mixers" for name, batch in NETWORKS_1_GPU.items()),
    "audioset_ft/r1/mixup/resnet_18_lmdb_adam_32x4_adam_mixers",
    "audioset_scratch/r1/mixup/resnet_18_scratch_lmdb_adam_32x4_adam_mixers",
    "audioset_ft/r1/mixup/efficientnet-b1_lmdb_adam_32x1_adam_mixers",
    "audioset_scratch/r1/mixup/efficientnet-b1_scratch_lmdb_adam_32x1_adam_mixers",
    *(
        f"vggsound/r1/no_mixup/{name}{start}_lmdb_adam_64x1"
        for name in ("resnet_18", "efficientnet-b1")
        for start in ("", "_scratch")
    ),
    *(
        f"esc50/r1/mixup/{name}_lmdb_adam_64x1_adam_mixers/fold_{fold}"
        for name in ("resnet_18", "efficientnet-b1")
        for fold in range(1, 6)
    ),
    *(f"efficient/{data}/r1/mixup/regnetx_002" for data in ("gise_mixtures_60k", "audioset", "vggsound")),
    *(f"efficient/esc50/r1/mixup/regnetx_002/fold_{fold}" for fold in range(1, 6)),
    *(f"events/r1/mixup/{name}_events" for name in ("resnet_18", "efficientnet-b1", "regnetx_002")),
]
QUICK = "--epochs 1 --random_clip_size 32 --val_clip_size 32 --seed 1 --set opt.batch_size=2"


def shell(*words, python, cwd=ROOT, timeout=900, **environment):
    """Run a shell script to its end. The environment's GISE_ variables are these alone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GISE_")}
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=clean | {"GISE_PYTHON": str(python)} | environment,
    )


@pytest.fixture(scope="module")
def miniature(warm_python, tmp_path_factory):
    """The folder of `reproduce_in_miniature.sh --short`, with a space in its name."""
    folder = tmp_path_factory.mktemp("experiments") / "my miniature"
    result = shell(ROOT / "reproduce_in_miniature.sh", "--short", folder, python=warm_python)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    yield folder
    shutil.rmtree(folder)  # 5 GB of checkpoints


def records(folder):
    """Run folder → its record, for all runs below."""
    return {str(file.parent.relative_to(folder)): json.loads(file.read_text()) for file in folder.rglob("run.json")}


def test_the_runs_are_those_of_the_paper(miniature):
    found = records(miniature / "experiments")
    assert sorted(found) == sorted(RUN_FOLDERS)
    found = {name: record for name, record in found.items() if not name.startswith(("efficient", "events"))}
    for name, record in found.items():
        assert record["finished"]["epochs"] == 1 and record["protocol"] == "paper", name
        assert record["cfg"]["model"]["num_classes"] == {"audioset": 4, "vggsound": 4, "esc50": 50}.get(
            name.split("/")[0].split("_")[0], 51
        )
        assert record["cfg"]["opt"]["focal_loss"] == name.startswith("audioset")
        assert record["mixup"] == (not name.startswith("vggsound"))
        flags = record["command"]
        assert ("--fp16" in flags) == ("64x4" not in name and "32x4" not in name)
        assert "--epochs 50" in flags
        assert ("--random_clip_size 1000" in flags) == name.startswith("audioset")
        assert ("--val_clip_size 1000" in flags) == name.startswith("vggsound")
        assert record.get("fold_index") == (int(name[-1]) if name.startswith("esc50") else None)
    assert all(found[name]["cfg"]["opt"]["weight_decay"] == 1e-4 for name in found if name.startswith("esc50"))


def test_the_other_recipe_starts_from_its_own_run_on_the_mixtures(miniature):
    found = records(miniature / "experiments/efficient")
    first = found["gise_mixtures_60k/r1/mixup/regnetx_002"]["cfg"]["audio_config"]
    for name, record in found.items():
        data, cfg = name.split("/")[0], record["cfg"]
        assert record["finished"]["epochs"] == 1 and record["protocol"] == "corrected" and record["mixup"], name
        assert cfg["audio_config"]["feature"] == "logmel" and cfg["opt"]["scheduler"] == "one_cycle"
        assert cfg["model"]["num_classes"] == {"gise_mixtures_60k": 51, "esc50": 50}.get(data, 4)
        frames = 1001 if data in ("audioset", "vggsound") else 501
        assert f"--epochs 50 --random_clip_size {frames} --val_clip_size {frames}" in record["command"]
        if data == "gise_mixtures_60k":
            assert cfg["model"]["pretrained"] is None
        else:
            assert "gise_mixtures_60k/r1/mixup/regnetx_002" in cfg["model"]["pretrained"]
            assert cfg["audio_config"]["mean"] != first["mean"]  # of its own clips


def test_networks_of_events_learn_the_same_mixtures(miniature):
    for name, record in records(miniature / "experiments/events").items():
        cfg = record["cfg"]
        assert record["finished"]["epochs"] == 1 and record["protocol"] == "corrected" and record["mixup"], name
        assert cfg["model"]["type"] == "events" and cfg["opt"]["scheduler"] == "one_cycle"
        assert cfg["data"]["train_lmdb"] == str(miniature / "mixtures_lmdb/train.lmdb")
        assert "--epochs 50 --random_clip_size 501 --val_clip_size 501" in record["command"]


def test_fine_tuned_runs_start_from_what_the_60k_runs_exported(miniature):
    exported = list((miniature / "exported_weights/r1").rglob("*.pth"))
    assert len(exported) == 8 and all("num_classes=51" in path.name for path in exported)
    for name, record in records(miniature / "experiments").items():
        pretrained = record["cfg"]["model"]["pretrained"]
        if name.startswith("efficient"):
            continue
        if name.startswith(("sizes", "60k", "events")) or "scratch" in name:
            assert pretrained is None
            continue
        network = "resnet_18" if "resnet_18" in name else "efficientnet-b1"
        assert Path(pretrained) in exported and Path(pretrained).parent.name.startswith(f"{network}_lmdb")
        assert record["cfg"]["model"]["pretrained_fc"] == 51


def test_the_summary_has_a_row_for_every_experiment(miniature):
    with open(miniature / "summary/summary.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["experiment"], row["network"], row["start"], int(row["num_train_clips"])) for row in rows}
    expected = {
        ("gise_mixtures_60k", "ResNet-18", "scratch", clips) for clips in (2, 4, 6, 8, 12, 16, 20, 24, 26, 28, 30, 32)
    }
    expected |= {
        ("gise_mixtures_60k", network, "scratch", 24)
        for network in (
            "ResNet-34",
            "ResNet-50",
            "CIFAR-style ResNet-44",
            "CIFAR-style ResNet-56",
            "EfficientNet-B0",
            "EfficientNet-B1",
            "DenseNet-121",
        )
    }
    for network in ("ResNet-18", "EfficientNet-B1"):
        expected |= {
            (data, network, start, 4) for data in ("audioset", "vggsound") for start in ("scratch", "fine-tuned")
        }
        expected.add(("esc50", network, "fine-tuned", 16))
    for data, start, clips in (
        ("gise_mixtures_60k", "scratch", 24),
        ("audioset", "fine-tuned", 4),
        ("vggsound", "fine-tuned", 4),
        ("esc50", "fine-tuned", 16),
    ):
        expected.add((f"efficient {data}", "regnetx_002", start, clips))
    expected |= {("events", network, "scratch", 24) for network in ("ResNet-18", "EfficientNet-B1", "regnetx_002")}
    assert found == expected
    assert all(row["mAP_mean"] for row in rows if not row["experiment"].endswith("esc50"))
    assert all(row["accuracy_mean"] and row["top5_mean"] for row in rows if row["experiment"].endswith("vggsound"))
    assert [row["folds"] for row in rows if row["experiment"].endswith("esc50")] == ["5", "5", "5"]
    assert not any(row["published_mean"] for row in rows)  # these are not the paper's data
    pictures = {path.stem for path in (miniature / "summary").glob("*.png")}
    assert pictures >= {
        "soundscapes_vs_map_gise_mixtures_60k",
        "map_by_network_gise_mixtures_60k",
        "class_ap_audioset",
        "training_esc50",
    }


def test_packing_again_leaves_what_is_there_and_missing_folders_are_named(miniature, warm_python, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (miniature / "mixtures_lmdb").iterdir()}
    result = shell(
        ROOT / "generate_mixtures.sh", miniature / "mixtures_flac", miniature / "mixtures_lmdb", python=warm_python
    )
    assert result.returncode == 0 and result.stdout.count("is there") == 14
    assert before == {path: path.stat().st_mtime_ns for path in (miniature / "mixtures_lmdb").iterdir()}
    (tmp_path / "flac").mkdir()
    for name in ("val", "train", "train_p2"):
        (tmp_path / "flac" / name).symlink_to(miniature / "mixtures_flac" / name)
    result = shell(ROOT / "generate_mixtures.sh", "flac", "lmdb", python=warm_python, cwd=tmp_path)
    assert result.returncode == 1 and sorted(path.name for path in (tmp_path / "lmdb").glob("*.lmdb")) == [
        "train.lmdb",
        "train_70k.lmdb",
        "val.lmdb",
    ]
    assert "not packed, for want of their folders: eval train_5k" in result.stderr
    for name in ("val.lmdb", "train.lmdb", "train_70k.lmdb"):
        assert (tmp_path / "lmdb" / name).read_bytes() == (miniature / "mixtures_lmdb" / name).read_bytes()


def test_finished_runs_are_skipped(miniature, warm_python):
    folder = miniature / "experiments"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("ckpts/*")}
    result = shell(
        ROOT / "experiments_audioset.sh",
        folder / "audioset",
        1,
        python=warm_python,
        GISE_DATA_ROOT=str(miniature),
        GISE_TRAIN_FLAGS=f"{QUICK} --set opt.lr=3e-4 --set model.num_classes=4 --accumulate_grad_batches 1",
    )
    assert result.returncode == 0 and result.stdout.count("finished (1 epochs), skipped") == 2, result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("ckpts/*")}


def test_an_interrupted_script_goes_on_and_repeats_no_finished_run(miniature, warm_python, tmp_path):
    """SIGINT to the script's process group, as Ctrl-C in a terminal sends it, in its second run."""
    flags = f"{QUICK} --set model.num_classes=4 --set opt.lr=1e-5"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GISE_")} | {
        "GISE_PYTHON": sys.executable,
        "GISE_DATA_ROOT": str(miniature),
        "GISE_NUM_WORKERS": "0",
    }
    first = tmp_path / "exp_ft/r1/mixup/resnet_18_lmdb_adam_32x4_adam_mixers"
    second = tmp_path / "exp_scratch/r1/mixup/resnet_18_scratch_lmdb_adam_32x4_adam_mixers"
    done = shell(
        ROOT / "experiments_audioset.sh",
        tmp_path / "exp",
        1,
        python=warm_python,
        timeout=300,
        GISE_DATA_ROOT=str(miniature),
        GISE_NUM_WORKERS="0",
        GISE_TRAIN_FLAGS=flags,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    shutil.rmtree(second)
    process = subprocess.Popen(
        [ROOT / "experiments_audioset.sh", tmp_path / "exp", "1"],
        cwd=ROOT,
        text=True,
        env=environment | {"GISE_TRAIN_FLAGS": f"{flags} --epochs 40"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        assert wait_for(lambda: len(list(first.glob("ckpts/*.ckpt"))) >= 2, process)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and "Traceback" not in output and not second.exists(), output[-2000:]
    assert f"interrupted in {first}. The same command resumes it" in output
    before = {path: path.stat().st_mtime_ns for path in first.glob("ckpts/*.ckpt")}
    epochs = len(before) + 1
    # The weights that it began with may be gone by now, and better ones there: the run keeps to its own.
    for again in ("resuming from", f"finished ({epochs} epochs), skipped"):
        result = shell(
            ROOT / "experiments_audioset.sh",
            tmp_path / "exp",
            1,
            python=warm_python,
            GISE_DATA_ROOT=str(miniature),
            GISE_NUM_WORKERS="0",
            GISE_WEIGHTS_DIR=str(tmp_path / "none"),
            GISE_TRAIN_FLAGS=f"{flags} --epochs {epochs}",
        )
        assert result.returncode == 0 and again in result.stdout, result.stdout[-2000:]
    assert before.items() <= {path: path.stat().st_mtime_ns for path in first.glob("ckpts/*.ckpt")}.items()
    assert len(list(first.glob("ckpts/*.ckpt"))) == len(list(second.glob("ckpts/*.ckpt"))) == epochs


def wait_for(condition, process, seconds=240):
    """Whether it comes true while the process runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_failing_run_stops_the_script_with_its_name_and_log(miniature, warm_python, tmp_path):
    result = shell(
        ROOT / "experiments_60k_mixtures.sh",
        "my exp",
        3,
        python=warm_python,
        cwd=tmp_path,
        GISE_DATA_ROOT=str(miniature),
        GISE_TRAIN_FLAGS=f"{QUICK} --set 'opt.lr=too high'",
    )
    folder = tmp_path / "my exp/r3/mixup/resnet_18_lmdb_adam_64x4_adam_mixers"
    assert result.returncode == 1 and not folder.exists() and "resnet_34" not in result.stdout
    assert result.stderr.splitlines() == [
        f"experiments_60k_mixtures.sh: error: the run {folder} failed with status 1. Its log: {folder}.log"
    ]
    assert "opt.lr is 'too high'. It should be a number" in Path(f"{folder}.log").read_text()


def test_unmatched_quotes_are_refused(miniature, warm_python, tmp_path):
    result = shell(
        ROOT / "experiments_60k_mixtures.sh",
        tmp_path / "exp",
        1,
        python=warm_python,
        GISE_DATA_ROOT=str(miniature),
        GISE_TRAIN_FLAGS="--epochs 1 --set 'opt.lr=1",
    )
    assert result.returncode == 1 and "Its quotes do not match" in result.stderr and not (tmp_path / "exp").exists()


def test_a_folder_of_another_configuration_is_refused(miniature, warm_python):
    folder = miniature / "experiments/60k/r1/mixup/resnet_18_lmdb_adam_64x4_adam_mixers"
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())
    result = shell(
        ROOT / "experiments_60k_mixtures.sh",
        miniature / "experiments/60k",
        1,
        python=warm_python,
        GISE_DATA_ROOT=str(miniature),
        GISE_TRAIN_FLAGS=f"{QUICK} --set opt.lr=0.5",
    )
    assert result.returncode == 1 and "belongs to another run, with opt.lr 0.0003 instead of 0.5" in " ".join(
        result.stdout.split("\n")
    )
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "words, environment, message",
    [
        (("exp",), {}, "usage: experiments_audioset.sh EXPERIMENT_DIR RUN_INDEX"),
        (("exp", "one"), {}, "RUN_INDEX is 'one'"),
        (("exp", "1"), {"GISE_WEIGHTS_DIR": "nowhere"}, "no exported weights of resnet_18 in"),
        (("exp", "1"), {"GISE_GPUS": "all"}, "GISE_GPUS is 'all'"),
        (("exp", "1"), {"GISE_PYTHON": "/bin/false"}, "/bin/false cannot import torch"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(miniature, warm_python, tmp_path, words, environment, message):
    result = shell(
        ROOT / "experiments_audioset.sh",
        *words,
        python=warm_python,
        cwd=tmp_path,
        **{"GISE_DATA_ROOT": str(miniature)} | environment,
    )
    assert result.returncode in (1, 2) and len(result.stderr.splitlines()) == 1 and message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "chosen, networks",
    [(None, ("resnet_18", "efficientnet-b1", "regnetx_002")), ("regnetx_002  resnet_18", ("regnetx_002", "resnet_18"))],
)
def test_the_script_of_events_trains_all_networks_or_those_asked_for(tmp_path, chosen, networks):
    """With a Python that writes down how it is called. Each run has a cfg, a folder and a precision."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" != -c ] || exec echo 1\necho "$@" >> "{tmp_path}/calls"\n')
    python.chmod(0o755)
    environment = {"GISE_NETWORKS": chosen} if chosen else {}
    result = shell(ROOT / "experiments_events.sh", "exp", 2, python=python, cwd=tmp_path, **environment)
    assert result.returncode == 0, result.stderr
    of_network = {
        "resnet_18": ("resnet_18_lmdb", "16-mixed"),
        "efficientnet-b1": ("efficientnet-b1_lmdb", "16-mixed"),
        "regnetx_002": ("regnetx_002", "32"),
    }
    calls = (tmp_path / "calls").read_text().splitlines()
    for call, (network, (cfg, precision)) in zip(calls, [(name, of_network[name]) for name in networks], strict=True):
        folder = tmp_path / f"exp/r2/mixup/{network}_events"
        assert call.startswith(f"train_gise_mixtures.py --cfg_file cfgs_v2/events/{cfg}.cfg -e {folder} --gpus 0 ")
        assert call.endswith(f" --epochs 50 --random_clip_size 501 --val_clip_size 501 --precision {precision}")


def test_an_unknown_network_of_events_is_refused_before_any_is_trained(tmp_path):
    result = shell(
        ROOT / "experiments_events.sh", "exp", 1, python="none", cwd=tmp_path, GISE_NETWORKS="resnet_18 resnet_19"
    )
    assert result.returncode == 1 and result.stderr.splitlines() == [
        "experiments_events.sh: error: GISE_NETWORKS has 'resnet_19'. "
        "Some of 'resnet_18 efficientnet-b1 regnetx_002' were expected."
    ]
    assert not list(tmp_path.iterdir())


def in_library(commands, cwd=ROOT, **environment):
    """Run commands after sourcing the scripts' library."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"source '{ROOT}/scripts/lib/experiments.sh'; {commands}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]} | environment,
    )


@pytest.mark.parametrize(
    "present, chosen, published, list_, accumulate, said",
    [
        (0, None, 4, "0", 4, "no GPU here, training on the CPU. Made for 4 GPU(s)"),
        (0, None, 1, "0", 1, "no GPU here"),
        (1, None, 4, "0", 4, "training on 1 GPU(s) (0). Made for 4"),
        (2, None, 4, "0, 1", 2, "--accumulate_grad_batches 2 makes a step of as many clips as published"),
        (3, None, 4, "0, 1, 2", 1, "a step is of 3 batches instead of 4"),
        (4, None, 4, "0, 1, 2, 3", 1, ""),
        (8, None, 4, "0, 1, 2, 3", 1, ""),
        (8, "2, 5", 4, "2, 5", 2, "training on 2 GPU(s) (2, 5)"),
        (8, "0,1", 1, "0,1", 1, "a step is of 2 batches instead of 1"),
        (0, "0, 1, 2, 3", 4, "0, 1, 2, 3", 4, "no GPU here"),
    ],
)
def test_fewer_gpus_than_published(tmp_path, present, chosen, published, list_, accumulate, said):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {present}\n")
    python.chmod(0o755)
    environment = {"GISE_PYTHON": str(python)} | ({"GISE_GPUS": chosen} if chosen else {})
    result = in_library(f"script=x; use_gpus {published}; printf '%s\\n' \"${{gpu_flags[@]}}\"", **environment)
    lines = result.stdout.splitlines()
    assert lines[-6:] == ["--gpus", list_, "--accumulate_grad_batches", str(accumulate), "--num_workers", "6"]
    assert said in result.stdout and (said or len(lines) == 6)


def test_gpus_that_are_not_there_are_refused(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 1\n")
    python.chmod(0o755)
    result = in_library("script=x; use_gpus 4", GISE_PYTHON=str(python), GISE_GPUS="0, 1")
    assert result.returncode == 1 and "GISE_GPUS is '0, 1', but there are 1 GPU(s) here" in result.stderr


def test_the_best_weights_of_the_run_are_found(tmp_path):
    def add(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save({}, tmp_path / path)
        return str(tmp_path / path)

    def found():
        return in_library("run=r1; weights_of resnet_18", GISE_WEIGHTS_DIR=str(tmp_path)).stdout.strip()

    add("r2/mixup/resnet_18_scratch_lmdb_x/mAP=0.9000_dprime=1.0000_num_classes=51.pth")
    add("r2/mixup/cifar_resnet_18_lmdb_x/mAP=0.9000_dprime=1.0000_num_classes=51.pth")
    elsewhere = add("r2/mixup/resnet_18_lmdb_x/mAP=0.6000_dprime=1.0000_num_classes=51.pth")
    assert found() == elsewhere
    add("r1/mixup/resnet_18_lmdb_x/mAP=0.0900_dprime=1.0000_num_classes=51.pth")
    better = add("r1/mixup/resnet_18_lmdb_x/mAP=0.5000_dprime=1.0000_num_classes=51.pth")
    assert found() == better
    # Of other training sets, of other data sets, and not to be taken for the 60k run's:
    add("r1/resnet_18_lmdb_x/train_100k/mAP=0.9000_dprime=1.0000_num_classes=51.pth")
    add("r1/no_mixup/resnet_18_lmdb_x/mAP=0.9000_dprime=1.0000_num_classes=309.pth")
    assert found() == better
    by_hand = add("r1/mixup/resnet_18/mAP=0.5500_dprime=1.0000_num_classes=51.pth")
    assert found() == by_hand
    named = add("r1/resnet_18.pth")
    assert found() == named


def test_relative_paths_are_the_callers(tmp_path):
    result = in_library("from_here exp; echo; echo $GISE_DATA_ROOT; from_here /abs", cwd=tmp_path, GISE_DATA_ROOT="d")
    assert result.stdout.splitlines() == [f"{tmp_path}/exp", f"{tmp_path}/d", "/abs"]
    assert in_library("from_here exp").stdout == "exp"
