"""The fault campaign in short, and that it sees what it looks for. Its README has the long form."""

import csv
import re
import shutil
import stat

import pytest
from faults.campaign import Campaign, run_kills, run_malformed
from faults.corpus import LMDB_FLAGS, make_corpus, reading
from faults.kills import WORKS
from faults.malformed import KINDS, make_case
from faults.processes import Place, run
from faults.verdicts import Before, broken, failures, rows_of, snapshot, stale_rows

SEED = 7


@pytest.fixture(scope="module")
def fault_corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("faults") / "corpus")


def failed(tallies):
    return {name: found for tally in tallies.values() for name, found in tally.failures.items()}


def test_kills_lose_nothing(fault_corpus, tmp_path):
    tallies = run_kills(Campaign(SEED, fault_corpus, tmp_path), 6)
    assert not failed(tallies)
    assert tallies.keys() == WORKS.keys() and sum(tally.counts["landed"] for tally in tallies.values()) >= 6


def test_malformed_inputs_are_refused_or_taken_cleanly(fault_corpus, tmp_path):
    tallies = run_malformed(Campaign(SEED, fault_corpus, tmp_path), list(range(2 * len(KINDS))), jobs=2)
    assert not failed(tallies)
    assert tallies.keys() == KINDS.keys() and all(tally.cases == 2 for tally in tallies.values())
    assert sum(tally.counts["refused"] for tally in tallies.values()) > 10


def test_a_case_is_the_same_again(fault_corpus, tmp_path):
    def made(seed, number, folder):
        place = Place(tmp_path / folder)
        case = make_case(seed, number, fault_corpus, place)
        return case.what, {str(path.relative_to(place.root)): found for path, found in snapshot(place.inputs).items()}

    for number in range(2 * len(KINDS)):
        if list(KINDS)[number % len(KINDS)] not in (
            "LMDB",
            "checkpoint",
            ".pth",
            "samples",
            "encoding",
            "weights of others",
        ):  # their files hold times and chance
            assert made(SEED, number, f"one{number}") == made(SEED, number, f"again{number}")
    assert made(SEED, 0, "first") != made(SEED + 1, 0, "second")


def test_the_chain_needs_no_network_and_keeps_to_its_folders(fault_corpus, tmp_path):
    place, umask = Place(tmp_path / "place"), 0o027
    before = Before.of(fault_corpus, place)
    lmdb, run_folder = place.named / "a.lmdb", place.named / "exp" / "one" / "run"
    chain = [
        ("pack_mixtures_into_lmdb.py", "--mixture_dir", fault_corpus / "train", "--lmdb_path", lmdb, *LMDB_FLAGS),
        (
            "train_gise_mixtures.py",
            "--cfg_file",
            fault_corpus / "tiny.cfg",
            "-e",
            run_folder,
            "--epochs",
            1,
            "--num_workers",
            2,
            "--random_clip_size",
            64,
            "--val_clip_size",
            64,
            "--set",
            f"data.train_lmdb={lmdb}",
        ),
        (
            "eval_gise_mixtures.py",
            "--exp_dir",
            place.named / "exp",
            *reading(fault_corpus),
            "--results_csv",
            place.named / "results.csv",
            "--export_weights",
            "--export_dir",
            place.named / "weights",
        ),
    ]
    for words in chain:
        result = run(place, *words, umask=umask)
        assert result.status == 0, result.err[-2000:]
        assert failures(result, fault_corpus, place, before, umask, re.compile("")) == []
    kinds = {path.suffix for path in place.named.rglob("*") if path.is_file()}
    assert {".lmdb", ".ckpt", ".csv", ".pth", ".json"} <= kinds
    assert stat.S_IMODE(lmdb.stat().st_mode) == 0o640 and stat.S_IMODE(run_folder.stat().st_mode) == 0o750


