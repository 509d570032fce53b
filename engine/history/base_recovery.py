"""A base's part in a group's memory and on its disk: installing it, and opening a group that has one.

What a crash may leave: files of a pending base past what is indexed (cut back before more is appended), rows
of one whose files are gone (dropped before the next), and an installed base whose head was not set yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.history.base_rows import PendingBase
from engine.history.timelines import Base, Timeline
from engine.index.versions import RECORD_KEY
from engine.journal.recovery import cut_tail
from protocol.base_messages import RecordRow
from protocol.errors import Diverged
from protocol.events import record_from_row
from protocol.positions import Cut
from protocol.rows import pack_row

if TYPE_CHECKING:
    from engine.group.group import Group


def take_base(group: Group, base: Base, timelines: tuple[Timeline, ...], records: list[RecordRow]) -> None:
    """The index has a base installed: put the head on it, and everything that derives from it. The memtable
    must be empty. OSError if the head cannot be stored: the next start does it."""
    group.memtable.index_changed()
    group.state.set_head(group.name, base.cut.timeline)
    for timeline in timelines:
        group.timelines.add(timeline)
        group.head.left[timeline.id] = timeline.fork
    group.timelines.bases.append(base)
    for record in records:
        event = record_from_row(record.row)
        group.records.apply(record.timeline, record.frame_position, record.position, record.utc_ns, event)
    group.head_moved(group.end, base.cut.timeline, base.cut.position)
    group.checkpoints.reached = base.cut.position
    group.head.put(base.cut.timeline, base.digest, base.utc_ns)
    group.writer.start(base.cut.timeline, group.timelines.get(base.cut.timeline).lane, base.cut.position)
    group.emit(
        "base.installed",
        group=group.name,
        position=str(base.cut),
        start=str(base.start) if base.start else "",
        bytes=base.end,
    )
    group.view_changed()


def require_same_past(group: Group, records: list[RecordRow]) -> None:
    """Diverged if a base says of events that are held here something else than this site's own journal did:
    installed, it would change what backups and volumes of the past are. All that is held must be indexed."""
    with group.store.read() as transaction:
        for record in records:
            place = Cut(record.timeline, record.position)
            held = place.timeline == group.head.timeline or place.timeline in group.head.left
            if not held or place.position >= group.end_of(place.timeline):
                continue
            value = pack_row((record.utc_ns, record.frame_position, record.row))
            if transaction.get("records", RECORD_KEY.pack(place.timeline, place.position)) != value:
                raise Diverged(
                    f"the peer has another event at {place} than this site",
                    subject=group.name,
                    position=str(place),
                    next_step=f"is the peer what it says it is? `farshore journal show {group.name}` at both",
                )


def head_after_bases(group: Group, bases: list[Base], head: int, checkpoint: Cut | None) -> int:
    """The head of a group that opens. A base that was installed last, whose head was not set any more, is
    followed now: its transaction was the moment from which on it counts. Not if what was left for it went on
    since: while a base is installed nothing is added there, so the head was put back to it by then."""
    for base in bases:
        if base.cut == checkpoint and base.left.timeline == head != base.cut.timeline:
            if group.reader.prefix_at(head, base.left.position) is not None:
                continue
            group.state.set_head(group.name, base.cut.timeline)
            return base.cut.timeline
    return head


def adopt_files(group: Group, bases: list[Base], pending: PendingBase | None) -> set[int]:
    """Say in which lanes the files of bases are; the timelines of these files, which are on no lineage."""
    for base in bases:
        group.segments.set_lane(base.timeline, base.lane)
    group.remains.here = pending is not None
    if pending is not None:
        group.segments.set_lane(pending.timeline, pending.lane)
        return {pending.timeline, *(base.timeline for base in bases)}
    return {base.timeline for base in bases}


def cut_back(group: Group, pending: PendingBase) -> bool:
    """Cut X to what is indexed. False if its files do not hold that: then its rows are to be dropped."""
    segments = group.segments.of_timeline(pending.timeline)
    held = max((segment.start + segment.size for segment in segments), default=0)
    if held < pending.indexed:
        return False
    cut_tail(group.disk, group.segments, pending.timeline, pending.indexed, pending.indexed)
    return True
