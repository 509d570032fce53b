"""Rows of bases in the index's `meta` (engine.history.bases says what a base is).

    meta 'base' ‖ u64 X    row (B timeline, B position, A timeline, A position, lane, X's end, UTC ns, digest,
                           timeline and position of the end before); A's timeline is 0 for one on nothing
    meta 'pending-base'    row (X, lane, B timeline, B position, A timeline, A position, indexed, digest):
                           one that is being received; X is indexed up to `indexed`, with this digest there

A pending base is in nobody's visibility. The transaction that installs it takes its row away.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.history.timelines import Base
from engine.index.versions import TIMELINE_KEY, index_row
from engine.ports.store import ReadTransaction, WriteTransaction
from protocol.bounds import AnyTimeline, Digest, Lane, Position, TimelineId, UtcNs
from protocol.positions import NO_TIMELINE, Cut
from protocol.rows import pack_row
from protocol.wire import RowType

BASE_KEY = b"base"
PENDING_KEY = b"pending-base"
_BASE = RowType(
    tuple[TimelineId, Position, AnyTimeline, Position, Lane, Position, UtcNs, Digest, AnyTimeline, Position]
)
_PENDING = RowType(tuple[TimelineId, Lane, TimelineId, Position, AnyTimeline, Position, Position, Digest])


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingBase:
    """A base under way: X is `timeline`, indexed up to position `indexed` of its own, with `digest` there."""

    timeline: int
    lane: int
    cut: Cut
    start: Cut | None
    indexed: int
    digest: bytes


def load_bases(transaction: ReadTransaction) -> list[Base]:
    """Every installed base."""
    found = []
    cursor = transaction.cursor("meta")
    more = cursor.set_range(BASE_KEY)
    while more and cursor.key().startswith(BASE_KEY):
        with index_row("meta", cursor.key()):
            (timeline,) = TIMELINE_KEY.unpack(cursor.key()[len(BASE_KEY) :])
            row = _BASE.decode(cursor.value())
        found.append(
            Base(
                cut=Cut(row[0], row[1]),
                start=_start(row[2], row[3]),
                timeline=timeline,
                lane=row[4],
                end=row[5],
                utc_ns=row[6],
                digest=row[7],
                left=Cut(row[8], row[9]),
            )
        )
        more = cursor.next()
    return found


def put_base(write: WriteTransaction, base: Base) -> None:
    """Put an installed base."""
    cuts = (*_cut(base.cut), *_cut(base.start))
    row = (*cuts, base.lane, base.end, base.utc_ns, base.digest, *_cut(base.left))
    write.put("meta", BASE_KEY + TIMELINE_KEY.pack(base.timeline), pack_row(row))


def remove_base(write: WriteTransaction, base: Base) -> None:
    """Take an installed base's row out."""
    write.delete("meta", BASE_KEY + TIMELINE_KEY.pack(base.timeline))


def load_pending(transaction: ReadTransaction) -> PendingBase | None:
    """The base that is being received, if there is one."""
    value = transaction.get("meta", PENDING_KEY)
    if value is None:
        return None
    with index_row("meta", PENDING_KEY):
        row = _PENDING.decode(value)
    return PendingBase(
        timeline=row[0],
        lane=row[1],
        cut=Cut(row[2], row[3]),
        start=_start(row[4], row[5]),
        indexed=row[6],
        digest=row[7],
    )


def put_pending(write: WriteTransaction, pending: PendingBase) -> None:
    """Put the base that is being received."""
    cuts = (*_cut(pending.cut), *_cut(pending.start))
    row = (pending.timeline, pending.lane, *cuts, pending.indexed, pending.digest)
    write.put("meta", PENDING_KEY, pack_row(row))


def _cut(cut: Cut | None) -> tuple[int, int]:
    return (cut.timeline, cut.position) if cut else (NO_TIMELINE, 0)


def _start(timeline: int, position: int) -> Cut | None:
    return Cut(timeline, position) if timeline != NO_TIMELINE else None
