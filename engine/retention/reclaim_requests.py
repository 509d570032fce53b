"""What the indexer is asked for when a group's journal is shortened; the work itself is done by
`engine.retention.truncation` and `engine.retention.sweep`."""

from __future__ import annotations

from typing import Any, Self

from engine.index.requests import IndexRequest
from engine.ports.store import ReadTransaction
from engine.retention.needed import Keep, KeepRow
from protocol.bounds import BlockEnd, Lane, Position, TimelineId, VolumeId
from protocol.wire import RowType

SWEEP_KEY = b"sweep"
SWEEP_AGAIN_KEY = b"sweep-again"
FIRST_BLOCK = (0, 0)

_FOLD = RowType(tuple[TimelineId, Lane, Position, Position, KeepRow])
_FOLD_WITHIN = RowType(tuple[TimelineId, Lane, Position, Position, KeepRow, Position])
_FOLD_ON = RowType(
    tuple[TimelineId, Lane, Position, Position, KeepRow, Position | None, tuple[VolumeId, BlockEnd]]
)
_SWEEP = RowType(tuple[bool, tuple[tuple[Lane, Position], ...], KeepRow])


class TruncatePlan(IndexRequest, frozen=True, kw_only=True, tag="fold"):
    """Truncate the segment of `timeline`, kept in `lane`, whose frames in [start, end) count; all of it lies
    below a horizon of `keep`, and every earlier segment of the timeline is truncated. `room_bytes`: what the
    index may take of the file system for it, None for any. `after`: the volume and block to go on from, as
    the answer to an earlier request said. The figures of the answer: versions moved, versions removed, and
    if the segment is not done yet, volume and block to go on from."""

    timeline: int
    lane: int
    start: int
    end: int
    keep: Keep
    room_bytes: int | None = None
    after: tuple[int, int] = FIRST_BLOCK

    def to_row(self) -> tuple[Any, ...]:
        """See `IndexRequest.to_row`."""
        row = (self.timeline, self.lane, self.start, self.end, self.keep.to_row())
        if self.after != FIRST_BLOCK:
            return (*row, self.room_bytes, self.after)
        return row if self.room_bytes is None else (*row, self.room_bytes)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """See `IndexRequest.from_row`."""
        room, after = None, FIRST_BLOCK
        if len(row) < len(cls.__struct_fields__) - 1:
            timeline, lane, start, end, keep = _FOLD.convert(row)
        elif len(row) < len(cls.__struct_fields__):
            timeline, lane, start, end, keep, room = _FOLD_WITHIN.convert(row)
        else:
            timeline, lane, start, end, keep, room, after = _FOLD_ON.convert(row)
        return cls(
            timeline=timeline,
            lane=lane,
            start=start,
            end=end,
            keep=Keep.of(keep),
            room_bytes=room,
            after=after,
        )


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


def sweep_is_due(transaction: ReadTransaction) -> bool:
    """Whether one was under way, or was to begin, when the last run ended."""
    return any(transaction.get("meta", key) is not None for key in (SWEEP_KEY, SWEEP_AGAIN_KEY))
