"""Four machines that share the work make what one makes, byte for byte."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import lmdb
import msgpack
import pytest
from conftest import ROOT, error_line, raw, run_script, write_folder, write_soundscape
from small_sources import contents, generate, regenerate, write_sources

from src.errors import UserError
from src.preparation.joining import join_parts
from src.preparation.packing import pack_mixtures
from src.utils import files
from src.utils.processes import Part

COUNT = 10  # soundscapes
PARTS = [f"{number}/4" for number in (1, 2, 3, 4)]


def at_once(call, parts=PARTS):
    """What a call gives for each part, all of them made at the same time."""
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(call, parts))


def convert(folder, out, *more):
    annotations = ("--move_txt", "--move_jams")
    return run_script("scripts/wav2flac.py", "--src_dir", folder, "--tgt_dir", out, *annotations, *more, check=0)


def pack(folder, path, *more, check=None):
    words = ("--mixture_dir", folder, "--lmdb_path", path, "--audio_min_duration", 0.5)
    return run_script("pack_mixtures_into_lmdb.py", *words, *more, check=check)


def pack_parts(folder, out, *more, parts=PARTS):
    """The LMDBs of the parts, in their order."""
    paths = [out / f"{part.replace('/', '_of_')}.lmdb" for part in parts]
    for part, path in zip(parts, paths):
        pack(folder, path, "--part", part, *more, check=0)
    return paths


def join(parts, path, *more, check=None):
    return run_script("scripts/join_lmdbs.py", "--parts", *parts, "--lmdb_path", path, *more, check=check)


def last_line(result):
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def one(sources, tmp_path_factory):
    """wav/, flac/ and all.lmdb of one machine."""
    folder = tmp_path_factory.mktemp("one")
    generate(sources, folder / "wav", count=COUNT, check=0)
    convert(folder / "wav", folder / "flac")
    pack(folder / "flac", folder / "all.lmdb", check=0)
    return folder


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    """22 soundscapes, one of which is tiled, and one of a label that is not spelled as in label maps."""
    folder = write_folder(tmp_path_factory.mktemp("set") / "mix", 20, 0)
    write_soundscape(folder, "short", ["Harp"], 77, 3000)
    write_soundscape(folder, "z", ["Harp"], 78)
    (folder / "z.txt").write_text("0\t0.5\tHa\u0308rp\n")
    return folder


@pytest.fixture(scope="module")
def parts(mix):
    return pack_parts(mix, mix.parent)


# ---- the same bytes ----


def test_parts_at_once_in_one_folder_are_one_machines_files(sources, one, tmp_path):
    at_once(lambda part: generate(sources, tmp_path / "wav", "--part", part, count=COUNT, check=0))
    assert contents(tmp_path / "wav") == contents(one / "wav") and len(contents(one / "wav")) == 3 * COUNT + 1
    at_once(lambda part: regenerate(sources, one / "wav", tmp_path / "again", "--part", part, check=0))
    assert {**contents(tmp_path / "again"), "recipe.json": b""} == {**contents(one / "wav"), "recipe.json": b""}
    at_once(lambda part: convert(tmp_path / "wav", tmp_path / "flac", "--part", part))
    assert contents(tmp_path / "flac") == contents(one / "flac") and len(contents(one / "flac")) == 3 * COUNT
    paths = pack_parts(tmp_path / "flac", tmp_path)
    join(paths, tmp_path / "all.lmdb", check=0)
    assert (tmp_path / "all.lmdb").read_bytes() == (one / "all.lmdb").read_bytes()


def test_parts_in_folders_of_their_own_are_packed_as_one(sources, one, tmp_path):
    for number, part in enumerate(PARTS):
        generate(sources, tmp_path / str(number), "--part", part, "--format", "flac", count=COUNT, check=0)
        assert len(contents(tmp_path / str(number))) == 3 * (2, 3, 2, 3)[number] + 1
    together = ";".join(str(tmp_path / str(number)) for number in range(4))
    join(pack_parts(together, tmp_path, parts=["1/2", "2/2"]), tmp_path / "all.lmdb", check=0)
    pack(one / "flac", tmp_path / "one.lmdb", check=0)
    assert raw(tmp_path / "all.lmdb") == raw(one / "all.lmdb")


def test_a_part_makes_what_it_lacks_and_nothing_of_others(sources, one, tmp_path):
    folder = shutil.copytree(one / "wav", tmp_path / "wav")
    for name in ("soundscape_000002.wav", "soundscape_000003.jams", "soundscape_000007.wav"):
        (folder / name).unlink()
    generate(sources, folder, "--part", "2/4", "--num_workers", 2, count=COUNT, check=0)
    missing = contents(one / "wav").keys() - contents(folder).keys()
    assert missing == {"soundscape_000007.wav"}
    assert contents(folder).items() <= contents(one / "wav").items()


def test_proc_idx_comes_before_the_part(sources, one, tmp_path):
    generate(sources, tmp_path / "wav", "--proc_idx", 1, "--part", "1/2", count=COUNT // 2, check=0)
    assert sorted(path.stem for path in (tmp_path / "wav").glob("*.wav")) == ["soundscape_000005", "soundscape_000006"]
    made = contents(tmp_path / "wav")
    assert made.items() <= contents(one / "wav").items()


@pytest.mark.parametrize("settings", [(), ("--write_frequency", 3), ("--map_size", 2**20)], ids=str)
def test_joined_parts_are_the_lmdb_of_one_machine(mix, parts, tmp_path, settings):
    whole = pack(mix, tmp_path / "whole.lmdb", *settings, check=0)
    joined = join([parts[2], parts[0], parts[3], parts[1]], tmp_path / "joined.lmdb", *settings, check=0)
    assert (tmp_path / "joined.lmdb").read_bytes() == (tmp_path / "whole.lmdb").read_bytes()
    assert last_line(joined).partition(": ")[2] == last_line(whole).partition(": ")[2]
    assert last_line(joined).startswith(f"{tmp_path}/joined.lmdb: 22 records, fingerprint ")


def test_a_part_is_checked_like_any_lmdb(parts, tmp_path):
    moved = [shutil.copy(path, tmp_path) for path in parts]  # without the notes beside them
    result = run_script("scripts/check_lmdb.py", *moved, "--strict", "--num_workers", 1, check=0)
    assert result.stdout.endswith("0 errors, 0 warnings\n")
    join(moved, tmp_path / "all.lmdb", check=0)


@pytest.mark.parametrize("keep_events", [True, False])
@pytest.mark.parametrize("of", [1, 4])
def test_few_clips_with_folds_and_without_events(tmp_path, of, keep_events):
    folder = write_folder(tmp_path / "mix", 4, 0)
    options = {"min_duration": 0.5, "keep_events": keep_events, "folds": {f"s00{index}": index for index in range(4)}}
    paths = [tmp_path / f"{number}.lmdb" for number in range(1, of + 1)]
    for number, path in enumerate(paths, 1):
        pack_mixtures([str(folder)], path, part=Part(number, of), **options)
    assert join_parts(paths, tmp_path / "all.lmdb") == 4
    pack_mixtures([str(folder)], tmp_path / "whole.lmdb", **options)
    assert raw(tmp_path / "all.lmdb") == raw(tmp_path / "whole.lmdb")
    assert (b"__events__" in raw(tmp_path / "all.lmdb")) == keep_events


@pytest.mark.parametrize("count", [1, 4, 9, 100])
def test_parts_are_in_order_disjoint_and_of_almost_the_same_size(count):
    for of in range(1, count + 1):
        taken = [Part(number, of).take(range(count)) for number in range(1, of + 1)]
        assert [item for items in taken for item in items] == list(range(count))
        assert max(map(len, taken)) - min(map(len, taken)) <= 1


# ---- what is refused ----


@pytest.mark.parametrize("text", ["5/4", "0/4", "a/b", "4", "1/0", "-1/4", "1/2/3", "1 /4", "١/4", ""])
def test_what_is_no_part(text, tmp_path):
    result = pack(tmp_path, tmp_path / "a.lmdb", f"--part={text}")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"error: argument --part: {text!r} is no part such as 1/4" in last_line(result)


def array(task, first, last, count):
    names = ("TASK_ID", "TASK_MIN", "TASK_MAX", "TASK_COUNT")
    return {f"SLURM_ARRAY_{name}": str(value) for name, value in zip(names, (task, first, last, count))}


def test_the_part_that_a_task_of_slurm_is():
    assert [Part.of_slurm(array(task, 0, 3, 4)) for task in range(4)] == [Part.parse(part) for part in PARTS]
    assert [Part.of_slurm(array(task, 1, 4, 4)) for task in range(1, 5)] == [Part.parse(part) for part in PARTS]


@pytest.mark.parametrize(
    "variables, said",
    [
        ({}, "SLURM_ARRAY_TASK_ID is ''. Is this a task of a job array"),
        (array(1, 1, 4, "x"), "SLURM_ARRAY_TASK_COUNT is 'x'"),
        (array(3, 3, 3, 1), "task 3 of an array of 1, from 3 to 3, is no part of the whole"),
        (array(3, 1, 7, 3), "task 3 of an array of 3, from 1 to 7, is no part"),  # --array=1,3,7
        (array(5, 1, 4, 4), "task 5 of an array of 4, from 1 to 4, is no part"),
    ],
)
def test_what_is_no_part_of_a_slurm_array(variables, said, tmp_path, monkeypatch):
    for name in array(0, 0, 0, 0):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = convert_with("slurm", tmp_path)
    assert result.returncode == 2 and f"argument --part: {said}" in last_line(result)


def convert_with(part, folder):
    return run_script("scripts/wav2flac.py", "--src_dir", folder, "--tgt_dir", folder / "flac", "--part", part)


def test_more_parts_than_work(sources, one, mix, tmp_path):
    for result in (
        generate(sources, tmp_path / "wav", "--part", "1/11", count=COUNT),
        convert_with("1/11", one / "wav"),
        pack(one / "flac", tmp_path / "a.lmdb", "--part", "1/11"),
    ):
        assert "--part 1/11: there are 10 items for 11 parts. Choose fewer parts" in error_line(result)
    assert not list(tmp_path.iterdir())


def test_parts_that_are_not_the_whole_are_not_joined(mix, parts, tmp_path):
    target = tmp_path / "all.lmdb"
    target.write_bytes(b"as before")
    pack(mix, tmp_path / "whole.lmdb", check=0)
    others = pack_parts(mix, tmp_path, "--delimiter", ";", parts=["4/4"])
    (tmp_path / "thirds").mkdir()
    thirds = pack_parts(mix, tmp_path / "thirds", parts=["1/3"])
    fewer = shutil.copytree(mix, tmp_path / "fewer")
    (fewer / "z.flac").unlink()
    renamed = shutil.copytree(mix, tmp_path / "renamed")
    (renamed / "z.flac").rename(renamed / "y.flac"), (renamed / "z.txt").rename(renamed / "y.txt")
    incomplete, differently = (pack_parts(folder, folder, parts=["4/4"]) for folder in (fewer, renamed))
    for given, said in (
        (parts[:3], "part 4/4 is missing: 3 of 4 parts are given"),
        ([parts[1]], "part 1/4 is missing: 1 of 4 parts are given"),
        ([*parts, parts[1]], f"{parts[1]} and {parts[1]} are both part 2/4"),
        ([*parts, tmp_path / "whole.lmdb"], "whole.lmdb: is no part of a set"),
        ([*parts[:3], *others], "is a part of a set with delimiter ';', and"),
        ([*parts[1:], *thirds], "is a part of a set with parts "),
        ([*parts[:3], *incomplete], "is a part of a set with clips 21, and"),
        ([*parts[:3], *differently], "is a part of a set with names_sha256 "),
        ([*parts[:3], tmp_path / "none.lmdb"], "none.lmdb: no such LMDB"),
    ):
        assert said in error_line(join(given, target)), said
    assert target.read_bytes() == b"as before"
    copy = shutil.copy(parts[0], tmp_path / "first.lmdb")
    before = copy.read_bytes()
    assert "is to be written, and the same file" in error_line(join([copy, *parts[1:]], copy))
    assert copy.read_bytes() == before


def with_entry(source, target, key, value):
    """A copy of an LMDB with another entry."""
    shutil.copy(source, target)
    with lmdb.open(str(target), subdir=False, lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, value)
    return target


def test_a_damaged_part_is_not_joined(parts, tmp_path):
    record = raw(parts[1])[b"3"]
    other = with_entry(parts[1], tmp_path / "other.lmdb", b"0", record)
    said = "other.lmdb: its records are not those that were packed. Pack this part again"
    assert said in error_line(join([parts[0], other, *parts[2:]], tmp_path / "all.lmdb"))
    entries = (7, [1], {}, {"part": 1}, {"part": "1", "parts": 4}, {"part": 5, "parts": 4})
    for value in (b"\xc1", *map(msgpack.packb, entries)):
        wrong = with_entry(parts[1], tmp_path / "wrong.lmdb", b"__part__", value)
        line = error_line(join([parts[0], wrong, *parts[2:]], tmp_path / "all.lmdb"))
        assert "wrong.lmdb: its __part__ entry " in line and "The file is damaged" in line
    assert not (tmp_path / "all.lmdb").exists()


def test_a_folder_that_another_part_claims_at_the_same_moment(tmp_path, monkeypatch):
    """Between one look and the next, the other part writes the recipe and its first soundscape."""
    look = files.files_in

    def meanwhile(*arguments, **options):
        files.write_json(tmp_path / "recipe.json", {"seed": recipe})
        (tmp_path / "soundscape_000000.wav").touch()
        return look(*arguments, **options)

    monkeypatch.setattr(files, "files_in", meanwhile)
    recipe = 7
    files.claim_folder(tmp_path, {"seed": 7}, "soundscapes")
    (tmp_path / "recipe.json").unlink()
    recipe = 8
    with pytest.raises(UserError, match="with seed 8 instead of 7"):
        files.claim_folder(tmp_path, {"seed": 7}, "soundscapes")


# ---- on a cluster ----

SBATCH = """\
#!/bin/bash
# Runs a copy of the script, an array's tasks side by side, and says the number of the job.
echo "$@" >> {log}
job=$(wc -l < {log}) tasks=
while [[ $1 == --* ]]; do
    case $1 in --array=1-*) tasks=${{1#*-*-*-}} ;; esac
    shift
done
cp "$1" {log}.copy && shift
export SLURM_JOB_ID=$job SLURM_CPUS_PER_TASK=2 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=$tasks
export SLURM_ARRAY_TASK_COUNT=$tasks
for task in $(seq ${{tasks:-1}}); do
    SLURM_ARRAY_TASK_ID=$task bash {log}.copy "$@" >&2 &
    running+=($!)
done
for process in ${{running[@]}}; do wait $process || exit 1; done
echo "$job;cluster"
"""


@pytest.fixture
def submit(sources, tmp_path, warm_python):
    """Calls the example with a SLURM that does everything at once."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH.format(log=tmp_path / "log"))
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "GISE_PYTHON": warm_python}

    def call(*words):
        return subprocess.run(
            ["scripts/slurm_mixtures.sh", *map(str, words)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    return call


def test_the_example_for_slurm_makes_one_machines_lmdb(sources, one, submit, tmp_path):
    recipe = ("--fg_path", sources / "events", "--bg_path", sources / "noises", "--lbl_map", sources / "lbl_map.json")
    words = ("mix ü", "a b.lmdb", *recipe, "--seed", 7, "--num_soundscapes", COUNT)
    result = submit(4, *(tmp_path / word if word in words[:2] else word for word in words))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == "jobs: mix 1, pack 2, join 3\n"
    assert raw(tmp_path / "a b.lmdb") == raw(one / "all.lmdb")
    assert {path.name for path in (tmp_path / "a b.lmdb.parts").glob("[!.]*")} == {f"{n}.lmdb" for n in (1, 2, 3, 4)}
    flags = [line.partition(" scripts/")[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert flags == [
        "--parsable --job-name=mix --array=1-4",
        "--parsable --job-name=pack --array=1-4 --dependency=afterok:1 --kill-on-invalid-dep=yes",
        "--parsable --job-name=join --dependency=afterok:2 --kill-on-invalid-dep=yes",
    ]


def test_the_example_for_slurm_says_how_it_is_called(submit):
    for words, said in (((), "usage: "), ((4, "mix"), "usage: "), (("x", "mix", "a.lmdb"), "PARTS is 'x'")):
        result = submit(*words)
        assert result.returncode == 2 and said in result.stderr
