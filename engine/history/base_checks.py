"""What a base must be to be taken in (engine.history.base_intake).

It arrives in three steps, each checked before the next: which base it is, its frames, and at its end the
timelines and records of the lineage that leads to its cut. Changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.group.core import GroupCore
from engine.group.head_moves import require_leavable
from engine.history.base_lineage import new_timelines
from engine.history.bases import common_end, gap_at
from engine.history.timelines import Base, Places, Timeline, TimelineTable, holds_cut
from engine.history.volume_bounds import check_base_volumes
from protocol.base_messages import RecordRow, records_in
from protocol.errors import NotFound, RemoteProtocolError, Trimmed, WrongState
from protocol.events import WRITE, ZERO
from protocol.frames import Buffer, FrameError, FramePrefix, check_frame, decode_rows
from protocol.positions import Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOrder:
    """Which base: X = `timeline`, at `cut` on top of `start`, with the digest and time at the cut."""

    timeline: int
    cut: Cut
    start: Cut | None
    digest: bytes
    utc_ns: int

    def base(self, lane: int, end: int, left: Cut) -> Base:
        """It, whole: in `lane`, X up to `end`; this site leaves its own history at `left` for it."""
        return Base(
            cut=self.cut,
            start=self.start,
            timeline=self.timeline,
            lane=lane,
            end=end,
            utc_ns=self.utc_ns,
            digest=self.digest,
            left=left,
        )


@dataclass(frozen=True, slots=True)
class BaseLineage:
    """The timelines and records on the way to a base's cut: `parts` as they were sent, `records` in them."""

    order: BaseOrder
    parts: tuple[bytes, ...]
    records: list[RecordRow]

    def new_timelines(self, known: TimelineTable) -> tuple[Timeline, ...]:
        """Those that are not in `known`; see `engine.history.base_lineage.new_timelines`."""
        return new_timelines(known, self.order.timeline, self.order.cut, self.parts)


def check_order(group: GroupCore, order: BaseOrder) -> None:
    """Trimmed if this site cannot build on the base's start; WrongState if the base is not news."""
    installed = {base.timeline for base in group.timelines.bases}
    if order.timeline in group.timelines or order.timeline in (*installed, order.cut.timeline):
        raise WrongState("the base's timeline is used already", position=str(order.cut))
    if group.head and holds_cut(group.spans(group.writer.written), order.cut):
        raise WrongState("this site has that cut already", position=str(order.cut))
    if order.cut.timeline in group.timelines and not group.timelines.may_extend(
        order.cut.timeline, order.cut.position
    ):
        raise WrongState("another timeline goes on from that one here", position=str(order.cut))
    start = order.start
    if start is None:
        return
    if start.timeline not in group.timelines or gap_at(group.timelines, start) is not None:
        raise _cannot_build_on(start)
    if holds_cut(group.timelines.lineage(start.timeline, start.position), order.cut):
        raise WrongState("the base stands on the cut that it leads to", position=str(order.cut))
    if start != group.end:
        try:
            group.reader.digest_at(group.timelines, start.timeline, start.position)
        except NotFound as error:
            raise _cannot_build_on(start) from error


def _cannot_build_on(start: Cut) -> Trimmed:
    return Trimmed(f"{start} is not held here", position=str(start), next_step="send a base on nothing")


def check_base_frame(prefix: FramePrefix, raw: Buffer, digest: bytes) -> None:
    """FrameError if a frame is damaged, does not continue `digest`, or holds what a base may not."""
    check_frame(prefix, raw, digest)
    if any(row[0] not in (WRITE, ZERO) for row in decode_rows(prefix, raw)):
        raise FrameError("a base holds blocks and zeroes only")


def checked_lineage(
    group: GroupCore, order: BaseOrder, parts: tuple[bytes, ...], *, leave: bool
) -> BaseLineage:
    """RemoteProtocolError if the parts are not the lineage of the base's cut and what is on it, or hold too
    many volumes; WrongState if there is no room for more timelines; NotContiguous or Diverged if a tail would
    be left that may not be, as for frames (engine.group.head_moves), unless `leave`."""
    lineage = BaseLineage(order, parts, [record for part in parts for record in records_in(part)])
    cut = order.cut
    table = TimelineTable([*group.timelines.all(), *lineage.new_timelines(group.timelines)])
    own = group.spans(group.writer.written)
    spans = table.lineage(cut.timeline, cut.position)
    here = Places(spans)
    if not all((record.timeline, record.position) in here for record in lineage.records):
        raise RemoteProtocolError("a record of the base is not on the way to its cut")
    common = common_end(own, spans)  # where they part
    if not leave:
        tail = [span for span in own if span.end > common]
        require_leavable(group, tail, common, table.get(cut.timeline))
    check_base_volumes(group.volumes, lineage.records)
    return lineage
