"""Which versions of a block go, and what a transaction does about it: for truncations and sweeps.

Of a run (`engine.index.runs`) single blocks are what stays, or is moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from struct import Struct
from typing import NamedTuple

from engine.index.runs import indexed_blocks, levels_of, version_in, versions_in, versions_of
from engine.index.versions import (
    BLOCK_PREFIX,
    LANE_PREFIX,
    NUMBER_MASK,
    STORED_HEAD_BYTES,
    STORED_VALUE,
    VERSION_KEY_BYTES,
    VERSION_VALUE,
    IndexedVersion,
    VersionKind,
    check_bytes,
    single_value,
    stored_value,
    unpack_version_key,
)
from engine.ports.store import Cursor, WriteTransaction
from engine.retention.needed import Keep, needed
from protocol.limits import BLOCK_BYTES

Block = tuple[int, int, int]  # lane, volume, block
# How the row of a version that has bytes begins, by its length.
_WITH_BYTES = {
    VERSION_VALUE.size: bytes((VersionKind.JOURNAL,)),
    STORED_VALUE.size: bytes((VersionKind.STORED,)),
}
_NUMBER = Struct(">Q")  # the end of a key


class Found(NamedTuple):
    """A block's version, and its row: `run` is that of a run, None if the version has one of its own."""

    version: IndexedVersion
    key: bytes
    block: int
    run: bytes | None


@dataclass(slots=True)
class Changes:
    """What a transaction will do. `runs`: the value of a run's row, and the blocks that are no longer its;
    `gone` counts versions that go."""

    gone: int = 0
    removed: list[tuple[bytes, bool]] = field(default_factory=list)  # key, whether it has stored bytes
    moved: list[tuple[bytes, bytes, memoryview]] = field(default_factory=list)  # key, row, stored bytes
    runs: dict[bytes, tuple[bytes, set[int]]] = field(default_factory=dict)

    def remove(self, found: Found) -> None:
        """A version goes."""
        self.gone += 1
        if found.run is None:
            self.removed.append((found.key, bool(found.version.tail)))
        else:
            self._take(found.key, found.run, found.block)

    def move(self, found: Found, data: memoryview) -> None:
        """A version's bytes are stored from now on."""
        if found.run is not None:
            self._take(found.key, found.run, found.block)
        self.store(found.version.key, found.version.crc, data)

    def store(self, key: bytes, crc: int, data: memoryview) -> None:
        """The same of a version that has a row of its own. `data` must not change until `commit`."""
        self.moved.append((key, stored_value(crc, data), data[:STORED_HEAD_BYTES]))

    def _take(self, key: bytes, run: bytes, block: int) -> None:
        self.runs.setdefault(key, (run, set()))[1].add(block)

    def commit(self, write: WriteTransaction) -> None:
        """Do it."""
        for key, stored in self.removed:
            write.delete("versions", key)
            if stored:
                write.delete("blocks", key)
        rows = [(key, row) for key, row, _ in self.moved]
        for key, (value, taken) in self.runs.items():
            write.delete("versions", key)
            rows.extend(
                (version.key, single_value(version))
                for version in versions_in(key, value)
                if unpack_version_key(version.key)[2] not in taken
            )
        rows.sort()
        self.moved.sort(key=itemgetter(0))
        write.put_sorted("versions", rows)
        write.put_sorted("blocks", ((key, data) for key, _, data in self.moved))


def lanes_of(cursor: Cursor) -> list[int]:
    """Every lane that has versions."""
    lanes = []
    more = cursor.set_range(LANE_PREFIX.pack(0))
    while more:
        (lane,) = LANE_PREFIX.unpack_from(cursor.key())
        lanes.append(lane)
        more = cursor.set_range(LANE_PREFIX.pack(lane + 1))
    return lanes


