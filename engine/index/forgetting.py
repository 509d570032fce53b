"""The last step of dropping a branch (`engine.history.branch_drop`): its timelines, bases and records leave
the index in one transaction, and horizons and truncations of it are put back to where it left.

Called by the indexer process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.history.base_rows import load_bases, put_base, remove_base
from engine.history.bases import bases_within, held_before
from engine.history.timelines import TimelineTable
from engine.index.indexed_history import load_timelines, timeline_row
from engine.index.requests import IndexRequest
from engine.index.versions import RECORD_KEY, TIMELINE_KEY
from engine.journal.segments import SegmentMap
from engine.ports.store import Store
from engine.retention.needed import RETENTION_KEY, load_retention, without
from protocol.bounds import DigestOrNone, Position, TimelineId
from protocol.wire import AnyCut


class ForgetPlan(IndexRequest, frozen=True, kw_only=True, tag="forget"):
    """Take timelines out of the index from a position on: whole where that is where they begin, else back to
    there, where the digest is `digest`; with the bases on what goes. If such a base left that place in a gap:
    back to where frames are held, with the digest there. Empty: nothing of that timeline is held any more.
    `left`: bases that stay, and what this site had left for each is cut back to. Figures: records removed."""

    parts: tuple[tuple[TimelineId, Position, DigestOrNone], ...]  # timeline, position, digest
    left: tuple[tuple[TimelineId, AnyCut], ...]


def handle_forget(store: Store, segments: SegmentMap, fields: tuple[Any, ...]) -> tuple[int, ...]:
    """Carry out a `ForgetPlan`. OSError (ENOSPC): nothing changed."""
    plan = ForgetPlan.from_row(fields)
    with store.read() as transaction:
        known = load_timelines(transaction)
        cursor = transaction.cursor("records")
        records = []
        for timeline, position, _ in plan.parts:
            more = cursor.set_range(RECORD_KEY.pack(timeline, position))
            while more and RECORD_KEY.unpack(cursor.key())[0] == timeline:
                records.append(bytes(cursor.key()))
                more = cursor.next()
        retention = load_retention(transaction)
        table = TimelineTable((row.timeline for row in known.values()), load_bases(transaction))
    starts = [(timeline, position) for timeline, position, _ in plan.parts if timeline in known]
    left = without(retention, starts, lambda each: known[each].timeline.fork_cut)
    ends = dict(plan.left)
    with store.write() as write:
        for base in bases_within(table, starts):
            remove_base(write, base)
        for base in table.bases:
            if base.timeline in ends:
                put_base(write, replace(base, left=ends[base.timeline]))
        if left != retention:
            write.put("meta", RETENTION_KEY, left.to_value())
        for key in records:
            write.delete("records", key)
        for timeline, position, digest in plan.parts:
            row = known.get(timeline)
            if row is None:
                continue
            if row.timeline.fork == position:
                write.delete("timelines", TIMELINE_KEY.pack(timeline))
            elif row.indexed > position:
                held = held_before(table, timeline, position) if digest else row.timeline.fork
                write.put("timelines", TIMELINE_KEY.pack(timeline), timeline_row(row.timeline, held, digest))
    return (len(records),)
