"""Commands that know what they are given: a checkpoint's own classes, run folders, manifests and audio of any rate."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import SAMPLE_RATE, error_line, run_script, train_command, write_soundscape
from released import CKPT

from src.models.checkpoint import initial_network, read_checkpoint
from src.models.registry import create
from src.models.torch_files import torch_file_digest
from src.runs.folder import best

EVALUATIONS = ("eval_gise_mixtures.py", "eval_all_mixtures.py", "eval_vggsound.py")


def evaluate(script, corpus, folder, *flags, clips=None, check=0):
    """Rows of a new results table, by checkpoint. The current folder has no meta/ in it."""
    clips = clips or ("--lmdb_path", corpus / "eval.lmdb")
    arguments = (*clips, "--results_csv", folder / "r.csv", "--num_workers", 0, *flags)
    result = run_script(script, *arguments, check=check, cwd=folder)
    if check:
        return result
    with open(folder / "r.csv", newline="") as stream:
        return {row["ckpt_path"]: row for row in csv.DictReader(stream)}


@pytest.mark.parametrize("script", EVALUATIONS)
def test_evaluation_takes_a_run_folder_and_folders_at_any_depth(corpus, trained, tmp_path, script):
    run = trained / "r1/mixup/tiny/train_4"
    every = evaluate(script, corpus, tmp_path, "--exp_dir", trained)
    assert len(every) == 4 and {row["num_classes"] for row in every.values()} == {"3"}
    for folder in (run, run / "ckpts"):
        (tmp_path / folder.name).mkdir()
        rows = evaluate(script, corpus, tmp_path / folder.name, "--exp_dir", folder)
        assert len(rows) == 2 and all(rows[path]["mAP"] == every[path]["mAP"] for path in rows)


@pytest.mark.parametrize("named", ["", "ckpts"])
def test_a_run_folder_is_its_best_checkpoint(corpus, trained, tmp_path, named):
    run = trained / "r1/mixup/tiny/train_8"
    chosen = best((run / "ckpts").glob("*.ckpt"))
    rows = evaluate("eval_gise_mixtures.py", corpus, tmp_path, "--ckpt_path", run / named)
    assert list(rows) == [str(chosen)]
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE), SAMPLE_RATE)
    tables = []
    for path in (run / named, chosen):
        run_script("predict.py", "--ckpt_path", path, "--audio", "a.wav", "--csv", "p.csv", check=0, cwd=tmp_path)
        tables.append((tmp_path / "p.csv").read_text())
    assert tables[0] == tables[1]
    pair = ("--ckpt_path", run / named, "--other_ckpt_path", chosen, "--lmdb_path", corpus / "eval.lmdb")
    run_script("scripts/compare_checkpoints.py", *pair, "--json", "c.json", "--num_workers", 0, check=0, cwd=tmp_path)
    assert all(row["first"] == row["second"] for row in json.loads((tmp_path / "c.json").read_text()))


def test_folders_without_checkpoints_are_refused_by_name(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    fault = "empty: is a folder without checkpoints"
    assert fault in error_line(evaluate("eval_gise_mixtures.py", corpus, tmp_path, "--ckpt_path", "empty", check=1))
    assert fault in error_line(run_script("predict.py", "--ckpt_path", "empty", "--audio", "a.wav", cwd=tmp_path))
    pair = ("--ckpt_path", "empty", "--other_ckpt_path", "empty", "--lmdb_path", corpus / "eval.lmdb")
    assert fault in error_line(run_script("scripts/compare_checkpoints.py", *pair, cwd=tmp_path))


@pytest.mark.parametrize("classes", [51, 7])
def test_a_checkpoint_of_2021_with_51_classes_has_those_of_gise_51(tmp_path, classes):
    model = {"arch": "cifar_resnet", "model_depth": 20, "num_classes": classes, "type": "multilabel"}
    cfg = {"model": model, "opt": {"optimizer": "Adam", "lr": "1e-3", "batch_size": 32}, "audio_config": {}}
    state = {f"net.{name}": value for name, value in create("cifar_resnet", 20, classes).state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"cfg": cfg}}, tmp_path / "old.ckpt")
    soundfile.write(tmp_path / "a.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    flags = ("--ckpt_path", "old.ckpt", "--audio", "a.wav", "--csv", "p.csv")
    result = run_script("predict.py", *flags, cwd=tmp_path)
    if classes == 7:
        assert "carries no label map for its 7 classes" in error_line(result)
        return
    assert result.returncode == 0 and "GISE-51's" in result.stderr
    with open(tmp_path / "p.csv", newline="") as stream:
        assert {"Applause", "Zipper_(clothing)"} <= {row["class"] for row in csv.DictReader(stream)}


# ---- what training starts from ----


def start_from(corpus, folder, path, *more, script="train_classifier.py"):
    """One epoch from `path`, with four classes of which three are there, and the network that it began with."""
    names = ["Drum", "Harp", "Organ", "Gong"]
    (folder / "four.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    sets = ("--set", "model.num_classes=4", "--set", f"data.label_map={folder / 'four.json'}")
    command = train_command(corpus, folder / "tuned", "--pretrained", path, *sets, *more, script=script)
    return run_script(*command, cwd=folder)


def weights_it_began_with(folder):
    (checkpoint,) = (folder / "tuned/ckpts").iterdir()
    config = read_checkpoint(checkpoint).config
    assert config.model.pretrained_fc is None
    return initial_network(config, seed=3).state_dict()


STARTS = {  # what is made of a released or a new checkpoint, and the checkpoint itself
    "run folder": lambda run, folder: run,
    "its ckpts": lambda run, folder: run / "ckpts",
    "checkpoint": lambda run, folder: best((run / "ckpts").iterdir()),
    "of 2021": lambda run, folder: CKPT,
    "weights": lambda run, folder: exported(best((run / "ckpts").iterdir()), folder, ""),
    "weights under net.": lambda run, folder: exported(CKPT, folder, "net."),
    "with a criterion's": lambda run, folder: exported(CKPT, folder, "net.", {"criterion.weight": torch.ones(18)}),
    "compiled, with more": lambda run, folder: exported(CKPT, folder, "net._orig_mod.", {"loss.a": torch.ones(1)}),
    "of a container": lambda run, folder: exported(CKPT, folder, "module.", around="model"),
}


def exported(checkpoint, folder, prefix, more=(), around=None):
    state = {prefix + name: value for name, value in read_checkpoint(checkpoint).weights.items()} | dict(more)
    torch.save({around: state} if around else state, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize("start", STARTS)
def test_training_starts_from_anything_with_weights_of_any_number_of_classes(corpus, trained, tmp_path, start):
    run = trained / "r1/mixup/tiny/train_8"
    path = STARTS[start](run, tmp_path)
    result = start_from(corpus, tmp_path, path, script="train_gise_mixtures.py")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "of another number of classes, so the last layer starts fresh (linear.weight, linear.bias)" in result.stderr
    source = best((run / "ckpts").iterdir()) if start in ("run folder", "its ckpts", "checkpoint", "weights") else CKPT
    weights, began = read_checkpoint(source).weights, weights_it_began_with(tmp_path)
    assert began.keys() == weights.keys()
    assert {name for name in began if not torch.equal(began[name], weights[name])} == {"linear.weight", "linear.bias"}
    again = start_from(corpus, tmp_path, path, script="train_gise_mixtures.py")  # the same command resumes
    assert again.returncode == 0 and "finished (1 epochs), skipped" in again.stderr


def test_fine_tuning_a_released_checkpoint_on_one_class_a_clip_is_one_flag(corpus, tmp_path):
    manifest = tmp_path / "clips.csv"
    files = sorted((corpus / "train").glob("*.flac"))
    manifest.write_text("files,labels\n" + "".join(f"{file},Drum\n" for file in files))
    sets = (f"data.{split}_manifest={manifest}" for split in ("train", "val"))
    sets = [word for value in ("model.type=multiclass", "data.is_lmdb=False", *sets) for word in ("--set", value)]
    result = start_from(corpus, tmp_path, CKPT, *sets)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "val_acc=" in next((tmp_path / "tuned/ckpts").iterdir()).name


def test_the_number_of_classes_that_published_cfgs_give_can_be_lifted(corpus, trained, tmp_path):
    run, given = trained / "r1/mixup/tiny/train_8", ("--set", "model.pretrained_fc=51")
    lifted = ("--set", "model.pretrained_fc=None")
    line = error_line(start_from(corpus, tmp_path, run, *given, script="train_gise_mixtures.py"))
    assert " ".join(lifted) in line
    result = start_from(corpus, tmp_path, run, *given, *lifted, script="train_gise_mixtures.py")
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("script", ["train_classifier.py", "train_gise_mixtures.py", "train_esc50_classifier.py"])
@pytest.mark.parametrize(
    "path, more, fault",
    [
        (CKPT, ("--set", "model.pretrained_fc=5"), "linear.weight [18, 128] instead of [5, 128]"),
        (CKPT, ("--set", "model.model_depth=32"), "missing"),
        (CKPT, ("--set", "model.arch=resnet", "--set", "model.model_depth=18"), "does not fit the network"),
        ("empty", (), "empty: is a folder without checkpoints"),
        ("none", (), "none: no such file"),
        ("four.json", (), "four.json: is not a file of weights for model.pretrained"),
    ],
)
def test_what_training_cannot_start_from_is_refused_in_one_line(corpus, tmp_path, script, path, more, fault):
    (tmp_path / "empty").mkdir()
    if script != "train_gise_mixtures.py":
        more += ("--set", "model.type=multiclass")
    assert fault in error_line(start_from(corpus, tmp_path, path, *more, script=script))
    assert not (tmp_path / "tuned").exists()


def test_a_folder_that_training_started_from_is_recorded_as_its_checkpoint(corpus, trained, tmp_path):
    run = trained / "r1/mixup/tiny/train_8"
    assert start_from(corpus, tmp_path, run, script="train_gise_mixtures.py").returncode == 0
    model = json.loads((tmp_path / "tuned/run.json").read_text())["cfg"]["model"]
    assert model["pretrained"] == str(best((run / "ckpts").iterdir())) and model["pretrained_fc"] is None


# ---- weights without clips to score on ----


@pytest.mark.parametrize("script", EVALUATIONS)
def test_weights_are_exported_without_clips_to_score_on(corpus, trained, tmp_path, script):
    flags = ("--export_weights", "--export_dir", "w")
    result = run_script(script, "--exp_dir", trained, *flags, check=0, cwd=tmp_path)
    assert "nothing is scored" in result.stderr
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    runs = trained / "r1/mixup/tiny"
    names = [f"w/tiny/{path.parts[-3]}/{path.stem}_num_classes=3.pth" for path in runs.glob("*/ckpts/*.ckpt")]
    assert written == sorted(names) and len(names) == 4
    of_one = ("--ckpt_path", runs / "train_8", "--export_weights", "--export_dir", "one")
    run_script(script, *of_one, check=0, cwd=tmp_path)
    (alone,) = (tmp_path / "one").rglob("*.pth")
    evaluate(script, corpus, tmp_path, *of_one[:-1], "scored")
    (scored,) = (tmp_path / "scored").rglob("*.pth")
    assert scored.name.startswith("mAP=") and torch_file_digest(scored) == torch_file_digest(alone)


def test_weights_of_a_released_checkpoint_are_exported_without_clips_or_label_map(tmp_path):
    shutil.copy(CKPT, tmp_path / "old.ckpt")
    run_script("eval_gise_mixtures.py", "--ckpt_path", "old.ckpt", "--export_weights", check=0, cwd=tmp_path)
    (path,) = (tmp_path / "exported_weights").rglob("*.pth")
    state = torch.load(path, weights_only=True)
    assert path.name == "old_num_classes=18.pth"
    assert all(torch.equal(state[name], value) for name, value in read_checkpoint(CKPT).weights.items())


@pytest.mark.parametrize("script", EVALUATIONS)
def test_without_clips_and_without_an_export_the_line_says_what_is_missing(trained, tmp_path, script):
    line = error_line(run_script(script, "--exp_dir", trained, cwd=tmp_path))
    assert "--lmdb_path or --manifest is missing" in line and "--export_weights" in line
    assert not list(tmp_path.iterdir())


# ---- manifests, and audio of any rate ----


def write_manifest(folder, source, name="clips.csv", convert=None):
    """A manifest of the clips of a folder of soundscapes, of copies of their audio in `folder`."""
    rows = []
    for flac in sorted(source.glob("*.flac")):
        target = folder / flac.name
        target.parent.mkdir(parents=True, exist_ok=True)
        labels = [line.split("\t")[2] for line in flac.with_suffix(".txt").read_text().splitlines()]
        target = convert(flac, target) if convert else shutil.copy(flac, target)
        rows.append(f'{target},"{",".join(labels)}"\n')
    (folder / name).write_text("files,labels\n" + "".join(rows))
    return folder / name


def stereo_at_44100(flac, target):
    """Each sample held for two, on two channels: what is below half the old rate stays about as it was."""
    samples, rate = soundfile.read(flac)
    target = target.with_suffix(".WAV")
    soundfile.write(target, np.repeat(samples, 2)[:, None] * [1.0, 0.5], 2 * rate, format="WAV")
    return target


def same_scores(rows, others):
    """Whether rows are of the same scores, whatever was written when and called how. Manifests have no events."""
    called = ("lmdb_path", "evaluated", "eval_data")
    return [{name: row[name] for name in row if name not in called} for row in rows] == [
        {name: row[name] for name in row if name not in called} for row in others
    ]


@pytest.mark.parametrize("script", EVALUATIONS)
def test_a_manifest_and_an_lmdb_of_the_same_files_give_the_same_rows(corpus, trained, tmp_path, script):
    manifest = write_manifest(tmp_path / "clips", corpus / "eval")
    flags = ("--ckpt_path", trained / "r1/mixup/tiny/train_8", "--bootstrap", 20, "--per_class", "--overlap_analysis")
    (of_lmdb,) = evaluate(script, corpus, tmp_path, *flags).values()
    tables = ("r_per_class.csv", "r_overlap.csv")
    of_lmdb_beside = [(tmp_path / name).read_text() for name in tables]
    for name in ("r.csv", *tables):
        (tmp_path / name).unlink()
    (of_manifest,) = evaluate(script, corpus, tmp_path, *flags, clips=("--manifest", manifest)).values()
    assert of_manifest["lmdb_path"] == str(manifest) and of_manifest["eval_data"] and of_lmdb["eval_data"]
    assert same_scores([of_manifest], [of_lmdb])
    beside = [(tmp_path / name).read_text().replace(str(manifest), str(corpus / "eval.lmdb")) for name in tables]
    assert [text.replace(of_manifest["eval_data"], of_lmdb["eval_data"]) for text in beside] == of_lmdb_beside


def changed_audio(manifest):
    flac = next(manifest.parent.glob("*1.flac"))
    samples, rate = soundfile.read(flac)
    soundfile.write(flac, samples[::-1], rate)


def changed_label(manifest):
    text = manifest.read_text()
    manifest.write_text(text.replace('"Drum', '"Organ', 1))


def one_more_clip(manifest):
    manifest.write_text(manifest.read_text() + manifest.read_text().splitlines()[1] + "\n")


@pytest.mark.parametrize("change", [changed_audio, changed_label, one_more_clip])
def test_a_manifest_is_scored_again_when_a_file_or_a_label_has_changed(corpus, trained, tmp_path, change):
    manifest = write_manifest(tmp_path / "clips", corpus / "eval")
    words = ("--ckpt_path", trained / "r1/mixup/tiny/train_8", "--manifest", manifest)
    words = ("eval_gise_mixtures.py", *words, "--results_csv", tmp_path / "r.csv", "--num_workers", 0)
    run_script(*words, check=0)
    assert "already holds 1 of 1" in run_script(*words, check=0).stderr
    (tmp_path / "copies").mkdir()
    for file in manifest.parent.glob("*.flac"):  # other files of the same contents
        shutil.copy(file, tmp_path / "copies")
        shutil.move(tmp_path / "copies" / file.name, file)
    assert "already holds 1 of 1" in run_script(*words, check=0).stderr
    change(manifest)
    assert "already holds" not in run_script(*words, check=0).stderr


def test_two_checkpoints_are_compared_on_a_manifest(corpus, trained, tmp_path):
    manifest = write_manifest(tmp_path / "clips", corpus / "eval")
    one, other = trained / "r1/mixup/tiny/train_8", trained / "r1/mixup/tiny/train_4"
    pair = ("scripts/compare_checkpoints.py", "--ckpt_path", one, "--other_ckpt_path", other, "--num_workers", 0)
    found = []
    for clips in (("--manifest", manifest), ("--lmdb_path", corpus / "eval.lmdb")):
        run_script(*pair, *clips, "--bootstrap", 20, "--json", tmp_path / "c.json", check=0)
        found.append((tmp_path / "c.json").read_text())
    assert found[0] == found[1]


SCORING = {
    "eval_gise_mixtures.py": ("--ckpt_path", "RUN"),
    "eval_all_mixtures.py": ("--ckpt_path", "RUN"),
    "eval_vggsound.py": ("--ckpt_path", "RUN"),
    "scripts/compare_checkpoints.py": ("--ckpt_path", "RUN", "--other_ckpt_path", "RUN"),
}


@pytest.fixture
def score(trained, tmp_path):
    """Run a command that scores a run's best checkpoint on clips, in a folder of its own."""

    def run(script, *flags):
        run_folder = trained / "r1/mixup/tiny/train_8"
        words = [run_folder if word == "RUN" else word for word in SCORING[script]]
        return run_script(script, *words, *flags, "--num_workers", 0, cwd=tmp_path)

    return run


