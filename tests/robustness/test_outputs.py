"""Outputs that are links, devices or FIFOs, or that cannot be written: one mechanism for all commands."""

import errno
import json
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, _as_main, as_another_user, as_events, error_line, fork, run_script, train_command

from src.data.lmdb.store import LMDBReader
from src.errors import UserError
from src.models.torch_files import write_torch_file
from src.utils import files
from src.utils.files import file_behind, require_writable, write_whole

pytestmark = pytest.mark.processes


def export(trained, *output):
    return "scripts/export_model.py", "--ckpt_path", network(trained), *output


def network(trained):
    return next((trained / "r1").rglob("epoch=01*.ckpt"))


def reading(corpus):
    return "--lbl_map", corpus / "meta/lbl_map.json", "--lmdb_path", corpus / "eval.lmdb", "--num_workers", 0


def evaluation(corpus, trained, table, *more):
    return ("eval_gise_mixtures.py", "--ckpt_path", network(trained), *reading(corpus), "--results_csv", table, *more)


def prediction(corpus, trained, *more):
    return "predict.py", "--ckpt_path", network(trained), "--audio", corpus / "eval" / "s000.flac", *more


def events(corpus, trained, file):
    """A prediction of events, by the network made to score them."""
    path = trained / "events.ckpt"
    if not path.exists():
        as_events(network(trained), path, medians=[1] * 3, thresholds=[0.4, 0.5, None])
    clip = corpus / "eval" / "s000.flac"
    return "predict.py", "--ckpt_path", path, "--audio", clip, "--window", 0.5, "--hop", 0.25, "--events", file


def calibration(corpus, trained, copy, *more):
    words = ("scripts/calibrate.py", "--ckpt_path", network(trained), *reading(corpus), "--num_timesteps", 64)
    return (*words, "--output", copy, *more)


