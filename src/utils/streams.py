"""Standard output and standard error, which may be closed, full, or a pipe that nobody reads any more."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def standard_streams() -> Iterator[None]:
    """Have a failure of standard output raised under its own name, and one of standard error ignored.

    A stream that was closed (`>&-`) is opened again, so that no file gets its number, which libraries write to. All of
    standard output is written when the block ends.

    Raises:
        OSError: standard output fails, at the first write that does. What is written afterwards is dropped.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:  # to read alone: writing fails, as it does on a closed one
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, number)
        if null != number:
            os.close(null)
    sys.stdout = _guarded(sys.stdout, 1, "standard output")
    sys.stderr = _guarded(sys.stderr, 2, None)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what is already under way is told
            sys.stdout.flush()
        raise
    sys.stdout.flush()


class _Stream(io.FileIO):
    """A standard stream, which drops what is written after it failed."""

    def __init__(self, number: int, what: str | None):
        super().__init__(number, "w", closefd=False)
        self.what = what  # in errors, which are dropped too without it
        self.failed = False

    def write(self, data: Any, /) -> int:
        if not self.failed:
            try:
                return super().write(data)
            except OSError as error:
                self.failed = True
                if self.what:
                    error.filename = self.what
                    raise
        return memoryview(data).nbytes


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _guarded(stream, number: int, what: str | None):
    """The same stream on a `_Stream`. One that a caller put in its place is left alone."""
    try:
        if stream is not None and stream.fileno() != number:
            return stream
    except (OSError, ValueError, AttributeError):
        return stream
    encoding, line_by_line = (stream.encoding, stream.line_buffering) if stream else ("utf-8", False)
    raw = io.BufferedWriter(_Stream(number, what))
    # File names need not be text.
    return io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=line_by_line)
