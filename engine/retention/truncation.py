"""Reclaim: one segment's bytes that are still needed go into the index, so that its file can go.

Of every block that the segment names, the versions below the lane's horizon are looked at. Those that a cut
still needs stay: their bytes move into `blocks` if they stand in this segment; the others' rows go. A
tombstone goes too once nothing lies under it, in no lane: then the block reads as zeroes without it.

All of it, with the horizons and what is kept below them (`engine.retention.needed`), is one transaction. The
caller refuses the cuts that this gives up from before the request on, and removes the file after its answer;
after a crash in between the file is removed at the next start, or the truncation is done again, to the same
end.

A segment may name far more blocks than it has bytes of: a discarded terabyte is a few rows. So a request
looks at `BLOCKS_MAX` of them; what is left is for the next, which a checkpoint comes before, and only with
the last one the segment counts as truncated.

Called by the indexer process; reads no clock.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from engine.history.unread import read_frame
from engine.index.indexed_history import load_timelines
from engine.index.levels import ALL_LEVELS
from engine.index.runs import indexed_blocks, indexed_runs
from engine.journal.reader import checked, parsed_frames
from engine.journal.segments import SegmentMap
from engine.ports.store import Cursor, Store
from engine.retention.needed import (
    NO_ANCHOR,
    RETENTION_KEY,
    Anchor,
    Retention,
    load_retention,
)
from engine.retention.reclaim_requests import TruncatePlan
from engine.retention.sweep import note_given_up
from engine.retention.thinning import Changes, SegmentBytes, Thinning, lanes_of
from protocol.errors import Corruption, WrongState
from protocol.events import LAST_DATA_KIND, WRITE
from protocol.limits import BLOCK_BYTES, INDEX_SHARE, INDEX_TRANSACTION_BYTES
from protocol.positions import Cut

BLOCKS_MAX = 65_536  # that one request looks at
WINDOW_BLOCKS = 4096  # of a zeroed range that are looked up at once
# What a version that is moved takes of the file: its bytes, and a share of the pages above them.
MOVED_BYTES = BLOCK_BYTES + BLOCK_BYTES // INDEX_SHARE


def handle_truncation(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A request to the indexer. What is opened here is the segment alone: others may be gone."""
    plan = TruncatePlan.from_row(row)
    segments.load_timeline(plan.timeline)
    try:
        return run_truncation(store, segments, plan)
    finally:
        gone = segments.segment_at(plan.timeline, plan.start)
        if gone is not None:
            segments.forget(gone)


def run_truncation(store: Store, segments: SegmentMap, plan: TruncatePlan) -> tuple[int, ...]:
    """Carry out a plan. BadFrame or Corruption if the segment is damaged, OSError (ENOSPC) if there is no
    room: then nothing changed."""
    changes = Changes()
    following: tuple[int, ...] = ()
    with store.read() as transaction:
        before = load_retention(transaction)
        if before.truncated_to(plan.timeline) >= plan.end:
            return 0, 0
        indexed = load_timelines(transaction).get(plan.timeline)
        segment = segments.segment_at(plan.timeline, plan.start)
        if indexed is None or indexed.indexed < plan.end or segment is None or segment.start != plan.start:
            raise WrongState("a truncation may not pass what is indexed", position=_place(plan))
        if plan.keep.lane_horizons.get(plan.lane, 0) < plan.end:
            raise WrongState("a truncation may not pass the horizon", position=_place(plan))
        cursor = transaction.cursor("versions")
        # At once: nearly all of it is asked for, in the order of blocks and not of places.
        data = memoryview(segments.file(segment).pread(plan.end - plan.start, 0))
        said = _read_segment(data, plan, before)
        named = list(islice(_named_blocks(said, cursor, plan), BLOCKS_MAX + 1))
        if len(named) > BLOCKS_MAX:
            following = named.pop()
        thinning = Thinning(changes=changes, cursor=cursor, keep=plan.keep, lanes=lanes_of(cursor))
        source = SegmentBytes(data, plan.start, plan.end)
        for volume, blocks in groupby(named, itemgetter(0)):
            thinning.thin_all(plan.lane, volume, (block for _, block in blocks), source)
    _require_room(store, plan, len(changes.moved))
    kept = {}
    for cut in plan.keep.cuts:
        here = said.anchors.get(cut.position) if cut.timeline == plan.timeline else None
        kept[cut] = here or before.anchor(cut.timeline, cut.position) or NO_ANCHOR
    truncated = before.truncated
    if not following:
        truncated = {**truncated, plan.timeline: (plan.end, said.anchors[plan.end])}
    after = Retention(horizons=plan.keep.horizons, kept=kept, truncated=truncated)
    with store.write() as write:
        changes.commit(write)
        write.put("meta", RETENTION_KEY, after.to_value())
        note_given_up(write, before, plan.keep)
    return len(changes.moved), changes.gone, *following