FILES = {  # what writes a file: its name, and the command
    "predict --csv": ("s.csv", lambda corpus, trained, file: prediction(corpus, trained, "--csv", file)),
    "predict --decisions": ("d.csv", lambda corpus, trained, file: prediction(corpus, trained, "--decisions", file)),
    "predict --summary": ("t.csv", lambda corpus, trained, file: prediction(corpus, trained, "--summary", file)),
    "predict --events": ("e.tsv", events),
    "predict --frames": ("f.tsv", lambda corpus, trained, file: prediction(corpus, trained, "--frames", file)),
    "predict --output": (
        "o.txt",
        lambda corpus, trained, file: prediction(corpus, trained, "--format", "raven", "--output", file),
    ),
    "predict --embeddings": ("e.npz", lambda corpus, trained, file: prediction(corpus, trained, "--embeddings", file)),
    "predict --plot": ("s.png", lambda corpus, trained, file: prediction(corpus, trained, "--plot", file)),
    "check --json": ("c.json", lambda corpus, _, file: ("scripts/check_lmdb.py", corpus / "eval.lmdb", "--json", file)),
    "check --png": ("c.png", lambda corpus, _, file: ("scripts/check_lmdb.py", corpus / "eval.lmdb", "--png", file)),
    "compare --json": (
        "d.json",
        lambda corpus, trained, file: (
            *("scripts/compare_checkpoints.py", "--ckpt_path", network(trained), "--bootstrap", 3),
            *("--other_ckpt_path", network(trained), *reading(corpus), "--json", file),
        ),
    ),
    "calibrate --json": (
        "c.json",
        lambda corpus, trained, file: calibration(corpus, trained, file.parent / "copy.ckpt", "--json", file),
    ),
    "calibrate --plot": (
        "r.png",
        lambda corpus, trained, file: calibration(corpus, trained, file.parent / "copy.ckpt", "--plot", file),
    ),
    "calibrate --output": ("a.ckpt", lambda corpus, trained, file: calibration(corpus, trained, file)),
    "store --output": (
        "l.pt",
        lambda corpus, trained, file: (
            *("scripts/store_logits.py", "--ckpt_path", network(trained), *reading(corpus), "--output", file),
        ),
    ),
    "probe --json": (
        "p.json",
        lambda corpus, trained, file: (
            *("scripts/linear_probe.py", "--ckpt_path", network(trained), "--bootstrap", 3, "--num_workers", 0),
            *("--lmdb_path", corpus / "val.lmdb", "--eval_lmdb", corpus / "eval.lmdb", "--json", file),
        ),
    ),
    "export --onnx": ("m.onnx", lambda corpus, trained, file: export(trained, "--onnx", file)),
    "export --safetensors": ("m.safetensors", lambda corpus, trained, file: export(trained, "--safetensors", file)),
    "show --out_png": (
        "p.png",
        lambda corpus, _, file: ("scripts/show_soundscape.py", corpus / "eval" / "s000.flac", "--out_png", file),
    ),
    "show --out_wav": (
        "p.wav",
        lambda corpus, _, file: (
            *("scripts/show_soundscape.py", corpus / "eval" / "s000.flac", "--out_wav", file),
            *("--out_png", file.parent / "beside.png"),
        ),
    ),
    "packing": (
        "a.lmdb",
        lambda corpus, _, file: (
            *("pack_mixtures_into_lmdb.py", "--mixture_dir", corpus / "eval", "--lmdb_path", file),
            *("--audio_min_duration", 0.5),
        ),
    ),
    "evaluation": ("r.csv", evaluation),
    "evaluation --per_class": (
        "r_per_class.csv",
        lambda c, t, file: evaluation(c, t, file.parent / "r.csv", "--per_class"),
    ),
}
PLAIN = ("packing", "evaluation", "evaluation --per_class")  # what reads its file back, or needs one
FOLDERS = {  # what writes into a folder, and what it reads or writes besides in another one
    "train -e": lambda corpus, trained, folder, other: train_command(corpus, folder),
    "train --cache_samples": lambda corpus, trained, folder, other: train_command(
        corpus, other / "run", "--cache_samples", folder
    ),
    "evaluation --export_dir": lambda corpus, trained, folder, other: evaluation(
        corpus, trained, other / "r.csv", "--export_weights", "--export_dir", folder
    ),
    "summarise": lambda corpus, trained, folder, other: ("scripts/summarise_results.py", trained, "--out_dir", folder),
    "wav2flac": lambda corpus, trained, folder, other: (
        *("scripts/wav2flac.py", "--src_dir", sound(other / "Drum"), "--tgt_dir", folder),
    ),
    "strip": lambda corpus, trained, folder, other: (
        *("scripts/strip_silence_sox.py", "--src_dir", sound(other / "Drum"), "--tgt_dir", folder),
    ),
    "generate": lambda corpus, trained, folder, other: (
        *("scripts/generate_mixtures.py", "--fg_path", sound(other / "Drum").parent, "--bg_path", other / "Drum"),
        *("--lbl_map", map_of_drums(other.parent / "map.json"), "--num_soundscapes", 1, "--out_folder", folder),
    ),
    "esc50": lambda corpus, trained, folder, other: (
        *("scripts/prepare_esc50.py", "--src_dir", esc50(other / "ESC-50"), "--out_dir", folder),
    ),
    "own": lambda corpus, trained, folder, other: (
        *("scripts/prepare_own.py", "--src", sounds(other), "--out_dir", folder),
    ),
    "download": lambda corpus, trained, folder, other: (
        *("scripts/download_release.py", "--api", "http://127.0.0.1:1/", "--archives", "val", "--out_folder", folder),
    ),
}


def sound(folder):
    """A folder with a WAV file."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "a.wav", np.full(30000, 0.5), 22050)
    return folder


def sounds(folder):
    """A folder of a class, with a WAV file for each part."""
    for number in range(3):
        soundfile.write(sound(folder / "Drum") / f"{number}.wav", np.full(20000, 0.1 * number), 22050)
    return folder


def map_of_drums(path):
    """A label map of one class."""
    path.write_text('{"Drum": 0}')
    return path


def esc50(folder):
    """A folder like ESC-50's with a clip."""
    sound(folder / "audio")
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "meta" / "esc50.csv").write_text("filename,fold,target,category\na.wav,1,0,dog\n")
    return folder


def at_once(result):
    """The error line of a command that did nothing else, not even begin."""
    line = error_line(result)
    assert [each for each in result.stderr.strip().splitlines() if "no such GPU" not in each] == [line]
    return line


# ---- what is read stays ----


