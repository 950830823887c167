"""What all command lines share: home folders, seeds, names with `$`, lists in messages, and Ctrl-C at any moment."""

import argparse
import csv
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from itertools import product

import pytest
import soundfile
from conftest import CLASSES, ROOT, SAMPLE_RATE, error_line, run_script, tone_clip, train_command, write_lbl_map

from src.config.loading import load_config
from src.errors import listed

SCRIPTS = sorted(
    path.relative_to(ROOT)
    for folder in (ROOT, ROOT / "scripts", ROOT / "data" / "audioset")
    for path in folder.glob("[!_]*.py")
    if path.name != "hubconf.py"  # which torch.hub reads
)
PARSERS = {str(script): runpy.run_path(str(ROOT / script))["build_parser"]() for script in SCRIPTS}
WITH_SEED = [name for name, parser in PARSERS.items() if "--seed" in parser._option_string_actions]


# ---- home folders ----


def path_actions():
    """(script, flag) of every flag and positional whose value is text, as paths are."""
    for name, parser in PARSERS.items():
        for action in parser._actions:
            if action.type is None and action.nargs != 0 and not action.choices:
                yield name, action


@pytest.mark.parametrize("name, action", path_actions(), ids=lambda value: getattr(value, "dest", value))
def test_every_path_may_begin_at_home(name, action, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    parser = PARSERS[name]
    value = parser._get_values(action, ["~/a b/c"])
    assert value in ("/home/somebody/a b/c", ["/home/somebody/a b/c"])
    assert parser._get_values(action, ["a~/~"]) in ("a~/~", ["a~/~"])
    with pytest.raises(argparse.ArgumentError, match="is empty"):  # as of "$OUT" that is not set
        parser._get_values(action, [""])


def test_lists_of_paths_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    words = ["--mixture_dir", "~/one; two;~/three", "--lmdb_path", "a.lmdb"]
    arguments = PARSERS["pack_mixtures_into_lmdb.py"].parse_args(words)
    assert arguments.mixture_dir == ["/home/somebody/one", "two", "/home/somebody/three"]


def test_paths_in_a_cfg_begin_at_home(tmp_path, monkeypatch, corpus):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GISE_DATA_ROOT", "~/root")
    (tmp_path / "home" / "root" / "meta").mkdir(parents=True)
    cfg = tmp_path / "a.cfg"
    cfg.write_text((corpus / "tiny.cfg").read_text() + "\n")
    config = load_config(cfg, ["data.train_lmdb=~/t.lmdb", "model.pretrained=~/w.pth"])
    assert config.data.train_lmdb == f"{tmp_path}/home/t.lmdb" and config.model.pretrained == f"{tmp_path}/home/w.pth"
    text = cfg.read_text().replace(str(corpus / "val.lmdb"), "~/v.lmdb").replace(str(corpus / "meta"), "meta")
    cfg.write_text(text)
    config = load_config(cfg)
    assert config.data.val_lmdb == f"{tmp_path}/home/v.lmdb"
    assert str(config.data.label_map_path()).startswith(f"{tmp_path}/home/root/meta/")


@pytest.mark.processes
def test_a_manifest_lists_files_at_home(tmp_path, monkeypatch, corpus):
    monkeypatch.setenv("HOME", str(corpus))
    files = sorted((corpus / "train").glob("*.flac"))
    manifest = tmp_path / "clips.csv"
    manifest.write_text("files,labels\n" + "".join(f"~/train/{file.name},Drum\n" for file in files))
    sets = [f"data.{split}_manifest={manifest}" for split in ("train", "val")]
    flags = [word for value in ("data.is_lmdb=False", *sets) for word in ("--set", value)]
    run_script(*train_command(corpus, tmp_path / "run", *flags), check=0)


# ---- seeds ----


@pytest.mark.parametrize("name", WITH_SEED)
@pytest.mark.parametrize("seed", [2**64, 10**30, -1])
def test_a_seed_has_64_bits(name, seed, capsys):
    action = PARSERS[name]._option_string_actions["--seed"]
    assert action.type(str(2**64 - 1)) == 2**64 - 1
    with pytest.raises(SystemExit) as ended:
        PARSERS[name].parse_args(["--seed", str(seed)])
    assert ended.value.code == 2 and "argument --seed: " in capsys.readouterr().err


@pytest.mark.processes
def test_the_largest_seed_trains_and_starts_untrained_networks(tmp_path, corpus):
    run = tmp_path / "r1" / "net" / "tiny"
    run_script(*train_command(corpus, run, "--seed", 2**64 - 1), check=0)
    evaluation = ["eval_gise_mixtures.py", "--exp_dir", run.parent.parent, "--lbl_map", corpus / "meta/lbl_map.json"]
    table = tmp_path / "results.csv"
    evaluation += ["--lmdb_path", corpus / "val.lmdb", "--results_csv", table, "--num_workers", 0, "--untrained"]
    run_script(*evaluation, "--bootstrap", 2, "--seed", 2**64 - 1, check=0)
    assert len(list(csv.DictReader(table.open()))) == 2


@pytest.mark.processes
def test_a_seed_that_was_changed_in_the_run_is_refused(tmp_path, corpus):
    run_script(*train_command(corpus, tmp_path / "run"), check=0)
    record = tmp_path / "run" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seed": 2**64}))
    line = error_line(run_script(*train_command(corpus, tmp_path / "run", epochs=2)))
    assert "run.json: is not a run's record" in line and "its seed is outside 0 to 2^64 - 1" in line


# ---- files of a manifest ----


@pytest.mark.processes
@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_files_of_a_manifest_are_named_before_anything_begins(tmp_path, corpus, split):
    files = sorted((corpus / "train").glob("*.flac"))
    whole, holed = tmp_path / "whole.csv", tmp_path / "holed.csv"
    whole.write_text("files,labels\n" + "".join(f"{file},Drum\n" for file in files))
    holed.write_text(whole.read_text() + "gone.flac,Harp\n" + f"{tmp_path},Harp\n")
    paths = {"train": whole, "val": whole} | {split: holed}
    sets = ["data.is_lmdb=False", *(f"data.{name}_manifest={path}" for name, path in paths.items())]
    result = run_script(*train_command(corpus, tmp_path / "run", *(w for value in sets for w in ("--set", value))))
    number = f"2 of its {len(files) + 2} files are missing: gone.flac, {tmp_path}."
    assert f"{holed}: {number}" in error_line(result)
    assert not (tmp_path / "run").exists()


# ---- names ----

ODD_NAMES = ["a$b", "$\\frac{", "$_$ ^x", "100% {of} them", "_hidden", "a\\nb", "大鼓"]


@pytest.mark.processes
@pytest.mark.parametrize("name", ODD_NAMES)
def test_pictures_take_any_name(tmp_path, name):
    classes = [name, f"$ {name}", *CLASSES[2:]]
    write_lbl_map(tmp_path / "lbl_map.json", classes)
    clip = tone_clip(CLASSES[:1], 0)
    folder = tmp_path / "clips"
    folder.mkdir()
    sound = folder / f"{name}.flac"
    soundfile.write(sound, clip, SAMPLE_RATE)
    sound.with_suffix(".txt").write_text("".join(f"0.1\t0.3\t{label}\n" for label in classes[:2]))
    lmdb = tmp_path / f"{name}.lmdb"
    words = ("--mixture_dir", folder, "--lmdb_path", lmdb, "--audio_min_duration", 0.5)
    run_script("pack_mixtures_into_lmdb.py", *words, check=0)
    for source in (sound, f"{lmdb}:0"):
        run_script("scripts/show_soundscape.py", source, "--out_png", tmp_path / f"{name}.png", check=0)
        (tmp_path / f"{name}.png").unlink()
    balance = ("--lbl_map", tmp_path / "lbl_map.json", "--png", tmp_path / f"{name} balance.png")
    run_script("scripts/check_lmdb.py", lmdb, *balance, check=0)
    assert (tmp_path / f"{name} balance.png").exists()


@pytest.mark.processes
def test_a_chain_of_odd_names_ends_in_pictures(tmp_path, corpus):
    """Classes, run folders and recordings, through training, tagging and the summary."""
    classes = ["a$b", "$x^{", "Organ $"]
    write_lbl_map(tmp_path / "lbl_map.json", classes)
    folder = tmp_path / "clips $ {"
    folder.mkdir()
    for number, label in enumerate(2 * classes):
        soundfile.write(
            folder / f"s{number}.flac", tone_clip(CLASSES[number % 3 : number % 3 + 1], number), SAMPLE_RATE
        )
        (folder / f"s{number}.txt").write_text(f"0.1\t0.3\t{label}\n")
    lmdb, run = tmp_path / "a$b{.lmdb", tmp_path / "exp" / "$r" / "net$_{"
    run_script("pack_mixtures_into_lmdb.py", "--mixture_dir", folder, "--lmdb_path", lmdb, "--audio_min_duration", 0.5)
    names = [f"data.{key}" for key in (f"train_lmdb={lmdb}", f"val_lmdb={lmdb}", f"label_map={tmp_path}/lbl_map.json")]
    flags = [word for name in (*names, "data.meta_root=None") for word in ("--set", name)]
    run_script(*train_command(corpus, run, *flags), check=0)
    evaluation = ("--exp_dir", tmp_path / "exp", "--lbl_map", tmp_path / "lbl_map.json", "--lmdb_path", lmdb)
    results = tmp_path / "results$.csv"
    run_script("eval_gise_mixtures.py", *evaluation, "--results_csv", results, "--num_workers", 0, check=0)
    run_script("scripts/summarise_results.py", results, "--out_dir", tmp_path / "sum$ {", check=0)
    assert list((tmp_path / "sum$ {").glob("*.png"))
    checkpoint, picture = next(run.rglob("*.ckpt")), tmp_path / "p$.png"
    recording = shutil.copy(folder / "s0.flac", tmp_path / "x^{$.flac")
    run_script("predict.py", "--ckpt_path", checkpoint, "--audio", recording, "--plot", picture, check=0)
    assert picture.exists()


# ---- lists in messages ----


def test_a_list_is_as_long_as_one_line_takes():
    assert listed("abc") == "a, b, c" and listed("abcdef") == "a, b, c, d, e and 1 more"
    assert listed(range(9994), 2) == "0, 1 and 9,992 more"


@pytest.mark.processes
def test_one_line_does_not_name_thousands_of_classes(tmp_path, corpus):
    write_lbl_map(tmp_path / "lbl_map.json", [*CLASSES, *(f"class number {number}" for number in range(9994))])
    values = (
        f"data.label_map={tmp_path}/lbl_map.json",
        "data.meta_root=None",
        f"model.num_classes={len(CLASSES) + 9994}",
    )
    flags = [word for value in values for word in ("--set", value)]
    result = run_script(*train_command(corpus, tmp_path / "run", *flags), check=0)
    line = next(line for line in result.stderr.splitlines() if "their AP and AUC are undefined" in line)
    assert " and 9,934 more" in line and max(map(len, result.stderr.splitlines())) < 2000


# ---- Ctrl-C ----


INTERRUPTED = """\
import runpy, signal, sys

number, *sys.argv = int(sys.argv[1]), *sys.argv[2:]
imports = []

def interrupt(event, arguments):
    if event == "import" and (imports or arguments[0] == "src.cli"):
        imports.append(arguments[0])
        if len(imports) == number:
            signal.raise_signal(signal.SIGINT)

sys.addaudithook(interrupt)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    "name, number",
    [
        *product(("train_gise_mixtures.py", "scripts/check_lmdb.py", "predict.py"), (1, 3, 15, 40, 100)),
        ("train_gise_mixtures.py", 250),
        ("train_gise_mixtures.py", 1000),
        ("predict.py", 500),
    ],
)
def test_ctrl_c_while_a_script_imports_leaves_no_traceback(name, number, corpus, tmp_path):
    """Interrupted as it asks for the so-many-th module, its own first one or one of a library's."""
    given = {
        "train_gise_mixtures.py": train_command(corpus, tmp_path / "run")[1:],
        "scripts/check_lmdb.py": [corpus / "val.lmdb"],
        "predict.py": ["--ckpt_path", "none.ckpt", "--audio", corpus],
    }[name]
    command = [sys.executable, "-c", INTERRUPTED, number, ROOT / name, *given]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    result = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode in (130, -signal.SIGINT), result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.processes
def test_an_error_that_is_none_of_the_users_keeps_its_traceback(tmp_path):
    """The hook that keeps Ctrl-C quiet shows everything else, in this project's scripts and in others'."""
    fault = "import src; raise ValueError('mine')"
    ours = f"import sys; sys.modules['__main__'].__file__ = {str(ROOT / 'predict.py')!r}; {fault}"
    script = tmp_path / "other.py"
    script.write_text(fault)
    for words in ([script], ["-c", ours]):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        result = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
        assert "ValueError: mine" in result.stderr and "Traceback" in result.stderr and result.returncode == 1
