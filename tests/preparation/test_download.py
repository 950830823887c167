"""The downloader against a server on loopback that misbehaves in every way."""

import hashlib
import io
import json
import random
import re
import runpy
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, error_line, run_script

from src.errors import UserError
from src.preparation import download
from src.preparation.download import Archive, choose, fetch, list_archives, unpack

CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download, "FIRST_WAIT", 0)
    monkeypatch.setattr(download, "LONGEST_WAIT", 0)


class Server(ThreadingHTTPServer):
    """Serves `files` by path. Each request takes one of the `faults`, until there are none."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests, self.retry_after = {}, [], [], "0"
        self.redirect = ""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def archive(self, name="train_5k.tar.gz", content=CONTENT, md5=None, size=None):
        self.files[f"/{name}"] = content
        return Archive(
            name, len(content) if size is None else size, md5 or hashlib.md5(content).hexdigest(), f"{self.url}/{name}"
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        fault = self.server.faults.pop(0) if self.server.faults else None
        self.server.requests.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if isinstance(fault, int) or content is None:
            self.send_response(fault if isinstance(fault, int) else 404)
            self.send_header("Content-Length", "0")
            self.send_header("Retry-After", self.server.retry_after)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            return
        first = 0
        if self.headers.get("Range") and fault != "ignores ranges":
            first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[first:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "breaks off":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


def test_an_archive_arrives_whole_under_its_name(server, tmp_path):
    archive = server.archive()
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["train_5k.tar.gz"]
    fetch(archive, tmp_path)
    assert len(server.requests) == 1  # what is there is not fetched again


def test_a_broken_download_resumes_where_it_broke(server, tmp_path):
    server.faults = ["breaks off", "breaks off", 503, 429]
    assert fetch(server.archive(), tmp_path).read_bytes() == CONTENT
    ranges = [wanted for _, wanted in server.requests]
    assert ranges == [None, "bytes=150000-", "bytes=225000-", "bytes=225000-", "bytes=225000-"]


def test_a_partial_file_of_an_earlier_call_is_resumed(server, tmp_path):
    archive = server.archive()
    (tmp_path / "train_5k.tar.gz.partial").write_bytes(CONTENT[:1000])
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/train_5k.tar.gz", "bytes=1000-")]


@pytest.mark.parametrize("have", [0, 1000])
def test_a_partial_file_that_is_a_link_is_not_written_through(server, tmp_path, have):
    (tmp_path / "precious").write_bytes(b"x" * have)
    (tmp_path / "train_5k.tar.gz.partial").symlink_to("precious")
    with pytest.raises(UserError, match="train_5k.tar.gz.partial: is a link or no plain file"):
        fetch(server.archive(), tmp_path)
    assert (tmp_path / "precious").read_bytes() == b"x" * have


def test_an_archive_goes_behind_a_link_under_its_name(server, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "train_5k.tar.gz").symlink_to("far/train_5k.tar.gz")
    fetch(server.archive(), tmp_path)
    assert (tmp_path / "far" / "train_5k.tar.gz").read_bytes() == CONTENT and len(list(tmp_path.iterdir())) == 2


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, tmp_path):
    server.faults = ["breaks off", "ignores ranges"]
    assert fetch(server.archive(), tmp_path).read_bytes() == CONTENT


def test_a_server_that_breaks_off_for_ever_is_given_up(server, tmp_path):
    archive = server.archive()
    server.faults = [503] * 100
    with pytest.raises(UserError, match=r"busy .503.\. Given up after 6 attempts"):
        fetch(archive, tmp_path)
    assert not (tmp_path / "train_5k.tar.gz").exists()


@pytest.mark.parametrize("content, size", [(CONTENT[::-1], None), (CONTENT[:-1] + b"x", None), (CONTENT, 299_999)])
def test_wrong_bytes_never_get_the_name(server, tmp_path, content, size):
    archive = server.archive(content=content, md5=hashlib.md5(CONTENT).hexdigest(), size=size)
    with pytest.raises(UserError, match="record promises"):
        fetch(archive, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_page_does_not_touch_what_has_come(server, tmp_path):
    archive = server.archive()
    (tmp_path / "train_5k.tar.gz.partial").write_bytes(CONTENT[:1000])
    server.files["/train_5k.tar.gz"] = b"<html>busy</html>"
    server.faults = ["ignores ranges"] * 6
    with pytest.raises(UserError, match="Given up"):
        fetch(archive, tmp_path)
    assert (tmp_path / "train_5k.tar.gz.partial").read_bytes() == CONTENT[:1000]


def test_the_server_says_how_long_to_wait(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    monkeypatch.setattr(download, "FIRST_WAIT", 1)
    monkeypatch.setattr(download, "LONGEST_WAIT", 60)
    server.retry_after = "7"
    server.faults = [429, 429]
    fetch(server.archive(), tmp_path)
    server.retry_after = "soon"
    server.faults = [503, 503, 503]
    fetch(server.archive("b.tar.gz"), tmp_path)
    assert waits == [7, 7, 2, 4, 8]


def test_a_file_of_that_name_with_other_bytes_is_left_alone(server, tmp_path):
    (tmp_path / "train_5k.tar.gz").write_text("mine")
    with pytest.raises(UserError, match="It is another file"):
        fetch(server.archive(), tmp_path)
    assert (tmp_path / "train_5k.tar.gz").read_text() == "mine"


def test_a_missing_file_is_an_error_at_once(server, tmp_path):
    archive = Archive("nowhere.tar.gz", 10, "0" * 32, f"{server.url}/nowhere.tar.gz")
    with pytest.raises(UserError, match="answers 404"):
        fetch(archive, tmp_path)
    assert len(server.requests) == 1


def test_a_full_disk_is_seen_before_the_download(server, tmp_path):
    with pytest.raises(UserError, match="GB more, and"):
        fetch(server.archive(size=10**18), tmp_path)
    assert server.requests == []


def tar_of(members):
    """Bytes of a .tar.gz. Members are (name, bytes), (name, "->", target) or (name, "=>", target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, *rest in members:
            info = tarfile.TarInfo(name)
            if rest[0] in ("->", "=>"):
                info.type, info.linkname = (tarfile.SYMTYPE if rest[0] == "->" else tarfile.LNKTYPE), rest[1]
                tar.addfile(info)
            else:
                info.size = len(rest[0])
                tar.addfile(info, io.BytesIO(rest[0]))
    return buffer.getvalue()


def test_unpacking(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tar_of([("val/1.flac", b"1"), ("val/sub/2.flac", b"2")]))
    (tmp_path / "out" / "val").mkdir(parents=True)
    (tmp_path / "out" / "val" / "1.flac").write_bytes(b"mine")
    assert unpack(tmp_path / "a.tar.gz", tmp_path / "out") == [tmp_path / "out" / "val"]
    assert (tmp_path / "out/val/1.flac").read_bytes() == b"mine" and (tmp_path / "out/val/sub/2.flac").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["val"]


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"x"),
        ("ok/../../evil", b"x"),
        ("link", "->", "../.."),
        ("link", "->", "/etc/passwd"),
        ("link", "=>", "../evil"),
    ],
)
def test_archives_that_reach_out_of_the_folder_are_refused(tmp_path, member):
    (tmp_path / "a.tar.gz").write_bytes(tar_of([("ok/1.flac", b"1"), member]))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is not safe to unpack"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [] and not (tmp_path / "evil").exists()


