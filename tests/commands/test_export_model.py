"""scripts/export_model.py, and the commands that read what it makes."""

import json
import re

import numpy as np
import onnxruntime
import pytest
import soundfile
from conftest import FIXTURES, ROOT, SAMPLE_RATE, error_line, run_script, train_command
from released import CKPT, FIRST_RECORD, clip

from src.models.checkpoint import read_checkpoint

LBL_MAP = FIXTURES / "lbl_map.json"
CLIPS = FIXTURES / "released_mixtures_layout.lmdb"


def export(*more, checkpoint=CKPT, check=None):
    return run_script("scripts/export_model.py", "--ckpt_path", checkpoint, *more, check=check)


def calibration(checkpoint):
    """The words that choose a checkpoint's thresholds, up to the file to write."""
    return "--ckpt_path", checkpoint, "--lmdb_path", CLIPS, "--num_workers", 0, "--output"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """a.onnx with weights of 32 bits, b.onnx with 16, and a.safetensors, of the released checkpoint."""
    folder = tmp_path_factory.mktemp("exported")
    both = "--onnx", folder / "a.onnx", "--safetensors", folder / "a.safetensors"
    result = export("--lbl_map", LBL_MAP, *both, check=0)
    assert "a.onnx: 4.7 MB, weights of 32 bits. On golden clips, its probabilities are at most" in result.stdout
    assert "a.safetensors: 4.3 MB" in result.stdout and result.stderr == ""
    export("--onnx", folder / "b.onnx", "--bits", 16, checkpoint=folder / "a.safetensors", check=0)
    return folder


@pytest.mark.parametrize("name", ("a.onnx", "b.onnx"))
def test_a_file_of_onnx_tags_a_recording(exported, name):
    session = onnxruntime.InferenceSession(str(exported / name), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    (scores,) = session.run(None, {"waveform": clip()[None]})
    assert np.abs(scores[0] - FIRST_RECORD).max() < 1e-4
    assert json.loads(metadata["classes"])[5] == "Gong"
    assert (exported / "b.onnx").stat().st_size < 0.6 * (exported / "a.onnx").stat().st_size


def test_a_bundle_is_read_wherever_a_checkpoint_is(exported, corpus, tmp_path):
    bundle = exported / "a.safetensors"
    soundfile.write(tmp_path / "a.flac", clip(), SAMPLE_RATE, subtype="PCM_16")
    for number, (path, more) in enumerate(((bundle, ()), (CKPT, ("--lbl_map", LBL_MAP)))):
        words = "--audio", tmp_path / "a.flac", "--csv", tmp_path / f"{number}.csv"
        run_script("predict.py", "--ckpt_path", path, *words, *more, check=0)
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    result = run_script(
        *("scripts/compare_checkpoints.py", "--ckpt_path", bundle, "--other_ckpt_path", CKPT, "--lbl_map", LBL_MAP),
        *("--lmdb_path", CLIPS, "--num_workers", 0),
        check=0,
    )
    assert "| mAP |" in result.stdout and "| +0.0000 | +0.0000 … +0.0000 |" in result.stdout
    run_script("scripts/calibrate.py", *calibration(bundle), tmp_path / "b.safetensors", check=0)
    assert len(read_checkpoint(tmp_path / "b.safetensors").decisions.thresholds) == 18
    result = run_script(*train_command(corpus, tmp_path / "run", "--pretrained", bundle), check=0)
    assert "of another number of classes, so the last layer starts fresh" in result.stderr


def test_the_code_of_the_page_runs(exported, tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "recording.wav", clip(), SAMPLE_RATE)
    run_script("scripts/calibrate.py", *calibration(exported / "a.safetensors"), tmp_path / "a.ckpt", check=0)
    export("--onnx", tmp_path / "mine.onnx", checkpoint=tmp_path / "a.ckpt", check=0)
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/deploy.md").read_text(), re.MULTILINE | re.DOTALL):
        exec(block, space)
    assert np.abs(space["scores"][0] - FIRST_RECORD).max() < 1e-4 and "'Gong': " in capsys.readouterr().out
    decided = read_checkpoint(tmp_path / "a.ckpt").decisions.present(space["scores"][0])
    assert space["present"] == [name for name, there in zip(space["metadata"]["classes"], decided) if there]


def test_exporting_refuses(exported, tmp_path):
    assert "there is nothing to write. Give --onnx" in error_line(export())
    target, safe = tmp_path / "a.onnx", tmp_path / "a.safetensors"
    line = error_line(export("--onnx", safe))
    assert "--onnx" in line and "ends in .safetensors. Did you mean .onnx?" in line
    assert "Did you mean .safetensors?" in error_line(export("--safetensors", target))
    assert "--lbl_map" in error_line(export("--onnx", target))
    assert "no such file" in error_line(export("--onnx", target, checkpoint=tmp_path / "nowhere.ckpt"))
    assert "is a folder without checkpoints" in error_line(export("--onnx", target, checkpoint=tmp_path))
    assert "is a folder, and a file was expected" in error_line(export("--onnx", tmp_path, "--lbl_map", LBL_MAP))
    bundle = exported / "a.safetensors"
    assert "the same file" in error_line(export("--safetensors", bundle, checkpoint=bundle))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(bundle.read_bytes()[:-1])
    assert "is no file of safetensors, or is truncated" in error_line(export("--onnx", target, checkpoint=cut))
    result = export("--onnx", target, "--bits", 8)
    assert result.returncode == 2 and "--bits: invalid choice: 8" in result.stderr.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"cut.safetensors"}
