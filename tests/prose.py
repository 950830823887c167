"""Plain English, measured: the sentences of docstrings, comments and messages, and of pages for users.

Usage: python tests/prose.py PATH...  lists what is too long, or has a semicolon, in Python files, cfgs and pages.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

LONGEST = 25  # words of a sentence
SPOKEN = {
    "UserError",
    "ValueError",
    "RuntimeError",
    "log",
    "warning",
    "error",
    "info",
    "print",
    "Problem",
    "ArgumentTypeError",
    "add",
    "add_argument",
}
SENTENCE_END = re.compile(r"(?<=[.!?:])[\"'`)]*\s+|\n\s*\n|\n\s*(?:[-*]|\d+\.)\s+|\n\s{0,8}\w[\w, ]*: |  ->|…")
CODE = re.compile(r"```.*?```|``[^`]*``|`[^`]*`|\$\{?\w+\}?|https?://\S+|<[^>]+>", re.DOTALL)
METAPHORS = re.compile(
    r"let_go|LaidAside|\bAhead\b|\bLent\b|LAST_WORDS|FIRST_WORD|_see_out|\bCopied\b|where_it_stands|Unrepeatable|"
    r"\bgo(?:es|ne|ing)? on (?:with|from)\b|\bstands? on\b|\btak(?:es|en|e) away\b|\ban own\b|giving it back|\bdoctor\b"
)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, its code left out."""
    for part in SENTENCE_END.split(CODE.sub("X", text)):
        if part.strip():
            yield " ".join(part.split())


def complaints_of(text: str) -> Iterator[str]:
    """What is wrong with a text."""
    for sentence in sentences(text):
        words = re.findall(r"[^\W\d_][\w'’-]*", sentence)
        if len(words) > LONGEST:
            yield f"{len(words)} words: {sentence[:90]}"
        if re.search(r";(?:\s|$)", sentence):
            yield f"semicolon: {sentence[:90]}"
    for found in METAPHORS.finditer(text):
        yield f"metaphor: {found[0]!r}"


def texts_of_python(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of docstrings, comments in one piece, and strings that are said to the user."""
    tree = ast.parse(source)
    said = set()  # names of variables in what is said
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            yield node.body[0].lineno, ast.get_docstring(node) or ""
        if (
            isinstance(node, ast.Call)
            and (getattr(node.func, "id", None) or getattr(node.func, "attr", None)) in SPOKEN
        ):
            for argument in [*node.args, *(each.value for each in node.keywords if each.arg in (None, "help"))]:
                said.update(name.id for name in ast.walk(argument) if isinstance(name, ast.Name))
                yield argument.lineno, _text(argument)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and said & {getattr(name, "id", None) for name in node.targets}:
            yield node.lineno, _text(node.value)
    block, start, last = [], 0, -2
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(("# noqa", "# type:", "#!")):
            continue
        alone = token.line.strip().startswith("#")
        if not (alone and token.start[0] == last + 1):
            if block:
                yield start, " ".join(block)
            block, start = [], token.start[0]
        block.append(token.string.lstrip("# ").split("# noqa")[0])
        last = token.start[0] if alone else -2
    if block:
        yield start, " ".join(block)


def _text(node: ast.AST) -> str:
    """The strings of an expression, without a semicolon that stands between the items of a joined list."""
    joined = [call.value for call in ast.walk(node) if isinstance(call, ast.Attribute) and call.attr == "join"]
    strings = [each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return "".join(each.value for each in strings if each.value != ";" and not (each in joined and each.value == "; "))


def complaints(path: Path) -> list[str]:
    """Lines FILE:LINE: what is wrong, for a Python file, the comments of a cfg, or a Markdown page."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        names = [f"{path}: metaphor: {found[0]!r}" for found in METAPHORS.finditer(source)]
        return names + [
            f"{path}:{line}: {complaint}"
            for line, text in texts_of_python(source)
            for complaint in complaints_of(text)
            if "metaphor" not in complaint
        ]
    if path.suffix == ".cfg":
        source = "\n\n".join(re.findall(r"(?:^|\s)# ?(.*)", source))
    prose = "\n".join(line for line in CODE.sub("X", source).splitlines() if not line.lstrip().startswith(("|", "!")))
    return [f"{path}: {complaint}" for complaint in complaints_of(prose)]


if __name__ == "__main__":
    paths = [
        file for name in sys.argv[1:] for file in ([Path(name)] if Path(name).is_file() else Path(name).rglob("*"))
    ]
    found = [line for path in sorted(paths) if path.suffix in (".py", ".md", ".cfg") for line in complaints(path)]
    print("\n".join(found) or "plain")
    sys.exit(bool(found))
