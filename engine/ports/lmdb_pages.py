"""Whether a file of LMDB holds every page that its newest state may read, asked before LMDB maps it.

LMDB reads through a memory map and does not compare the file's length with the pages that it needs: a page
past the end is a SIGBUS, which no handler of ours outlives. A shorter file may be whole all the same, because
pages that a transaction took and gave back are never written. Such pages are in the list of free ones; any
other page that the file lacks is damage.

Pages as LMDB 0.9 writes them on 64-bit machines, in the machine's byte order. Pages 0 and 1 are meta pages:

     0   8  page number                      40   4  bytes of a page
    10   2  flags (8: meta)                  80   8  root of the list of free pages
    16   4  magic 0xBEEFC0DE                136   8  last page that was ever used
    20   4  version 1                       144   8  transaction; the larger one counts

Others begin with the same 16 bytes (flags 1: branch, 2: leaf), of which the u16 at 12 is the end of a table
of u16: where the page's nodes are. A node is u16 low, u16 high, u16 flags, u16 bytes of the key, the key and,
in a leaf, its data. In a branch the first three are the child's number. In a leaf the first two are the bytes
of the data; with flag 1 the data is the number of the page after whose 16 bytes it stands. Data in the list
of free pages is u64: a count, and as many page numbers. Root 2^64 - 1: there is none.
"""

from __future__ import annotations

import os
import pathlib
import stat
from dataclasses import dataclass
from struct import Struct, error, unpack_from

_META_BYTES = 152
_META_FLAG, _BRANCH_FLAG, _LEAF_FLAG, _FAR_DATA_FLAG = 8, 1, 2, 1
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NO_ROOT = (1 << 64) - 1
_HEADER_BYTES = 16
_NODE = Struct("=4H")
# LMDB divides by the page size that the file states, so it must be one that it can have written.
_PAGE_BYTES = frozenset(1 << bits for bits in range(9, 16))


class LacksPages(Exception):
    """The file cannot be mapped safely; the text says why."""


@dataclass(frozen=True, slots=True)
class _Meta:
    page_bytes: int
    free_root: int
    last_page: int
    transaction: int


def check_pages(path: pathlib.Path) -> None:
    """LacksPages if reading the file through LMDB could fault. A file that LMDB refuses by itself (none, no
    regular one, one without two meta pages) passes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # LMDB meets the same, or makes it
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _check(descriptor)
    finally:
        os.close(descriptor)


def _check(descriptor: int) -> None:
    first = _meta(descriptor, 0)
    if first is None:
        return
    if first.page_bytes not in _PAGE_BYTES:
        raise LacksPages(f"its pages cannot have {first.page_bytes} bytes")
    second = _meta(descriptor, first.page_bytes)
    if second is None:
        return
    newest = second if second.transaction > first.transaction else first
    if newest.page_bytes != first.page_bytes:
        raise LacksPages(f"its pages cannot have both {first.page_bytes} and {newest.page_bytes} bytes")
    # After the meta pages were read: a writer in another process writes pages before it names them there.
    size_bytes = os.fstat(descriptor).st_size
    pages = size_bytes // newest.page_bytes
    lacking = newest.last_page + 1 - pages
    if lacking <= 0:
        return
    try:
        free = _FreePages(descriptor, newest.page_bytes, pages).walk(newest.free_root)
    except (error, LookupError) as failure:
        free, reason = set(), f", and its free pages cannot be read ({failure})"
    else:
        reason = ""
    if sum(page <= newest.last_page for page in free) < lacking:
        needed = (newest.last_page + 1) * newest.page_bytes
        raise LacksPages(f"it was cut to {size_bytes} of {needed} bytes{reason}")


def _meta(descriptor: int, offset: int) -> _Meta | None:
    data = os.pread(descriptor, _META_BYTES, offset)
    if len(data) < _META_BYTES:
        return None
    (flags,) = unpack_from("=H", data, 10)
    magic, version = unpack_from("=2I", data, 16)
    if not flags & _META_FLAG or (magic, version) != (_MAGIC, _VERSION):
        return None
    return _Meta(
        unpack_from("=I", data, 40)[0],
        unpack_from("=Q", data, 80)[0],
        *unpack_from("=2Q", data, 136),
    )


class _FreePages:
    """Numbers from `first` on in the list of free pages. The file is no longer than `first` pages."""

    def __init__(self, descriptor: int, page_bytes: int, first: int) -> None:
        self._descriptor = descriptor
        self._page_bytes = page_bytes
        self._first = first

    def walk(self, root: int) -> set[int]:
        """LookupError or struct.error if the list is damaged."""
        free: set[int] = set()
        seen: set[int] = set()
        ahead = [] if root == _NO_ROOT else [root]
        while ahead:
            number = ahead.pop()
            if number in seen:
                raise LookupError(f"page {number} is there twice")
            seen.add(number)
            page = self._page(number)
            flags, end = unpack_from("=2H", page, 10)
            places = unpack_from(f"={(end - _HEADER_BYTES) // 2}H", page, _HEADER_BYTES)
            if flags & _BRANCH_FLAG:
                ahead += [_child(page, place) for place in places]
            elif flags & _LEAF_FLAG:
                for place in places:
                    free |= self._numbers(page, place)
            else:
                raise LookupError(f"page {number} is of another kind")
        return free

    def _page(self, number: int) -> bytes:
        if number >= self._first:
            raise LookupError(f"page {number} is not there")
        return os.pread(self._descriptor, self._page_bytes, number * self._page_bytes)

    def _numbers(self, page: bytes, place: int) -> set[int]:
        low, high, flags, key_bytes = _NODE.unpack_from(page, place)
        data_bytes, at = low | high << 16, place + _NODE.size + key_bytes
        data = page[at : at + data_bytes]
        if flags & _FAR_DATA_FLAG:
            (far,) = unpack_from("=Q", page, at)
            if far * self._page_bytes + _HEADER_BYTES + data_bytes > self._first * self._page_bytes:
                raise LookupError(f"page {far} is not there")
            data = os.pread(self._descriptor, data_bytes, far * self._page_bytes + _HEADER_BYTES)
        (count,) = unpack_from("=Q", data)
        if count > len(data) // 8 - 1:
            raise LookupError("a row is too short")
        return {each for each in unpack_from(f"={count}Q", data, 8) if each >= self._first}


def _child(page: bytes, place: int) -> int:
    low, high, top, _ = _NODE.unpack_from(page, place)
    return int(low | high << 16 | top << 32)
