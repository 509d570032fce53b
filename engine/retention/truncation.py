"""Reclaim: one segment's bytes that are still needed go into the index, so that its file can go.

Of every block that the segment names, the versions below the lane's horizon are looked at. Those that a cut
still needs stay: their bytes move into `blocks` if they stand in this segment; the others' rows go. A
tombstone goes too once nothing lies under it, in no lane: then the block reads as zeroes without it.

All of it, with the horizons and what is kept below them (`engine.retention.needed`), is one transaction. The
caller refuses the cuts that this gives up from before the request on, and removes the file after its answer;
after a crash in between the file is removed at the next start, or the truncation is done again, to the same
end.

A sweep does the same for the whole table, in slices: for what earlier truncations kept and nobody needs any
more.

    meta 'sweep'    the key to go on from

Called by the indexer process; reads no clock.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from engine.history.unread import read_frame
from engine.index.indexed_history import load_timelines
from engine.index.requests import IndexRequest
from engine.index.versions import (
    BLOCK_PREFIX,
    LANE_PREFIX,
    NUMBER_MASK,
    STORED_HEAD_BYTES,
    VERSION_KEY,
    IndexedVersion,
    check_bytes,
    read_version,
    stored_value,
)
from engine.index.view import indexed_blocks
from engine.journal.reader import JournalReader
from engine.journal.segments import Segment, SegmentMap
from engine.ports.store import Cursor, Store, WriteTransaction
from engine.retention.needed import (
    NO_ANCHOR,
    RETENTION_KEY,
    Anchor,
    Keep,
    KeepRow,
    Retention,
    load_retention,
    needed,
)
from protocol.bounds import Lane, Position, TimelineId
from protocol.errors import Corruption, WrongState
from protocol.events import LAST_DATA_KIND, WRITE
from protocol.limits import BLOCK_BYTES, INDEX_SHARE, INDEX_TRANSACTION_BYTES
from protocol.positions import Cut
from protocol.wire import RowType

SWEEP_KEY = b"sweep"
SWEEP_SLICE = 10_000  # blocks

Block = tuple[int, int, int]  # lane, volume, block


# What a version that is moved takes of the file: its bytes, and a share of the pages above them.
MOVED_BYTES = BLOCK_BYTES + BLOCK_BYTES // INDEX_SHARE

_FOLD = RowType(tuple[TimelineId, Lane, Position, Position, KeepRow])
_FOLD_WITHIN = RowType(tuple[TimelineId, Lane, Position, Position, KeepRow, Position])
_SWEEP = RowType(tuple[bool, tuple[tuple[Lane, Position], ...], KeepRow])


class TruncatePlan(IndexRequest, frozen=True, kw_only=True, tag="fold"):
    """Truncate the segment of `timeline`, kept in `lane`, whose frames in [start, end) count; all of it lies
    below a horizon of `keep`, and every earlier segment of the timeline is truncated. `room_bytes`: what the
    index may take of the file system for it, None for any. The figures of the answer: versions moved,
    versions removed."""

    timeline: int
    lane: int
    start: int
    end: int
    keep: Keep
    room_bytes: int | None = None

    def to_row(self) -> tuple[Any, ...]:
        """See `IndexRequest.to_row`."""
        row = (self.timeline, self.lane, self.start, self.end, self.keep.to_row())
        return row if self.room_bytes is None else (*row, self.room_bytes)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """See `IndexRequest.from_row`."""
        room = None
        if len(row) < len(cls.__struct_fields__):
            timeline, lane, start, end, keep = _FOLD.convert(row)
        else:
            timeline, lane, start, end, keep, room = _FOLD_WITHIN.convert(row)
        return cls(timeline=timeline, lane=lane, start=start, end=end, keep=Keep.of(keep), room_bytes=room)


class SweepPlan(IndexRequest, frozen=True, kw_only=True, tag="sweep"):
    """Go on with a sweep, or `begin` one. `dropped` are (lane, number) from which on nothing in the lane is
    needed: branches that were dropped. The figures of the answer: blocks looked at, versions removed, and 1
    if the sweep has come to its end."""

    begin: bool
    dropped: tuple[tuple[int, int], ...]
    keep: Keep

    def to_row(self) -> tuple[Any, ...]:
        """See `IndexRequest.to_row`."""
        return (self.begin, self.dropped, self.keep.to_row())

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """See `IndexRequest.from_row`."""
        begin, dropped, keep = _SWEEP.convert(row)
        return cls(begin=begin, dropped=dropped, keep=Keep.of(keep))


@dataclass(slots=True)
class _Changes:
    """What a transaction will do."""

    removed: list[tuple[bytes, bool]] = field(default_factory=list)  # key, whether it has stored bytes
    moved: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)  # key, row, stored bytes

    def commit(self, write: WriteTransaction) -> None:
        for key, stored in self.removed:
            write.delete("versions", key)
            if stored:
                write.delete("blocks", key)
        self.moved.sort()
        write.put_sorted("versions", ((key, row) for key, row, _ in self.moved))
        write.put_sorted("blocks", ((key, data) for key, _, data in self.moved))


def handle_truncation(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A request to the indexer. What is opened here is the segment alone: others may be gone."""
    plan = TruncatePlan.from_row(row)
    segments.load_timeline(plan.timeline)
    try:
        return run_truncation(store, segments, plan)
    finally:
        gone = segments.segment_at(plan.timeline, plan.start)
        if gone is not None:
            segments.forget(gone)


