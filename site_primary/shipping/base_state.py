"""What a base says besides blocks: the timelines and records up to its cut, in parts of a message each."""

from __future__ import annotations

from engine.group.core import GroupCore
from engine.history.timelines import holds
from engine.history.unread import is_record
from engine.index.indexed_history import load_records
from protocol.base_messages import RecordRow, TimelineRow, encode_parts
from protocol.errors import Refused
from protocol.limits import BASE_PARTS_MAX
from protocol.positions import NO_TIMELINE, Cut


def state_parts(group: GroupCore, cut: Cut) -> list[bytes]:
    """Timelines, oldest first, and records up to a cut. Refused if that is more than a peer takes."""
    timelines = []
    timeline = cut.timeline
    while timeline != NO_TIMELINE:
        entry = group.timelines.get(timeline)
        timelines.append(
            TimelineRow(
                timeline=entry.id,
                parent=entry.parent,
                fork=entry.fork,
                generation=entry.generation,
                writer=entry.writer,
            )
        )
        timeline = entry.parent
    spans = group.timelines.lineage(cut.timeline, cut.position)
    with group.store.read() as transaction:
        records = [
            RecordRow(timeline=on, position=at, frame_position=frame, utc_ns=utc_ns, row=row)
            for on, at, frame, utc_ns, row in load_records(transaction)
            if holds(spans, on, at) and is_record(row)
        ]
    parts = encode_parts(reversed(timelines), records)
    if len(parts) > BASE_PARTS_MAX:
        raise Refused(f"the group's history of records takes {len(parts)} parts")
    return parts
