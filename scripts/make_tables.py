"""Write the tables of all flags (docs/flags.md) and of all cfg keys (docs/cfg_keys.md)."""

import argparse
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _repository

from src import cli
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "scripts", "data/audioset")
HUB = "hubconf.py"  # which torch.hub reads, and is no script

MADE = "<!-- Made by scripts/make_tables.py: change the code and run it again. -->"
FLAG_COLUMNS = ("Flag", "Default", "Meaning", "Choices")
KEY_COLUMNS = ("Key", "Type", "Default", "Limits", "Meaning")
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "True or False"}
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} character",
}
BIG = {2**63: "2^63"}

Row = tuple[str, ...]


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a table is stale")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    pages = {"docs/flags.md": flags_page(), "docs/cfg_keys.md": cfg_keys_page()}
    paths = {name: ROOT / name for name in pages}
    stale = [name for name, path in paths.items() if not path.exists() or path.read_text("utf-8") != pages[name]]
    if arguments.check and stale:
        raise UserError(f"{', '.join(stale)}: stale. Run python scripts/make_tables.py")
    for name in stale:
        paths[name].write_text(pages[name], encoding="utf-8")
        print(name)


def flags_page() -> str:
    """A section a script. The flags that all training scripts share, or all that evaluate, have their own section."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("[!_]*.py")) if path.name != HUB]
    parsers = {path.relative_to(ROOT).as_posix(): runpy.run_path(str(path))["build_parser"]() for path in paths}
    rows = {name: flag_rows(parser) for name, parser in parsers.items()}
    parts = [MADE, "# Flags of all scripts", "Every script also has `--help`."]
    shared: dict[str, list[Row]] = {}
    for prefix, title in (("train_", "Flags of all training scripts"), ("eval_", "Flags of all evaluation scripts")):
        members = [name for name in rows if name.startswith(prefix)]
        common = [row for row in rows[members[0]] if all(row in rows[name] for name in members)]
        shared |= {name: common for name in members}
        parts += [f"## {title}", f"These are flags of {', '.join(map(code, members))}.", table(FLAG_COLUMNS, common)]
    for name, parser in parsers.items():
        own = [row for row in rows[name] if row not in shared.get(name, [])]
        parts += [f"## {escaped(name)}", escaped(parser.description or "")]
        if name in shared:
            kind = "training" if name.startswith("train_") else "evaluation"
            parts.append(
                f"It has the [flags of all {kind} scripts](#flags-of-all-{kind}-scripts){' and:' if own else '.'}"
            )
        parts += [table(FLAG_COLUMNS, own)] * bool(own)
    return "\n\n".join(parts) + "\n"


def flag_rows(parser: argparse.ArgumentParser) -> list[Row]:
    """Flag, default, meaning and choices of each flag except --help."""
    either = [
        action for group in parser._mutually_exclusive_groups if group.required for action in group._group_actions
    ]
    rows: list[Row] = []
    for action in parser._actions:
        if action.default == argparse.SUPPRESS:
            continue
        flag = ", ".join(action.option_strings)
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        default = "" if action.default in (None, []) else code(action.default)
        if action.nargs == 0:
            default = "off"
        elif action in either:
            default = "this or the other is required"
        elif action.required:
            default = "required"
        meaning = (action.help or "") % {**vars(action), "prog": parser.prog}
        choices = ", ".join(map(code, action.choices or ()))
        rows.append((code(f"{flag} {metavar}".strip()), default, escaped(meaning), choices))
    return rows


def cfg_keys_page() -> str:
    """A section for each section of a cfg, from the JSON schema of the configuration."""
    from pydantic import TypeAdapter

    from src.config.sections import Config

    schema = TypeAdapter(Config).json_schema()
    parts = [
        MADE,
        "# Keys of a cfg",
        "A cfg is a YAML file with the sections below. `None` stands for a key that is left out. "
        "Training scripts change a value with `--set SECTION.KEY=VALUE`, such as `--set opt.lr=0.01`.",
        "An unknown key and a key that is there twice are refused. `010` and `1:30` are text, not numbers.",
    ]
    sections = {
        name: schema["$defs"][key["$ref"].split("/")[-1]] for name, key in schema["properties"].items() if "$ref" in key
    }
    for name, section in sections.items():
        parts += [f"## {escaped(name)}", escaped(section["description"]), table(KEY_COLUMNS, key_rows(section))]
    return "\n\n".join([*parts, "## Outside of the sections", table(KEY_COLUMNS, key_rows(schema))]) + "\n"


def key_rows(schema: dict[str, Any]) -> list[Row]:
    """Key, type, default, limits and meaning of the keys that hold values."""
    rows: list[Row] = []
    for name, key in schema["properties"].items():
        if "description" not in key:
            continue  # a section, or the path of the cfg itself
        default = code(key["default"]) if "default" in key else "see meaning"
        if name in schema.get("required", ()):
            default = "required"
        kinds = [kind for kind in key.get("anyOf", [key]) if kind["type"] != "null"]
        limits = []
        for kind in kinds:
            limits += [
                words.format(BIG.get(kind[limit], kind[limit])) for limit, words in LIMITS.items() if limit in kind
            ]
            limits += map(code, kind.get("enum", [kind["const"]] if "const" in kind else []))
        words = " or ".join(TYPES[kind["type"]] for kind in kinds)
        rows.append((code(name), words, default, ", ".join(limits), escaped(key["description"])))
    return rows


def table(columns: Row, rows: Sequence[Row]) -> str:
    """A table of GitHub Markdown."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(value: object) -> str:
    """A value as code in a cell of a table."""
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{text}`".replace("|", "\\|")


def escaped(text: str) -> str:
    """A text in which nothing is Markdown. An underscore within a word is none."""
    return re.sub(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(text.split()))


if __name__ == "__main__":
    cli.run(main)