def handle_sweep(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A request to the indexer."""
    return run_sweep(store, SweepPlan.from_row(row))


def run_truncation(store: Store, segments: SegmentMap, plan: TruncatePlan) -> tuple[int, int]:
    """Carry out a plan. BadFrame or Corruption if the segment is damaged, OSError (ENOSPC) if there is no
    room: then nothing changed."""
    changes = _Changes()
    with store.read() as transaction:
        before = load_retention(transaction)
        if before.truncated_to(plan.timeline) >= plan.end:
            return 0, 0
        indexed = load_timelines(transaction).get(plan.timeline)
        segment = segments.segment_at(plan.timeline, plan.start)
        if indexed is None or indexed.indexed < plan.end or segment is None or segment.start != plan.start:
            raise WrongState("a truncation may not pass what is indexed", position=_place(plan))
        cursor = transaction.cursor("versions")
        named, anchors = _read_segment(segments, cursor, plan, before)
        lanes = _lanes(cursor)
        for block in sorted(named):
            _thin(changes, cursor, block, plan.keep, lanes, (segments, segment, plan.end))
    _require_room(store, plan, len(changes.moved))
    kept = {}
    for cut in plan.keep.cuts:
        here = anchors.get(cut.position) if cut.timeline == plan.timeline else None
        kept[cut] = here or before.anchor(cut.timeline, cut.position) or NO_ANCHOR
    after = Retention(
        horizons=plan.keep.horizons,
        kept=kept,
        truncated={**before.truncated, plan.timeline: (plan.end, anchors[plan.end])},
    )
    with store.write() as write:
        changes.commit(write)
        write.put("meta", RETENTION_KEY, after.to_value())
    return len(changes.moved), len(changes.removed)


def _require_room(store: Store, plan: TruncatePlan, moved: int) -> None:
    """OSError (ENOSPC) if moving so many versions would make the file grow by more than it may. Found out by
    writing, the last page of the file system would be gone: a file that LMDB failed to extend keeps what it
    got."""
    used_bytes, size_bytes = store.space()
    need_bytes = moved * MOVED_BYTES + INDEX_TRANSACTION_BYTES - (size_bytes - used_bytes)
    if plan.room_bytes is not None and need_bytes > plan.room_bytes:
        raise OSError(
            errno.ENOSPC,
            f"the index lacks room: {need_bytes} bytes to move out of the journal, "
            f"{plan.room_bytes} of the file system may be used for it",
        )


def _place(plan: TruncatePlan) -> str:
    return str(Cut(plan.timeline, plan.end))


def _read_segment(
    segments: SegmentMap, cursor: Cursor, plan: TruncatePlan, before: Retention
) -> tuple[set[Block], dict[int, Anchor]]:
    """The blocks that the segment names, and what each of its frames says of the place where it ends."""
    anchor = before.anchor(plan.timeline, plan.start)
    named: set[Block] = set()
    anchors: dict[int, Anchor] = {}
    digest = anchor.digest if anchor else None
    for frame in JournalReader(segments).frames(plan.timeline, plan.start, plan.end, digest):
        prefix = frame.prefix
        anchors[prefix.end] = Anchor(prefix.digest, prefix.utc_ns)
        for row in read_frame(frame).rows:
            if row[0] > LAST_DATA_KIND:
                continue
            kind, volume, first, count = row
            blocks: Iterator[int] | range | list[int] = range(first, first + count)
            if kind != WRITE:
                # The range may be a discarded terabyte; the index has rows only where there was data.
                blocks = indexed_blocks(cursor, plan.lane, volume, first, first + count)
            named.update((plan.lane, volume, block) for block in blocks)
    if plan.end not in anchors:
        raise Corruption(
            f"no frame ends where the segment's history does, at {_place(plan)}",
            subject=f"timeline {plan.timeline:016x}",
            position=_place(plan),
            next_step="`farshore verify GROUP --deep`",
        )
    return named, anchors


def _lanes(cursor: Cursor) -> list[int]:
    """Every lane that has versions."""
    lanes = []
    more = cursor.set_range(LANE_PREFIX.pack(0))
    while more:
        (lane,) = LANE_PREFIX.unpack_from(cursor.key())
        lanes.append(lane)
        more = cursor.set_range(LANE_PREFIX.pack(lane + 1))
    return lanes


def _thin(
    changes: _Changes,
    cursor: Cursor,
    block: Block,
    keep: Keep,
    lanes: list[int],
    source: tuple[SegmentMap, Segment, int] | None,
) -> None:
    """Decide on every version of a block below its lane's horizon."""
    lane, volume, number = block
    horizon = keep.lane_horizons.get(lane, 0)
    bounds = keep.bounds.get(lane, ())
    prefix = BLOCK_PREFIX.pack(lane, volume, number)
    staying: list[IndexedVersion] = []
    newer: int | None = None
    more = horizon > 0 and cursor.set_range(VERSION_KEY.pack(*block, (horizon - 1) ^ NUMBER_MASK))
    while more:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            break
        version = read_version(key, cursor.value())
        # The newest below the horizon is what the horizon, and everything above it, sees.
        if newer is None or needed(version.number, newer, bounds):
            staying.append(version)
        else:
            changes.removed.append((key, bool(version.tail)))
        newer = version.number
        more = cursor.next()
    if staying and staying[-1].zero and not _elsewhere(cursor, block, lanes):
        while staying and staying[-1].zero:
            changes.removed.append((staying.pop().key, False))
    if source is not None:
        for version in staying:
            _move(changes, version, *source)


def _elsewhere(cursor: Cursor, block: Block, lanes: list[int]) -> bool:
    """Whether another lane has a version of the block, of any age: a revert may have put it under this
    one."""
    lane, volume, number = block
    return any(indexed_blocks(cursor, each, volume, number, number + 1) for each in lanes if each != lane)


def _move(
    changes: _Changes, version: IndexedVersion, segments: SegmentMap, segment: Segment, end: int
) -> None:
    """Take a version's bytes out of the segment, if that is where they are."""
    if version.zero or version.tail or not segment.start <= version.number < end:
        return
    data = segments.file(segment).pread(BLOCK_BYTES, version.number - segment.start)
    check_bytes(version, data)
    changes.moved.append((version.key, stored_value(version, data), data[:STORED_HEAD_BYTES]))


def run_sweep(store: Store, plan: SweepPlan) -> tuple[int, int, int]:
    """One slice of a sweep. OSError (ENOSPC): nothing changed."""
    changes = _Changes()
    looked_at = 0
    dropped: dict[int, int] = {}
    for lane, number in plan.dropped:  # several runs of one branch may share a lane
        dropped[lane] = min(number, dropped.get(lane, number))
    with store.read() as transaction:
        before = load_retention(transaction)
        start = b"" if plan.begin else transaction.get("meta", SWEEP_KEY) or b""
        cursor = transaction.cursor("versions")
        lanes = _lanes(cursor)
        more = cursor.set_range(start or b"\0")
        while more and looked_at < SWEEP_SLICE:
            lane, volume, block = BLOCK_PREFIX.unpack_from(cursor.key())
            if lane in dropped:
                _drop(changes, cursor, dropped[lane])
            _thin(changes, cursor, (lane, volume, block), plan.keep, lanes, None)
            looked_at += 1
            more = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, block + 1))
        following = bytes(cursor.key()) if more else b""
    after = Retention(
        horizons=plan.keep.horizons,
        kept={cut: before.anchor(cut.timeline, cut.position) or NO_ANCHOR for cut in plan.keep.cuts},
        truncated=before.truncated,
    )
    with store.write() as write:
        changes.commit(write)
        write.put("meta", RETENTION_KEY, after.to_value())
        if following:
            write.put("meta", SWEEP_KEY, following)
        else:
            write.delete("meta", SWEEP_KEY)
    return looked_at, len(changes.removed), 0 if following else 1


def _drop(changes: _Changes, cursor: Cursor, number: int) -> None:
    """From the newest version of a block on: all that are numbered `number` or above."""
    prefix = bytes(cursor.key())[: BLOCK_PREFIX.size]
    more = True
    while more:
        key = bytes(cursor.key())
        version = read_version(key, cursor.value())
        if not key.startswith(prefix) or version.number < number:
            return
        changes.removed.append((key, bool(version.tail)))
        more = cursor.next()
