"""The tables in docs/ are those of the code, and no script is missing from them."""

import runpy
import shutil

import pytest
from conftest import ROOT, error_line, run_script

from src.config.sections import AudioConfig, DataConfig, ModelConfig, OptConfig

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("[!_]*.py", "scripts/[!_]*.py", "data/*/[!_]*.py")
    for path in ROOT.glob(pattern)
    if path.name != "hubconf.py"  # which torch.hub reads
)


def test_no_table_is_stale():
    result = run_script("scripts/make_tables.py", "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_a_section(script):
    assert f"\n## {script}\n" in (ROOT / "docs" / "flags.md").read_text()


@pytest.mark.parametrize("section", [ModelConfig, OptConfig, AudioConfig, DataConfig])
def test_every_key_of_a_cfg_has_a_meaning(section):
    rows = [line.split(" | ") for line in (ROOT / "docs" / "cfg_keys.md").read_text().splitlines()]
    meanings = {row[0].strip("| `"): row[-1].strip("| ") for row in rows if len(row) == 5}
    assert all(meanings[key] for key in section.__dataclass_fields__)


def test_a_stale_table_is_named_and_made_again(tmp_path):
    (tmp_path / "src").symlink_to(ROOT / "src")
    for script in SCRIPTS:
        (tmp_path / script).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / script, tmp_path / script)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    page = tmp_path / "docs" / "flags.md"
    page.write_text(page.read_text().replace("train for so many epochs", "train for long"))
    line = error_line(run_script(tmp_path / "scripts/make_tables.py", "--check"))
    assert "docs/flags.md: stale" in line and "cfg_keys" not in line and "train for long" in page.read_text()
    (tmp_path / "docs" / "cfg_keys.md").unlink()
    run_script(tmp_path / "scripts/make_tables.py", check=0)
    for name in ("flags.md", "cfg_keys.md"):
        assert (tmp_path / "docs" / name).read_text() == (ROOT / "docs" / name).read_text()


def test_texts_are_not_markdown():
    escaped = runpy.run_path(str(ROOT / "scripts" / "make_tables.py"))["escaped"]
    assert escaped("a|b <c>/*.wav _d e_f `g`\n[h] C:\\") == r"a\|b \<c>/\*.wav \_d e_f \`g\` \[h\] C:\\"
