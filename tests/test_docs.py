"""README.md and docs/: commands that work, links that lead somewhere, and names that exist."""

import ast
import functools
import importlib.util
import json
import re
import shlex
import typing
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import ROOT

from src.config.loading import load_config
from src.config.sections import Config
from src.errors import UserError

README = ROOT / "README.md"
TABLES = {ROOT / "docs" / name for name in ("flags.md", "cfg_keys.md")}  # made by scripts/make_tables.py
PAGES = [README, *sorted(set((ROOT / "docs").glob("*.md")) - TABLES)]
OTHERS = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "tests" / "robustness" / "faults" / "README.md",
    *sorted((ROOT / "data").glob("*/README.md")),
]

FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"<<'(\w+)'\n.*?^\1$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"-c '[^']*'")
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
SCRIPT = re.compile(r"(?:\./)?[\w./-]+\.(?:py|sh)")
PATH = re.compile(r"(?:src|scripts|tests|docs|cfgs_v2|benchmarks)/[\w./-]*")
FOREIGN_FLAGS = {"--requeue", "--signal", "--no-deps", "--short"}  # SLURM's, pip's, a shell script's

every_page = pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
own_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose_of(page):
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands_of(page):
    """Commands in a page's fenced blocks that call a script, as lists of words."""
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = CODE.sub("-c CODE", HEREDOC.sub("", block)).replace("\\\n", " ").splitlines()
        for line in lines:
            line = re.sub(r"\$\(\[.*\)", "", line)  # flags that the shell adds
            line = line.replace(".venv/bin/python", "python")
            if re.match(r"\s*(?:python|torchrun|srun|make |\./)", line):
                yield shlex.split(line, comments=True)


def script_and_arguments(command):
    """The script of a command, and what it is given."""
    found = [number for number, word in enumerate(command) if SCRIPT.fullmatch(word)]
    if command[:3] == ["python", "-m", "pytest"]:
        return command[3], command[4:]
    return (command[found[0]], command[found[0] + 1 :]) if found else (None, [])


@functools.cache
def parser_of(script):
    """A script's parser, or None where it has no `build_parser`."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(script).stem}", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_parser() if hasattr(module, "build_parser") else None


@pytest.fixture(autouse=True)
def scripts_find_their_helpers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")


def all_flags():
    scripts = {*ROOT.glob("*.py"), *(ROOT / "scripts").glob("[a-z]*.py"), *(ROOT / "data").glob("*/*.py")}
    scripts.remove(ROOT / "hubconf.py")  # which torch.hub reads
    parsers = [parser_of(str(script.relative_to(ROOT))) for script in scripts]
    return {flag for parser in parsers if parser for flag in parser._option_string_actions}


@every_page
def test_every_command_calls_a_script_with_flags_that_it_takes(page, capsys):
    for command in commands_of(page):
        script, arguments = script_and_arguments(command)
        if script is None:
            if command[0] == "make":
                assert f"\n{command[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), command
            elif command[1] == "-m":
                assert importlib.util.find_spec(command[2]), command
            else:
                assert command[1] in ("-", "-c"), command  # code in the page itself
            continue
        assert (ROOT / script).exists(), f"{page.name}: {script} is not there"
        parser = (
            parser_of(script) if script.endswith(".py") and not script.startswith(("tests/", "benchmarks/")) else None
        )
        if parser is None:
            flags = [word for word in arguments if word.startswith("--")]
            assert [flag for flag in flags if flag not in (ROOT / script).read_text(encoding="utf-8")] == [], script
            continue
        try:
            parsed = parser.parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {shlex.join(command)}: {capsys.readouterr().err.splitlines()[-1]}")
        cfg = getattr(parsed, "cfg_file", None)
        if cfg == "my_data/mine.cfg":  # which prepare_own.py makes of it
            cfg = "cfgs_v2/own_data.cfg"
        if cfg and "$" not in cfg and cfg != "FILE.cfg":
            start = [f"model.pretrained={json.dumps(parsed.pretrained)}"] if parsed.pretrained else []
            load_config(ROOT / cfg, [*parsed.overrides, *start], data_root="")


@every_page
def test_every_link_leads_somewhere(page):
    broken = [
        target for target in LINK.findall(prose_of(page)) if not target.startswith("http") and not leads(page, target)
    ]
    assert not broken


def leads(page, target):
    """Whether a relative link's file is there, and a heading in it where the link names one."""
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    if not file.exists() or not anchor:
        return file.exists()
    headings = re.findall(r"^#+ (.*)$", prose_of(file), re.MULTILINE)
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_file_that_the_text_names_exists(page):
    known = {
        path.name for folder in ("", "scripts", "benchmarks", "data/audioset") for path in (ROOT / folder).iterdir()
    }
    for text in INLINE.findall(prose_of(page)):
        word = text.split()[0]
        if PATH.fullmatch(word):
            assert (ROOT / word).exists() or (page.parent / word).exists(), f"{page.name}: {word}"
        elif re.fullmatch(r"[a-z_0-9]+\.(?:py|sh)", word):
            assert word in known or any((ROOT / "src").rglob(word)), f"{page.name}: {word}"


