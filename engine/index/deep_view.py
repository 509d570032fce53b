"""Where the newest version of a block lies among many intervals.

A volume that was turned back a thousand times shows a thousand intervals. To look into each would make a read
of a block that was never written since take a thousand look-ups. Within one lane the intervals are disjoint
and go down, so one look-up over all of them says which one comes next: the newest version below the first
interval's end is either in an interval, or in what a restore took back, between two; then the look-up goes on
below that. So a block costs a look-up for each lane, and one for each stretch that was taken back in which it
was written and still has a version.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from engine.history.visibility import Interval
from engine.index.memtable import NOT_FOUND, Memtable
from engine.index.runs import newest_indexed
from engine.index.versions import IndexedVersion
from engine.integrity.faults import DamagedVersion
from engine.ports.store import Cursor

# Fewer than this are looked into one after the other.
DEEP_FROM = 2


class Strand(NamedTuple):
    """The intervals of one lane, newest first: their numbers in the visibility, and their upper ends.
    `floors` are their lower ends, negative, so that they go up; `from_here` reach from each one's upper end
    down to the strand's lowest."""

    at: list[int]
    highs: list[int]
    floors: list[int]
    from_here: list[Interval]


def strands_of(intervals: Sequence[Interval]) -> list[Strand] | None:
    """By lane, the one with the newest interval first. None if there are few intervals, or if those of a lane
    do not go down."""
    if len(intervals) < DEEP_FROM:
        return None
    found: dict[int, Strand] = {}
    for at, (lane, low, high) in enumerate(intervals):
        strand = found.setdefault(lane, Strand([], [], [], []))
        if strand.at and high > -strand.floors[-1]:
            return None
        strand.at.append(at)
        strand.highs.append(high)
        strand.floors.append(-low)
    for lane, strand in found.items():
        lowest = -strand.floors[-1]
        strand.from_here.extend(Interval(lane, lowest, high) for high in strand.highs)
    return list(found.values())


def newest_kept(
    memtable: Memtable, volume: int, block: int, strand: Strand, before: int
) -> tuple[int, int] | None:
    """The newest version of a block in the memtable within a strand: the number of its interval, and its
    entry. None if there is none in an interval numbered below `before`."""
    at, one = strand.at, 0
    while one < len(at) and at[one] < before:
        entry = memtable.newest(volume, block, strand.from_here[one])
        if entry == NOT_FOUND:
            return None
        # The newest interval that begins at or before it.
        one = bisect_left(strand.floors, -(entry >> 1))
        if entry >> 1 < strand.highs[one]:
            return (at[one], entry) if at[one] < before else None
    return None


def newest_stored(
    cursor: Cursor, volume: int, block: int, strand: Strand, before: int, levels: tuple[int, ...]
) -> tuple[int, IndexedVersion] | None:
    """The same in the index, where the strand's lane has rows at these levels. Corruption if it cannot be
    read; what a restore took back may be damaged."""
    at, one = strand.at, 0
    while one < len(at) and at[one] < before:
        version = failed = None
        try:
            version = newest_indexed(cursor, volume, block, strand.from_here[one], levels)
        except DamagedVersion as error:
            failed = error
        found = version or failed
        if found is None:
            return None
        one = bisect_left(strand.floors, -found.number)
        if found.number < strand.highs[one]:
            if at[one] >= before:
                return None
            if failed is not None:
                raise failed
            return (at[one], version) if version is not None else None
    return None