def _require_room(store: Store, plan: TruncatePlan, moved: int) -> None:
    """OSError (ENOSPC) if moving so many versions would make the file grow by more than it may. Found out by
    writing, the last page of the file system would be gone: a file that LMDB failed to extend keeps what it
    got."""
    used_bytes, size_bytes = store.space()
    need_bytes = moved * MOVED_BYTES + INDEX_TRANSACTION_BYTES - (size_bytes - used_bytes)
    if plan.room_bytes is not None and need_bytes > plan.room_bytes:
        raise OSError(
            errno.ENOSPC,
            f"the index lacks room: {need_bytes} bytes to move out of the journal, "
            f"{plan.room_bytes} of the file system may be used for it",
        )


def _place(plan: TruncatePlan) -> str:
    return str(Cut(plan.timeline, plan.end))


@dataclass(slots=True)
class _Said:
    """What a segment's frames say, by volume: blocks written, ranges zeroed; and of each frame's end."""

    written: dict[int, set[int]] = field(default_factory=dict)
    zeroed: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    anchors: dict[int, Anchor] = field(default_factory=dict)


def _read_segment(data: memoryview, plan: TruncatePlan, before: Retention) -> _Said:
    anchor = before.anchor(plan.timeline, plan.start)
    said = _Said()
    digest = anchor.digest if anchor else None
    for frame in checked(parsed_frames(data, plan.timeline, plan.start, plan.end), digest):
        prefix = frame.prefix
        said.anchors[prefix.end] = Anchor(prefix.digest, prefix.utc_ns)
        for row in read_frame(frame).rows:
            if row[0] > LAST_DATA_KIND:
                continue
            kind, volume, first, count = row
            if kind == WRITE:
                said.written.setdefault(volume, set()).update(range(first, first + count))
            else:
                said.zeroed.setdefault(volume, []).append((first, first + count))
    if plan.end not in said.anchors:
        raise Corruption(
            f"no frame ends where the segment's history does, at {_place(plan)}",
            subject=f"timeline {plan.timeline:016x}",
            position=_place(plan),
            next_step="`farshore verify GROUP --deep`",
        )
    return said


def _named_blocks(said: _Said, cursor: Cursor, plan: TruncatePlan) -> Iterator[tuple[int, int]]:
    """The blocks that the segment names, by volume, from `plan.after` on, in order; of a zeroed range those
    that the index has anything of."""
    for volume in sorted({*said.written, *said.zeroed}):
        if volume < plan.after[0]:
            continue
        first = plan.after[1] if volume == plan.after[0] else 0
        written = sorted(block for block in said.written.get(volume, ()) if block >= first)
        last = -1
        for block in merge(
            written, _indexed_within(said.zeroed.get(volume, ()), cursor, plan, volume, first)
        ):
            if block != last:
                yield volume, block
            last = block


def _indexed_within(
    ranges: Iterable[tuple[int, int]], cursor: Cursor, plan: TruncatePlan, volume: int, first: int
) -> Iterator[int]:
    at = first
    for begin, end in sorted(ranges):
        at = max(at, begin)
        while at < end:
            runs = (indexed_runs(cursor, plan.lane, volume, level, at, end) for level in (0, *ALL_LEVELS))
            at = max(at, min(next(each, end) for each in runs))
            upto = min(end, at + WINDOW_BLOCKS)
            yield from indexed_blocks(cursor, plan.lane, volume, at, upto)
            at = upto