def test_an_absolute_path_stays_inside(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tar_of([(f"{tmp_path}/evil", b"x")]))
    unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def with_a_flipped_byte(data):
    return data[:-12] + bytes([data[-12] ^ 1]) + data[-11:]


WHOLE = tar_of([("a", CONTENT[:5000])])


@pytest.mark.parametrize(
    "content", [b"", b"no archive", WHOLE[:2000], WHOLE[:-4] + b"xxxx", with_a_flipped_byte(WHOLE)]
)
def test_damaged_archives(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def publish(server, **contents):
    """A record as Zenodo's API lists it."""
    files = []
    for name, content in contents.items():
        archive = server.archive(f"{name}.tar.gz", content)
        files.append(
            {
                "key": archive.name,
                "size": archive.size,
                "checksum": f"md5:{archive.md5}",
                "links": {"self": archive.url},
            }
        )
    server.files["/records/4593514"] = json.dumps({"files": files}).encode()


def test_the_script_lists_fetches_and_unpacks(server, tmp_path):
    publish(server, meta=tar_of([("meta/lbl_map.json", b"{}")]), val=tar_of([("val/1.flac", b"1")]))
    command = ("scripts/download_release.py", "--api", f"{server.url}/records", "--out_folder", tmp_path / "data")
    assert "meta.tar.gz" in run_script(*command, check=0).stdout
    server.faults = [None, "breaks off"]
    run_script(*command, "--archives", "meta", "val.tar.gz", check=0)
    assert sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*")) == [
        "meta",
        "meta.tar.gz",
        "meta/lbl_map.json",
        "val",
        "val.tar.gz",
        "val/1.flac",
    ]
    line = error_line(run_script(*command, "--archives", "train_7k"))
    assert "no archive is called 'train_7k'. There are meta, val" in line


