"""Which blocks of a volume hold data, a bounded piece of work at a time.

A map costs what is allocated, not what is not: the index is walked from one version to the next, whatever
lies between. Of what the memtable has, which is in no order, either all is looked at, or so many blocks of
regions that have any. Whoever asks for a map serves hosts beside it, so a scan ends early once it has done
`WORK_MAX`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Protocol

from engine.history.visibility import Interval
from engine.index.levels import run_blocks
from engine.index.memtable import REGION_SHIFT, Memtable, VolumeVersions
from engine.index.runs import indexed_runs
from engine.index.versions import NUMBER_MASK, STORED_VALUE, VERSION_VALUE, VersionKind, unpack_version_key
from engine.ports.store import Cursor
from protocol.limits import BLOCK_BYTES

Stretch = tuple[int, bool]

# What one scan may do, some 0.6 ms: a block that is known is 1, a row of the index more, a block that must be
# looked up still more.
WORK_MAX = 2048
ROW_WORK = 7
LOOK_UP_WORK = 16
# Blocks with a version that are looked at in one step, and places of the memtable. QEMU asks for one extent
# at a time: a whole step for each would make a map quadratic, so those begin with the smaller figure.
STEP_BLOCKS, FIRST_STEP_BLOCKS = 128, 32
STEP_PROBES, FIRST_STEP_PROBES = 4096, 64
PROBES_A_WORK = 4
_LARGEST_RUN = run_blocks(3)
_SINGLE = {VERSION_VALUE.size: int(VersionKind.JOURNAL), STORED_VALUE.size: int(VersionKind.STORED)}


class Batch(Protocol):
    """See `engine.index.view.ReadBatch`."""

    def cursor(self) -> Cursor:
        """A cursor on `versions`."""

    def levels(self, lane: int, volume: int) -> tuple[int, ...]:
        """At which levels the index has rows."""


class ExtentScan:
    """Of one volume (id) as `intervals` see it. `holds_data` looks one block up, in all that there is."""

    def __init__(
        self,
        volume: int,
        intervals: tuple[Interval, ...],
        memtable: Memtable,
        batch: Batch,
        holds_data: Callable[[int], bool],
    ) -> None:
        self._volume = volume
        self._intervals = intervals
        self._lanes = sorted({interval.lane for interval in intervals})
        self._batch = batch
        self._holds_data = holds_data
        self._held: list[VolumeVersions] = [
            versions
            for lane in self._lanes
            for layer in memtable.layers
            if (versions := layer.volumes.get((lane, volume))) is not None
        ]
        self._held_count = sum(map(len, self._held))
        self._places: list[tuple[int, int]] | None = None  # (first block, blocks), once it is cheap
        self._ranges = any(versions.ranges for versions in self._held)
        self._work = WORK_MAX

    def run(self, first: int, end: int, *, only_one: bool) -> list[Stretch]:
        """(blocks, holds data) of neighbouring stretches from `first`, at least one; they may end before
        `end`. With `only_one` soon after the first."""
        stretches: list[Stretch] = []
        block = first
        most, probes = (FIRST_STEP_BLOCKS, FIRST_STEP_PROBES) if only_one else (STEP_BLOCKS, STEP_PROBES)
        while block < end and self._work > 0 and not (only_one and len(stretches) > 1):
            block = self._step(stretches, block, end, most, probes)
            most, probes = min(2 * most, STEP_BLOCKS), min(2 * probes, STEP_PROBES)
        return stretches

    def _step(self, stretches: list[Stretch], first: int, end: int, most: int, probes: int) -> int:
        """Add what lies between `first` and what is returned."""
        held, end = self._from_memtable(first, end, most, probes)
        known = dict.fromkeys(held, False)  # whether what is known says that it holds data
        for lane in self._lanes:
            for level in self._batch.levels(lane, self._volume):
                end = self._from_index(known, lane, level, first, end, most)
        at = first
        for block in sorted(known):
            if block >= end:
                break
            self._work -= 1
            data = known[block]
            if not data:
                self._work -= LOOK_UP_WORK
                data = self._holds_data(block)
            if data:
                extend_stretches(stretches, block - at, False)
                extend_stretches(stretches, 1, True)
                at = block + 1
        extend_stretches(stretches, end - at, False)
        return end

    def _from_memtable(self, first: int, end: int, most: int, probes: int) -> tuple[set[int], int]:
        """Blocks that have a version there, about so many at most, and where the look ended."""
        if not self._held:
            return set(), end
        if self._places is None and self._held_count <= probes:
            self._work -= self._held_count // PROBES_A_WORK
            self._places = _places(self._held)
        if self._places is not None:
            return _from_places(self._places, first, end, most)
        skipped = self._skip(first, end, probes)
        if skipped > first:
            return set(), min(end, skipped)
        end = min(end, first + max(1, probes // len(self._held)))
        self._work -= probes // PROBES_A_WORK
        found: set[int] = set()
        for versions in self._held:
            found |= versions.within(first, end)
        if len(found) > most:
            end = sorted(found)[most]
        return {block for block in found if block < end}, end

    def _skip(self, first: int, end: int, probes: int) -> int:
        """Where the next region begins that has a block in the memtable; or how far that was looked for."""
        region = first >> REGION_SHIFT
        last = min(region + probes, end >> REGION_SHIFT)
        while region <= last and not any(region in versions.regions for versions in self._held):
            region += 1
        return region << REGION_SHIFT

    def _from_index(
        self, known: dict[int, bool], lane: int, level: int, first: int, end: int, most: int
    ) -> int:
        """Add the blocks that rows of a lane and level are of; where that ended. Each holds data if all that
        is found of it does, as the newest interval sees it, and nothing hides it."""
        cursor, size = self._batch.cursor(), run_blocks(level)
        newest = self._intervals[0]
        low, high = (newest.low, newest.high) if newest.lane == lane and not self._ranges else (0, 0)
        for at in indexed_runs(cursor, lane, self._volume, level, first, end):
            if most <= 0:
                return max(at, first)
            most -= size
            self._work -= ROW_WORK
            number, value = unpack_version_key(cursor.key())[3] ^ NUMBER_MASK, cursor.value()
            data = low <= number and number + (size - 1) * BLOCK_BYTES < high and _is_data(value, size)
            if size == 1:
                known[at] = known.get(at, True) and data
            else:
                for block in range(max(first, at), min(end, at + size)):
                    known[block] = known.get(block, True) and data
        return end


def _is_data(value: bytes, blocks: int) -> bool:
    """Whether a row of so many blocks says by itself that all of them hold data."""
    if not value:
        return False
    if blocks > 1:
        return value[0] == VersionKind.RUN and len(value) == 1 + 4 * blocks
    return _SINGLE.get(len(value)) == value[0]


def _places(held: list[VolumeVersions]) -> list[tuple[int, int]]:
    """(first block, blocks) of all places, in order."""
    places = {(block, 1) for versions in held for block in versions.blocks}
    for versions in held:
        for level, runs in enumerate(versions.runs, 1):
            places.update((start, run_blocks(level)) for start in runs)
    return sorted(places)


def _from_places(places: list[tuple[int, int]], first: int, end: int, most: int) -> tuple[set[int], int]:
    """Their blocks from `first` on, about so many at most; and up to where those are all."""
    found: set[int] = set()
    for at in range(bisect_left(places, (first - _LARGEST_RUN + 1, 0)), len(places)):
        start, size = places[at]
        if start >= end:
            break
        if len(found) >= most and start > first:
            return {block for block in found if block < start}, start
        found.update(range(max(first, start), min(end, start + size)))
    return found, end


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