@pytest.mark.parametrize(
    "misdeed, message",
    [
        ("raise ValueError('x')", "a traceback: ValueError: x"),
        ("sys.exit(3)", "ended with status 3"),
        ("os.kill(os.getpid(), 11)", "ended with status -11"),
        ("time.sleep(100)", "did not end in time"),
        ("sys.exit(1)", "0 error lines"),
        ("sys.exit('naughty.py: error: something is wrong')", "does not name what is at fault"),
        ("sys.exit('naughty.py: error: case.cfg' + 'x' * 5000)", "an error line of 5027 characters"),
        ("open('left', 'w')", "left "),
        ("open(os.path.expanduser('~/left'), 'w')", "left "),
        ("tempfile.mkdtemp()", "left "),
        ("open(valid, 'w')", "tiny.cfg is changed"),
        ("open(given, 'w')", "case.cfg is changed"),
        ("os.remove(given)", "case.cfg is gone"),
        ("open(given + '.x', 'w')", "case.cfg.x among the inputs"),
        ("open(there, 'w'); sys.exit('naughty.py: error: case.cfg')", "there.csv is changed"),
        ("open(there + '.partial', 'w')", "there.csv.partial"),
        ("os.close(os.open(there + 'x', os.O_CREAT, 0o600))", "has mode 600, and 644"),
        ("open(there + '.csv', 'w').write('a,b\\n1')", "is broken: its last line has no end"),
        ("open(there + '.csv', 'w').write('mAP\\nnan\\n')", "is broken: mAP is nan"),
        ("os.remove(link); open(link, 'w')", "link is no link to there.csv any more"),
        ("open(elsewhere, 'w')", "wrote "),
        ("socket.create_connection(('192.0.2.1', 80), 1)", "socket."),
    ],
)
def test_the_campaign_sees_what_it_looks_for(tmp_path, misdeed, message):
    corpus, place = tmp_path / "corpus", Place(tmp_path / "place")
    given, there = place.inputs / "case.cfg", place.named / "there.csv"
    corpus.mkdir()
    for path in (corpus / "tiny.cfg", given, there):
        path.write_text("a\n")
    (place.named / "link").symlink_to("there.csv")
    before = Before.of(corpus, place)
    (tmp_path / "naughty.py").write_text(
        "import os, socket, sys, tempfile, time\n"
        f"valid, given, there, elsewhere = map(str, ({str(corpus / 'tiny.cfg')!r}, {str(given)!r}, {str(there)!r}, "
        f"{str(tmp_path / 'elsewhere')!r}))\nlink = {str(place.named / 'link')!r}\n{misdeed}\n"
    )
    result = run(place, tmp_path / "naughty.py", timeout=2 if "sleep" in misdeed else 60)
    found = failures(result, corpus, place, before, 0o022, re.compile(r"case\.cfg"))
    assert any(message in one for one in found), found


@pytest.mark.parametrize("name, message", [("case.ckpt", "scores"), ("case.lmdb", "is of other clips")])
def test_a_row_of_another_file_is_seen(fault_corpus, tmp_path, name, message):
    place, (row, *others) = Place(tmp_path / "place"), rows_of(fault_corpus / "results.csv")
    other = next(each for each in others if each["mAP"] != row["mAP"])
    shutil.copy(row["ckpt_path"], place.inputs / "case.ckpt")
    shutil.copy(fault_corpus / "eval.lmdb", place.inputs / "case.lmdb")
    row |= {"ckpt_path": place.inputs / "case.ckpt", "lmdb_path": place.inputs / "case.lmdb"}
    with open(place.named / "results.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerow(row)
    assert stale_rows(fault_corpus, place) == []
    shutil.copy(other["ckpt_path"] if name == "case.ckpt" else fault_corpus / "val.lmdb", place.inputs / name)
    assert message in stale_rows(fault_corpus, place)[0]


def test_files_that_are_not_whole_are_seen(fault_corpus, tmp_path):
    for valid in (
        fault_corpus / "eval.lmdb",
        fault_corpus / "weights.pth",
        fault_corpus / "results.csv",
        fault_corpus / "meta" / "lbl_map.json",
        fault_corpus / "eval" / "s000.flac",
        next((fault_corpus / "runs").rglob("*.ckpt")),
    ):
        assert broken(valid) == []
        data, cut = valid.read_bytes(), tmp_path / valid.name
        cut.write_bytes(data[: 2 * len(data) // 3])
        assert broken(cut), valid
