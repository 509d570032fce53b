"""A checkpoint: everything that the journal says up to a position, put into LMDB in one synced transaction.

What goes in: the versions of every block, the records (all events but data), the timelines with how far each
is indexed and the digest there, and the position itself. Recovery walks the journal from here.

Rules. Never past what is durable: an index row that names bytes which a power loss took would be a lie that
no journal walk could find. Each timeline of the target's lineage is indexed from its own mark, so that a
fork below an indexed position (a follower whose tail became a branch) is taken up where it left.

    meta 'checkpoint'   row (head timeline, position)
    timelines           row (parent, fork, generation, writer, lane, indexed, digest)
    records             row (UTC ns, frame position, frame end, event row)

Called by the indexer process; reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from engine.history.base_rows import load_bases
from engine.history.bases import spans_from_base
from engine.history.timelines import Timeline, TimelineTable
from engine.history.unread import read_frame
from engine.index.requests import IndexRequest
from engine.index.versions import (
    NUMBER_MASK,
    RECORD_KEY,
    REGION_BLOCKS,
    REGION_KEY,
    REGION_VALUE,
    TIMELINE_KEY,
    VERSION_KEY,
    index_row,
    version_value,
)
from engine.index.view import indexed_blocks
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.disk import Buffer
from engine.ports.store import Cursor, ReadTransaction, Store, WriteTransaction
from engine.retention.needed import load_retention
from protocol.bounds import AnyTimeline, DigestOrNone, Generation, Lane, Position, SiteId, UtcNs
from protocol.errors import WrongState
from protocol.events import LAST_DATA_KIND, WRITE, Row
from protocol.frames import Frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

CHECKPOINT_KEY = b"checkpoint"
_CUT = RowType(Cut)
_RECORD = RowType(tuple[UtcNs, Position, tuple[Any, ...]])  # of the event, its kind says more
_TIMELINE = RowType(tuple[AnyTimeline, Position, Generation, SiteId, Lane, Position, DigestOrNone])


class CheckpointPlan(IndexRequest, frozen=True, kw_only=True, tag="checkpoint"):
    """Index the lineage of `target`, which lies at or below position `durable`, and every timeline of
    `branches` to the end given. `timelines` names all of them."""

    URGENT: ClassVar[bool] = True

    target: Cut
    durable: Position
    timelines: tuple[Timeline, ...]
    branches: tuple[Cut, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedTimeline:
    """A row of `timelines`: how far it is indexed, and the journal's digest there."""

    timeline: Timeline
    indexed: int
    digest: bytes


@dataclass(slots=True)
class IndexBatch:
    """What one transaction adds. `regions`: the newest number by (lane, volume, region)."""

    versions: dict[bytes, bytes] = field(default_factory=dict)
    regions: dict[tuple[int, int, int], int] = field(default_factory=dict)
    written: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    records: dict[bytes, bytes] = field(default_factory=dict)


def load_timelines(transaction: ReadTransaction) -> dict[int, IndexedTimeline]:
    """Every row of `timelines`."""
    found = {}
    cursor = transaction.cursor("timelines")
    more = cursor.set_range(b"\0")
    while more:
        with index_row("timelines", cursor.key()):
            (timeline_id,) = TIMELINE_KEY.unpack(cursor.key())
            row = _TIMELINE.decode(cursor.value())
        parent, fork, generation, writer, lane, indexed, digest = row
        timeline = Timeline(
            id=timeline_id,
            parent=parent,
            fork=fork,
            generation=generation,
            writer=writer,
            lane=lane,
        )
        found[timeline_id] = IndexedTimeline(timeline=timeline, indexed=indexed, digest=digest)
        more = cursor.next()
    return found


def load_checkpoint(transaction: ReadTransaction) -> Cut | None:
    """The last checkpoint's target, or None if there was none."""
    value = transaction.get("meta", CHECKPOINT_KEY)
    if value is None:
        return None
    with index_row("meta", CHECKPOINT_KEY):
        return _CUT.decode(value)


def load_records(transaction: ReadTransaction) -> Iterable[tuple[int, int, int, int, Row]]:
    """(timeline, event position, frame position, UTC ns, event row) of every record, by timeline and
    position."""
    cursor = transaction.cursor("records")
    more = cursor.set_range(b"\0")
    while more:
        with index_row("records", cursor.key()):
            timeline, position = RECORD_KEY.unpack(cursor.key())
            utc_ns, frame_position, row = _RECORD.decode(cursor.value())
        yield timeline, position, frame_position, utc_ns, row
        more = cursor.next()