@pytest.mark.parametrize("what", [what for what in FILES if what not in PLAIN])
def test_no_input_is_written_over(corpus, trained, tmp_path, what):
    command, link = FILES[what][1], tmp_path / "link"
    words = command(corpus, trained, tmp_path / "new")[1:]
    inputs = [word for word in words if isinstance(word, Path) and word.is_file()]
    assert inputs
    for file in inputs:
        before = file.read_bytes()
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        line = at_once(run_script(*command(corpus, trained, link)))
        same = f"{link}: is to be written, and the same file, {file}, is read" in line
        assert (same or "a picture ends in" in line) and file.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        lambda c, t, file: prediction(c, t, "--csv", file, "--summary", file),
        lambda c, t, file: prediction(c, t, "--embeddings", file, "--decisions", f"{file.parent}/./{file.name}"),
        lambda c, t, file: calibration(c, t, file, "--json", file),
        lambda c, t, file: ("scripts/check_lmdb.py", c / "eval.lmdb", "--json", file, "--png", file),
    ],
)
def test_no_output_is_written_over_by_another(corpus, trained, tmp_path, words):
    assert "is to be written too" in at_once(run_script(*words(corpus, trained, tmp_path / "a.png")))
    assert not os.listdir(tmp_path)


def test_a_users_folder_behind_a_link_is_not_taken_for_a_part_of_the_data(tmp_path):
    mine = sound(tmp_path / "mine")
    (tmp_path / "out" / "flac").mkdir(parents=True)
    (tmp_path / "out" / "flac" / "train").symlink_to(mine)
    words = ("--src", sounds(tmp_path / "in"), "--out_dir", tmp_path / "out", "--clip_seconds", 0.5)
    assert "holds audio files, but no recipe.json" in error_line(run_script("scripts/prepare_own.py", *words))
    assert os.listdir(mine) == ["a.wav"]


# ---- links, devices, FIFOs ----


@pytest.mark.parametrize("what", FILES)
def test_a_link_stays_and_the_file_behind_it_is_written(corpus, trained, tmp_path, what):
    name, command = FILES[what]
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir(), far.mkdir()
    (near / name).symlink_to(tmp_path / "between")
    (tmp_path / "between").symlink_to(f"far/{name}")  # relative, and to nothing yet
    for _ in range(2):  # it is made, and replaced
        run_script(*command(corpus, trained, near / name), check=0)
        assert (near / name).is_symlink() and (tmp_path / "between").is_symlink()
        assert (far / name).is_file() and (far / name).stat().st_size
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.parametrize("what", FILES)
def test_a_link_into_a_missing_folder_or_a_circle_is_refused_at_once(corpus, trained, tmp_path, what):
    name, command = FILES[what]
    (tmp_path / name).symlink_to(tmp_path / "gone" / name)
    line = at_once(run_script(*command(corpus, trained, tmp_path / name)))
    assert f"{name}: is a link to {tmp_path}/gone/{name}, and there is no such folder" in line
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / name)
    assert f"{name}: is a link that leads in a circle" in at_once(
        run_script(*command(corpus, trained, tmp_path / name))
    )
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    "what", [what for what in FILES if what not in ("packing", "evaluation", "evaluation --per_class")]
)
def test_a_fifo_is_written_into(corpus, trained, tmp_path, what):
    name, command = FILES[what]
    run_script(*command(corpus, trained, tmp_path / name), check=0)
    fifo, received = tmp_path / f"fifo.{name.split('.')[1]}", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()), daemon=True)
    reader.start()
    run_script(*command(corpus, trained, fifo), check=0)
    reader.join(30)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert len(received[0]) == (tmp_path / name).stat().st_size
    if not name.endswith(".png"):  # a picture says when it was made
        assert received[0] == (tmp_path / name).read_bytes()


def test_a_device_stays_a_device(corpus, trained, tmp_path):
    try:
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no right to make a device")
    run_script(*prediction(corpus, trained, "--csv", tmp_path / "null"), check=0)
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode) and os.listdir(tmp_path) == ["null"]


def test_an_open_file_gets_what_is_written_behind_what_is_printed(corpus, trained, tmp_path):
    run_script(*prediction(corpus, trained, "--csv", tmp_path / "s.csv"), check=0)
    words = [str(ROOT / "predict.py"), *map(str, prediction(corpus, trained, "--csv", "/dev/stdout")[1:])]
    process = fork(_as_main, words, str(ROOT), str(tmp_path / "out"), str(tmp_path / "err"), dict(os.environ))
    process.join(120)
    out = (tmp_path / "out").read_bytes()
    assert process.exitcode == 0 and out.startswith(bytes(corpus)) and out.count(b"strongest from") == 3
    assert out.endswith((tmp_path / "s.csv").read_bytes())


