"""Malformed inputs, made from valid ones: case `number` of a seed is always the same."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import msgpack
import torch
import yaml
from conftest import cfg_tree, train_command

from faults import machines, mutations
from faults.commands import Maker, evaluation, in_turn, packing, spoil_file, training
from faults.corpus import checkpoint, reading, scoring_events
from faults.names import odd_name
from faults.outputs import odd_output, spoilt_rows, stale_row
from faults.processes import Place
from faults.sounds import spoilt_encoding, spoilt_samples
from faults.sources import odd_folder, odd_text
from src.data.lmdb.store import EVENTS, Record
from src.models.decisions import EVENT_DECISIONS

UMASKS = (0o022, 0o027, 0o077)


@dataclass(frozen=True)
class Case:
    """A command with something malformed in it."""

    number: int
    kind: str
    umask: int
    words: tuple[object, ...]
    faulty: re.Pattern[str]  # what a refusal must mention
    what: str  # was done to the valid input
    cwd_is_named: bool = False


def make_case(seed: int, number: int, corpus: Path, place: Place) -> Case:
    """Write a case's inputs into its place."""
    kinds = list(KINDS)
    kind = kinds[number % len(kinds)]
    rng = Random(f"{seed} malformed {number}")
    words, named, what = KINDS[kind](corpus, place, rng, number // len(kinds))
    return Case(
        number, kind, UMASKS[number // len(kinds) % len(UMASKS)], words, re.compile(named), what, kind == "command line"
    )


def spoilt_cfg(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    path, tree = place.inputs / "case.cfg", cfg_tree(corpus)
    how = in_turn(("tree", "text", "tree", "bytes"), turn)
    if how == "bytes":
        what = spoil_file(corpus / "tiny.cfg", path, rng, turn // 4)
    elif how == "text":
        path.write_bytes(mutations.odd_yaml(yaml.safe_dump(tree), rng).encode())
        what = "odd YAML"
    else:
        mutate = in_turn(mutations.TREES, turn // 2)
        path.write_bytes(yaml.safe_dump(mutate(tree, rng), allow_unicode=True).encode(errors="surrogatepass"))
        what = f"tree: {mutate.__name__}"
    # Of a path that is not there any more, its own name is what is at fault.
    return (
        training(corpus, place, cfg=path),
        r"case\.cfg|no such|--|(model|opt|audio_config|data)\.|epoch| Hz|label map",
        what,
    )


def spoilt_label_map(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    path, mapping = place.inputs / "case.json", {"Drum": 0, "Harp": 1, "Organ": 2}
    how = in_turn(("tree", "text", "indices", "bytes"), turn)
    if how == "bytes":
        what = spoil_file(corpus / "meta" / "lbl_map.json", path, rng, turn // 4)
    elif how == "indices":
        indices = rng.choice(
            [
                (0, 1, 3),
                (0, 0, 1),
                (-1, 0, 1),
                (0.0, 1.0, 2.0),
                ("0", "1", "2"),
                (True, False, 2),
                (1, 2, 3),
                (2, 0, 1),
                (0, 1, 10**30),
            ]
        )
        path.write_text(mutations.as_json(dict(zip(mapping, indices))))
        what = f"indices {indices}"
    elif how == "text":
        path.write_bytes(mutations.odd_json(mutations.as_json(mapping), rng).encode())
        what = "odd JSON"
    else:
        mutate = in_turn(mutations.TREES, turn // 2)
        path.write_text(mutations.as_json(mutate(mapping, rng)))
        what = f"tree: {mutate.__name__}"
    words = in_turn(
        (training(corpus, place, "--set", f"data.label_map={path}"), evaluation(corpus, place, "--lbl_map", path)), turn
    )
    return words, r"case\.json|label map", what


def spoilt_lmdb(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    path = place.inputs / "case.lmdb"
    how = in_turn(("records", "pages", "records", "bytes"), turn)
    if how == "bytes":
        what = spoil_file(corpus / "eval.lmdb", path, rng, turn // 4)
    else:
        shutil.copy(corpus / "eval.lmdb", path)
        what = spoil_pages(path, rng) if how == "pages" else spoil_records(path, rng, turn // 2)
    words = in_turn(
        (
            training(corpus, place, "--set", f"data.val_lmdb={path}"),
            evaluation(corpus, place, "--lmdb_path", path),
            (
                "scripts/check_lmdb.py",
                path,
                "--lbl_map",
                corpus / "meta" / "lbl_map.json",
                "--num_workers",
                1,
                "--json",
                place.named / "check.json",
            ),
            ("scripts/show_soundscape.py", f"{path}:3", "--out_png", place.named / "3.png"),
        ),
        turn + turn // 4,  # or each way of spoiling would meet one command alone
    )
    return words, r"case\.lmdb", what


def spoil_pages(path: Path, rng: Random) -> str:
    """Pages of an LMDB exchanged, zeroed, or with a wrong header."""
    size, data = 4096, bytearray(path.read_bytes())
    pages = len(data) // size
    one, two = rng.randrange(pages) * size, rng.randrange(pages) * size
    how = rng.choice(("exchanged", "zeroed", "header", "node"))
    if how == "exchanged":
        data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    elif how == "zeroed":
        data[one : one + size] = bytes(size)
    else:  # after the header of 16 bytes come tables of nodes
        place = one + rng.randrange(*((0, 16) if how == "header" else (16, 200)))
        data[place : place + 4] = rng.choice([b"\xff" * 4, bytes(4), rng.randbytes(4)])
    path.write_bytes(data)
    return f"page {one // size} {how}"


ODD_LABELS = (
    "",
    ",",
    ",,",
    "Drum,,Harp",
    "Bagpipe",
    "Drum;Harp",
    "x" * 10**5,
    "\0",
    3,
    -1,
    1.5,
    None,
    True,
    [],
    {},
    b"Drum",
    2**63,
)


def spoil_records(path: Path, rng: Random, turn: int) -> str:
    """Entries of an LMDB replaced."""
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 28) as env, env.begin(write=True) as transaction:
        key = str(rng.randrange(6)).encode()
        flac, label = msgpack.unpackb(transaction.get(key))
        mutate = rng.choice(mutations.BYTES)
        values = {
            "audio spoilt": Record(mutate(flac, rng), label).pack(),
            "length spoilt": None,
            "label odd": msgpack.packb((flac, rng.choice(ODD_LABELS))),
            "record spoilt": mutate(Record(flac, label).pack(), rng),
            "fold odd": msgpack.packb((flac, 1, rng.choice([0, 6, -1, "1", None, 2**63, 1.5, [1]]))),
            "record odd": rng.choice(
                [
                    b"",
                    b"\xc1",
                    msgpack.packb([]),
                    msgpack.packb([flac]),
                    msgpack.packb({1: 2}),
                    b"\x91" * 5000,
                    msgpack.packb((flac, label, 1, 2)),
                    msgpack.packb((label, flac)),
                    b"\x92\xc6\xff\xff\xff\xff",
                    b"\x92\xdd\xff\xff\xff\xff",
                    msgpack.packb(msgpack.Timestamp(1)),
                    msgpack.packb(msgpack.ExtType(3, b"x")),
                ]
            ),
            "record missing": b"gone",
            "keys spoilt": None,
            "events spoilt": None,
        }
        what = in_turn(list(values), turn)
        if what == "length spoilt":
            key, value = (
                b"__len__",
                rng.choice(
                    [msgpack.packb(odd) for odd in (0, 5, 7, -1, 2**40, 2**63, 1.5, "6", None, True, [6], b"6")]
                    + [b"", b"\xc1"]
                ),
            )
        elif what == "keys spoilt":
            key, value = b"__keys__", rng.choice([b"", b"\xc1", msgpack.packb(6), msgpack.packb([b"0"] * 6)])
        elif what == "events spoilt":
            key, value = EVENTS, spoilt_events(transaction.get(EVENTS), mutate, rng)
        else:
            value = values[what]
        if what == "record missing":
            transaction.delete(key)
        else:
            transaction.put(key, value)
    return f"{what}, under {key.decode()}"


ODD_EVENTS = (
    (0.1,),
    (0.1, 0.2),
    (0.1, 0.2, "Drum", 1.0),
    (0.2, 0.1, "Drum"),
    (-1.0, -0.5, "Drum"),
    (5.0, 9.0, "Drum"),
    (0.1, 1e300, "Drum"),
    (float("nan"), 0.2, "Drum"),
    (0.1, float("inf"), "Drum"),
    (0, 1, "Drum"),
    ("0.1", "0.2", "Drum"),
    (None, None, None),
    (0.1, 0.2, "Bagpipe"),
    (0.1, 0.2, ""),
    (0.1, 0.2, "\0"),
    (0.1, 0.2, "x" * 10**5),
    (0.1, 0.2, b"Drum"),
    (0.1, 0.2, ["Drum"]),
    {},
    "abc",
    7,
)


def spoilt_events(valid: bytes, mutate: Callable[[bytes, Random], bytes], rng: Random) -> bytes:
    """The events of an LMDB: bytes spoilt, records left out, or an odd event among them."""
    events = msgpack.unpackb(valid)
    rng.choice(events).append(rng.choice(ODD_EVENTS))
    return rng.choice(
        [
            mutate(valid, rng),
            msgpack.packb(msgpack.unpackb(valid)[1:]),
            msgpack.packb(rng.choice([None, 6, "events", {}, [[]] * 7, [None] * 6, [[]] * 6])),
            *[msgpack.packb(events)] * 5,
        ]
    )


def spoilt_flac(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    folder = place.inputs / "mix"
    shutil.copytree(corpus / "eval", folder)
    path = folder / "s003.flac"
    path.unlink()
    what = spoil_file(corpus / "eval" / "s003.flac", path, rng, turn)
    words = in_turn(
        (
            packing(corpus, place, folder),
            ("predict.py", "--ckpt_path", checkpoint(corpus), "--audio", folder, "--csv", place.named / "scores.csv"),
            packing(corpus, place, folder, "--num_workers", 2),
        ),
        turn,
    )
    return words, r"s003\.flac", what


ODD_LINES = (
    "nan\tnan\tDrum\n",
    "0.1\tDrum\n",
    "Drum\n",
    "0.1\t0.2\t\n",
    "\t\t\t\n",
    "0.1 0.2 Drum\n",
    "a\tb\tc\n",
    "0.2\t0.1\tDrum\n",
    "-1\t0\tDrum\n",
    "0\t1\tDrum\0\n",
    "0\t1\tDr,um\n",
    "0\t1e999\tDrum\n",
    "0\t1\t" + "x" * 10**6 + "\n",
    "0\t1\tDrum\r0\t1\tHarp\r",
    "0\t1\tDrum" * 1000,
    "\ufeff0\t1\tDrum",
    "0\t1\t \n",
    "0\t1\tDrum\u2028Harp\n",
)


def spoilt_txt(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    folder = place.inputs / "mix"
    shutil.copytree(corpus / "eval", folder)
    path = folder / "s003.txt"
    valid = path.read_bytes()
    path.unlink()
    if turn % 2:
        what = spoil_file(corpus / "eval" / "s003.txt", path, rng, turn // 2)
    else:
        lines = rng.choice(ODD_LINES)
        path.write_bytes((lines if rng.random() < 0.5 else valid.decode() + lines).encode())
        what = f"the line {lines[:40]!r}"
    words = in_turn(
        (
            packing(corpus, place, folder),
            (
                "scripts/show_soundscape.py",
                folder / "s003.flac",
                "--out_wav",
                place.named / "s.wav",
                "--out_png",
                place.named / "s.png",
            ),
        ),
        turn,
    )
    return words, r"s003\.txt", what


class Intruder:
    """Leaves a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch owned",)


def spoil_torch_file(valid: Path, target: Path, rng: Random, turn: int) -> str:
    """Bytes, zip entries, tensors or plain data of a file of torch.save spoilt."""
    how = in_turn(("content", "bytes", "content", "zip", "content", "pickle"), turn)
    if how == "bytes":
        return spoil_file(valid, target, rng, turn // 6)
    if how == "zip":
        return spoil_zip(valid, target, rng)
    if how == "pickle":
        content = rng.choice([Intruder(), {"state_dict": Intruder(), "hyper_parameters": {}}, Path("x"), 3, [], "text"])
        if rng.random() < 0.5:
            target.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, target)
        return f"a pickle of {type(content).__name__}"
    content = torch.load(valid, weights_only=True)
    spoil_tensors = turn // 2 % 2 or "state_dict" not in content
    content, what = spoil_state(content, rng) if spoil_tensors else spoil_hyper_parameters(content, rng, turn // 4)
    torch.save(content, target)
    return what


def spoil_zip(valid: Path, target: Path, rng: Random) -> str:
    """An entry of the zip left out or called otherwise, or its bytes changed where they are."""
    how = rng.choice(("left out", "renamed", "flipped", "zeroed"))
    with zipfile.ZipFile(valid) as source:
        chosen = rng.choice([entry for entry in source.infolist() if entry.file_size])
        if how in ("flipped", "zeroed"):
            data, mutate = bytearray(valid.read_bytes()), mutations.flip if how == "flipped" else mutations.zero
            lengths = struct.unpack_from("<HH", data, chosen.header_offset + 26)  # of name and of extra field
            start = chosen.header_offset + 30 + sum(lengths)
            end = start + chosen.file_size
            data[start:end] = mutate(bytes(data[start:end]), rng)
            target.write_bytes(data)
        else:
            with zipfile.ZipFile(target, "w") as out:
                for entry in source.infolist():
                    if entry is not chosen:
                        out.writestr(entry.filename, source.read(entry))
                    elif how == "renamed":
                        out.writestr("../../outside", source.read(entry))
    return f"{chosen.filename} {how}"


def spoil_state(content: dict[str, Any], rng: Random) -> tuple[dict[str, Any], str]:
    """A tensor of the state dict spoilt."""
    state = content.get("state_dict", content)
    name = rng.choice([name for name in state if state[name].ndim])
    value = state[name]
    odd = {
        "NaN": torch.full_like(value, float("nan")),
        "inf": torch.full_like(value, float("inf")),
        "huge": torch.full_like(value, 1e38),
        "another shape": value.flatten()[:-1],
        "one more axis": value[None],
        "complex": value.to(torch.complex64),
        "sparse": value.to_sparse(),
        "double": value.double(),
        "whole numbers": value.int(),
        "empty": value[:0],
        "no tensor": rng.choice([None, 3, "x", [1.0]]),
        "half": value.half(),
        "on no device": torch.empty_like(value, device="meta"),
    }
    what = rng.choice([*odd, "missing", "renamed", "a key that is no text"])
    if what in odd:
        state[name] = odd[what]
    else:
        del state[name]
        if what != "missing":
            state["net.other" if what == "renamed" else 7] = value
    return content, f"{name}: {what}"


def spoil_hyper_parameters(content: dict[str, Any], rng: Random, turn: int) -> tuple[dict[str, Any], str]:
    """What a checkpoint says of its run spoilt, or one of its parts."""
    if rng.random() < 0.3:
        part = rng.choice(list(content))
        odd = rng.choice(mutations.ODD_VALUES)
        return content | {part: odd}, f"{part} is {str(odd)[:40]!r}"
    mutate = in_turn(mutations.TREES, turn)
    record = content["hyper_parameters"]
    part = rng.choice(["cfg", "lbl_map", None])
    if part is None:
        return content | {"hyper_parameters": mutate(record, rng)}, f"hyper_parameters: {mutate.__name__}"
    return content | {"hyper_parameters": record | {part: mutate(record[part], rng)}}, f"{part}: {mutate.__name__}"


ODD_EVENT_DECISIONS: tuple[Any, ...] = (
    {"medians": [1, 3, 5]},
    {"medians": [1, 3], "thresholds": [0.3, 0.5, None]},
    {"medians": [1, 3, 5], "thresholds": [0.3, 0.5, None, 0.5]},
    {"medians": [1, 3, 4], "thresholds": [0.3, 0.5, None]},
    {"medians": [1, 3, -1], "thresholds": [0.3, 0.5, None]},
    {"medians": [1, 3, 10**400], "thresholds": [0.3, 0.5, None]},
    {"medians": [1, 3, 1.5], "thresholds": [0.3, 0.5, None]},
    {"medians": [1, 3, None], "thresholds": [0.3, 0.5, None]},
    {"medians": [1, 3, 5], "thresholds": [0.3, 0.5, float("nan")]},
    {"medians": [1, 3, 5], "thresholds": [0.3, 0.5, 1.5]},
    {"medians": [1, 3, 5], "thresholds": [0.3, 0.5, "a\nb"]},
    {"medians": 3, "thresholds": torch.ones(3)},
    {},
    [],
    "x" * 5000,
    7,
)


def reading_events(corpus: Path, network: Path, folder: Path) -> tuple[tuple, ...]:
    """The commands that read a checkpoint's decisions of events."""
    copy, table = folder / "copy.ckpt", folder / "e.tsv"
    return (
        scoring_events(corpus, folder / "results.csv", network),
        ("predict.py", "--ckpt_path", network, "--audio", corpus / "eval", "--window", 0.5, "--events", table),
        ("scripts/calibrate.py", "--ckpt_path", network, *reading(corpus), "--output", copy, "--num_workers", 0),
    )


def spoilt_event_decisions(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    path, content = place.inputs / "case.ckpt", torch.load(corpus / "events.ckpt", weights_only=True)
    mutate = rng.choice(mutations.TREES)
    odd = rng.choice([rng.choice(ODD_EVENT_DECISIONS), mutate(content[EVENT_DECISIONS], rng)])
    torch.save(content | {EVENT_DECISIONS: odd}, path)
    words = in_turn(reading_events(corpus, path, place.named), turn)
    return words, r"case\.ckpt", f"{EVENT_DECISIONS} are {str(odd)[:100]!r}"


def spoilt_checkpoint(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    if turn % 4 == 1:
        return spoilt_event_decisions(corpus, place, rng, turn // 4)
    path = place.inputs / "case.ckpt"
    what = spoil_torch_file(checkpoint(corpus), path, rng, turn)
    words = in_turn(
        (
            evaluation(corpus, place, "--ckpt_path", path, "--export_weights", "--export_dir", place.named),
            training(corpus, place, "--resume_from", path, "--epochs", 3),
            ("predict.py", "--ckpt_path", path, "--audio", corpus / "eval", "--csv", place.named / "s.csv"),
            (
                "scripts/compare_checkpoints.py",
                "--ckpt_path",
                path,
                "--other_ckpt_path",
                checkpoint(corpus),
                *reading(corpus),
                "--bootstrap",
                3,
                "--json",
                place.named / "c.json",
                "--num_workers",
                0,
            ),
        ),
        turn,
    )
    return words, r"case\.ckpt", what


def spoilt_weights(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    if turn % 4 == 3:
        path = place.inputs / "case.pt"
        three = torch.ones(3)
        content = rng.choice(
            [
                three[:2],
                three[None],
                float("nan") * three,
                three.tolist(),
                three[0],
                {"a": three},
                -three,
                0 * three,
                three.to(torch.complex64),
                three.to_sparse(),
                three.to("meta"),
                three / 0,
            ]
        )
        torch.save(content, path)
        return training(corpus, place, "--cw", path), r"case\.pt|--cw", f"class weights {str(content)[:40]!r}"
    path = place.inputs / "case.pth"
    what = spoil_torch_file(corpus / "weights.pth", path, rng, turn)
    return training(corpus, place, "--pretrained", path), r"case\.pth|has diverged", what


def spoilt_jams(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    path, valid = place.inputs / "case.jams", corpus / "soundscapes" / "soundscape_000000.jams"
    how = in_turn(("tree", "annotation", "event", "text", "bytes"), turn)
    tree = yaml.safe_load(valid.read_text())
    annotation = tree["annotations"][0]
    if how == "bytes":
        what = spoil_file(valid, path, rng, turn // 5)
    elif how == "text":
        path.write_bytes(mutations.odd_json(valid.read_text(), rng).encode())
        what = "odd JSON"
    else:
        mutate = in_turn(mutations.TREES, turn // 2)
        if how == "tree":
            tree = mutate(tree, rng)
        elif how == "annotation":
            annotation["sandbox"]["scaper"] = mutate(annotation["sandbox"]["scaper"], rng)
        else:
            number = rng.randrange(len(annotation["data"]))
            annotation["data"][number] = mutate(annotation["data"][number], rng)
        path.write_text(mutations.as_json(tree))
        what = f"{how}: {mutate.__name__}"
    sources = corpus / "sources"
    return (
        (
            "scripts/generate_from_jams.py",
            "--jams_dir",
            path,
            "--fg_path",
            sources / "events",
            "--bg_path",
            sources / "noises",
            "--out_folder",
            place.named / "made",
        ),
        r"case\.jams",
        what,
    )


def spoilt_table(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A results table, a manifest, a run's record or figures, or a table of events' scores."""
    tables = "results.csv", "manifest.csv", "run.json", "metrics.csv", "results_events.csv", "results_slices.csv"
    which = in_turn(tables, turn)
    run, scored = place.named / "run", place.named / "scored"
    shutil.copytree(corpus / "runs" / "one" / "tiny", run)
    shutil.copytree(corpus / "scored", scored)
    inside = {"run.json": run / which, "metrics.csv": run / "logs" / which}
    valid = (inside | dict.fromkeys(tables[4:], scored / which)).get(which, corpus / which)
    path = place.inputs / which if valid.parent == corpus else valid
    data = valid.read_bytes()
    path.unlink(missing_ok=True)
    if turn // len(tables) % 2:
        cell = rng.choice(["", "x", "nan", "-1", "1e999", '"', "9" * 5000, "a,b", "\0"])
        found = data.decode()
        values = re.findall(r"[^,\n]+", found)
        path.write_bytes(found.replace(rng.choice(values), cell, 1).encode())
        what = f"{cell[:20]!r} in a cell"
    else:
        mutate = in_turn(mutations.BYTES, turn // (2 * len(tables)))
        path.write_bytes(mutate(data, rng))
        what = f"bytes: {mutate.__name__}"
    words = {
        "results.csv": ("scripts/summarise_results.py", path, "--out_dir", place.named / "summary"),
        "manifest.csv": training(
            corpus,
            place,
            "-e",
            place.named / "new",
            "--set",
            "data.is_lmdb=False",
            "--set",
            f"data.train_manifest={path}",
            "--set",
            f"data.val_manifest={corpus}/manifest.csv",
        ),
        "run.json": training(corpus, place, "--epochs", 3),
        "metrics.csv": training(corpus, place, "--epochs", 3),
        "results_events.csv": scoring_events(corpus, scored / "results.csv"),
        "results_slices.csv": scoring_events(corpus, scored / "results.csv"),
    }[which]
    return words, rf"{re.escape(which)}|{re.escape(str(run))}|s00\d", f"{which}: {what}"


ODD_WORDS = (
    "",
    " ",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "1e999",
    "x",
    "x" * 5000,
    "..",
    "/dev/null/x",
    ".",
    "a~b",
    "None",
    "[]",
    "Łódź 音",
    "\u202e",
    "0x10",
    "1_0",
    "٣",
    "a;b",
    ";",
    "a\nb",
    "--",
    "-",
    "%s",
    "1e18",
    "\udcff",
    "=",
    "1,2",
)
ENDLESS = ("--epochs", "--num_soundscapes", "--max_events")  # with 1e18, what is asked for takes for ever


def spoilt_command_line(corpus: Path, place: Place, rng: Random, turn: int) -> tuple[tuple, str, str]:
    """A flag's value replaced, left out, given twice, unknown, or the flag left out."""
    words = [str(word) for word in in_turn(command_lines(corpus, place), turn)]
    flags = [index for index, word in enumerate(words) if word.startswith("-")]
    how = rng.choice(("value", "value", "value", "value", "no value", "left out", "unknown", "another flag"))
    index = rng.choice(flags)
    flag = words[index]
    if how == "value":
        words[index + 1] = rng.choice([word for word in ODD_WORDS if word != "1e18" or flag not in ENDLESS])
        how = f"value {words[index + 1][:30]!r}"
    elif how == "no value":
        del words[index + 1]
    elif how == "left out":
        del words[index : index + 2]
    elif how == "unknown":
        words[index] = flag = flag + "s"
    else:
        words += rng.choice(
            [
                ("--fold_index", "2"),
                ("--use_mixers",),
                ("--exp_dir", str(corpus / "runs")),
                ("--fp16",),
                ("--fold_index", "x"),
                ("--set", "model"),
                ("--set", "a.b.c=1"),
                ("--set", "opt.lr=["),
            ]
        )
    return tuple(words), r"--\w+|-e\b|\w", f"{Path(words[0]).name} {flag}: {how}"


def command_lines(corpus: Path, place: Place) -> list[tuple]:
    """A valid command of each script that the project's chain consists of."""
    out, sources, lbl_map = place.named, corpus / "sources", corpus / "meta" / "lbl_map.json"
    network = ("--ckpt_path", checkpoint(corpus))
    sounds = ("--fg_path", sources / "events", "--bg_path", sources / "noises", "--out_folder", out / "made")
    workers = ("--num_workers", 1)
    return [
        packing(
            corpus,
            place,
            corpus / "eval",
            "--map_size",
            "1e7",
            "--write_frequency",
            5,
            "--sample_rate",
            22050,
            "--delimiter",
            ",",
            *workers,
        ),
        training(
            corpus,
            place,
            "--gpus",
            "0",
            "--set",
            "opt.lr=0.01",
            "--accumulate_grad_batches",
            1,
            "--data_root",
            corpus,
            "--prefetch_factor",
            2,
        ),
        evaluation(
            corpus, place, "--batch_size", 4, "--gpus", "0", "--num_timesteps", 64, "--bootstrap", 3, "--seed", 1
        ),
        (
            "predict.py",
            *network,
            "--audio",
            corpus / "eval",
            "--csv",
            out / "s.csv",
            "--window",
            0.5,
            "--hop",
            0.3,
            "--top_k",
            2,
            "--threshold",
            0.1,
        ),
        train_command(corpus, out / "run", "--lmdbs_list", corpus / "train.lmdb", script="train_all_mixtures.py"),
        ("eval_all_mixtures.py", *reading(corpus), *network, "--results_csv", out / "r.csv", "--num_workers", 0),
        (
            "scripts/check_lmdb.py",
            corpus / "eval.lmdb",
            "--lbl_map",
            lbl_map,
            "--json",
            out / "c.json",
            "--min_duration",
            0.1,
            "--max_duration",
            9,
            "--silence",
            "-60",
            "--clipping",
            0.1,
            *workers,
        ),
        train_command(corpus, out / "run", "--set", "model.type=multiclass", script="train_classifier.py"),
        ("scripts/generate_from_jams.py", "--jams_dir", corpus / "soundscapes", *sounds, "--format", "flac", *workers),
        (
            "scripts/wav2flac.py",
            "--src_dir",
            corpus / "soundscapes",
            "--tgt_dir",
            out / "flac",
            "--tgt_sample_rate",
            22050,
            *workers,
        ),
        ("eval_vggsound.py", *reading(corpus), *network, "--results_csv", out / "r.csv", "--num_workers", 0),
        ("scripts/summarise_results.py", corpus / "results.csv", "--out_dir", out / "summary"),
        (
            "scripts/compare_checkpoints.py",
            *network,
            "--other_ckpt_path",
            checkpoint(corpus),
            *reading(corpus),
            "--bootstrap",
            3,
            "--num_timesteps",
            64,
            "--seed",
            1,
            "--num_workers",
            0,
            "--json",
            out / "c.json",
        ),
        (
            "scripts/generate_mixtures.py",
            *sounds,
            "--num_soundscapes",
            1,
            "--lbl_map",
            sources / "lbl_map.json",
            "--seed",
            1,
            "--max_events",
            2,
            "--duration",
            2,
            "--proc_idx",
            1,
            *workers,
        ),
        (
            "scripts/strip_silence_sox.py",
            "--src_dir",
            sources / "events",
            "--tgt_dir",
            out / "events",
            "--min_clip",
            1,
            *workers,
        ),
        train_command(corpus, out / "run", "--fold_index", 1, script="train_esc50_classifier.py"),
        (
            "scripts/show_soundscape.py",
            corpus / "eval" / "s003.flac",
            "--out_wav",
            out / "s.wav",
            "--out_png",
            out / "s.png",
        ),
    ]


KINDS: dict[str, Maker] = {
    "cfg": spoilt_cfg,
    "label map": spoilt_label_map,
    "LMDB": spoilt_lmdb,
    "FLAC": spoilt_flac,
    ".txt": spoilt_txt,
    "checkpoint": spoilt_checkpoint,
    ".pth": spoilt_weights,
    "JAMS": spoilt_jams,
    "table": spoilt_table,
    "command line": spoilt_command_line,
    "name": odd_name,
    "output": odd_output,
    "rows": spoilt_rows,
    "stale row": stale_row,
    "folder": odd_folder,
    "text": odd_text,
    "samples": spoilt_samples,
    "encoding": spoilt_encoding,
    "open files": machines.limited,
    "shared memory": machines.other_shared_memory,
    "sample cache": machines.spoilt_cache,
    "weights of others": machines.foreign_weights,
}