@pytest.mark.parametrize("script", SCORING)
def test_a_manifest_whose_files_have_another_rate(corpus, tmp_path, score, script):
    manifest = write_manifest(tmp_path / "clips", corpus / "eval", convert=stereo_at_44100)
    line = error_line(score(script, "--manifest", manifest))
    assert "its sample rate is 44100 Hz, not 22050 Hz: resample it first, or set audio_config.resample: True" in line
    assert "clips.csv" in line and ".WAV" in line and "(--resample in evaluation)" in line
    result = score(script, "--manifest", manifest, "--resample")
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("script", SCORING)
@pytest.mark.parametrize(
    "flags, fault",
    [
        (("--manifest", "m.csv", "--lmdb_path", "x.lmdb"), "not allowed with"),
        (("--manifest", "none.csv"), "none.csv"),
        (("--manifest", "m.csv"), "missing.flac"),
        (("--manifest", "good.csv", "--skip_bad_records"), "--skip_bad_records are for LMDBs"),
        (("--manifest", "empty.csv"), "lists no clips"),
        (("--manifest", "other.csv"), "'Whale' is not in the label map"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_in_one_line(corpus, tmp_path, score, script, flags, fault):
    flac = next((corpus / "eval").glob("*.flac"))
    tables = {"m": "missing.flac,Drum\n", "good": f"{flac},Drum\n", "empty": "", "other": f"{flac},Whale\n"}
    for name, rows in tables.items():
        (tmp_path / f"{name}.csv").write_text("files,labels\n" + rows)
    result = score(script, *flags)
    if fault == "not allowed with":
        assert result.returncode == 2 and fault in result.stderr
    else:
        assert fault in error_line(result)


def test_files_of_any_rate_train_validate_and_score(corpus, tmp_path):
    manifests = {}
    for split in ("train", "val", "eval"):
        manifests[split] = write_manifest(tmp_path / split, corpus / split, convert=stereo_at_44100)
    sets = ["data.is_lmdb=False", f"data.train_manifest={manifests['train']}", f"data.val_manifest={manifests['val']}"]
    sets = [word for value in sets for word in ("--set", value)]
    line = error_line(run_script(*train_command(corpus, tmp_path / "refused", *sets)))
    assert "44100 Hz, not 22050 Hz" in line and "set audio_config.resample: True" in line
    command = train_command(corpus, tmp_path / "run", *sets, "--set", "audio_config.resample=True")
    run_script(*command, check=0)
    clips = ("--manifest", manifests["eval"])  # the checkpoint's own configuration counts
    (row,) = evaluate("eval_gise_mixtures.py", corpus, tmp_path, "--ckpt_path", "run", clips=clips).values()
    assert row["num_eval_clips"] == "6" and 0 < float(row["mAP"]) <= 1
    # Files that need no conversion are scored as by a network that allows none.
    plain = ("--manifest", write_manifest(tmp_path / "plain", corpus / "eval"))
    of_lmdb = evaluate("eval_gise_mixtures.py", corpus, tmp_path, "--ckpt_path", "run", "--overwrite")
    of_plain = evaluate("eval_gise_mixtures.py", corpus, tmp_path, "--ckpt_path", "run", clips=plain)
    assert same_scores(of_lmdb.values(), of_plain.values())


def test_a_run_folder_of_before_resampling_was_a_key_is_resumed(corpus, tmp_path):
    run_script(*train_command(corpus, tmp_path / "run"), check=0)
    record = json.loads((tmp_path / "run/run.json").read_text())
    del record["cfg"]["audio_config"]["resample"]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    (checkpoint,) = (tmp_path / "run/ckpts").iterdir()
    content = torch.load(checkpoint, weights_only=True)
    del content["hyper_parameters"]["cfg"]["audio_config"]["resample"]
    torch.save(content, checkpoint)
    run_script(*train_command(corpus, tmp_path / "run", epochs=2), check=0)
    assert len(list((tmp_path / "run/ckpts").iterdir())) == 2


# ---- which frames are scored ----


def clips_of(folder, seconds):
    """The flag of an LMDB of a clip for each class, and one more, of so many seconds."""
    for number, label in enumerate(("Drum", "Harp", "Organ", "Drum")):
        write_soundscape(folder / f"clips_{seconds}", f"s{number}", [label], number, round(seconds * SAMPLE_RATE))
    path = folder / f"clips_{seconds}.lmdb"
    words = ("--mixture_dir", folder / f"clips_{seconds}", "--lmdb_path", path, "--audio_min_duration", 0.5)
    run_script("pack_mixtures_into_lmdb.py", *words, check=0)
    return ("--lmdb_path", path)


@pytest.mark.parametrize(
    "seconds, script",
    [
        (5, "eval_gise_mixtures.py"),
        (10, "eval_gise_mixtures.py"),
        (10, "eval_all_mixtures.py"),
        (10, "eval_vggsound.py"),
    ],
)
def test_the_published_evaluation_of_a_length_and_the_comparison_agree(corpus, trained, tmp_path, seconds, script):
    clips, run = clips_of(tmp_path, seconds), trained / "r1/mixup/tiny/train_8"
    (row,) = evaluate(script, corpus, tmp_path, "--ckpt_path", run, clips=clips).values()
    pair = ("--ckpt_path", run, "--other_ckpt_path", trained / "r1/mixup/tiny/train_4", *clips, "--num_workers", 0)
    flags = ("--bootstrap", 5, "--json", tmp_path / "c.json")
    result = run_script("scripts/compare_checkpoints.py", *pair, *flags, check=0)
    assert [found["first"] for found in json.loads((tmp_path / "c.json").read_text())] == [
        float(row[name]) for name in ("mAP", "mAUC", "dprime")
    ]
    assert f"scored: {row['num_timesteps']} frames ({seconds:.1f} s) from the centre of each clip" in result.stderr
    assert "clips last" not in result.stderr.lower()


@pytest.mark.parametrize("script", SCORING)
def test_longer_clips_are_warned_of_with_the_flag_that_scores_all(corpus, tmp_path, score, script):
    clips = clips_of(tmp_path, 1.5)
    result = score(script, *clips, "--num_timesteps", 100)
    assert result.returncode == 0 and "scored: 100 frames (1.0 s) from the centre of each clip" in result.stderr
    assert "clips last 1.5 s, of which 1.0 s are scored: --num_timesteps 151 scores all" in result.stderr
    result = score(script, *clips, "--num_timesteps", 151)
    assert result.returncode == 0 and "clips last" not in result.stderr
    result = score(script, *clips, "--num_timesteps", 300)
    assert "Clips last 1.5 s: shorter ones are repeated up to it" in result.stderr


@pytest.mark.parametrize("script", ["train_gise_mixtures.py", "train_classifier.py", "train_all_mixtures.py"])
def test_training_says_what_it_validates_on(corpus, tmp_path, script):
    more = ("--lmdbs_list", corpus / "train.lmdb") if script == "train_all_mixtures.py" else ()
    command = train_command(corpus, tmp_path / "run", "--val_clip_size", 30, *more, script=script)
    result = run_script(*command, check=0)
    assert "scored: 30 frames (0.3 s) from the centre of each clip (--val_clip_size)" in result.stderr
    assert "clips last 0.7 s, of which 0.3 s are scored: --val_clip_size 69 scores all" in result.stderr


def test_a_network_that_knows_the_clips_is_told_of(corpus, trained, tmp_path):
    run = trained / "r1/mixup/tiny/train_4"
    clips = ("--lmdb_path", corpus / "train_4.lmdb", "--results_csv", tmp_path / "r.csv", "--num_workers", 0)
    result = run_script("eval_gise_mixtures.py", "--ckpt_path", run, *clips, check=0)
    assert f"train_4.lmdb: {run}" in result.stderr and "was trained on these clips" in result.stderr
    other = run_script("eval_gise_mixtures.py", "--ckpt_path", trained / "r1/mixup/tiny/train_8", *clips, check=0)
    assert "was trained on these clips" not in other.stderr