def handle_checkpoint(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A request to the indexer; its one figure is the number of versions added."""
    plan = CheckpointPlan.from_row(row)
    # Not those of other timelines: a fork that is being tried leaves files which the next try replaces.
    for timeline in plan.timelines:
        segments.load_timeline(timeline.id)
    with store.read() as transaction:
        retention = load_retention(transaction)
    return (run_checkpoint(store, JournalReader(segments, retention.anchor), plan),)


def run_checkpoint(store: Store, reader: JournalReader, plan: CheckpointPlan) -> int:
    """Carry out a plan; returns the number of versions added. BadFrame or Corruption if the journal cannot be
    read up to the target, OSError (ENOSPC) if there is no room: then nothing changed."""
    if plan.target.position > plan.durable:
        raise WrongState("a checkpoint may not pass what is durable", position=str(plan.target))
    with store.read() as transaction:
        known = load_timelines(transaction)
        table = TimelineTable(plan.timelines, load_bases(transaction))
    batch = IndexBatch()
    marks: dict[int, tuple[int, bytes]] = {}
    with store.read() as transaction:
        cursor = transaction.cursor("versions")
        lanes = sorted({t.lane for t in plan.timelines} | {base.lane for base in table.bases})
        for timeline, end in _to_index(table, plan):
            row = known.get(timeline.id)
            start, digest = (row.indexed, row.digest or None) if row else (timeline.fork, None)
            if row is not None and start >= end:
                continue
            if digest is None:
                digest = reader.digest_at(table, timeline.id, timeline.fork)
            for frame in reader.frames(timeline.id, start, end, digest):
                take_frame(batch, cursor, lanes, timeline.lane, frame)
                start, digest = frame.prefix.end, frame.prefix.digest
            marks[timeline.id] = (start, digest)
    with store.write() as write:
        put_batch(write, batch)
        for timeline in plan.timelines:
            indexed, digest = _mark(timeline, marks, known)
            write.put("timelines", TIMELINE_KEY.pack(timeline.id), timeline_row(timeline, indexed, digest))
        write.put("meta", CHECKPOINT_KEY, pack_row((plan.target.timeline, plan.target.position)))
    return len(batch.versions)


def _to_index(table: TimelineTable, plan: CheckpointPlan) -> list[tuple[Timeline, int]]:
    """Timelines, parents first, each with the position up to which it is to be indexed."""
    spans = spans_from_base(table, plan.target.timeline, plan.target.position)
    ends = {span.timeline: span.end for span in spans}
    for branch in plan.branches:
        ends[branch.timeline] = max(branch.position, ends.get(branch.timeline, 0))
    return [(timeline, ends[timeline.id]) for timeline in table.all() if timeline.id in ends]


def put_batch(write: WriteTransaction, batch: IndexBatch) -> None:
    """Put what a batch adds."""
    write.put_sorted("versions", sorted(batch.versions.items()))
    write.put_sorted("records", sorted(batch.records.items()))
    for place, number in sorted(batch.regions.items()):
        key = REGION_KEY.pack(*place)
        before = write.get("regions", key)
        if before is None or len(before) != REGION_VALUE.size or REGION_VALUE.unpack(before)[0] < number:
            write.put("regions", key, REGION_VALUE.pack(number))


def _mark(
    timeline: Timeline, marks: dict[int, tuple[int, bytes]], known: dict[int, IndexedTimeline]
) -> tuple[int, bytes]:
    if timeline.id in marks:
        return marks[timeline.id]
    row = known.get(timeline.id)
    return (row.indexed, row.digest) if row else (timeline.fork, b"")


def timeline_row(timeline: Timeline, indexed: int, digest: bytes) -> bytes:
    """A value of `timelines`."""
    return pack_row(
        (timeline.parent, timeline.fork, timeline.generation, timeline.writer, timeline.lane, indexed, digest)
    )


def take_frame(batch: IndexBatch, cursor: Cursor, lanes: list[int], lane: int, frame: Frame) -> None:
    """Add one checked frame, whose versions go into `lane`, to the batch. `lanes` are those in which an older
    version may lie under a zeroed block."""
    prefix = frame.prefix
    number = prefix.payload_at
    said = read_frame(frame)
    if said.unread is not None:
        key = RECORD_KEY.pack(prefix.timeline, prefix.position)
        batch.records[key] = pack_row((prefix.utc_ns, prefix.position, said.unread.to_row()))
    for index, row in enumerate(said.rows):
        kind = row[0]
        if kind == WRITE:
            _, volume, first, count = row
            _take_write(batch, lane, volume, first, count, number, frame.raw, number - prefix.position)
            number += count * BLOCK_BYTES
        elif kind <= LAST_DATA_KIND:
            _, volume, first, count = row
            _take_zero(batch, cursor, lanes, lane, volume, first, count, number - 1)
        else:
            key = RECORD_KEY.pack(prefix.timeline, prefix.position + index)
            batch.records[key] = pack_row((prefix.utc_ns, prefix.position, row))


def _take_write(
    batch: IndexBatch, lane: int, volume: int, first: int, count: int, number: int, raw: Buffer, at: int
) -> None:
    versions = batch.versions
    with memoryview(raw) as view:
        for block in range(first, first + count):
            key = VERSION_KEY.pack(lane, volume, block, number ^ NUMBER_MASK)
            versions[key] = version_value(key, view[at : at + BLOCK_BYTES])
            number += BLOCK_BYTES
            at += BLOCK_BYTES
    batch.written.setdefault((lane, volume), set()).update(range(first, first + count))
    for region in range(first // REGION_BLOCKS, (first + count - 1) // REGION_BLOCKS + 1):
        batch.regions[lane, volume, region] = number


def _take_zero(
    batch: IndexBatch,
    cursor: Cursor,
    lanes: list[int],
    lane: int,
    volume: int,
    first: int,
    count: int,
    number: int,
) -> None:
    """Tombstones over the blocks of a range that have an older version; the others read as zeroes anyway."""
    end = first + count
    older: set[int] = set()
    for each in lanes:
        older.update(indexed_blocks(cursor, each, volume, first, end))
        written = batch.written.get((each, volume), ())
        if len(written) < count:
            older.update(block for block in written if first <= block < end)
        else:
            older.update(block for block in range(first, end) if block in written)
    for block in older:
        key = VERSION_KEY.pack(lane, volume, block, number ^ NUMBER_MASK)
        batch.versions[key] = version_value(key, None)
    for region in {block // REGION_BLOCKS for block in older}:
        batch.regions[lane, volume, region] = number