@pytest.mark.parametrize("what", PLAIN)
@pytest.mark.parametrize("special", ["fifo", "/dev/null", "/dev/stdout"])
def test_what_has_to_be_a_plain_file_is_refused_at_once(corpus, trained, tmp_path, what, special):
    name, command = FILES[what]
    if special == "fifo":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(special)
    result = run_script(*command(corpus, trained, tmp_path / name), timeout=60)
    line = error_line(result) if what == "evaluation --per_class" else at_once(result)
    assert f"{name}: is no plain file" in line or f"{name}: is a device, a FIFO or an open file" in line
    assert (tmp_path / name).is_symlink() or stat.S_ISFIFO((tmp_path / name).stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


# ---- found before the work ----


def in_the_way(folder):
    (folder / "file").write_text("in the way")
    return folder / "file", f"{folder}/file: Not a directory"


def too_long(folder):
    return folder / ("x" * 256), "File name too long"


def on_no_disk(folder):
    return "/proc", "cannot be written"


@pytest.mark.parametrize("spoil", [in_the_way, too_long, on_no_disk])
@pytest.mark.parametrize("what", FILES)
def test_a_file_that_cannot_be_written_is_refused_at_once(corpus, trained, tmp_path, what, spoil):
    name, command = FILES[what]
    folder, message = spoil(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    line = at_once(run_script(*command(corpus, trained, Path(folder) / name)))
    assert message in line and ("cannot be written" in line or spoil is too_long), line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["file", "file/deeper", "link", "gone"])
@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_that_cannot_be_written_is_refused_at_once(corpus, trained, tmp_path, what, place):
    other = tmp_path / "other"
    other.mkdir()
    in_the_way(tmp_path)
    (tmp_path / "link").symlink_to("/proc")
    (tmp_path / "gone").symlink_to("nowhere")
    line = at_once(run_script(*FOLDERS[what](corpus, trained, tmp_path / place, other)))
    assert str(tmp_path / place) in line
    assert not {path.name for path in other.iterdir()} - {"Drum", "ESC-50"}
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    "name, put",
    [
        *[(name, put) for name in ("run.json", "logs/metrics.csv") for put in (os.mkfifo, os.mkdir)],
        ("resume.ckpt", os.mkdir),
        *[(name, put) for name in ("ckpts", "logs") for put in (Path.touch, lambda path: path.symlink_to("gone"))],
    ],
)
def test_what_is_in_the_way_in_a_run_folder_is_found_before_training(corpus, tmp_path, name, put):
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    put(tmp_path / "run" / name)
    before = sorted(tmp_path.rglob("*"))
    assert f"{tmp_path}/run/{name}" in at_once(run_script(*train_command(corpus, tmp_path / "run"), timeout=60))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folders_of_all_exported_weights_are_tried_at_once(corpus, trained, tmp_path):
    last = max(folder.parent for folder in (trained / "r1").rglob("ckpts"))
    (tmp_path / "w" / last.parent.name).mkdir(parents=True)
    (tmp_path / "w" / last.parent.name / last.name).touch()
    words = ("eval_all_mixtures.py", "--exp_dir", trained / "r1", *reading(corpus), "--results_csv", tmp_path / "r.csv")
    line = at_once(run_script(*words, "--export_weights", "--export_dir", tmp_path / "w"))
    assert f"{tmp_path}/w/{last.parent.name}/{last.name}: Not a directory" in line


@pytest.mark.parametrize("what", FILES)
def test_a_folder_in_a_files_place_is_refused_at_once(corpus, trained, tmp_path, what):
    name, command = FILES[what]
    (tmp_path / name).mkdir()
    if what == "packing":  # there, a folder holds the LMDB
        (tmp_path / name / "data.mdb").mkdir()
    result = run_script(*command(corpus, trained, tmp_path / name))
    line = error_line(result)
    assert f"{tmp_path}/{name}" in line and ("is a folder" in line or "is no plain file" in line)


