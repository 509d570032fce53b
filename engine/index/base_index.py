"""What the indexer does for a base that is received (engine.history.bases): its rows come in parts, unseen,
and one transaction makes all of it count.

    base-open      choose X's lane and write the pending row, unless there is one; figures (lane)
    base-part      the versions of X's frames up to a position, and how far that is; figures (indexed)
    base-install   timelines, records, the base, the checkpoint at B, and the pending row gone, all at once
    base-drop      some of a pending base's rows; with the last of them its pending row; figures (deleted)

The checkpoint must hold everything of the site's own before the first part: a tombstone is put only over
blocks that have an older version in the index.
"""

from __future__ import annotations

from typing import Any

from engine.history.base_rows import PENDING_KEY, PendingBase, load_bases, load_pending, put_base, put_pending
from engine.history.bases import FIRST_BASE_LANE
from engine.history.timelines import Base
from engine.index.base_requests import BaseDrop, BaseInstall, BaseOpen, BasePart
from engine.index.index_batch import IndexBatch, put_batch, take_frame
from engine.index.indexed_history import CHECKPOINT_KEY, checkpoint_value, load_timelines, timeline_row
from engine.index.versions import BLOCK_PREFIX, RECORD_KEY, REGION_KEY, TIMELINE_KEY, VERSION_KEY
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.store import ReadTransaction, Store
from protocol.base_messages import records_in
from protocol.errors import WrongState
from protocol.frames import NO_DIGEST
from protocol.rows import pack_row

DROP_ROWS_MAX = 20_000


def handle_open(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """See `BaseOpen`."""
    request = BaseOpen.from_row(row)
    with store.read() as transaction:
        if any(base.timeline == request.timeline for base in load_bases(transaction)):
            # Begun again, what it holds would be cut back to nothing.
            raise WrongState("that base is installed already", subject=f"{request.timeline:016x}")
        before = load_pending(transaction)
        lane = before.lane if before else _free_lane(transaction)
    if before is not None:
        return (lane,)
    pending = PendingBase(
        timeline=request.timeline,
        lane=lane,
        cut=request.cut,
        start=request.start,
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
    request = BasePart.from_row(row)
    timeline, end = request.timeline, request.end
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
    request = BaseInstall.from_row(row)
    timeline = request.timeline
    with store.read() as transaction:
        if any(base.timeline == timeline for base in load_bases(transaction)):
            return ()  # asked again by one who did not hear the answer
        pending = _pending(transaction, timeline)
        known = load_timelines(transaction)
    if pending.indexed != request.end:
        raise WrongState("the base is not indexed to its end", position=str(pending.indexed))
    base = Base(
        cut=pending.cut,
        start=pending.start,
        timeline=timeline,
        lane=pending.lane,
        end=request.end,
        utc_ns=request.utc_ns,
        digest=request.digest,
        left=request.left,
    )
    by_id = {each.id: each for each in (*request.timelines, *(row.timeline for row in known.values()))}
    head = by_id.get(base.cut.timeline)
    if head is None:
        raise WrongState("the base's own timeline is not known", position=str(base.cut))
    with store.write() as write:
        for each in request.timelines:
            write.put("timelines", TIMELINE_KEY.pack(each.id), timeline_row(each, each.fork, b""))
        # From B on, and only from there, its frames come here.
        write.put("timelines", TIMELINE_KEY.pack(head.id), timeline_row(head, base.cut.position, base.digest))
        for part in request.parts:
            for record in records_in(part):
                value = pack_row((record.utc_ns, record.frame_position, record.row))
                write.put("records", RECORD_KEY.pack(record.timeline, record.position), value)
        put_base(write, base)
        write.delete("meta", PENDING_KEY)
        write.put("meta", CHECKPOINT_KEY, checkpoint_value(base.cut))
    return ()


def handle_drop(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """See `BaseDrop`."""
    timeline = BaseDrop.from_row(row).timeline
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
