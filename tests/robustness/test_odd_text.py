"""Text as editors and other systems write it: byte order marks, annotations of other tools, names in other forms."""

import csv
import json
import os
import shutil
import unicodedata

import pytest
import soundfile
import yaml
from conftest import (
    FIXTURES,
    SAMPLE_RATE,
    cfg_tree,
    error_line,
    raw,
    run_script,
    train_command,
    write_cfg,
    write_folder,
    write_lbl_map,
    write_soundscape,
)
from released import CKPT
from small_sources import contents, edit_jams, generate, noise, regenerate, write_sources

from src.config.loading import load_config
from src.data.events import Event
from src.data.labels import LabelMap
from src.data.lmdb.store import LMDBReader
from src.data.manifest_dataset import read_manifest
from src.data.soundscapes.jams import read_jams
from src.errors import UserError
from src.preparation.annotations import read_events
from src.preparation.catalogues import read_audioset, read_esc50, read_vggsound
from src.preparation.own.table import read_table
from src.preparation.soundscapes_from_jams import find_source
from src.runs.folder import RunFolder
from src.utils.files import claim_folder

BOM = b"\xef\xbb\xbf"
NFC, NFD = (unicodedata.normalize(form, "Glöckchen") for form in ("NFC", "NFD"))


def pack(folder, target, *more, check=None):
    words = ("--mixture_dir", folder, "--lmdb_path", target, "--audio_min_duration", 0.5)
    return run_script("pack_mixtures_into_lmdb.py", *words, *more, check=check)


# ---- byte order marks ----

SCAPER = {"namespace": "scaper", "data": [], "sandbox": {"scaper": dict.fromkeys(
    ("protected_labels", "ref_db", "n_channels", "fade_in_len", "fade_out_len", "reverb"), 0)}}  # fmt: skip
