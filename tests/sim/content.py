"""What one volume holds, as its hosts know it: a tag for every 512-byte sector.

A write stamps all of its sectors with a tag of its own, so that what is read tells which write it came from;
tag 0 is zeroes. Where a write was not acknowledged (it failed, or the site died with it) a sector may hold
one of several tags, until somebody looks: from then on it holds what was seen (L2).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby, repeat
from struct import Struct

from protocol.limits import BLOCK_BYTES, SECTOR_BYTES

SECTORS_PER_BLOCK = BLOCK_BYTES // SECTOR_BYTES
_ZEROES = bytes(SECTOR_BYTES)
_STAMP = Struct(">HHIQ")
_REPEATS = SECTOR_BYTES // _STAMP.size
_MAGIC = 0x5EC7


@lru_cache(1 << 16)
def sector_bytes(volume: int, sector: int, tag: int) -> bytes:
    """512 bytes that no other volume, sector or tag has; zeroes for tag 0."""
    return _STAMP.pack(_MAGIC, volume, sector, tag) * _REPEATS if tag else _ZEROES


def written_bytes(volume: int, first: int, count: int, tag: int) -> bytes:
    """The data of a write of `count` sectors."""
    return b"".join(map(sector_bytes, repeat(volume), range(first, first + count), repeat(tag)))


def describe(data: bytes) -> str:
    """Where a sector's bytes came from, for messages."""
    if data == _ZEROES:
        return "zeroes"
    magic, volume, sector, tag = _STAMP.unpack_from(data)
    if magic != _MAGIC or data != _STAMP.pack(magic, volume, sector, tag) * _REPEATS:
        return "a mix that nobody wrote"
    return f"write {tag} to sector {sector} of volume {volume}"


def _tag_of(sector: bytes) -> int:
    """What a sector must have been written by, if it holds what somebody wrote."""
    return int(_STAMP.unpack_from(sector)[3])


Choices = tuple[int, "Choices | None"]


def each_of(choices: Choices | None) -> Iterator[int]:
    """The tags of a chain, the newest first. Writes that nobody flushed make long ones, and one more costs
    nothing."""
    while choices is not None:
        tag, choices = choices
        yield tag


class Content:
    """One volume at one moment. Most are never looked at, so that what may have been written, and what was
    after that, is only noted until one is."""

    __slots__ = ("_maybe", "_noted", "_tags", "volume")

    def __init__(self, volume: int, sectors: int) -> None:
        self.volume = volume
        self._tags = array("Q", bytes(8 * sectors))
        self._maybe: dict[int, Choices] = {}
        self._noted: list[tuple[int, int, int, bool]] = []  # the last: whether it was written

    @property
    def maybe(self) -> dict[int, Choices]:
        """A sector, and every tag that it may hold instead of `tags`'s."""
        if self._noted:
            self._take_noted()
        return self._maybe

    @property
    def tags(self) -> array[int]:
        """What each sector holds, or may hold."""
        if self._noted:
            self._take_noted()
        return self._tags

    @property
    def sectors(self) -> int:
        """Of the volume."""
        return len(self._tags)

    def copy(self) -> Content:
        """For another moment."""
        found = Content.__new__(Content)
        found.volume, found._tags = self.volume, self._tags[:]
        found._maybe, found._noted = dict(self._maybe), self._noted[:]
        return found

    def write(self, first: int, count: int, tag: int) -> None:
        """These sectors hold this now."""
        if self._noted:
            self._noted.append((first, count, tag, True))
        else:
            self._put(first, count, tag)

    def _put(self, first: int, count: int, tag: int) -> None:
        self._tags[first : first + count] = array("Q", [tag]) * count
        if self._maybe:
            for sector in range(first, first + count):
                self._maybe.pop(sector, None)

    def may_write(self, first: int, count: int, tag: int) -> None:
        """These sectors hold this now, or what they held before."""
        self._noted.append((first, count, tag, False))

    def _take_noted(self) -> None:
        maybe, tags = self._maybe, self._tags
        for first, count, tag, written in self._noted:
            if written:
                self._put(first, count, tag)
                continue
            for sector in range(first, first + count):
                if (choices := maybe.get(sector)) is not None:
                    if choices[0] != tag:
                        maybe[sector] = (tag, choices)
                elif (before := tags[sector]) != tag:
                    maybe[sector] = (tag, (before, None))
        self._noted.clear()

    def may_become(self, other: Content) -> None:
        """The volume holds what the other does now, or what it held before, each sector by itself."""
        first = 0
        for tag, run in groupby(other.tags):
            count = sum(1 for _ in run)
            self.may_write(first, count, tag)
            first += count
        maybe = self.maybe
        for sector, choices in other.maybe.items():
            chain = maybe.get(sector) or (self.tags[sector], None)
            if chain is choices:
                continue
            for tag in sorted(set(each_of(choices)).difference(each_of(chain))):
                chain = (tag, chain)
            if chain[1] is not None:
                maybe[sector] = chain

    def _allowed(self, sector: int) -> Iterable[int]:
        choices = self.maybe.get(sector)
        return (self.tags[sector],) if choices is None else dict.fromkeys(each_of(choices))

    def mismatch(self, first: int, data: bytes, *, settle: bool) -> str:
        """What is wrong with `data` read from sector `first` on; nothing if all is as it must be. `settle`
        takes what was seen as what is there."""
        count = len(data) // SECTOR_BYTES
        maybe = self.maybe
        certain = not maybe or maybe.keys().isdisjoint(range(first, first + count))
        if certain and data == self._expected(first, count):
            return ""
        for sector in range(first, first + count):
            at = (sector - first) * SECTOR_BYTES
            found = data[at : at + SECTOR_BYTES]
            tag = _tag_of(found)
            if tag not in self._allowed(sector) or found != sector_bytes(self.volume, sector, tag):
                allowed = self._allowed(sector)
                wanted = " or ".join(describe(sector_bytes(self.volume, sector, tag)) for tag in allowed)
                return f"sector {sector} of volume {self.volume} holds {describe(found)}, not {wanted}"
            if settle and sector in maybe:
                self.tags[sector] = tag
                del maybe[sector]
        return ""

    def _expected(self, first: int, count: int) -> bytes:
        end = first + count
        return b"".join(map(sector_bytes, repeat(self.volume), range(first, end), self.tags[first:end]))

    def is_zero(self, first: int, count: int) -> bool:
        """Whether these sectors may all be zeroes."""
        return all(0 in self._allowed(sector) for sector in range(first, first + count))


Contents = dict[str, Content]


def copied(contents: Contents) -> Contents:
    """For another moment."""
    return {name: content.copy() for name, content in contents.items()}
