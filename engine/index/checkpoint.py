"""A checkpoint: everything that the journal says up to a position, put into LMDB in one synced transaction.

What goes in: the versions of every block (`engine.index.index_batch`), the records, the timelines, and the
position itself (`engine.index.indexed_history`). Recovery walks the journal from here.

Rules. Never past what is durable: an index row that names bytes which a power loss took would be a lie that
no journal walk could find. Each timeline of the target's lineage is indexed from its own mark, so that a
fork below an indexed position (a follower whose tail became a branch) is taken up where it left.

Called by the indexer process; reads no clock.
"""

from __future__ import annotations

from typing import Any, ClassVar

from engine.history.base_rows import load_bases
from engine.history.bases import spans_from_base
from engine.history.timelines import Timeline, TimelineTable
from engine.index.index_batch import IndexBatch, cover_other_lanes, put_batch, take_frame
from engine.index.indexed_history import (
    CHECKPOINT_KEY,
    IndexedTimeline,
    checkpoint_value,
    load_timelines,
    timeline_row,
)
from engine.index.requests import IndexRequest
from engine.index.versions import TIMELINE_KEY
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.store import Store
from engine.retention.needed import load_retention
from protocol.bounds import Position
from protocol.errors import WrongState
from protocol.positions import Cut


class CheckpointPlan(IndexRequest, frozen=True, kw_only=True, tag="checkpoint"):
    """Index the lineage of `target`, which lies at or below position `durable`, and every timeline of
    `branches` to the end given. `timelines` names all of them."""

    URGENT: ClassVar[bool] = True

    target: Cut
    durable: Position
    timelines: tuple[Timeline, ...]
    branches: tuple[Cut, ...] = ()


def handle_checkpoint(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A request to the indexer; its one figure is the number of versions added."""
    plan = CheckpointPlan.from_row(row)
    # Not those of other timelines: a fork that is being tried leaves files which the next try replaces.
    for timeline in plan.timelines:
        segments.load_timeline(timeline.id)
    with store.read() as transaction:
        retention = load_retention(transaction)
    return (run_checkpoint(store, JournalReader(segments, retention.anchor), plan),)


def run_checkpoint(store: Store, reader: JournalReader, plan: CheckpointPlan) -> int:
    """Carry out a plan; returns the number of versions added. BadFrame or Corruption if the journal cannot be
    read up to the target, OSError (ENOSPC) if there is no room: then nothing changed."""
    if plan.target.position > plan.durable:
        raise WrongState("a checkpoint may not pass what is durable", position=str(plan.target))
    with store.read() as transaction:
        known = load_timelines(transaction)
        table = TimelineTable(plan.timelines, load_bases(transaction))
    batch = IndexBatch()
    marks: dict[int, tuple[int, bytes]] = {}
    with store.read() as transaction:
        cursor = transaction.cursor("versions")
        lanes = sorted({t.lane for t in plan.timelines} | {base.lane for base in table.bases})
        for timeline, end in _to_index(table, plan):
            row = known.get(timeline.id)
            start, digest = (row.indexed, row.digest or None) if row else (timeline.fork, None)
            if row is not None and start >= end:
                continue
            if digest is None:
                digest = reader.digest_at(table, timeline.id, timeline.fork)
            for frame in reader.frames(timeline.id, start, end, digest):
                take_frame(batch, cursor, lanes, timeline.lane, frame)
                start, digest = frame.prefix.end, frame.prefix.digest
            marks[timeline.id] = (start, digest)
    cover_other_lanes(batch)
    with store.write() as write:
        put_batch(write, batch)
        for timeline in plan.timelines:
            indexed, digest = _mark(timeline, marks, known)
            write.put("timelines", TIMELINE_KEY.pack(timeline.id), timeline_row(timeline, indexed, digest))
        write.put("meta", CHECKPOINT_KEY, checkpoint_value(plan.target))
    return len(batch.versions)


def _to_index(table: TimelineTable, plan: CheckpointPlan) -> list[tuple[Timeline, int]]:
    """Timelines, parents first, each with the position up to which it is to be indexed."""
    spans = spans_from_base(table, plan.target.timeline, plan.target.position)
    ends = {span.timeline: span.end for span in spans}
    for branch in plan.branches:
        ends[branch.timeline] = max(branch.position, ends.get(branch.timeline, 0))
    return [(timeline, ends[timeline.id]) for timeline in table.all() if timeline.id in ends]


def _mark(
    timeline: Timeline, marks: dict[int, tuple[int, bytes]], known: dict[int, IndexedTimeline]
) -> tuple[int, bytes]:
    if timeline.id in marks:
        return marks[timeline.id]
    row = known.get(timeline.id)
    return (row.indexed, row.digest) if row else (timeline.fork, b"")
