"""Archives of a Zenodo record, fetched, resumed, checked and unpacked, and small files with a known digest."""

import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from tqdm import tqdm

from src.errors import UserError, listed
from src.utils.files import file_behind, open_own, sync, write_whole
from src.utils.locks import exclusive
from src.utils.progress import progress

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RECORD = 4593514  # GISE-51
API = "https://zenodo.org/api/records"  # Zenodo's public REST API
CHUNK = 1 << 20  # bytes
LONGEST_LIST = 1 << 24  # bytes of a record's list of files, and of other files that are read at once
PLAIN_NAME = re.compile(r"[^./][^/]*")
TIMEOUT = 60  # s without a byte
ATTEMPTS = 6  # broken connections or busy answers in a row, without a byte gained in between
FIRST_WAIT, LONGEST_WAIT = 1, 60  # s between attempts


@dataclass(frozen=True)
class Archive:
    """One file of a record."""

    name: str
    size: int  # bytes
    md5: str
    url: str


def list_archives(api: str = API, record: int = RECORD) -> list[Archive]:
    """The files of a record.

    Raises:
        UserError: the server cannot be reached, has no such record, or answers something else: more than a list,
            names that are no plain file names.
    """
    url = f"{api}/{record}"
    body = _with_retries(lambda: _read(url, {"Accept": "application/json"}), url)
    try:
        archives = [
            Archive(
                str(file["key"]), int(file["size"]), file["checksum"].removeprefix("md5:"), str(file["links"]["self"])
            )
            for file in json.loads(body)["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise UserError(f"{url}: the answer is not a record's list of files") from None
    for archive in archives:
        if not PLAIN_NAME.fullmatch(archive.name) or not archive.name.isprintable():
            raise UserError(f"{url}: lists a file called {archive.name!r}, which is no plain file name")
        if archive.size < 0:
            raise UserError(f"{url}: lists {archive.name} with {archive.size} bytes")
    return archives


def choose(archives: Sequence[Archive], names: Sequence[str]) -> list[Archive]:
    """Those of the given names, with or without `.tar.gz`.

    Raises:
        UserError: there is none of a name.
    """
    by_name = {archive.name.removesuffix(".tar.gz"): archive for archive in archives}
    for name in names:
        if name.removesuffix(".tar.gz") not in by_name:
            raise UserError(f"no archive is called '{name}'. There are {listed(sorted(by_name), 40)}")
    return [by_name[name.removesuffix(".tar.gz")] for name in names]


def fetch(archive: Archive, folder: str | Path) -> Path:
    """Download an archive, or what of it is missing. It gets its name once size and MD5 are right.

    Raises:
        UserError: the server fails for good, or sends other bytes than the record promises.
    """
    target = file_behind(Path(folder) / archive.name)
    partial = target.with_name(target.name + ".partial")
    with exclusive(folder):
        if target.exists():
            _require_md5(target, archive)
            log.info("%s: is there already", target)
            return target
        needed, free = archive.size - _size(partial), shutil.disk_usage(folder).free
        if free < needed:
            raise UserError(f"{folder}: {archive.name} needs {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} are free")
        with progress(archive.size, archive.name, "B", unit_scale=True) as bar:
            _with_retries(lambda: _receive(partial, archive, bar), archive.url, lambda: _size(partial))
        try:
            _require_md5(partial, archive)
        except UserError:
            partial.unlink()  # more bytes after wrong ones are of no use
            raise
        sync(partial)
        os.replace(partial, target)
    return target


def fetch_text(url: str, sha256: str, num_lines: int, path: str | Path) -> None:
    """Download a small file of text. It is written once it is the right one, and left alone where it is there.

    Raises:
        UserError: the server fails for good, or it sends other bytes. Or another file is at `path`.
    """
    path = Path(path)
    if path.exists():
        _require_text(path.read_bytes(), sha256, num_lines, f"{path}: is there already, and", "Move it away")
        log.info("%s: is there already", path)
        return
    body = _with_retries(lambda: _read(url), url)
    _require_text(body, sha256, num_lines, f"{url}:", "Nothing was written")
    write_whole(path, body)


def _require_text(body: bytes, sha256: str, num_lines: int, where: str, mend: str) -> None:
    found, lines = hashlib.sha256(body).hexdigest(), len(body.splitlines())
    if found != sha256:
        promised = f"the published list has {num_lines} with {sha256}"
        raise UserError(f"{where} has {lines} lines with SHA-256 {found}, but {promised}. {mend}")


def unpack(archive: Path, folder: str | Path) -> list[Path]:
    """Unpack a tar archive beside its final place and move its entries there. What is there is left alone.

    Returns:
        The archive's top-level entries in `folder`.

    Raises:
        UserError: it is damaged or does not fit on the disk. Or it holds a special file, a name that cannot be
            printed, or a path or a link out of the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not hasattr(tarfile, "data_filter"):
        raise UserError("this Python's tarfile has no safe filter. Update Python to its latest patch release")
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary:
        try:
            with (
                open(archive, "rb") as raw,
                tarfile.open(fileobj=raw) as tar,
                progress(archive.stat().st_size, f"unpacking {archive.name}", "B", unit_scale=True) as bar,
            ):
                for member in tar:
                    free = shutil.disk_usage(temporary).free
                    if member.size > free:
                        needed = f"{member.size / 1e9:.1f} GB, and {free / 1e9:.1f} are free"
                        raise UserError(f"{archive}: does not fit into {folder}: {member.name!r} has {needed}")
                    if not member.name.isprintable():
                        raise UserError(f"{archive}: is not safe to unpack: it holds a file called {member.name!r}")
                    tar.extract(member, temporary, filter="data")
                    bar.update(raw.tell() - bar.n)
                while tar.fileobj.read(CHUNK):  # to the end, where the compressed data's own checksum is
                    pass
        except tarfile.FilterError as error:
            raise UserError(f"{archive}: is not safe to unpack: {error}") from None
        except UserError:
            raise
        except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what is read
                raise UserError(f"{archive}: cannot be unpacked into {folder}: {error.strerror}") from None
            raise UserError(f"{archive}: is damaged ({error})") from None
        return [_move_in(entry, folder / entry.name) for entry in sorted(Path(temporary).iterdir())]


def _move_in(entry: Path, target: Path) -> Path:
    """Move a file or folder to its place. Folders that are there already are filled up."""
    if entry.is_dir() and target.is_dir():
        for inner in entry.iterdir():
            _move_in(inner, target / inner.name)
    elif not target.exists():
        shutil.move(entry, target)
    return target


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
    with _answer(url, headers) as answer:
        body = answer.read(LONGEST_LIST + 1)
    if len(body) > LONGEST_LIST:
        expected = f"a record's list or a small file, of {LONGEST_LIST} bytes at most"
        raise UserError(f"{url}: the answer is longer than {expected}")
    if answer.length:  # that the server still owes
        raise _TryAgain("the connection ended early")
    return body


def _receive(partial: Path, archive: Archive, bar: tqdm) -> None:
    """Append what one answer brings. Begin anew where the server ignores the range."""
    have = _size(partial)
    if have >= archive.size:
        return
    with _answer(archive.url, {"Range": f"bytes={have}-"} if have else {}) as answer:
        appending = answer.status == 206
        promised = answer.headers.get("Content-Range" if appending else "Content-Length", "")
        expected = f"bytes {have}-{archive.size - 1}/{archive.size}" if appending else str(archive.size)
        if promised != expected:  # an error page, or another file: what has come is worth more
            raise _TryAgain(f"the server offers '{promised}' where the record promises {archive.size} bytes")
        with open(open_own(partial, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as stream:
            if not appending:
                stream.truncate(0)
            bar.update((have if appending else 0) - bar.n)
            while chunk := answer.read(CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
    if _size(partial) < archive.size:
        raise _TryAgain("the connection ended early")


class _TryAgain(Exception):
    """Something that may pass."""

    def __init__(self, problem: str, wait: int | None = None):
        super().__init__(problem)
        self.wait = wait  # s, as the server asks


def _with_retries(attempt: Callable[[], Result], url: str, gained: Callable[[], int] = lambda: 0) -> Result:
    """The result of the first attempt that succeeds. One that raises what was `gained` does not count as failed.

    Raises:
        UserError: ATTEMPTS in a row failed.
    """
    failures = 0
    while True:
        before = gained()
        try:
            return attempt()
        except _TryAgain as error:
            failures = 0 if gained() > before else failures + 1
            if failures == ATTEMPTS:
                raise UserError(f"{url}: {error}. Given up after {ATTEMPTS} attempts. Run it again to resume") from None
            wait = FIRST_WAIT * 2**failures if error.wait is None else error.wait
            time.sleep(min(wait, LONGEST_WAIT))


@contextmanager
def _answer(url: str, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
    """An open HTTP answer. What may pass, also while it is read, is a _TryAgain, and the rest a UserError."""
    _require_http(url)
    try:
        opener = urllib.request.build_opener(_ToHttpAlone)
        with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=TIMEOUT) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        if error.code in (429, 500, 502, 503, 504):
            wait = error.headers.get("Retry-After", "")
            raise _TryAgain(f"the server is busy ({error.code})", int(wait) if wait.isdecimal() else None) from None
        raise UserError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise _TryAgain(f"the connection failed ({reason})") from None


class _ToHttpAlone(urllib.request.HTTPRedirectHandler):
    """Follows an answer that leads to another address of HTTP. urllib's own follows to FTP as well."""

    def redirect_request(self, request, answer, code, message, headers, url):
        _require_http(url)
        return super().redirect_request(request, answer, code, message, headers, url)


def _require_http(url: str) -> None:
    if not url.lower().startswith(("https://", "http://")):  # urllib would open files of this machine too
        raise UserError(f"{url[:200]!r}: is no https:// or http:// address")


def _require_md5(path: Path, archive: Archive) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with (
        open(path, "rb") as stream,
        progress(_size(path), f"checking {archive.name}", "B", unit_scale=True, leave=False) as bar,
    ):
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if (_size(path), digest.hexdigest()) != (archive.size, archive.md5):
        found, promised = f"{_size(path)} bytes with MD5 {digest.hexdigest()}", f"{archive.size} with {archive.md5}"
        raise UserError(f"{path}: {found}, but the record promises {promised}. It is another file: download it again")