def test_the_script_goes_on_with_the_other_archives(server, tmp_path):
    publish(server, meta=tar_of([("../evil", b"x")]), val=tar_of([("val/1.flac", b"1")]))
    result = run_script(
        "scripts/download_release.py",
        "--api",
        f"{server.url}/records",
        "--out_folder",
        tmp_path / "d",
        "--archives",
        "meta",
        "val",
    )
    assert "1 of 2 archives" in error_line(result) and "meta.tar.gz: is not safe to unpack" in result.stderr
    assert (tmp_path / "d" / "val" / "1.flac").exists() and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"files": [{"key": "../a"}]}', b'{"files": 3}'])
def test_an_answer_that_is_no_record(server, body):
    server.files["/records/4593514"] = body
    with pytest.raises(UserError, match="not a record's list"):
        list_archives(f"{server.url}/records")


def test_a_record_cannot_name_files_outside_the_folder(server):
    publish(server, meta=b"x")
    listed = json.loads(server.files["/records/4593514"])
    listed["files"][0]["key"] = "../meta.tar.gz"
    server.files["/records/4593514"] = json.dumps(listed).encode()
    with pytest.raises(UserError, match="no plain file name"):
        list_archives(f"{server.url}/records")


def test_a_record_that_is_not_there(server):
    with pytest.raises(UserError, match="answers 404"):
        list_archives(f"{server.url}/records")


def test_names_with_and_without_the_suffix():
    archives = [Archive("val.tar.gz", 1, "", ""), Archive("notes.txt", 1, "", "")]
    assert choose(archives, ["val", "notes.txt", "val.tar.gz"]) == [archives[0], archives[1], archives[0]]


# ---- what a hostile record or archive may say ----


ODD_LINKS = [
    "file:///etc/hostname",
    "FILE:/etc/hostname",
    "data:text/plain,abc",
    "ftp://127.0.0.1/a",
    "/etc/hostname",
    "",
]


@pytest.mark.parametrize("link", ODD_LINKS)
def test_only_http_addresses_are_fetched(server, tmp_path, link):
    with pytest.raises(UserError, match="is no https:// or http:// address"):
        fetch(Archive("a.tar.gz", 3, hashlib.md5(b"abc").hexdigest(), link), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="is no https:// or http:// address"):
        list_archives(link)


@pytest.mark.parametrize("link", ODD_LINKS[:4])
def test_an_address_cannot_lead_elsewhere(server, tmp_path, link):
    server.redirect = link
    server.faults = [302] * 10
    with pytest.raises(UserError, match="is no https:// or http:// address|the server answers 302"):
        fetch(server.archive(), tmp_path)
    assert list(tmp_path.iterdir()) == [] and len(server.requests) == 1


def test_an_answer_of_any_size_is_not_read_to_its_end(server):
    server.files["/records/4593514"] = b"[" * (download.LONGEST_LIST + 2)
    with pytest.raises(UserError, match="longer than a record's list"):
        list_archives(f"{server.url}/records")


@pytest.mark.parametrize("name", ["\x1b[2Ja.tar.gz", "a\nb", "a\rb", "../a", "a/b", ".a", "", "a\u202eb", "\ud800"])
def test_names_that_are_no_plain_ones_are_quoted_and_refused(server, name):
    listed = {"files": [{"key": name, "size": 1, "checksum": "md5:0", "links": {"self": server.url}}]}
    server.files["/records/4593514"] = json.dumps(listed).encode()
    with pytest.raises(UserError, match="no plain file name") as refused:
        list_archives(f"{server.url}/records")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"files": [{"key": "a", "size": 1e999, "checksum": "md5:0", "links": {"self": "x"}}]}',
        b'{"files": [{"key": "a", "size": -1, "checksum": "md5:0", "links": {"self": "x"}}]}',
        b'{"files": [{"key": "a", "size": 1, "checksum": 5, "links": {"self": "x"}}]}',
    ],
)
def test_lists_with_mad_numbers(server, body):
    server.files["/records/4593514"] = body
    with pytest.raises(UserError, match="is not a record's list|lists a with -1 bytes"):
        list_archives(f"{server.url}/records")


