"""Which timelines a base brings: all of them checked before anything of the base counts.

A start adds what timelines the index has one by one, by their forks, and cannot go on without a parent. So
what is installed must be a lineage as every site makes it: from a root on each timeline leaves the one before
it after that one's first frame, and the last one leads to the base's cut.

Pure: no I/O.
"""

from __future__ import annotations

from engine.group.frame_checks import check_generation
from engine.history.timelines import Timeline, TimelineTable
from protocol.base_messages import TimelineRow, timelines_in
from protocol.errors import RemoteProtocolError
from protocol.limits import TIMELINES_MAX
from protocol.positions import NO_TIMELINE, Cut, timeline_text


def new_timelines(
    known: TimelineTable, base: int, cut: Cut, parts: tuple[bytes, ...]
) -> tuple[Timeline, ...]:
    """Those of the lineage of `cut` that are not in `known`, root first, all in one lane: nothing of theirs
    lies below the cut. RemoteProtocolError unless the parts name exactly that lineage, without the base's own
    timeline `base`; WrongState if there is no room for so many."""
    rows = [row for part in parts for row in timelines_in(part)]
    if not 0 < len(rows) <= TIMELINES_MAX:
        raise RemoteProtocolError(f"a base names {len(rows)} timelines")
    parent, fork = NO_TIMELINE, -1
    for row in rows:
        if row.parent != parent or row.fork <= fork:
            raise RemoteProtocolError(f"timeline {timeline_text(row.timeline)} does not leave the one before")
        parent, fork = row.timeline, row.fork
    if parent != cut.timeline or fork >= cut.position:
        raise RemoteProtocolError("the timelines of the base do not lead to its cut")
    ids = {row.timeline for row in rows}
    if len(ids) != len(rows) or base in ids:
        raise RemoteProtocolError("a timeline of the base is named twice")
    for row in rows:
        check_generation(row.generation, known.generation())
        _check_known(known, row)
    lane = known.new_lane()
    found = tuple(
        Timeline(
            id=row.timeline,
            parent=row.parent,
            fork=row.fork,
            generation=row.generation,
            writer=row.writer,
            lane=lane,
        )
        for row in rows
        if row.timeline not in known
    )
    known.require_room(len(found))
    return found


def _check_known(known: TimelineTable, row: TimelineRow) -> None:
    """RemoteProtocolError if a timeline that is known here is said to leave another place than it did."""
    if row.timeline in known and known.get(row.timeline).fork_cut != Cut(row.parent, row.fork):
        raise RemoteProtocolError(f"timeline {timeline_text(row.timeline)} is said to leave another place")
