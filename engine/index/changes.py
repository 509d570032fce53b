"""Which blocks of a volume may differ between two cuts.

A block can differ only if exactly one of the two cuts sees one of its versions: the blocks named here are
those with a version or a tombstone in the symmetric difference of the two visibilities. That may name a block
that is the same again (written, then turned back), and never misses one: what is skipped is skipped by what
the index says of a whole region, never by a guess (openzfs#4809 is what a guess costs).

Why the difference of the sets is enough although visibility is a list in order: an interval stands above
another because its events came later, and that is so at every cut which sees both.

A scan goes on by block number in slices; no read transaction outlives one, and versions may move from the
memtable into the index between two of them. Its cost is in proportion to the rows that it looks at: regions
whose newest version is older than every difference are stepped over.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

from engine.history.visibility import Interval
from engine.index.levels import ALL_LEVELS, level_and_first, run_blocks, tagged
from engine.index.memtable import NOT_FOUND, Memtable, VolumeVersions
from engine.index.versions import (
    BLOCK_PREFIX,
    NUMBER_MASK,
    REGION_BLOCKS,
    REGION_KEY,
    VERSION_KEY,
    region_number,
    unpack_version_key,
)
from engine.ports.store import Cursor, ReadTransaction, Store
from protocol.limits import BLOCK_BYTES

Ranges = list[tuple[int, int]]  # of version numbers, half-open, ascending, apart

SLICE_ROWS = 2000
MEMTABLE_WINDOW_BLOCKS = 8192


def difference(before: tuple[Interval, ...], after: tuple[Interval, ...]) -> dict[int, Ranges]:
    """By lane: the numbers that exactly one of two visibilities has."""
    edges: dict[int, set[int]] = {}
    for intervals in (before, after):
        for lane in {interval.lane for interval in intervals}:
            for low, high in _merged(intervals, lane):
                # A place where both begin or end is no edge of the difference.
                edges.setdefault(lane, set()).symmetric_difference_update((low, high))
    found = {}
    for lane, places in sorted(edges.items()):
        ordered = sorted(places)
        if ordered:
            found[lane] = list(zip(ordered[::2], ordered[1::2], strict=True))
    return found


def _merged(intervals: tuple[Interval, ...], lane: int) -> Ranges:
    merged: Ranges = []
    for _, low, high in sorted(interval for interval in intervals if interval.lane == lane):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        elif low < high:
            merged.append((low, high))
    return merged


class ChangeScan:
    """One volume (id) of `blocks` blocks, between what `before` sees (nothing: an empty tuple) and `after`.
    `next_block` is where the next slice begins."""

    def __init__(
        self,
        *,
        store: Store,
        memtable: Memtable,
        volume: int,
        blocks: int,
        before: tuple[Interval, ...],
        after: tuple[Interval, ...],
        first: int = 0,
    ) -> None:
        self.next_block = first
        self.blocks = blocks
        self.rows = 0
        self._store = store
        self._memtable = memtable
        self._volume = volume
        self._lanes = difference(before, after)

    @property
    def done(self) -> bool:
        """Whether the whole volume was looked at."""
        return self.next_block >= self.blocks or not self._lanes

    def slice(self, rows_max: int = SLICE_ROWS) -> list[int]:
        """Blocks that may differ from `next_block` on, in order, after looking at no more than about
        `rows_max` rows a lane."""
        if self.done:
            return []
        first, end = self.next_block, self.blocks
        found: set[int] = set()
        # The memtable first: a checkpoint that ends in between leaves its versions in both.
        if any(
            (lane, self._volume) in layer.volumes for lane in self._lanes for layer in self._memtable.layers
        ):
            end = min(end, first + MEMTABLE_WINDOW_BLOCKS)
            for lane, ranges in self._lanes.items():
                self._from_memtable(found, lane, ranges, first, end)
        with self._store.read() as transaction:
            for lane, ranges in self._lanes.items():
                for level in (0, *ALL_LEVELS):
                    blocks, end = self._from_index(transaction, lane, level, ranges, first, end, rows_max)
                    found.update(blocks)
        self.next_block = end
        return sorted(block for block in found if block < end)

    def _from_memtable(self, found: set[int], lane: int, ranges: Ranges, first: int, end: int) -> None:
        for layer in self._memtable.layers:
            versions = layer.volumes.get((lane, self._volume))
            if versions is None:
                continue
            held = versions.within(first, end)
            found.update(block for block in held if _kept_within(versions, block, ranges))
            for entry, range_first, range_end in versions.ranges:
                if _at_or_below(ranges, entry >> 1)[1] > entry >> 1:
                    found.update(range(max(first, range_first), min(end, range_end)))

    def _from_index(
        self,
        transaction: ReadTransaction,
        lane: int,
        level: int,
        ranges: Ranges,
        first: int,
        end: int,
        rows_max: int,
    ) -> tuple[list[int], int]:
        """Blocks of one lane in [first, end) that have a row of a level, and where the look at it ended. A
        run that has a version within the ranges gives all of its blocks, and counts as many rows: each of
        them will have to be looked at."""
        blocks: list[int] = []
        cursor = transaction.cursor("versions")
        volume, size = self._volume, run_blocks(level)
        rows, region = 0, -1
        found = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, tagged(level, first & -size)))
        while found:
            key_lane, key_volume, tag, inverted = unpack_version_key(cursor.key())
            key_level, start = level_and_first(tag)
            if (key_lane, key_volume, key_level) != (lane, volume, level) or start >= end:
                break
            if rows >= rows_max:
                end = start
                break
            rows += 1
            if start // REGION_BLOCKS != region:
                region = start // REGION_BLOCKS
                # No row says nothing: an index made before there were regions.
                newest = region_number(transaction.get("regions", REGION_KEY.pack(lane, volume, region)))
                if newest < ranges[0][0]:
                    behind = tagged(level, (region + 1) * REGION_BLOCKS)
                    found = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, behind))
                    continue
            if _within(cursor, (lane, volume, tag), inverted ^ NUMBER_MASK, ranges):
                blocks.extend(range(max(first, start), min(end, start + size)))
                rows += size - 1
            found = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, tag + size))
        self.rows += rows
        return blocks, end


def _at_or_below(ranges: Ranges, number: int) -> tuple[int, int]:
    """The last range that begins at or before a number; (0, 0) if there is none."""
    at = bisect_right(ranges, number, key=itemgetter(0))
    return ranges[at - 1] if at else (0, 0)


def _kept_within(versions: VolumeVersions, block: int, ranges: Ranges) -> bool:
    """Whether a block has a version in the memtable within any of the ranges: as `_within`."""
    low, high = ranges[0][0], ranges[-1][1]
    while (entry := versions.newest(block, low, high)) != NOT_FOUND:
        _, high = _at_or_below(ranges, entry >> 1)
        if entry >> 1 < high:
            return True
    return False


def _within(cursor: Cursor, place: tuple[int, int, int], number: int, ranges: Ranges) -> bool:
    """Whether the rows with a key's lane, volume and field `block`, the newest of which is numbered `number`,
    have a version within any of the ranges: as many as there were restores, which are not gone through one
    after the other. A run's numbers are those of all of its blocks."""
    level, _ = level_and_first(place[2])
    length = run_blocks(level) * BLOCK_BYTES if level else 1
    while True:
        _, high = _at_or_below(ranges, number + length - 1)
        if number < high:
            return True
        # Further down there may be one: the newest below the range's end.
        if not high or not cursor.set_range(VERSION_KEY.pack(*place, (high - 1) ^ NUMBER_MASK)):
            return False
        *found, inverted = unpack_version_key(cursor.key())
        if tuple(found) != place:
            return False
        number = inverted ^ NUMBER_MASK
