"""Which blocks of a volume hold data, a bounded piece of work at a time.

A map costs what is allocated, not what is not: the index is walked from one version to the next, whatever
lies between. Of what the memtable has, which is in no order, either all is looked at, or so many blocks of
regions that have any. Whoever asks for a map serves hosts beside it, so a scan ends early once it has done
`WORK_MAX`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import islice

from engine.history.visibility import Interval
from engine.index.memtable import REGION_SHIFT, Memtable, VolumeVersions
from engine.index.versions import (
    BLOCK_PREFIX,
    NUMBER_MASK,
    STORED_VALUE,
    VERSION_VALUE,
    VersionKind,
    unpack_version_key,
)
from engine.ports.store import Cursor

Stretch = tuple[int, bool]

# What one scan may do: a version of the index that says by itself what is seen is 1, another look-up more.
# About 2 ms.
WORK_MAX = 1024
LOOK_UP_WORK = 2
# Versions of the index, and blocks of the memtable, that are looked at in one step. QEMU asks for one extent
# at a time: a whole step for each would make a map quadratic, so those begin with the smaller figure.
STEP_ROWS, FIRST_STEP_ROWS = 512, 32
STEP_PROBES, FIRST_STEP_PROBES = 8192, 64
PROBES_A_WORK = 32
_DATA = {
    VERSION_VALUE.size: int(VersionKind.JOURNAL),
    STORED_VALUE.size: int(VersionKind.STORED),
}


class ExtentScan:
    """Of one volume (id) as `intervals` see it. `holds_data` looks one block up, in all that there is."""

    def __init__(
        self,
        volume: int,
        intervals: tuple[Interval, ...],
        memtable: Memtable,
        cursor: Callable[[], Cursor],
        holds_data: Callable[[int], bool],
    ) -> None:
        self._volume = volume
        self._intervals = intervals
        self._lanes = sorted({interval.lane for interval in intervals})
        self._cursor = cursor
        self._holds_data = holds_data
        self._held: list[VolumeVersions] = [
            versions
            for lane in self._lanes
            for layer in memtable.layers
            if (versions := layer.volumes.get((lane, volume))) is not None
        ]
        self._held_count = sum(len(versions.blocks) for versions in self._held)
        self._sorted: list[int] | None = None  # all of their blocks, once it is cheap to have them
        self._ranges = any(versions.ranges for versions in self._held)
        self._work = WORK_MAX

    def run(self, first: int, end: int, *, only_one: bool) -> list[Stretch]:
        """(blocks, holds data) of neighbouring stretches from `first`, at least one; they may end before
        `end`. With `only_one` soon after the first."""
        stretches: list[Stretch] = []
        block = first
        rows, probes = (FIRST_STEP_ROWS, FIRST_STEP_PROBES) if only_one else (STEP_ROWS, STEP_PROBES)
        while block < end and self._work > 0 and not (only_one and len(stretches) > 1):
            block = self._step(stretches, block, end, rows, probes)
            rows, probes = min(2 * rows, STEP_ROWS), min(2 * probes, STEP_PROBES)
        return stretches

    def _step(self, stretches: list[Stretch], first: int, end: int, rows: int, probes: int) -> int:
        """Add what lies between `first` and what is returned."""
        held, end = self._from_memtable(first, end, rows, probes)
        known: dict[int, bool | None] = dict.fromkeys(held)
        for lane in self._lanes:
            end = self._from_index(known, lane, first, end, rows)
        at = first
        for block in sorted(known):
            if block >= end:
                break
            data = known[block]
            if data is None:
                self._work -= LOOK_UP_WORK
                data = self._holds_data(block)
            else:
                self._work -= 1
            if data:
                extend_stretches(stretches, block - at, False)
                extend_stretches(stretches, 1, True)
                at = block + 1
        extend_stretches(stretches, end - at, False)
        return end

    def _from_memtable(self, first: int, end: int, rows: int, probes: int) -> tuple[set[int], int]:
        """Blocks that have a version there, so many at most of each part of it, and where the look ended."""
        if self._sorted is None and self._held_count <= probes:
            self._work -= self._held_count // PROBES_A_WORK
            self._sorted = sorted({block for versions in self._held for block in versions.blocks})
        found: set[int] = set()
        if self._sorted is not None:
            at = bisect_left(self._sorted, first)
            end = min([end, *self._sorted[at + rows : at + rows + 1]])
            found.update(self._sorted[at : at + rows])
            return found, end
        skipped = self._skip(first, end, probes)
        if skipped > first:
            return found, min(end, skipped)
        end = min(end, first + max(1, probes // len(self._held)))
        self._work -= probes // PROBES_A_WORK
        for versions in self._held:
            blocks = versions.blocks
            some = list(islice((block for block in range(first, end) if block in blocks), rows + 1))
            end = min([end, *some[rows:]])
            found.update(some)
        return found, end

    def _skip(self, first: int, end: int, probes: int) -> int:
        """Where the next region begins that has a block in the memtable; or how far that was looked for."""
        region = first >> REGION_SHIFT
        last = min(region + probes, end >> REGION_SHIFT)
        while region <= last and not any(region in versions.regions for versions in self._held):
            region += 1
        return region << REGION_SHIFT

    def _from_index(self, known: dict[int, bool | None], lane: int, first: int, end: int, rows: int) -> int:
        """Add the blocks of a lane, with what the newest version says where nothing hides it; where that
        ended."""
        cursor, volume = self._cursor(), self._volume
        newest = self._intervals[0]
        low, high = (newest.low, newest.high) if newest.lane == lane and not self._ranges else (0, 0)
        before = -1
        found = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, first))
        while found:
            key_lane, key_volume, block, inverted = unpack_version_key(cursor.key())
            if key_lane != lane or key_volume != volume or block >= end:
                break
            if block == before:
                # An older version of it, perhaps the first of many.
                found = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, block + 1))
                continue
            if rows == 0:
                return block
            rows -= 1
            before = block
            seen: bool | None = None
            if block not in known and low <= inverted ^ NUMBER_MASK < high:
                value = cursor.value()
                seen = True if value and _DATA.get(len(value)) == value[0] else None
            known[block] = seen
            found = cursor.next()
        return end


def extend_stretches(stretches: list[Stretch], blocks: int, data: bool) -> None:
    """Add `blocks` blocks to neighbouring stretches of (blocks, flag); none is fine."""
    if blocks <= 0:
        return
    if stretches and stretches[-1][1] == data:
        stretches[-1] = (stretches[-1][0] + blocks, data)
    else:
        stretches.append((blocks, data))


def trim_stretches(stretches: list[Stretch], skip: int, length: int) -> list[Stretch]:
    """Stretches of (bytes, flag) with `skip` bytes cut off the front and everything past `length`."""
    trimmed = []
    for size, data in stretches:
        cut = min(skip, size)
        skip -= cut
        kept = min(size - cut, length)
        length -= kept
        if kept:
            trimmed.append((kept, data))
    return trimmed