@dataclass(slots=True, kw_only=True)
class Thinning:
    """Decides on versions below their lane's horizon. `lanes` are all that have versions; `levels` of them by
    lane and volume, as they are found out."""

    changes: Changes
    cursor: Cursor
    keep: Keep
    lanes: list[int]
    levels: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)

    def thin_all(self, lane: int, volume: int, blocks: Iterable[int], source: SegmentBytes) -> None:
        """Every version of blocks of a volume, in order; those that stay move out of `source`."""
        if self._levels_of(lane, volume) == (0,):
            blocks = self._thin_singles(lane, volume, blocks, source)
        for block in blocks:
            self.thin((lane, volume, block), source)

    def _thin_singles(
        self, lane: int, volume: int, blocks: Iterable[int], source: SegmentBytes
    ) -> Iterator[int]:
        """The same of blocks whose versions all have rows of their own, as those that databases write, with
        no objects made of them. Gives back those that have zeroes, or a row that cannot be read."""
        horizon, bounds = self.keep.lane_horizons.get(lane, 0), self.keep.bounds.get(lane, ())
        newest = _NUMBER.pack((max(1, horizon) - 1) ^ NUMBER_MASK)
        cursor, changes = self.cursor, self.changes
        for block in blocks:
            prefix = BLOCK_PREFIX.pack(lane, volume, block)
            staying: list[tuple[int, bytes, bytes]] = []
            going: list[tuple[bytes, bool]] = []
            newer: int | None = None
            more = horizon > 0 and cursor.set_range(prefix + newest)
            while more and (key := cursor.key()).startswith(prefix):
                value = cursor.value()
                if value[:1] != _WITH_BYTES.get(len(value)) or len(key) != VERSION_KEY_BYTES:
                    yield block
                    break
                number = _NUMBER.unpack_from(key, BLOCK_PREFIX.size)[0] ^ NUMBER_MASK
                if newer is None or needed(number, newer, bounds):
                    staying.append((number, key, value))
                else:
                    going.append((key, len(value) == STORED_VALUE.size))
                newer = number
                more = cursor.next()
            else:
                changes.gone += len(going)
                changes.removed += going
                for number, key, value in staying:
                    if len(value) == VERSION_VALUE.size:
                        _, crc = VERSION_VALUE.unpack(value)
                        data = source.bytes_of(IndexedVersion(number, False, crc, key))
                        if data is not None:
                            changes.store(key, crc, data)

    def thin(self, block: Block, source: SegmentBytes | None) -> None:
        """Every version of a block; those that stay move out of `source`."""
        lane, _, _ = block
        horizon = self.keep.lane_horizons.get(lane, 0)
        bounds = self.keep.bounds.get(lane, ())
        staying: list[Found] = []
        newer: int | None = None
        for found in self._below(block, horizon):
            number = found.version.number
            # The newest below the horizon is what the horizon, and everything above it, sees.
            if newer is None or needed(number, newer, bounds):
                staying.append(found)
            else:
                self.changes.remove(found)
            newer = number
        if staying and staying[-1].version.zero and not _elsewhere(self.cursor, block, self.lanes):
            while staying and staying[-1].version.zero:
                self.changes.remove(staying.pop())
        if source is not None:
            for found in staying:
                data = source.bytes_of(found.version)
                if data is not None:
                    self.changes.move(found, data)

    def _levels_of(self, lane: int, volume: int) -> tuple[int, ...]:
        found = self.levels.get((lane, volume))
        if found is None:
            found = self.levels[lane, volume] = levels_of(self.cursor, lane, volume)
        return found

    def _below(self, block: Block, horizon: int) -> list[Found]:
        """A block's versions below a horizon, newest first."""
        if horizon <= 0:
            return []
        lane, volume, number = block
        levels = self._levels_of(lane, volume)
        found: list[Found] = []
        for level in levels:
            for key, value in versions_of(self.cursor, block, horizon, level):
                version = version_in(key, value, number)
                if version.number < horizon:
                    found.append(Found(version, key, number, value if level else None))
        if len(levels) > 1:
            found.sort(key=lambda each: -each.version.number)
        return found


class SegmentBytes:
    """The segment that is truncated: `data` are its bytes in [start, end)."""

    def __init__(self, data: memoryview, start: int, end: int) -> None:
        self._start = start
        self._end = end
        self._bytes = data

    def bytes_of(self, version: IndexedVersion) -> memoryview | None:
        """A version's bytes, checked, if this is where they are."""
        if version.zero or version.tail or not self._start <= version.number < self._end:
            return None
        at = version.number - self._start
        data = self._bytes[at : at + BLOCK_BYTES]
        check_bytes(version, data)
        return data


def _elsewhere(cursor: Cursor, block: Block, lanes: list[int]) -> bool:
    """Whether another lane has a version of the block, of any age: a revert may have put it under this
    one."""
    lane, volume, number = block
    return any(indexed_blocks(cursor, each, volume, number, number + 1) for each in lanes if each != lane)
