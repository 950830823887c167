"""Mutations of bytes, of trees of plain data, and of words: from something valid to something that may not be.

Each takes a generator of its own, `random.Random`, and returns a new value. All draws come from it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

# What a value is replaced by. Whole numbers of thousands of digits and deep nesting have limits of their own in Python.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    7,
    2**31,
    2**63,
    10**400,
    -(10**400),
    0.5,
    -0.0,
    1e-300,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "None",
    "nan",
    "1e400",
    "x" * 5000,
    "a\0b",
    "\ud800",
    "../../..",
    "/",
    "~",
    "-",
    "--help",
    "%s%n",
    "Łódź 音",
    "\u202e",
    "a\nb",
    [],
    [1],
    [[]],
    ["x"],
    {},
    {"a": 1},
    {"": {}},
    b"\xff\x00",
)


def flip(data: bytes, rng: Random) -> bytes:
    """Up to eight bits turned over."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_near_the_start(data: bytes, rng: Random) -> bytes:
    """Up to four bytes of the first 64 changed: where headers are."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(min(64, len(out)))] = rng.randrange(256)
    return bytes(out)


def truncate(data: bytes, rng: Random) -> bytes:
    """The beginning alone."""
    return data[: rng.randrange(len(data))]


def cut_the_start(data: bytes, rng: Random) -> bytes:
    """The end alone."""
    return data[rng.randint(1, len(data)) :]


def insert(data: bytes, rng: Random) -> bytes:
    """Some bytes more."""
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.randint(1, 100)) + data[place:]


def append(data: bytes, rng: Random) -> bytes:
    """Something else behind the end."""
    return data + rng.randbytes(rng.randint(1, 5000))


def swap(data: bytes, rng: Random) -> bytes:
    """Two neighbouring sections in the other order."""
    one, two, three = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:one] + data[two:three] + data[one:two] + data[three:]


def repeat(data: bytes, rng: Random) -> bytes:
    """A section twice."""
    one, two = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:two] + data[one:]


def zero(data: bytes, rng: Random) -> bytes:
    """A section of zeros, as a crash of the machine leaves it."""
    one, two = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:one] + bytes(two - one) + data[two:]


def empty(data: bytes, rng: Random) -> bytes:
    """Nothing."""
    return b""


def noise(data: bytes, rng: Random) -> bytes:
    """Anything."""
    return rng.randbytes(min(len(data), 10_000))


def as_utf16(data: bytes, rng: Random) -> bytes:
    """Text in another encoding, and bytes that are no text as noise."""
    return data.decode("latin-1").encode("utf-16")


BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    flip,
    truncate,
    flip_near_the_start,
    insert,
    swap,
    zero,
    empty,
    repeat,
    noise,
    append,
    cut_the_start,
    as_utf16,
)


def paths_of(tree: Any, above: tuple = ()) -> list[tuple]:
    """The way to each value in nested dicts and lists, containers too, the root left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = []
    for key, value in items:
        found += [(*above, key), *paths_of(value, (*above, key))]
    return found


def replaced(tree: Any, path: tuple, change: Callable[[Any, Any], None]) -> Any:
    """A copy of a tree in which `change(container, key)` was done at a path."""
    tree = copy.deepcopy(tree)
    container = tree
    for key in path[:-1]:
        container = container[key]
    change(container, path[-1])
    return tree


def retype(tree: Any, rng: Random) -> Any:
    """One value replaced by an odd one."""
    return replaced(
        tree, rng.choice(paths_of(tree)), lambda container, key: container.__setitem__(key, rng.choice(ODD_VALUES))
    )


def drop(tree: Any, rng: Random) -> Any:
    """One value and its key left out."""
    return replaced(tree, rng.choice(paths_of(tree)), lambda container, key: container.pop(key))


def rename(tree: Any, rng: Random) -> Any:
    """One key called otherwise."""

    def change(container: Any, key: Any) -> None:
        value = container.pop(key)
        if isinstance(container, dict):
            container[rng.choice([f"{key}x", str(key).upper(), "", "ключ", "x" * 5000])] = value

    return replaced(tree, rng.choice(paths_of(tree)), change)


def exchange(tree: Any, rng: Random) -> Any:
    """One value replaced by another of the tree."""
    paths = paths_of(tree)
    other = rng.choice(paths)
    value = tree
    for key in other:
        value = value[key]
    return replaced(tree, rng.choice(paths), lambda container, key: container.__setitem__(key, copy.deepcopy(value)))


def another_root(tree: Any, rng: Random) -> Any:
    """Something else altogether."""
    return rng.choice([*ODD_VALUES, [tree], {"tree": tree}])


TREES: tuple[Callable[[Any, Random], Any], ...] = (retype, drop, retype, exchange, retype, rename, retype, another_root)


def as_json(tree: Any) -> str:
    """JSON, NaN and infinities as Python writes them, bytes as numbers."""
    return json.dumps(tree, default=list)


def odd_json(text: str, rng: Random) -> str:
    """JSON that parsers stumble over: nesting, numbers without end, keys twice, a byte order mark."""
    return rng.choice(
        [
            "[" * 100_000,
            '{"a":' * 50_000,
            '{"a": ' + "9" * 10_000 + "}",
            text[:-1] + "," + text[1:],
            "\ufeff" + text,
            text + text,
            text.replace('"', "'"),
            "NaN",
            '"\\ud800"',
            text.replace(":", ": -", 1),
            f"// a word\n{text}",
            '{"a": 1e999999}',
            "\0" * 100,
        ]
    )


def odd_yaml(text: str, rng: Random) -> str:
    """YAML that parsers stumble over: bombs, tags, loops, dates, nesting, keys twice, control characters."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    return rng.choice(
        [
            bomb + text,
            bomb + "opt: *a8\n" + text,
            text.replace("opt:", "opt: &o\n  again: *o", 1),
            f"{text}\n{text}",
            "x: !!python/object/apply:os.system ['touch owned']\n" + text,
            "model: &m\n  <<: *m\n" + text,
            text + "\ndata: 2001-99-99\n",
            "[" * 5000,
            "{" * 5000,
            "- " * 5000,
            text + "\n---\n" + text,
            "\t" + text,
            text.replace("opt:", "opt: !!binary |\n  ////\nx:", 1),
            text + "\nopt: !unknown 3\n",
            text + "\n\x07\n",
            "? [a]\n: b\n",
            text.replace("0.001", "9" * 10_000).replace("1e-3", "9" * 10_000),
            "=\n",
            "%YAML 9.9\n---\n" + text,
            "*nothing",
            text.replace("batch_size: 4", "batch_size: 0x" + "f" * 9000),
            "&a [*a]",
            "# nothing but a comment\n",
            text + "\n" + "y" * 200_000 + ": 1\n",
            text.replace("lr:", "lr: 1\n  lr:", 1),
        ]
    )
