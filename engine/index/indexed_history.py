"""What the index says of history: timelines with how far each is indexed and the digest there, the records on
them (all events but data), and the last checkpoint's target.

    meta 'checkpoint'   row (head timeline, position, format)
    timelines           row (parent, fork, generation, writer, lane, indexed, digest)
    records             row (UTC ns, frame position, event row)
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from engine.history.timelines import Timeline
from engine.index.versions import RECORD_KEY, TIMELINE_KEY, index_row
from engine.ports.store import ReadTransaction
from protocol.bounds import AnyTimeline, Count, DigestOrNone, Generation, Lane, Position, SiteId, UtcNs
from protocol.errors import RemoteProtocolError
from protocol.events import Row
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

CHECKPOINT_KEY = b"checkpoint"
# What `versions` may have in it: 2, runs (engine.index.runs). A version that does not know it must not take
# the blocks of a run for zeroes; those before runs refuse the longer row.
FORMAT = 2
_CUT = RowType(Cut)
_CHECKPOINT = RowType(tuple[AnyTimeline, Position, Count])
_ROW = RowType(tuple[Any, ...])
_RECORD = RowType(tuple[UtcNs, Position, tuple[Any, ...]])  # of the event, its kind says more
_TIMELINE = RowType(tuple[AnyTimeline, Position, Generation, SiteId, Lane, Position, DigestOrNone])


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedTimeline:
    """A row of `timelines`: how far it is indexed, and the journal's digest there."""

    timeline: Timeline
    indexed: int
    digest: bytes


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
        row = _ROW.decode(value)
        if len(row) == 2:
            return _CUT.convert(row)
        timeline, position, format_number = _CHECKPOINT.convert(row)
        if format_number > FORMAT:
            raise RemoteProtocolError(f"format {format_number} is of a later version")
        return Cut(timeline, position)


def checkpoint_value(target: Cut) -> bytes:
    """The row 'checkpoint'."""
    return pack_row((target.timeline, target.position, FORMAT))


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


def record_row(timeline: int, position: int) -> AbstractContextManager[None]:
    """While what a row of `records` says is taken: as `index_row`."""
    return index_row("records", RECORD_KEY.pack(timeline, position))


def timeline_row(timeline: Timeline, indexed: int, digest: bytes) -> bytes:
    """A value of `timelines`."""
    return pack_row(
        (timeline.parent, timeline.fork, timeline.generation, timeline.writer, timeline.lane, indexed, digest)
    )
