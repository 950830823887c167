"""The pages of an LMDB, looked through before LMDB reads them: it trusts them, and a wrong number ends the process.

A file is a B+ tree of pages (lmdb.h and mdb.c of LMDB 0.9, data version 1, 64-bit little-endian machines):

    page    number u64, unused u16, flags u16, lower u16, upper u16. Offsets of its nodes, u16 each, up to `lower`.

    node    Low and high u16 of a size, flags u16, key size u16, key.
            In a leaf: the value, or the u64 number of the first of the value's own pages.
            In a branch: no value, but a page number in place of size and flags.

    pages 0 and 1 hold two versions of the root. The one with the higher transaction number is valid.

Every page and every value that the root leads to is inside the file, or the file is refused. That takes about a
millisecond for 1,000 records, and touches none of the values. LMDB's Python package would read all of a value.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

HEADER = 16  # bytes of a page
# Magic, version, map size. Page size. The main tree. Last page, transaction.
META = struct.Struct("<II8xQ I44x IHHQQQQQ QQ")
BRANCH, LEAF, BIG = 1, 2, 1  # flags of pages, and of nodes with pages of their own
NO_PAGE = 2**64 - 1
DEEPEST = 32  # LMDB's own limit


def fault(file: Path) -> str | None:
    """What is wrong with the tree of a file that LMDB has opened. None if it is sound."""
    with _mapped(file) as data:
        try:
            _Tree(data).walk()
        except (_Fault, struct.error) as found:
            return str(found)
    return None


@contextmanager
def values_in(file: Path) -> Iterator[dict[bytes, memoryview]]:
    """Key -> value of a sound file. What is not looked at of a value is not read from the disk either."""
    with _mapped(file) as data, memoryview(data) as view:
        found = {}
        for leaf in _Tree(data).walk():
            for key, length, start, size in zip(*(column.tolist() for column in leaf)):
                found[data[key : key + length]] = view[start : start + size]
        try:
            yield found
        finally:
            for value in found.values():
                value.release()  # or the map could not be closed


@contextmanager
def _mapped(file: Path) -> Iterator[mmap.mmap]:
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.madvise(mmap.MADV_RANDOM)  # or the system reads on behind every page
        yield data


class _Fault(Exception):
    """Something wrong in the tree."""


class _Leaf(NamedTuple):
    """Where the (E,) keys and values of a page begin in the file, and their bytes."""

    keys: np.ndarray
    key_sizes: np.ndarray
    values: np.ndarray
    sizes: np.ndarray


class _Tree:
    """The tree of pages in the mapped bytes of a file."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.page_size = META.unpack_from(data, HEADER)[3]
        metas = [META.unpack_from(data, start + HEADER) for start in (0, self.page_size)]
        self.root, last_page, _ = max(metas, key=lambda meta: meta[-1])[-3:]
        self.num_pages = last_page + 1
        self.seen = bytearray(self.num_pages)
        self.leaves: list[_Leaf] = []

    def walk(self) -> list[_Leaf]:
        """The leaves, once all of the tree is seen to be sound."""
        level, depth = [] if self.root == NO_PAGE else [self.root], 0
        while level:
            if depth > DEEPEST:
                raise _Fault("its tree of pages is too deep")
            level = [child for number in level for child in self._children(number)]
            depth += 1
        return self.leaves

    def _children(self, number: int) -> list[int]:
        """The pages below a page, which is looked through."""
        if not 2 <= number < self.num_pages or self.seen[number]:
            raise _Fault(f"page {number} of {self.num_pages} is not where its tree of pages says")
        self.seen[number] = 1
        start = number * self.page_size
        own_number, flags, lower, upper = struct.unpack_from("<Q2xHHH", self.data, start)
        if own_number != number or flags not in (BRANCH, LEAF) or not HEADER <= lower <= upper <= self.page_size:
            raise _Fault(f"page {number} has a wrong header")
        nodes = np.frombuffer(self.data[start : start + self.page_size], np.uint8)
        offsets = nodes[HEADER : lower // 2 * 2].view("<u2").astype(np.int64)
        if len(offsets) < (2 if flags == BRANCH else 1) or offsets.min() < upper or offsets.max() + 8 > self.page_size:
            raise _Fault(f"page {number} has a wrong table of entries")
        low, high, node_flags, key_size = (self._u16(nodes, offsets + 2 * field) for field in range(4))
        ends = offsets + 8 + key_size
        size = low | high << 16
        if flags == BRANCH:
            self._require(ends, number)
            return (size | node_flags << 32).tolist()
        big = node_flags == BIG
        if not np.isin(node_flags, (0, BIG)).all():
            raise _Fault(f"page {number} has an entry of an unknown kind")
        self._require(ends + np.where(big, 8, size), number)
        values = start + ends
        values[big] = self._own_places(nodes, ends[big], size[big], number)
        self.leaves.append(_Leaf(start + offsets + 8, key_size, values, size))
        return []

    def _require(self, ends: np.ndarray, number: int) -> None:
        if ends.max() > self.page_size:
            raise _Fault(f"an entry of page {number} reaches past its end")

    def _own_places(self, nodes: np.ndarray, places: np.ndarray, sizes: np.ndarray, number: int) -> np.ndarray:
        """Where values with pages of their own begin. They end inside the file. The pages' numbers are at `places`."""
        low, middle, high = (self._u16(nodes, places + 2 * part) for part in range(3))
        first = low | middle << 16 | high << 32  # 48 bits are plenty
        starts = first * self.page_size + HEADER
        if len(places) and (first.min() < 2 or (starts + sizes).max() > self.num_pages * self.page_size):
            raise _Fault(f"a value of page {number} reaches past the end of the file")
        return starts

    @staticmethod
    def _u16(nodes: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Little-endian numbers of 16 bits at any place."""
        return nodes[places].astype(np.int64) | nodes[places + 1].astype(np.int64) << 8
