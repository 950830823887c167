"""The pages of an LMDB, looked through before LMDB reads them: it trusts them, and a wrong number ends the process.

A file is a B+ tree of pages (lmdb.h and mdb.c of LMDB 0.9, data version 1, 64-bit little-endian machines):

    page    number u64, unused u16, flags u16, lower u16, upper u16; offsets of its nodes, u16 each, up to `lower`
    node    low and high u16 of a size, flags u16, key size u16, key; in a leaf the value, or the u64 number of the
            first of the value's own pages; in a branch no value, but a page number in place of size and flags
    pages 0 and 1 hold two versions of the root, the one with the higher transaction number is valid

Every page and every value that the root leads to is inside the file, or the file is refused. It takes about a
millisecond for 1,000 records, and touches none of the values.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np

HEADER = 16  # bytes of a page
# Magic, version, map size; page size; the main tree; last page, transaction.
META = struct.Struct("<II8xQ I44x IHHQQQQQ QQ")
BRANCH, LEAF, BIG = 1, 2, 1  # flags of pages, and of nodes with pages of their own
NO_PAGE = 2**64 - 1
DEEPEST = 32  # LMDB's own limit


def fault(file: Path) -> str | None:
    """What is wrong with the tree of a file that LMDB has opened; None if it is sound."""
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        page_size = META.unpack_from(data, HEADER)[3]
        metas = [META.unpack_from(data, start + HEADER) for start in (0, page_size)]
        root, last_page, _ = max(metas, key=lambda meta: meta[-1])[-3:]
        try:
            if root != NO_PAGE:
                _Tree(data, page_size, last_page + 1).require_sound(root)
        except (_Fault, struct.error) as found:
            return str(found)
    return None


class _Fault(Exception):
    """Something wrong in the tree."""


class _Tree:
    """A tree of pages in mapped bytes."""

    def __init__(self, data: mmap.mmap, page_size: int, num_pages: int):
        self.data = data
        self.page_size = page_size
        self.num_pages = num_pages
        self.seen = bytearray(num_pages)

    def require_sound(self, root: int) -> None:
        """Walk all of the tree."""
        level, depth = [root], 0
        while level:
            if depth > DEEPEST:
                raise _Fault("its tree of pages is too deep")
            level = [child for number in level for child in self._children(number)]
            depth += 1

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
        self._require_values_inside(nodes, ends[big], size[big], number)
        return []

    def _require(self, ends: np.ndarray, number: int) -> None:
        if ends.max() > self.page_size:
            raise _Fault(f"an entry of page {number} reaches past its end")

    def _require_values_inside(self, nodes: np.ndarray, places: np.ndarray, sizes: np.ndarray, number: int) -> None:
        """Values with pages of their own, whose numbers are at `places`, end inside the file."""
        first = sum(self._u16(nodes, places + 2 * part) << 16 * part for part in range(3))  # 48 bits are plenty
        ends = first * self.page_size + HEADER + sizes
        if len(places) and (first.min() < 2 or ends.max() > self.num_pages * self.page_size):
            raise _Fault(f"a value of page {number} reaches past the end of the file")

    @staticmethod
    def _u16(nodes: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Little-endian numbers of 16 bits at any place."""
        return nodes[places].astype(np.int64) | nodes[places + 1].astype(np.int64) << 8
