"""Archives of a Zenodo record: fetched, resumed, checked and unpacked."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError
from src.utils.files import sync
from src.utils.locks import exclusive
from src.utils.progress import progress

log = logging.getLogger(__name__)

RECORD = 4593514  # GISE-51
API = "https://zenodo.org/api/records"  # Zenodo's public REST API
CHUNK = 1 << 20  # bytes
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
        UserError: the server cannot be reached, has no such record, or answers something else.
    """
    url = f"{api}/{record}"
    for attempt in range(ATTEMPTS):
        try:
            with _answer(url, {"Accept": "application/json"}) as answer:
                body = answer.read()
            break
        except (_TryAgain, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            if attempt + 1 == ATTEMPTS:
                raise UserError(f"{url}: {error}; given up after {ATTEMPTS} attempts") from None
            _wait(error, attempt)
    try:
        archives = [
            Archive(str(file["key"]), int(file["size"]), file["checksum"].removeprefix("md5:"), file["links"]["self"])
            for file in json.loads(body)["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{url}: the answer is not a record's list of files") from None
    for archive in archives:
        if archive.name != os.path.basename(archive.name) or archive.name.startswith(".") or not archive.name:
            raise UserError(f"{url}: lists a file called {archive.name!r}, which is no plain file name")
    return archives


def choose(archives: Sequence[Archive], names: Sequence[str]) -> list[Archive]:
    """Those of the given names, with or without `.tar.gz`.

    Raises:
        UserError: there is none of a name.
    """
    by_name = {archive.name: archive for archive in archives}
    chosen = []
    for name in names:
        found = by_name.get(name) or by_name.get(f"{name}.tar.gz")
        if found is None:
            known = ", ".join(sorted(name.removesuffix(".tar.gz") for name in by_name))
            raise UserError(f"no archive is called '{name}'; there are {known}")
        chosen.append(found)
    return chosen


def fetch(archive: Archive, folder: str | Path) -> Path:
    """Download an archive, or what of it is missing; it has its name once size and MD5 are right.

    Raises:
        UserError: the server fails for good, or sends other bytes than the record promises.
    """
    target = Path(folder) / archive.name
    if target.exists():
        _require_md5(target, archive)
        log.info("%s: is there already", target)
        return target
    partial = target.with_name(target.name + ".partial")
    with exclusive(folder):
        if target.exists():  # another process was fetching it
            return target
        _require_room(folder, archive.size - (partial.stat().st_size if partial.exists() else 0), archive.name)
        _fill(partial, archive)
        try:
            _require_md5(partial, archive)
        except UserError:
            partial.unlink()  # going on from wrong bytes would only give wrong bytes
            raise
        sync(partial)
        os.replace(partial, target)
    return target


def unpack(archive: Path, folder: str | Path) -> list[Path]:
    """Unpack a tar archive beside its final place and move its entries there; what is there is left alone.

    Returns:
        The archive's top-level entries in `folder`.

    Raises:
        UserError: it is damaged, or holds a path or a link out of the folder, or a special file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not hasattr(tarfile, "data_filter"):
        raise UserError("this Python's tarfile has no safe filter; update Python to its latest patch release")
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary:
        try:
            with (
                open(archive, "rb") as raw,
                tarfile.open(fileobj=raw) as tar,
                progress(archive.stat().st_size, f"unpacking {archive.name}", "B", unit_scale=True) as bar,
            ):
                for member in tar:
                    tar.extract(member, temporary, filter="data")
                    bar.update(raw.tell() - bar.n)
                while tar.fileobj.read(CHUNK):  # to the end, where the compressed data's own checksum is
                    pass
        except tarfile.FilterError as error:
            raise UserError(f"{archive}: is not safe to unpack: {error}") from None
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UserError(f"{archive}: is damaged ({error})") from None
        return [_move_in(entry, folder / entry.name) for entry in sorted(Path(temporary).iterdir())]


def _move_in(entry: Path, target: Path) -> Path:
    """Move a file or folder to its place; folders that are there already are filled up."""
    if entry.is_dir() and target.is_dir():
        for inner in entry.iterdir():
            _move_in(inner, target / inner.name)
    elif not target.exists():
        shutil.move(entry, target)
    return target


def _fill(partial: Path, archive: Archive) -> None:
    """Bring the partial file to its full size, through broken connections and busy servers."""
    failures = 0
    with progress(archive.size, archive.name, "B", unit_scale=True) as bar:
        while True:
            have = partial.stat().st_size if partial.exists() else 0
            if have > archive.size:
                partial.unlink()
                raise UserError(f"{archive.url}: sends more than the {archive.size} bytes that the record promises")
            bar.update(have - bar.n)
            if have == archive.size:
                return
            try:
                _receive(partial, have, archive, bar)
            except _TryAgain as error:
                gained = partial.exists() and partial.stat().st_size > have
                failures = 0 if gained else failures + 1
                if failures >= ATTEMPTS:
                    raise UserError(
                        f"{archive.url}: {error}; given up after {ATTEMPTS} attempts. What has come is "
                        "kept and the same command goes on from there"
                    ) from None
                _wait(error, failures)


def _wait(error: Exception, failures: int) -> None:
    asked = getattr(error, "wait", None)
    time.sleep(min(FIRST_WAIT * 2**failures if asked is None else asked, LONGEST_WAIT))


def _receive(partial: Path, have: int, archive: Archive, bar) -> None:
    """Append what one answer brings; begin anew where the server ignores the range."""
    with _answer(archive.url, {"Range": f"bytes={have}-"} if have else {}) as answer:
        appending = answer.status == 206
        promised = answer.headers.get("Content-Range" if appending else "Content-Length", "")
        expected = f"bytes {have}-{archive.size - 1}/{archive.size}" if appending else str(archive.size)
        if promised != expected:  # an error page, or another file: what has come is worth more
            raise _TryAgain(f"the server offers '{promised}' where the record promises {archive.size} bytes")
        with open(partial, "ab" if appending else "wb") as stream:
            bar.update((have if appending else 0) - bar.n)
            try:
                while chunk := answer.read(CHUNK):
                    stream.write(chunk)
                    bar.update(len(chunk))
            except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
                raise _TryAgain(f"the connection broke ({type(error).__name__})") from None
    if partial.stat().st_size < archive.size:
        raise _TryAgain("the connection ended early")


class _TryAgain(Exception):
    """Something that may pass; `wait` is what the server asks for, in seconds."""

    def __init__(self, problem: str, wait: float | None = None):
        super().__init__(problem)
        self.wait = wait


def _answer(url: str, headers: dict[str, str]):
    """An open HTTP answer; _TryAgain for what may pass, UserError for what will not."""
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code in (429, 500, 502, 503, 504):
            wait = error.headers.get("Retry-After", "")
            raise _TryAgain(f"the server is busy ({error.code})", float(wait) if wait.isdigit() else None) from None
        raise UserError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise _TryAgain(f"the server cannot be reached ({getattr(error, 'reason', error)})") from None


def _require_md5(path: Path, archive: Archive) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    size = path.stat().st_size
    with (
        open(path, "rb") as stream,
        progress(size, f"checking {archive.name}", "B", unit_scale=True, leave=False) as bar,
    ):
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if size != archive.size or digest.hexdigest() != archive.md5:
        raise UserError(
            f"{path}: {size} bytes with MD5 {digest.hexdigest()}, but the record promises {archive.size} "
            f"with {archive.md5}; it is not that file, download it again"
        )


def _require_room(folder: str | Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {name} needs {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free")