@pytest.mark.parametrize("what", ["predict --csv", "check --json", "evaluation"])
def test_a_disk_that_is_full_or_closed_is_found_at_once(corpus, trained, tmp_path, what):
    name, command = FILES[what]
    full = tmp_path / "full"
    full.mkdir()
    script = 'mount -t tmpfs -o size=16k none "$0" || exit 99; cat /dev/zero > "$0/filler" 2>/dev/null; exec "$@"'
    script_name, *flags = command(corpus, trained, full / name)
    words = [sys.executable, ROOT / script_name, *map(str, flags)]
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, full, *words], capture_output=True, text=True, timeout=120
    )
    if result.returncode == 99 or "unshare" in result.stderr:
        pytest.skip(f"this machine mounts no small file system: {result.stderr.strip()}")
    assert f"{name}: cannot be written (No space left on device)" in at_once(result)
    full.chmod(0o500)
    result = subprocess.run(words, capture_output=True, text=True, timeout=120, preexec_fn=as_another_user)
    assert f"{name}: cannot be written (Permission denied)" in at_once(result) and not os.listdir(full)


def test_an_existing_file_that_may_not_be_replaced_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o444)
    require_writable(tmp_path / "a", None, "")  # read-only alone, it may be replaced

    def immutable(path, *_):  # chattr +i
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    monkeypatch.setattr(files, "_require_replaceable", immutable)
    with pytest.raises(UserError, match="a: cannot be written .*Operation not permitted"):
        require_writable(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_is_mounted_by_itself_is_refused_at_once(corpus, tmp_path):
    """As with `docker run -v results.csv:results.csv`."""
    for name in ("one", "a file.json"):
        (tmp_path / name).write_text("old")
    script, *flags = FILES["check --json"][1](corpus, None, tmp_path / "a file.json")
    mount = 'mount --bind "$0/one" "$0/a file.json" || exit 99; exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", mount, tmp_path, sys.executable, ROOT / script, *map(str, flags)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if result.returncode == 99 or "unshare" in result.stderr:
        pytest.skip(f"this machine mounts no file: {result.stderr.strip()}")
    assert "a file.json: cannot be written (it is mounted by itself" in at_once(result)


def test_weights_that_do_not_fit_on_the_disk_are_named(corpus, trained, tmp_path):
    """A limit on the size of files stands for the disk's end."""
    words = evaluation(corpus, trained, tmp_path / "r.csv", "--export_weights", "--export_dir", tmp_path / "w")
    result = subprocess.run(
        [sys.executable, ROOT / words[0], *map(str, words[1:])],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    line = error_line(result)
    assert f"{tmp_path}/w/" in line and "num_classes=3.pth: File too large" in line
    assert not (tmp_path / "r.csv").exists() and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_checkpoint_that_cannot_be_saved_for_another_reason_is_no_full_disk(tmp_path):
    with pytest.raises(Exception, match="pickle|local"):
        write_torch_file(tmp_path / "x.pth", lambda: None)
    assert os.listdir(tmp_path) == []


# ---- side files ----


def precious(tmp_path):
    (tmp_path / "precious").write_text("nobody else has this")
    return tmp_path / "precious"


@pytest.mark.parametrize("how", ["link", "hard link", "fifo"])
@pytest.mark.parametrize("what", ["packing", "training"])
def test_a_side_file_that_is_something_else_is_refused_and_left_alone(corpus, tmp_path, how, what):
    if what == "packing":
        side, words = tmp_path / ".a.lmdb.partial", FILES["packing"][1](corpus, None, tmp_path / "a.lmdb")
    else:
        side, words = tmp_path / "run" / ".lock", train_command(corpus, tmp_path / "run")
    side.parent.mkdir(exist_ok=True)
    if how == "link":
        side.symlink_to(precious(tmp_path))
    elif how == "hard link":
        side.hardlink_to(precious(tmp_path))
    else:
        os.mkfifo(side)
    line = error_line(run_script(*words, timeout=60))
    assert f"{side}: is a link or no plain file" in line
    assert how == "fifo" or (tmp_path / "precious").read_text() == "nobody else has this"
    assert not list(tmp_path.rglob("*.ckpt")) and not (tmp_path / "a.lmdb").exists()


def test_files_beside_an_lmdb_with_names_of_the_users_own_are_left_alone(corpus, tmp_path):
    (tmp_path / "a.lmdb.partial").symlink_to(precious(tmp_path))
    run_script(*FILES["packing"][1](corpus, None, tmp_path / "a.lmdb"), check=0)
    assert len(LMDBReader(tmp_path / "a.lmdb")) == 6 and (tmp_path / "a.lmdb.partial").is_symlink()
    assert (tmp_path / "precious").read_text() == "nobody else has this"


@pytest.mark.parametrize("how", ["link", "fifo"])
def test_a_note_in_another_files_place_is_replaced_and_not_followed(corpus, tmp_path, how):
    for kind in ("labels", "fingerprint"):
        note = tmp_path / f".a.lmdb.{kind}.json"
        note.symlink_to(precious(tmp_path)) if how == "link" else os.mkfifo(note)
    run_script(*FILES["packing"][1](corpus, None, tmp_path / "a.lmdb"), check=0, timeout=60)
    for kind in ("labels", "fingerprint"):
        note = tmp_path / f".a.lmdb.{kind}.json"
        assert stat.S_ISREG(note.lstat().st_mode) and json.loads(note.read_text())
    assert how == "fifo" or (tmp_path / "precious").read_text() == "nobody else has this"


def test_two_tables_behind_one_file_are_locked_together(tmp_path):
    """A table and a link to it in another folder."""
    (tmp_path / "far").mkdir()
    (tmp_path / "r.csv").symlink_to("far/r.csv")
    assert file_behind(tmp_path / "r.csv") == tmp_path / "far" / "r.csv"
    write_whole(tmp_path / "r.csv", "x")
    assert (tmp_path / "far" / "r.csv").read_text() == "x"


# ---- standard streams ----


def with_streams(redirections, *words):
    """A command in a new process, with a shell's redirections."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, ROOT / words[0], *map(str, words[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def checking(corpus, tmp_path):
    return "scripts/check_lmdb.py", corpus / "eval.lmdb", "--json", tmp_path / "c.json"


@pytest.mark.parametrize(
    "redirection, reason",
    [
        (">/dev/full", "No space left on device"),
        (">&-", "Bad file descriptor"),
        ("| true", "Broken pipe"),
    ],
)
def test_a_standard_output_that_fails_is_named_and_what_is_done_is_kept(corpus, tmp_path, redirection, reason):
    if redirection == "| true":  # a pipe that nobody reads any more
        read, write = os.pipe()
        os.close(read)
        script, *flags = checking(corpus, tmp_path)
        words = [sys.executable, ROOT / script, *map(str, flags)]
        result = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
        os.close(write)
    else:
        result = with_streams(redirection, *checking(corpus, tmp_path))
    assert f"check_lmdb.py: error: standard output: {reason}" in error_line(result)
    assert json.loads((tmp_path / "c.json").read_text())["lmdbs"][0]["clips"] == 6


@pytest.mark.parametrize("out", ["/dev/full"])
def test_a_broken_standard_output_is_not_blamed_on_the_table(corpus, trained, tmp_path, out):
    words = [str(ROOT / "predict.py"), *map(str, prediction(corpus, trained, "--csv", tmp_path / "s.csv")[1:])]
    process = fork(_as_main, words, str(ROOT), out, str(tmp_path / "err"), dict(os.environ))
    process.join(120)
    assert process.exitcode == 1
    line = (tmp_path / "err").read_text().strip().splitlines()[-1]
    assert line == "predict.py: error: standard output: No space left on device"


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_a_standard_error_that_fails_ends_nothing(corpus, tmp_path, redirections):
    result = with_streams(redirections, *checking(corpus, tmp_path))
    assert result.returncode == 0 and "6 clips" in result.stdout and result.stderr == ""
    assert json.loads((tmp_path / "c.json").read_text())["errors"] == []
    result = with_streams(redirections, *FILES["packing"][1](corpus, None, tmp_path / "a.lmdb"))
    assert result.returncode == 0 and len(LMDBReader(tmp_path / "a.lmdb")) == 6
    result = with_streams(redirections, "scripts/check_lmdb.py", tmp_path / "gone.lmdb")
    assert result.returncode == 1


def test_with_all_streams_closed_no_file_gets_their_numbers(corpus, tmp_path):
    result = with_streams("<&- >&- 2>&-", *FILES["packing"][1](corpus, None, tmp_path / "a.lmdb"))
    assert result.returncode == 0
    expected = [LMDBReader(corpus / "eval.lmdb")[index] for index in range(6)]
    assert [LMDBReader(tmp_path / "a.lmdb")[index] for index in range(6)] == expected
