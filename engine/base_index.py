"""What the indexer does for a base that is received (engine.bases): its rows come in parts, unseen, and one
transaction makes all of it count.

    base-open      choose X's lane and write the pending row, unless there is one; figures (lane)
    base-part      the versions of X's frames up to a position, and how far that is; figures (indexed)
    base-install   timelines, records, the base, the checkpoint at B, and the pending row gone, all at once
    base-drop      some of a pending base's rows; with the last of them its pending row; figures (deleted)

The checkpoint must hold everything of the site's own before the first part: a tombstone is put only over
blocks that have an older version in the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from engine.base_rows import PENDING_KEY, PendingBase, load_bases, load_pending, put_base, put_pending
from engine.bases import FIRST_BASE_LANE, Base
from engine.checkpoint import (
    CHECKPOINT_KEY,
    IndexBatch,
    load_timelines,
    put_batch,
    take_frame,
    timeline_row,
)
from engine.index_requests import timelines_from_rows, timelines_to_rows
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.store import ReadTransaction, Store
from engine.timelines import Timeline
from engine.versions import BLOCK_PREFIX, RECORD_KEY, REGION_KEY, TIMELINE_KEY, VERSION_KEY
from protocol.base_messages import records_in
from protocol.errors import WrongState
from protocol.frames import NO_DIGEST
from protocol.positions import NO_TIMELINE, Cut
from protocol.rows import check_row, pack_row

DROP_ROWS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOpen:
    """Begin a pending base with X = `timeline`, unless one is pending, this or another."""

    KIND: ClassVar[str] = "base-open"
    URGENT: ClassVar[bool] = False

    timeline: int
    cut: Cut
    start: Cut | None

    def to_row(self) -> tuple[object, ...]:
        """See `IndexRequest.to_row`."""
        start = self.start or Cut(NO_TIMELINE, 0)
        return (self.timeline, self.cut.timeline, self.cut.position, start.timeline, start.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePart:
    """Index X up to `end`, a frame boundary that is durable."""

    KIND: ClassVar[str] = "base-part"
    URGENT: ClassVar[bool] = False

    timeline: int
    end: int

    def to_row(self) -> tuple[object, ...]:
        """See `IndexRequest.to_row`."""
        return (self.timeline, self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseInstall:
    """Install a base whose X is indexed to its end. `timelines`: those of B's lineage that are new here;
    `parts`: the records up to B, as they were sent."""

    KIND: ClassVar[str] = "base-install"
    URGENT: ClassVar[bool] = False

    base: Base
    timelines: tuple[Timeline, ...]
    parts: tuple[bytes, ...]

    def to_row(self) -> tuple[object, ...]:
        """See `IndexRequest.to_row`."""
        base = self.base
        left = (base.left.timeline, base.left.position)
        numbers = (base.timeline, base.end, base.utc_ns, base.digest, *left)
        return (*numbers, timelines_to_rows(self.timelines), self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseDrop:
    """Delete rows of the pending base, whose files are gone."""

    KIND: ClassVar[str] = "base-drop"
    URGENT: ClassVar[bool] = False

    timeline: int

    def to_row(self) -> tuple[object, ...]:
        """See `IndexRequest.to_row`."""
        return (self.timeline,)


def handle_open(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """See `BaseOpen`."""
    timeline, cut_timeline, cut_position, start_timeline, start_position = check_row(
        row, int, int, int, int, int
    )
    with store.read() as transaction:
        before = load_pending(transaction)
        lane = before.lane if before else _free_lane(transaction)
    if before is not None:
        return (lane,)
    pending = PendingBase(
        timeline=timeline,
        lane=lane,
        cut=Cut(cut_timeline, cut_position),
        start=Cut(start_timeline, start_position) if start_timeline else None,
        indexed=0,
        digest=NO_DIGEST,
    )
    with store.write() as write:
        put_pending(write, pending)
    return (lane,)


def _free_lane(transaction: ReadTransaction) -> int:
    """Past every lane of a base, and past every lane that still has rows."""
    used = [base.lane for base in load_bases(transaction)]
    cursor = transaction.cursor("versions")
    if cursor.prev():
        used.append(VERSION_KEY.unpack(cursor.key())[0])
    return max([FIRST_BASE_LANE - 1, *used]) + 1


def _pending(transaction: ReadTransaction, timeline: int) -> PendingBase:
    pending = load_pending(transaction)
    if pending is None or pending.timeline != timeline:
        raise WrongState("that base is not the one under way", subject=f"{timeline:016x}")
    return pending


def handle_part(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """See `BasePart`."""
    timeline, end = check_row(row, int, int)
    # The daemon may have cut X back since, and made the same file again.
    for segment in segments.of_timeline(timeline):
        segments.forget(segment)
    segments.load_timeline(timeline)
    batch = IndexBatch()
    with store.read() as transaction:
        pending = _pending(transaction, timeline)
        lanes = {row.timeline.lane for row in load_timelines(transaction).values()}
        lanes.update(base.lane for base in load_bases(transaction))
        lanes.add(pending.lane)
        cursor = transaction.cursor("versions")
        indexed, digest = pending.indexed, pending.digest
        for frame in JournalReader(segments).frames(timeline, indexed, end, digest):
            take_frame(batch, cursor, sorted(lanes), pending.lane, frame)
            indexed, digest = frame.prefix.end, frame.prefix.digest
    reached = PendingBase(
        timeline=timeline,
        lane=pending.lane,
        cut=pending.cut,
        start=pending.start,
        indexed=indexed,
        digest=digest,
    )
    with store.write() as write:
        put_batch(write, batch)
        put_pending(write, reached)
    return (indexed,)


def handle_install(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """See `BaseInstall`."""
    timeline, end, utc_ns, digest, *left, rows, parts = check_row(
        row, int, int, int, bytes, int, int, tuple, tuple
    )
    timelines = timelines_from_rows(rows)
    with store.read() as transaction:
        if any(base.timeline == timeline for base in load_bases(transaction)):
            return ()  # asked again by one who did not hear the answer
        pending = _pending(transaction, timeline)
        known = load_timelines(transaction)
    if pending.indexed != end:
        raise WrongState("the base is not indexed to its end", position=str(pending.indexed))
    base = Base(
        cut=pending.cut,
        start=pending.start,
        timeline=timeline,
        lane=pending.lane,
        end=end,
        utc_ns=utc_ns,
        digest=digest,
        left=Cut(*left),
    )
    by_id = {each.id: each for each in (*timelines, *(row.timeline for row in known.values()))}
    head = by_id.get(base.cut.timeline)
    if head is None:
        raise WrongState("the base's own timeline is not known", position=str(base.cut))
    with store.write() as write:
        for each in timelines:
            write.put("timelines", TIMELINE_KEY.pack(each.id), timeline_row(each, each.fork, b""))
        # From B on, and only from there, its frames come here.
        write.put("timelines", TIMELINE_KEY.pack(head.id), timeline_row(head, base.cut.position, digest))
        for part in parts:
            for record in records_in(part):
                value = pack_row((record.utc_ns, record.frame_position, record.row))
                write.put("records", RECORD_KEY.pack(record.timeline, record.position), value)
        put_base(write, base)
        write.delete("meta", PENDING_KEY)
        write.put("meta", CHECKPOINT_KEY, pack_row((base.cut.timeline, base.cut.position)))
    return ()


def handle_drop(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """See `BaseDrop`."""
    (timeline,) = check_row(row, int)
    with store.read() as transaction:
        pending = load_pending(transaction)
        if pending is None or pending.timeline != timeline:
            return (0,)
        doomed = [
            (table, key)
            for table in ("versions", "regions")
            for key in _keys_of_lane(transaction, table, pending.lane)
        ]
    with store.write() as write:
        for table, key in doomed[:DROP_ROWS_MAX]:
            write.delete(table, key)
        if len(doomed) <= DROP_ROWS_MAX:
            write.delete("meta", PENDING_KEY)
    return (min(len(doomed), DROP_ROWS_MAX),)


def _keys_of_lane(transaction: ReadTransaction, table: str, lane: int) -> list[bytes]:
    """Up to one more key than a drop deletes."""
    keys: list[bytes] = []
    key_lane = (VERSION_KEY if table == "versions" else REGION_KEY).unpack
    cursor = transaction.cursor(table)
    more = cursor.set_range(BLOCK_PREFIX.pack(lane, 0, 0))
    while more and len(keys) <= DROP_ROWS_MAX and key_lane(cursor.key())[0] == lane:
        keys.append(bytes(cursor.key()))
        more = cursor.next()
    return keys