def tar_with_sparse_file(size):
    """Bytes of a .tar.gz whose one file says that it has so many bytes, and holds one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("sparse")
        info.size = 1
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "1", "GNU.sparse.size": str(size)}
        tar.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, message",
    [
        (tar_with_sparse_file(2**50), "does not fit into"),
        (tar_with_sparse_file(2**63), "does not fit into"),
        (tar_with_sparse_file(-5), "cannot be unpacked into|is damaged"),
        (tar_of([("a\x1b[2J", b"x")]), "is not safe to unpack"),
        (tar_of([("a" * 300, b"x")]), "cannot be unpacked into"),
        (WHOLE[:2000], "is damaged"),
    ],
    ids=["sparse", "mad number", "negative number", "escape codes", "long name", "cut"],
)
def test_one_bad_archive_does_not_end_the_others(server, tmp_path, content, message):
    publish(server, bad=content, val=tar_of([("val/1.flac", b"1")]))
    command = ("scripts/download_release.py", "--api", f"{server.url}/records", "--out_folder", tmp_path / "data")
    result = run_script(*command, "--archives", "bad", "val", check=1)
    assert error_line(result).endswith("1 of 2 archives could not be fetched and unpacked. See above")
    assert re.search(f"bad.tar.gz: .*({message})", result.stderr) and "Traceback" not in result.stderr
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["bad.tar.gz", "val", "val.tar.gz"]
    assert "\x1b" not in result.stdout + result.stderr


# ---- data/audioset/fetch_id_lists.py ----

IDS = {"balanced_train.txt": b"--4gqARaEJE_0\nKZVnYaoUF3M_70\n", "evaluation.txt": b"-0RWZT-miFs_420\n"}


def fetch_lists(url, folder, monkeypatch, capsys, expected=IDS):
    """The script in this process, with lists made here for those of the original release."""
    module = runpy.run_path(str(ROOT / "data/audioset/fetch_id_lists.py"))
    promised = {name: (hashlib.sha256(text).hexdigest(), text.count(b"\n")) for name, text in expected.items()}
    monkeypatch.setitem(module["main"].__globals__, "LISTS", promised)
    monkeypatch.setattr("sys.argv", ["fetch_id_lists.py", "--base_url", url, "--out_dir", str(folder)])
    module["main"]()
    return capsys.readouterr().out.split()


def test_id_lists_are_fetched_checked_and_left_alone(server, tmp_path, monkeypatch, capsys):
    server.files = {f"/audioset/{name}": text for name, text in IDS.items()}
    server.faults = [503, "breaks off"]
    for _ in range(2):
        paths = fetch_lists(f"{server.url}/audioset", tmp_path / "new", monkeypatch, capsys)
        assert {Path(path).name: Path(path).read_bytes() for path in paths} == IDS
    assert len(server.requests) == 4  # two answers that failed, and each list once
    (tmp_path / "new/evaluation.txt").write_bytes(b"mine\n")
    with pytest.raises(
        UserError, match=r"evaluation.txt: is there already, and has 1 lines with SHA-256 .* Move it away"
    ):
        fetch_lists(f"{server.url}/audioset", tmp_path / "new", monkeypatch, capsys)
    assert (tmp_path / "new/evaluation.txt").read_bytes() == b"mine\n"


def test_another_list_than_the_published_one_is_not_written(server, tmp_path):
    server.files = {f"/{name}": text for name, text in IDS.items()}
    words = ("data/audioset/fetch_id_lists.py", "--base_url", server.url, "--out_dir", tmp_path)
    line = error_line(run_script(*words))
    assert (
        "balanced_train.txt: has 2 lines with SHA-256" in line and "the published list has 19253 with 874713f2" in line
    )
    assert line.endswith("Nothing was written") and not list(tmp_path.iterdir())
    assert "answers 404" in error_line(run_script(*words, "--base_url", f"{server.url}/none"))
