"""Bugs planted in timelines, shipping, and what hosts write and read."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

import engine.group.group
import engine.group.recovery
import engine.group.site_state
import engine.history.timelines
import engine.history.volumes
import engine.index.checkpoint
import engine.index.memtable
import engine.journal.reader
import site_primary.shipping.comparison
import site_primary.shipping.send_window
import site_primary.shipping.shipper
from engine.group.group import Group
from engine.history.lineage import frames_after
from engine.journal.writer import JournalWriter
from protocol.events import WRITE
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from site_primary.write_path import WriteBatch
from tests.sim.plant_registry import plant
from tests.sim.shape import Patch

# -- timelines


@plant
def head_not_remembered() -> tuple[Patch, ...]:
    """Writing begins in a new timeline before the site knows durably that it is its head."""
    return ((engine.group.site_state.SiteState, "set_head", lambda self, name, head: None),)


@plant
def lane_shared_with_a_branch() -> tuple[Patch, ...]:
    """A timeline keeps its versions among those of the tail that it left behind."""

    def lane(self: Any, parent: int, fork: int, *, certain: bool) -> int:
        return self.get(parent).lane if parent else 0

    return ((engine.history.timelines.TimelineTable, "lane_for_child", lane),)


@plant
def revert_to_now() -> tuple[Patch, ...]:
    """A revert turns a volume back to where it is."""

    def reverted(self: Any, timeline: int, position: int, event: Any) -> None:
        before(self, timeline, position, msgspec.structs.replace(event, cut=Cut(timeline, position)))

    history = engine.history.volumes.VolumeHistory
    before = history.reverted
    return ((history, "reverted", reverted),)


@plant
def fork_not_made_durable() -> tuple[Patch, ...]:
    """A new timeline becomes the head before its first frame is durable."""

    def sync_now(self: Any) -> None:
        self._reached(self.written)

    return ((JournalWriter, "sync_now", sync_now),)


@plant
def time_goes_back() -> tuple[Patch, ...]:
    """A writer promises a time to its peer, and writes frames of an earlier one when its clock is set
    back."""

    def promise(self: Any) -> int:
        return max(self.clock.utc_ns(), self.head.utc_ns)

    return ((Group, "promise_utc_ns", promise),)


# -- shipping


@plant
def skip_digest_check() -> tuple[Patch, ...]:
    """A follower stores what it gets. Damage on the way stays."""
    return ((engine.group.group, "check_frame", lambda prefix, raw, digest: None),)


@plant
def lost_tail_called_divergence() -> tuple[Patch, ...]:
    """A secondary that holds what the writer lost is never sent anything again."""

    def start_for(
        *args: Any, before: Any = site_primary.shipping.comparison.where_to_start, **said: Any
    ) -> Any:
        start = before(*args, **said)
        verdict = site_primary.shipping.comparison.Verdict.DIVERGED
        return dataclasses.replace(start, verdict=verdict) if start.tail else start

    return ((site_primary.shipping.shipper, "where_to_start", start_for),)


@plant
def frames_before_the_fork_skipped() -> tuple[Patch, ...]:
    """A follower that lags behind a fork is sent the new timeline only."""

    def after(group: Any, at: Any, before: Any = frames_after) -> Any:
        if at.timeline not in (0, group.head.timeline):
            at = Cut(group.head.timeline, group.timelines.get(group.head.timeline).fork)
        return before(group, at)

    return ((site_primary.shipping.send_window, "frames_after", after),)


# -- what is written and read


@plant
def zeroes_outrank_the_next_write() -> tuple[Patch, ...]:
    """A zeroed range is numbered as if it came after the write that follows it in its frame."""

    def zero(self: Any, layer: Any, lane: int, row: Any, entry: int) -> None:
        before(self, layer, lane, row, entry + 4)

    memtable = engine.index.memtable.Memtable
    before = memtable._zero
    return ((memtable, "_zero", zero),)


@plant
def trim_takes_whole_blocks() -> tuple[Patch, ...]:
    """A trim zeroes the blocks that it covers in part, too."""

    def zero(self: Any, offset: int, length: int, *, trim: bool, before: Any = WriteBatch.zero) -> None:
        first = offset - offset % BLOCK_BYTES
        end = -(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES
        before(self, *((first, end - first) if trim else (offset, length)), trim=trim)

    return ((WriteBatch, "zero", zero),)


@plant
def merge_without_own_batch() -> tuple[Patch, ...]:
    """A partial write is merged with what the block held before this batch."""
    return ((WriteBatch, "_remember", lambda self, block, data: None),)


@plant
def stale_view_after_revert() -> tuple[Patch, ...]:
    """Hosts go on reading what was visible before a revert."""
    return ((Group, "view_changed", lambda self: None),)


@plant
def newest_version_at_any_cut() -> tuple[Patch, ...]:
    """The memtable gives its newest version whatever the cut."""

    def newest(self: Any, block: int, low: int, high: int, before: Any) -> int:
        return before(self, block, low, 1 << 60)

    versions = engine.index.memtable.VolumeVersions
    original = versions.newest
    return ((versions, "newest", lambda self, block, low, high: newest(self, block, low, high, original)),)


@plant
def range_off_by_one() -> tuple[Patch, ...]:
    """The last block of a write gets into the journal and not into the memtable."""

    def apply(self: Any, lane: int, rows: Any, payload_at: int, before: Any = None) -> None:
        rows = [(*row[:3], row[3] - 1) if row[0] == WRITE and row[3] > 1 else row for row in rows]
        original(self, lane, rows, payload_at)

    memtable = engine.index.memtable.Memtable
    original = memtable.apply
    return ((memtable, "apply", apply),)
