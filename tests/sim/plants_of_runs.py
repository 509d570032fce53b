"""Bugs planted where blocks are indexed as runs: how they are cut, found again, and taken apart."""

from __future__ import annotations

from typing import Any

import engine.index.checkpoint
import engine.index.index_batch
import engine.index.levels
import engine.index.memtable
import engine.index.runs
import engine.index.view
import engine.retention.reclaim
import engine.retention.thinning
import engine.retention.truncation
import tests.sim.sim_indexer
from engine.index.levels import level_and_first
from engine.index.memtable import Memtable
from engine.index.versions import VERSION_KEY, unpack_version_key
from engine.retention.thinning import Changes, SegmentBytes
from protocol.limits import BLOCK_BYTES
from tests.sim.plant_registry import plant, rare
from tests.sim.shape import Habit, Patch, Task

# As short as they can be: every write of two blocks side by side is one.
SHORT: Patch = (engine.index.levels, "RUN_SHIFTS", (1, 2, 3))


@plant
def runs_where_they_do_not_begin() -> tuple[Patch, ...]:
    """A write is cut into runs from its first block on, wherever that is."""

    def pieces(first: int, count: int) -> Any:
        for level in (3, 2, 1):
            while count >= engine.index.levels.run_blocks(level):
                size = engine.index.levels.run_blocks(level)
                yield level, first, size
                first, count = first + size, count - size
        if count:
            yield 0, first, count

    return (SHORT, (engine.index.index_batch, "pieces", pieces))


@plant
def checksums_of_the_next_block() -> tuple[Patch, ...]:
    """The checksums of a run stand one place further on than they should."""

    def run_value(*place: Any) -> bytes:
        value = before(*place)
        return value[:1] + value[-4:] + value[1:-4]

    before = engine.index.runs.run_value
    return (SHORT, (engine.index.index_batch, "run_value", run_value))


@plant
def a_block_of_a_run_counts_as_its_first() -> tuple[Patch, ...]:
    """The memtable gives every block of a run the place of the first."""

    def in_chain(chain: Any, low: int, high: int, skip: int) -> int:
        found = before(chain, low, high, skip)
        return found if found < 0 or found & 1 else found - skip

    before = engine.index.memtable._in_chain
    return (SHORT, (engine.index.memtable, "_in_chain", in_chain))


@plant
def levels_that_came_with_a_checkpoint_are_not_looked_at() -> tuple[Patch, ...]:
    """What a reader found out of the index is believed after a checkpoint too."""
    return (SHORT, (Memtable, "index_changed", lambda _: None))


@rare(Habit.WHOLE_RUNS, Habit.SHORT_WINDOW, Task.AUDIT)
def no_single_blocks_until_a_checkpoint() -> tuple[Patch, ...]:
    """Readers of a volume that has nothing but runs look for nothing else, though a truncation takes runs
    apart."""

    def levels_of(cursor: Any, lane: int, volume: int) -> tuple[int, ...]:
        levels = before(cursor, lane, volume)
        return levels if len(levels) < 2 or _has_single(cursor, lane, volume) else levels[1:]

    before = engine.index.runs.levels_of
    return ((engine.index.view, "levels_of", levels_of),)


def _has_single(cursor: Any, lane: int, volume: int) -> bool:
    """Whether the first row of a volume in a lane is a block's."""
    prefix = VERSION_KEY.pack(lane, volume, 0, 0)
    if not cursor.set_range(prefix):
        return False
    key_lane, key_volume, block, _ = unpack_version_key(cursor.key())
    return (key_lane, key_volume, level_and_first(block)[0]) == (lane, volume, 0)


@rare(Habit.SHORT_WINDOW, Habit.LETS_GO, Task.DETACH, Task.DROP)
def runs_of_a_dropped_branch_fall_apart() -> tuple[Patch, ...]:
    """The sweep that takes a branch out of the index thins it, too."""
    return (SHORT, (engine.retention.reclaim, "up_to", lambda horizons, dropped: dict(horizons)))


@rare(Habit.SELDOM_INDEXED, Task.DETACH, Task.DROP)
def zeroes_before_what_they_hide() -> tuple[Patch, ...]:
    """A checkpoint puts zeroes over what it has taken already, and not over what another timeline has."""
    return ((engine.index.checkpoint, "cover_other_lanes", lambda batch: None),)


@rare(Task.BACKUP)
def a_survivor_left_behind() -> tuple[Patch, ...]:
    """A truncation stores the first block of a run, and takes the others for stored."""

    def move(self: Any, found: Any, data: memoryview) -> None:
        _, _, first, blocks, _ = engine.index.runs.place_of(found.key)
        if blocks > 1 and found.block != first:
            self._take(found.key, found.run, found.block)
        else:
            before(self, found, data)

    before = Changes.move
    return (SHORT, (Changes, "move", move))


@rare(Task.BACKUP)
def the_bytes_of_a_runs_first_block() -> tuple[Patch, ...]:
    """What a truncation stores of a run is not checked, and one block off."""

    def bytes_of(self: Any, version: Any) -> memoryview | None:
        if version.zero or version.tail or not self._start <= version.number < self._end:
            return None
        at: int = version.number - self._start
        at -= at % (2 * BLOCK_BYTES)
        data: memoryview = self._bytes[at : at + BLOCK_BYTES]
        return data

    return (SHORT, (SegmentBytes, "bytes_of", bytes_of))


@rare(Task.BACKUP)
def a_truncation_in_two_transactions() -> tuple[Patch, ...]:
    """What was truncated is committed before what stays is stored; the indexer may die in between."""

    def run_truncation(store: Any, segments: Any, plan: Any) -> Any:
        held: list[Any] = []
        commit = Changes.commit
        Changes.commit = lambda self, write: held.append(self)  # type: ignore[method-assign]
        try:
            figures = before(store, segments, plan)
        finally:
            Changes.commit = commit  # type: ignore[method-assign]
        for changes in held:
            with store.write() as write:
                changes.commit(write)
        return figures

    before = engine.retention.truncation.run_truncation
    return (
        (engine.retention.truncation, "run_truncation", run_truncation),
        (tests.sim.sim_indexer, "DIES_ALONE", 0.6),
    )
