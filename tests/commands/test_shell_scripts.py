"""The shell scripts: lint, and what they say where packages are missing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.sh"), *ROOT.glob("scripts/**/*.sh"), *ROOT.glob("benchmarks/*.sh"), ROOT / ".ci/run")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_shellcheck_is_clean(script):
    shellcheck = Path(ROOT / ".venv" / "bin" / "shellcheck")
    found = str(shellcheck) if shellcheck.exists() else shutil.which("shellcheck")
    assert found, "shellcheck is in requirements-dev.txt"
    result = subprocess.run([found, "-x", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def in_shell(commands, path):
    return subprocess.run(
        ["/bin/bash", "-c", f"source scripts/lib/environment.sh; {commands}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": str(path)},
        stdin=subprocess.DEVNULL,
    )


def tools(folder, **scripts):
    """A PATH of just these commands. Values are their shell text, or None for the real one."""
    folder.mkdir()
    for name, text in scripts.items():
        name = name.replace("_", "-")
        if text is None:
            (folder / name).symlink_to(shutil.which(name))
        else:
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
    return folder


def test_without_root_and_sudo_the_one_command_is_printed(tmp_path):
    path = tools(tmp_path / "bin", id="echo 1000", apt_get="touch called")
    result = in_shell("install_packages sox libsox-dev", path)
    assert result.returncode == 1 and "apt-get update && apt-get install -y sox libsox-dev" in result.stderr
    assert not (ROOT / "called").exists()


def test_with_sudo_or_as_root_apt_is_called(tmp_path):
    log = tmp_path / "log"
    for name, user in (("root", 0), ("sudo", 1000)):
        apt = f'echo apt-get "$@" >> {log}'
        path = tools(tmp_path / name, id=f"echo {user}", sh=None, apt_get=apt, sudo=f'echo sudo >> {log}; "$@"')
        assert in_shell("install_packages sox", path).returncode == 0
    assert log.read_text().splitlines() == [
        "apt-get update -q",
        "apt-get install -y -q sox",
        "sudo",
        "apt-get update -q",
        "apt-get install -y -q sox",
    ]


def test_without_apt_the_packages_are_named(tmp_path):
    result = in_shell("install_packages sox", tools(tmp_path / "bin", id=None))
    assert result.returncode == 1 and "missing (by their Debian names): sox" in result.stderr


def test_a_browser_is_installed_once_where_that_can_be_done(tmp_path):
    """As root or with sudo that asks nothing. It is no error if it cannot be."""
    log = tmp_path / "log"
    skipped = "The tests of pages are skipped: they need chromium and chromium-driver, as Debian has them\n"
    log_apt = f'echo apt-get "$@" >> {log}'
    root = {"id": "echo 0", "sh": None}
    user = {"id": "echo 1000", "sh": None}
    for name, commands, said, calls in (
        ("there", {**root, "chromium": "", "chromedriver": "", "apt_get": log_apt}, "", 0),
        ("root", {**root, "apt_get": log_apt}, "Installing chromium chromium-driver\n", 2),
        ("ubuntu", {**root, "apt_get": f"{log_apt}; false"}, f"Installing chromium chromium-driver\n{skipped}", 1),
        ("user", {**user, "apt_get": log_apt}, skipped, 0),
        ("password", {**user, "apt_get": log_apt, "sudo": "exit 1"}, skipped, 0),
        ("sudo", {**user, "apt_get": log_apt, "sudo": '[ "$1" = -n ] || "$@"'}, "(with sudo)\n", 2),
        ("no_apt", root, skipped, 0),
    ):
        log.write_text("")
        result = in_shell("set -e; install_browser", tools(tmp_path / name, **commands))
        assert result.returncode == 0 and result.stdout.endswith(said), (name, result.stdout, result.stderr)
        assert bool(said) == bool(result.stdout) and len(log.read_text().splitlines()) == calls, name


def test_an_unfit_python_is_passed_over(tmp_path):
    path = tools(tmp_path / "bin", python3="exit 1", python3_12="exit 1")
    (path / "python3.12").write_text("#!/bin/sh\nexit 0\n")
    (path / "python3.12").chmod(0o755)
    assert in_shell("choose_python", path).stdout.strip() == str(path / "python3.12")
    result = in_shell("PYTHON=python3 choose_python", path)
    assert result.stdout == "" and "PYTHON=python3 does not run" in result.stderr and result.returncode == 1
    assert in_shell("PYTHON=python3 make_environment", path).returncode == 1


def fake_environment(folder, python):
    """A folder whose .venv's Python writes down how it was called, and then runs these words of shell."""
    venv = folder / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(f'#!/bin/sh\n[ "$1" = -V ] && exit 0\necho "$@" >> "$PWD/log"\n{python}\n')
    (venv / "python").chmod(0o755)
    return folder


def with_library(commands, cwd):
    command = ["bash", "-c", f"source '{ROOT}/scripts/lib/environment.sh'; {commands} || exit 1"]
    return subprocess.run(command, cwd=cwd, capture_output=True).returncode


def calls_of(folder):
    """How the folder's Python was called to install, since the last question."""
    lines = (folder / "log").read_text().splitlines()
    (folder / "log").unlink()
    return [line for line in lines if line.startswith("-m pip install")]


def test_a_failed_installation_is_tried_again(tmp_path):
    """pip fails, then succeeds, then is not asked again."""
    fake_environment(tmp_path, "test -e allowed")
    (tmp_path / "r.txt").write_text("torch\n")
    command = "pip_install_once .stamp r.txt -r r.txt"
    assert with_library(command, tmp_path) == 1
    (tmp_path / "allowed").touch()
    assert [with_library(command, tmp_path) for _ in range(2)] == [0, 0]
    assert calls_of(tmp_path) == ["-m pip install --disable-pip-version-check -r r.txt"] * 2
    (tmp_path / "r.txt").write_text("torch\nnumpy\n")
    assert with_library(command, tmp_path) == 0 and len(calls_of(tmp_path)) == 1


@pytest.mark.parametrize(
    "python, isolation", [("exit 0", " --no-build-isolation"), ('[ "$1" != -c ]', "")], ids=["setuptools", "none"]
)
def test_the_project_is_installed_once_and_again_where_it_was_moved(tmp_path, python, isolation):
    here, there = tmp_path / "here", tmp_path / "there"
    fake_environment(here, python)
    (here / "pyproject.toml").touch()
    assert [with_library("install_project", here) for _ in range(2)] == [0, 0]
    assert calls_of(here) == [f"-m pip install --disable-pip-version-check --editable . --no-deps{isolation}"]
    here.rename(there)
    assert with_library("install_project", there) == 0 and len(calls_of(there)) == 1


def test_the_same_pythons_fit_here_and_in_pyproject():
    (lowest, above) = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    ).groups()
    text = (ROOT / "scripts" / "lib" / "environment.sh").read_text()
    assert f"(3, {lowest}) <= sys.version_info[:2] <= (3, {int(above) - 1})" in text
    named = re.findall(r"3\.\d+", re.search("SUPPORTED=(.*)", text)[1])
    assert named == [f"3.{minor}" for minor in range(int(lowest), int(above))]


@pytest.mark.parametrize("words, folder", [("", "made"), ("--short", "made_short"), ("--short mine", "mine")])
def test_a_short_run_has_a_folder_of_its_own(words, folder):
    command = f"source '{ROOT}/scripts/lib/steps.sh'; begin_in made {words}; echo $short $top"
    result = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, env={"PATH": "/bin", "GISE_PYTHON": "none"}
    )
    assert result.stdout.split() == ["yes" if words else "no", folder], result.stderr