@own_page
def test_every_flag_and_cfg_key_that_the_text_names_exists(page):
    flags = all_flags() | FOREIGN_FLAGS
    sections = typing.get_type_hints(Config)
    keys = {f"{name}.{key.name}" for name in ("model", "opt", "audio_config", "data") for key in fields(sections[name])}
    for text in INLINE.findall(prose_of(page)):
        for flag in re.findall(r"(?<![\w-])--[a-z0-9_-]+", text):
            assert flag in flags, f"{page.name}: {flag}"
        for key in re.findall(r"(?<![\w./-])(?:model|opt|audio_config|data)\.[a-z_]+(?![\w./])", text):
            assert key in keys, f"{page.name}: {key}"


def test_messages_in_the_pages_are_those_of_the_code():
    said = [path.read_text(encoding="utf-8") for path in (ROOT / "scripts").rglob("*.sh")]
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said += [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    said = "\n".join(said).lower()
    table = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [text for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for text in INLINE.findall(cell)]
    for page in PAGES:
        items = re.findall(r"^- \*([^*]+)\*:", prose_of(page), re.MULTILINE)
        quoted += [part.strip() for item in items for part in item.split("…")]
    assert len(quoted) > 50
    assert [text for text in quoted if text.lower() not in said] == []


def test_the_frames_in_the_training_page_are_the_parsers_defaults():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    several, one = parser_of("train_gise_mixtures.py"), parser_of("train_classifier.py")
    for flag in ("random_clip_size", "val_clip_size"):
        assert f"(`--{flag}`) | {several.get_default(flag)} | {one.get_default(flag)} |" in page
    assert vars(parser_of("train_esc50_classifier.py").parse_args(["--cfg_file", "c", "-e", "e"])).items() >= {
        ("random_clip_size", one.get_default("random_clip_size")),
        ("val_clip_size", one.get_default("val_clip_size")),
    }


def test_every_page_is_linked():
    linked = {
        (page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in LINK.findall(prose_of(page))
    }
    assert {page for page in (ROOT / "docs").iterdir() if page not in linked} == set()


def test_a_command_with_a_flag_that_is_none_is_seen(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("```\npython predict.py --ckpt_path A --audio B --speed 3\n```\n")
    with pytest.raises(pytest.fail.Exception, match="--speed"):
        test_every_command_calls_a_script_with_flags_that_it_takes(page, capsys)
    page.write_text(
        "```\npython train_gise_mixtures.py --cfg_file cfgs_v2/demo/resnet_18_lmdb.cfg -e A --set opt.speed=3\n```\n"
    )
    with pytest.raises(UserError, match="opt.speed"):
        test_every_command_calls_a_script_with_flags_that_it_takes(page, capsys)