READERS = {  # file → (its text, what is read of it)
    "lbl_map.json": ('{"Drum": 0}', lambda path: LabelMap.load(path).names),
    "a.cfg": (yaml.safe_dump(cfg_tree(FIXTURES)), lambda path: load_config(path).as_dict()),
    "manifest.csv": (f"files,labels\n{__file__},Drum\n", lambda path: read_manifest(str(path))),
    "a.txt": ("0\t1\tDrum\n", read_events),
    "a.jams": (json.dumps({"annotations": [SCAPER]}), lambda path: read_jams(path).tree),
    "meta/esc50.csv": (
        "filename,fold,target,category\n1-1-A-0.wav,1,0,dog\n",
        lambda path: read_esc50(path.parents[1]),
    ),
    "vggsound.csv": ('---g-f_I2yQ,1,"drum",train\n', read_vggsound),
    "own.csv": (f"filename,label\n{__file__},Drum\n", lambda path: read_table(path).recordings),
    "run.json": ('{"seed": 3, "cfg": {}}', lambda path: RunFolder(path.parent).record()),
    "logs/metrics.csv": (
        "epoch,step,lr,train_loss,val_loss,val_mAP\n0,3,1e-3,1,1,0.5\n",
        lambda path: RunFolder(path.parents[1]).epochs(),
    ),
    "recipe.json": ('{"a": 1}', lambda path: claim_folder(path.parent, {"a": 1}, "sounds")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_is_read_over(name, tmp_path):
    text, read = READERS[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    plain = read(path)
    path.write_bytes(BOM + text.replace("\n", "\r\n").encode())  # as Windows' editors write it
    assert read(path) == plain


def test_byte_order_marks_in_audiosets_lists(tmp_path):
    texts = {
        "s.csv": '---g-f_I2yQ, 0, 10, "/m/a"\n',
        "labels.csv": 'index,mid,display_name\n0,/m/a,"Drum"\n',
        "ids.txt": "---g-f_I2yQ_0\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(BOM + text.encode())
    found = read_audioset(tmp_path / "s.csv", tmp_path / "labels.csv", ids=tmp_path / "ids.txt")
    assert [clip.label for clip in found.sets["s"]] == ["Drum"]


def add_bom(*paths):
    for path in paths:
        path.write_bytes(BOM + path.read_bytes())


def test_a_run_whose_files_an_editor_saved_is_trained_resumed_and_scored(corpus, tmp_path):
    meta = write_lbl_map(tmp_path / "meta" / "lbl_map.json")
    files = sorted((corpus / "eval").glob("*.flac"))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("files,labels\n" + "".join(f"{file},Drum\n" for file in files))
    tree = cfg_tree(tmp_path)
    tree["data"] |= {"is_lmdb": False, "train_manifest": str(manifest), "val_manifest": str(manifest)}
    cfg, run = write_cfg(tmp_path / "a.cfg", tree), tmp_path / "run"
    add_bom(meta, manifest, cfg)
    run_script(*train_command(corpus, run, cfg=cfg), check=0)
    add_bom(run / "run.json", run / "logs" / "metrics.csv")
    run_script(*train_command(corpus, run, cfg=cfg, epochs=2), check=0)
    words = ("--exp_dir", run, "--lbl_map", meta, "--lmdb_path", corpus / "eval.lmdb", "--num_workers", 0)
    run_script("eval_gise_mixtures.py", "--ckpt_path", next(run.rglob("*.ckpt")), *words[2:],
               "--results_csv", tmp_path / "r.csv", check=0)  # fmt: skip
    assert (tmp_path / "r.csv").exists()


# ---- annotations ----

REFUSED = {
    "a header": "onset\toffset\tevent_label",
    "a header of another tool": "start_time\tend_time\tlabel",
    "a confidence behind": "0.0\t1.0\tDrum\t0.87",
    "a column more": "0.0\t1.0\tfg\tDrum",
    "no onset": "1.0\tDrum",
    "spaces": "0.0 1.0 Drum",
    "commas": "0.0,1.0,Drum",
    "a decimal comma": "0,0\t1,0\tDrum",
    "label first": "Drum\t0.0\t1.0",
    "no label": "0.0\t1.0\t",
    "frequencies alone": "5000.0\t8000.0\t",
    "not a number": "nan\t1.0\tDrum",
    "endless": "0.0\tinf\tDrum",
    "backwards": "2.0\t1.0\tDrum",
    "before the clip": "-1.0\t1.0\tDrum",
    "clock times": "00:00:01\t00:00:02\tDrum",
    "one word": "Drum",
    "a comment": "# made by hand",
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_a_line_that_is_no_event_is_refused_with_file_and_line(line, tmp_path):
    (tmp_path / "a.txt").write_text(f"0\t1\tDrum\n{line}\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2: .* is not onset, offset and label, separated by tabs\. "):
        read_events(tmp_path / "a.txt")


def test_packing_names_all_such_lines_and_packs_nothing(tmp_path):
    folder = write_folder(tmp_path / "mix", len(REFUSED), 0)
    for number, line in enumerate(REFUSED.values()):
        with open(folder / f"s{number:03d}.txt", "a") as stream:
            stream.write(f"\n{line}\n")
    result = pack(folder, tmp_path / "a.lmdb")
    assert f"{len(REFUSED)} of the {len(REFUSED)} soundscapes are broken" in error_line(result)
    assert result.stderr.count("is not onset, offset and label") == len(REFUSED)
    for number in range(len(REFUSED)):
        line = len((folder / f"s{number:03d}.txt").read_text().splitlines())
        assert f"s{number:03d}.txt, line {line}: " in result.stderr
    assert not (tmp_path / "a.lmdb").exists()
    show = run_script("scripts/show_soundscape.py", folder / "s000.flac", cwd=tmp_path)
    assert "s000.txt, line" in error_line(show) and "Is it a header?" in error_line(show)


def test_what_audacity_writes_is_packed_without_its_frequencies(tmp_path):
    write_soundscape(tmp_path / "mix", "a", ["Drum"])
    lines = ["0.000000\t1.500000\tDrum", "\\\t5000.000000\t8000.000000", "2.0\t2.0\t 0.87 ", "", "\\\t-1.0\t22.0"]
    (tmp_path / "mix" / "a.txt").write_bytes("\r\n".join(lines).encode())
    assert read_events(tmp_path / "mix" / "a.txt") == [Event(0.0, 1.5, "Drum"), Event(2.0, 2.0, "0.87")]
    pack(tmp_path / "mix", tmp_path / "a.lmdb", check=0)
    assert LMDBReader(tmp_path / "a.lmdb").annotations() == [("Drum,0.87", None)]
    assert LMDBReader(tmp_path / "a.lmdb").events() == [[Event(0.0, 1.5, "Drum"), Event(2.0, 2.0, "0.87")]]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "cp1252"])
def test_text_in_another_encoding_is_refused_as_such(encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes("0\t1\tGlöckchen\n".encode(encoding))
    with pytest.raises(UserError, match=r"a\.txt: is not text in UTF-8\. Expected lines of onset"):
        read_events(tmp_path / "a.txt")


# ---- class names ----


@pytest.mark.parametrize("in_map, in_data", [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_class_names_are_compared_in_one_form(in_map, in_data, tmp_path):
    """A class folder, annotations, a manifest and LMDBs of macOS beside a map of another system, and the reverse."""
    sources = write_sources(tmp_path / "sources")
    (sources / "events" / "Harp").rename(sources / "events" / in_data)
    lbl_map = write_lbl_map(sources / "lbl_map.json", ("Drum", in_map, "Organ"))
    generate(sources, tmp_path / "mix", "--format", "flac", count=6, check=0)
    pack(tmp_path / "mix", tmp_path / "a.lmdb", check=0)
    assert in_data in ",".join(label for label, _ in LMDBReader(tmp_path / "a.lmdb").annotations())
    regenerate(sources, tmp_path / "mix", tmp_path / "again", "--format", "flac", check=0)
    checked = run_script("scripts/check_lmdb.py", tmp_path / "a.lmdb", "--lbl_map", lbl_map, "--num_workers", 1)
    assert checked.returncode == 0 and "0 errors" in checked.stdout and "without a clip" not in checked.stdout
    write_soundscape(tmp_path / "one", "a", ["Drum"])
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("files,labels\n" + f"{tmp_path / 'one' / 'a.flac'},{in_data}\n" * 4)
    tree = cfg_tree(tmp_path)
    tree["data"] |= {"meta_root": str(sources), "is_lmdb": False}
    tree["data"] |= {"train_manifest": str(manifest), "val_manifest": str(manifest)}
    run = tmp_path / "run"
    run_script(*train_command(tmp_path, run, cfg=write_cfg(tmp_path / "a.cfg", tree)), check=0)
    words = ("--ckpt_path", next(run.rglob("*.ckpt")), "--lbl_map", lbl_map, "--lmdb_path", tmp_path / "a.lmdb")
    more = ("--results_csv", tmp_path / "r.csv", "--per_class", "--num_workers", 0)
    run_script("eval_gise_mixtures.py", *words, *more, check=0)
    with open(tmp_path / "r_per_class.csv", newline="", encoding="utf-8") as stream:
        assert NFC in [row["class"] for row in csv.DictReader(stream)]


def test_a_map_that_has_a_class_in_both_forms_is_refused():
    with pytest.raises(UserError, match="is there twice"):
        LabelMap.from_mapping({NFC: 0, NFD: 1}, "x.json")
    for name in ("\udcff", "a\ud800"):
        with pytest.raises(UserError, match="is no class name"):
            LabelMap.from_mapping({name: 0}, "x.json")


# ---- names of files ----


def odd(name):
    """A name of these bytes, which are no UTF-8."""
    return os.fsdecode(name)


ODD = odd(b"Gl\xf6ckchen")  # Latin-1


def test_names_that_are_no_utf_8_go_through_the_chain(corpus, tmp_path):
    wav, flac = tmp_path / odd(b"w\xff"), tmp_path / odd(b"f\xfe")
    wav.mkdir()
    for number in range(4):
        soundfile.write(tmp_path / "x.wav", noise(0.7, number), SAMPLE_RATE)
        shutil.move(tmp_path / "x.wav", wav / f"{ODD}{number}.wav")
        (wav / f"{ODD}{number}.txt").write_text("0\t1\tDrum\n")
    convert = ("scripts/wav2flac.py", "--src_dir", wav, "--tgt_dir", flac, "--move_txt")
    run_script(*convert, check=0)
    assert "4 of 4 FLAC files are there already" in run_script(*convert, check=0).stderr
    trim = ("scripts/strip_silence_sox.py", "--src_dir", wav, "--tgt_dir", tmp_path / odd(b"t\xfd"))
    run_script(*trim, check=0)
    assert len(contents(tmp_path / odd(b"t\xfd"))) == 5
    lmdb = tmp_path / f"{ODD}.lmdb"
    pack(flac, lmdb, check=0)
    (flac / f"{ODD}1.txt").unlink()
    assert "1.txt: is missing" in error_line(pack(flac, tmp_path / "other.lmdb"))
    checked = run_script("scripts/check_lmdb.py", lmdb, "--json", tmp_path / "c.json", "--png", tmp_path / "c.png")
    assert checked.returncode == 0 and json.loads((tmp_path / "c.json").read_text())["lmdbs"][0]["path"] == str(lmdb)
    data = ("--set", f"data.val_lmdb={tmp_path / 'a.lmdb'}", "--cache_samples", tmp_path / odd(b"cache\xff"))
    (tmp_path / "a.lmdb").symlink_to(lmdb)
    words = train_command(corpus, tmp_path / odd(b"run\xff"), *data)
    assert "its name is not UTF-8, and TensorBoard" in error_line(run_script(*words))
    run = tmp_path / "run"
    run_script(*train_command(corpus, run, *data), check=0)
    run_script(*train_command(corpus, run, *data, epochs=2), check=0)
    ckpt = next(run.rglob("*.ckpt")).rename(tmp_path / f"{ODD}.ckpt")
    show = ("scripts/show_soundscape.py", flac / f"{ODD}0.flac", "--out_png", tmp_path / "p.png")
    run_script(*show, check=0)
    assert (tmp_path / "p.png").stat().st_size > 10_000
    tag = ("predict.py", "--ckpt_path", ckpt, "--audio", flac, "--csv", tmp_path / f"{ODD}.csv")
    run_script(*tag, check=0)
    tables = ("--results_csv", tmp_path / "r.csv", "--per_class", "--export_weights", "--export_dir", tmp_path / "w")
    words = ("--ckpt_path", ckpt, "--lbl_map", corpus / "meta" / "lbl_map.json", "--lmdb_path", lmdb)
    run_script("eval_gise_mixtures.py", *words, *tables, "--num_workers", 0, check=0)
    assert os.fsencode(ckpt) in (tmp_path / "r.csv").read_bytes()


def test_a_table_of_scores_holds_the_very_bytes_of_the_names(tmp_path):
    soundfile.write(tmp_path / "x.wav", noise(0.7, 1), SAMPLE_RATE)
    for number in range(2):
        shutil.copy(tmp_path / "x.wav", tmp_path / f"{ODD}{number}{'é' * 118}.wav")
    (tmp_path / "x.wav").unlink()
    words = ("--ckpt_path", CKPT, "--lbl_map", FIXTURES / "lbl_map.json", "--audio", tmp_path)
    out = ("--csv", tmp_path / "a.csv", "--plot", tmp_path / "a.png")
    run_script("predict.py", *words, *out, check=0)
    assert os.fsencode(f"{tmp_path / ODD}0{'é' * 118}.wav,0.000") in (tmp_path / "a.csv").read_bytes()
    assert len(list(tmp_path.glob("a_*.png"))) == 2


def test_a_manifest_lists_names_as_bytes(tmp_path):
    file = tmp_path / f"{ODD}.wav"
    file.touch()
    (tmp_path / "m.csv").write_bytes(os.fsencode(f"files,labels\n{file},Drum\n"))
    assert read_manifest(str(tmp_path / "m.csv")) == [(str(file), "Drum")]


def test_a_source_that_scaper_cannot_open_is_named(tmp_path):
    sources = write_sources(tmp_path / "sources")
    for file in list((sources / "flat").glob("*.wav")):
        shutil.move(file, file.with_name(f"{ODD}{len(file.name)}.wav"))
    result = generate(sources, tmp_path / "mix", count=2, bg="flat")
    assert "2 of 2 soundscapes" in error_line(result) and "its name is not UTF-8" in result.stderr


def test_a_missing_clip_and_an_odd_name_are_listed(tmp_path):
    clips = tmp_path / ODD
    clips.mkdir()
    soundfile.write(tmp_path / "x.wav", noise(1, 1), SAMPLE_RATE)
    shutil.move(tmp_path / "x.wav", clips / "00000000000_000000.wav")
    (clips / "11111111111_000000.wav").write_text("no audio")
    lines = [f'{digit * 11},0,"drum",train\n' for digit in "012"]
    (tmp_path / "vggsound.csv").write_text("".join(lines))
    words = ("--vggsound_csv", tmp_path / "vggsound.csv", "--clips_dir", clips, "--splits", "train")
    run_script("scripts/prepare_vggsound.py", *words, "--out_dir", tmp_path / "out", check=0)
    missing = (tmp_path / "out" / "meta" / "train_missing.csv").read_bytes()
    assert os.fsencode(clips / "11111111111_000000.wav") in missing and b"22222222222_000000,,no file" in missing


# ---- JAMS files of Windows ----


@pytest.mark.parametrize(
    "start, between",
    [
        ("C:\\GISE\\", "\\"),
        ("\\\\server\\share\\", "\\"),
        ("D:/data/", "\\"),
        ("..\\", "\\"),
        ("/home/me/", "/"),
    ],
)
def test_jams_files_of_windows_find_their_sources(start, between, tmp_path):
    sources = write_sources(tmp_path / "sources")
    generate(sources, tmp_path / "made", count=2, check=0)
    shutil.copytree(tmp_path / "made", tmp_path / "theirs", ignore=shutil.ignore_patterns("*.wav", "recipe.json"))

    def rename(annotation):
        for event in annotation["data"]:
            event["value"]["source_file"] = start + event["value"]["source_file"].replace("/", between)

    for file in (tmp_path / "theirs").glob("*.jams"):
        edit_jams(file, rename)
        file.write_bytes(BOM + file.read_bytes().replace(b"\n", b"\r\n"))
    words = (sources, tmp_path / "theirs", tmp_path / "again")
    regenerate(*words, check=0)
    for file in (tmp_path / "made").glob("*.wav"):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    assert "2 of 2 soundscapes are there already" in regenerate(*words, check=0).stderr


@pytest.mark.parametrize("written, on_disk", [(NFC, NFD), (NFD, NFC)])
def test_a_source_is_found_by_its_name_in_either_form(written, on_disk, tmp_path):
    (tmp_path / on_disk).mkdir()
    (tmp_path / on_disk / "a.wav").write_text("")
    tree = {"value": {"source_file": f"/x/{written}/a.wav"}}
    event = type("Event", (), {"source_file": tree["value"]["source_file"], "role": "foreground"})
    assert find_source(tmp_path, event) == tmp_path / on_disk / "a.wav"


# ---- negative clips ----


@pytest.fixture
def negative(tmp_path):
    """An LMDB of eight clips, two of them without events: an empty annotation, and one of spaces alone."""
    folder = write_folder(tmp_path / "mix", 8, 1)
    (folder / "s002.txt").write_text("")
    (folder / "s005.txt").write_text(" \n\n")
    assert "--allow_empty packs such clips" in pack(folder, tmp_path / "a.lmdb").stderr
    assert not (tmp_path / "a.lmdb").exists()
    pack(folder, tmp_path / "a.lmdb", "--allow_empty", check=0)
    return tmp_path / "a.lmdb"


def test_negative_clips_are_packed_checked_trained_on_and_scored(negative, corpus, tmp_path):
    labels = [label for label, _ in LMDBReader(negative).annotations()]
    assert labels[2] == labels[5] == "" and all(labels[:2]) and len(labels) == 8
    lbl_map = corpus / "meta" / "lbl_map.json"
    checked = run_script("scripts/check_lmdb.py", negative, "--lbl_map", lbl_map, "--num_workers", 1)
    assert checked.returncode == 0 and "2 with 0" in checked.stdout
    assert "0 errors, 1 warning" in checked.stdout and "no label, as of a negative clip (2 records)" in checked.stdout
    data = ("--set", f"data.train_lmdb={negative}", "--set", f"data.val_lmdb={negative}")
    run_script(*train_command(corpus, tmp_path / "run", "--use_mixup", "--check_data", *data), check=0)
    focal = ("--set", "opt.focal_loss=True", "--set", "audio_config.precompute_features=True")
    run_script(*train_command(corpus, tmp_path / "focal", *focal, *data), check=0)
    words = ("--ckpt_path", next((tmp_path / "run").rglob("*.ckpt")), "--lbl_map", lbl_map, "--lmdb_path", negative)
    more = ("--results_csv", tmp_path / "r.csv", "--per_class", "--overlap_analysis", "--bootstrap", 20)
    run_script("eval_gise_mixtures.py", *words, *more, "--num_workers", 0, check=0)
    with open(tmp_path / "r_overlap.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(int(row["clips"]) for row in rows) == 6 and all(0 <= float(row["mAP"]) <= 1 for row in rows)
    shown = run_script("scripts/show_soundscape.py", f"{negative}:2", cwd=tmp_path, check=0)
    assert "s)" not in shown.stdout and shown.stdout.count("\n") == 2


def test_a_negative_clip_is_no_clip_of_one_class(negative, corpus, tmp_path):
    data = ("--set", f"data.train_lmdb={negative}", "--set", f"data.val_lmdb={negative}")
    words = train_command(corpus, tmp_path / "run", "--set", "model.type=multiclass", *data)
    assert "record 2: has no label. model.type multiclass needs one" in error_line(run_script(*words))


@pytest.mark.parametrize(
    "labels, fault",
    [
        ("", ", line 3: b.wav has no label"),
        ('""', ", line 3: b.wav has no label"),
        ("Drum,Harp", ": its row 2 has another number of columns than its head. .* has a cell with commas no quotes"),
        ("Drum,", ": its row 2 has another number of columns than its head"),
    ],
)
def test_a_manifest_without_a_label_or_with_one_too_many_is_a_mistake(labels, fault, tmp_path):
    (tmp_path / "m.csv").write_text(f"files,labels\na.wav,Drum\nb.wav,{labels}\n")
    with pytest.raises(UserError, match=rf"m\.csv{fault}"):
        read_manifest(str(tmp_path / "m.csv"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_manifest_is_a_table_as_others_are(tmp_path, separator):
    path = tmp_path / "m.csv"
    path.write_text(f'files{separator}labels\n{__file__}{separator}"Drum,Harp"\n')
    assert read_manifest(str(path)) == [(__file__, "Drum,Harp")]
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(UserError, match=r"m\.csv: is not text in UTF-8, and a CSV with the columns files,labels"):
        read_manifest(str(path))


def test_allow_empty_changes_nothing_else(tmp_path):
    folder = write_folder(tmp_path / "mix", 3, 1)
    pack(folder, tmp_path / "a.lmdb", check=0)
    pack(folder, tmp_path / "b.lmdb", "--allow_empty", check=0)
    assert raw(tmp_path / "a.lmdb") == raw(tmp_path / "b.lmdb")
    (folder / "s001.txt").unlink()
    assert "s001.txt: is missing" in error_line(pack(folder, tmp_path / "c.lmdb", "--allow_empty"))
