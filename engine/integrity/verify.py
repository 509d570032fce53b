"""Verification: is everything that the journal and the index promise still there and unchanged?

Plain: every frame, its CRC, the digest chain, and whether it is understood; every index row decodes and
names bytes that exist, and no stored bytes are without a row. Deep: also the bytes of every version against
the row's CRC, and a row for every block and record of the indexed part of the journal. Damage is collected,
not raised: one bad frame must not hide the next.

It goes slice by slice, so that it can be paced, stopped and gone on with (engine.integrity.verify_rounds); a
slice only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.history.base_rows import load_bases, load_pending
from engine.history.timelines import Span, TimelineTable
from engine.history.unread import read_frame
from engine.index.indexed_history import load_timelines
from engine.integrity.faults import Fault
from engine.integrity.verified import Verified
from engine.integrity.verify_index import require_rows
from engine.journal.reader import BadFrame, JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.store import ReadTransaction, Store
from engine.retention.needed import Retention, lane_horizons, load_retention
from protocol.errors import FarshoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The part [start, end) of a timeline's frames, kept in `lane`; `digest` is what the first one continues
    (None: whatever it says, or if `chained` what the stretch before ended with). Frames that end in
    (horizon, indexed], with the lane's horizon, must be in the index."""

    timeline: int
    lane: int
    start: int
    end: int
    digest: bytes | None
    indexed: int
    chained: bool = False

    def after(self, digest: bytes | None) -> Stretch:
        """The same, behind a stretch that ended with a digest."""
        return replace(self, digest=digest) if self.chained else self


def all_lanes(transaction: ReadTransaction) -> dict[int, int]:
    """The lane of every timeline that versions in the index may be of."""
    lanes = {row.timeline.id: row.timeline.lane for row in load_timelines(transaction).values()}
    lanes |= {base.timeline: base.lane for base in load_bases(transaction)}
    pending = load_pending(transaction)
    if pending is not None:
        lanes[pending.timeline] = pending.lane
    return lanes


def load_segments(segments: SegmentMap, lanes: Mapping[int, int]) -> None:
    """Take in what files there are, each in its lane."""
    segments.load()
    for timeline, lane in lanes.items():
        segments.set_lane(timeline, lane)


def stretches(spans: list[Span], digest: bytes | None, indexed: int) -> list[Stretch]:
    """A lineage's stretches, whose first frame continues `digest`."""
    return [
        Stretch(
            timeline=span.timeline,
            lane=span.lane,
            start=span.start,
            end=span.end,
            digest=None if at else digest,
            indexed=indexed,
            chained=bool(at),
        )
        for at, span in enumerate(spans)
    ]


def verify_stretch(
    found: Verified, segments: SegmentMap, store: Store, stretch: Stretch, bytes_max: int
) -> tuple[int, bytes | None]:
    """Check frames of a stretch, up to about `bytes_max` bytes of them; the position and digest to go on
    from. What was truncated is not looked for."""
    with store.read() as transaction:
        retention = load_retention(transaction)
        horizon = _lane_horizon(transaction, retention, stretch.lane)
    reader = JournalReader(segments, retention.anchor)
    timeline, position, digest = stretch.timeline, stretch.start, stretch.digest
    if retention.truncated_to(timeline) > position:
        # On a branch it may be truncated past the fork at which this stretch ends.
        position = min(retention.truncated_to(timeline), stretch.end)
        anchor = retention.anchor(timeline, position)
        digest = anchor.digest if anchor is not None else None
    stop = found.journal_bytes + bytes_max
    while position < stretch.end and found.journal_bytes < stop:
        try:
            for frame in reader.frames(timeline, position, stretch.end, digest):
                found.frames += 1
                found.journal_bytes += frame.prefix.frame_bytes
                position, digest = frame.prefix.end, frame.prefix.digest
                said = read_frame(frame)
                if said.unread is not None:
                    found.add(Fault.UNREAD, timeline, frame.prefix.position, position)
                if horizon < position <= stretch.indexed:
                    require_rows(found, store, stretch.lane, frame.prefix, said.rows)
                if found.journal_bytes >= stop:
                    break
        except (BadFrame, FarshoreError) as error:
            bad = error.position if isinstance(error, BadFrame) else position
            position, digest = _next_start(segments, reader, stretch, bad), None
            found.add(Fault.FRAME, timeline, bad, position)
            found.journal_bytes += position - bad
    return position, digest


def _lane_horizon(transaction: ReadTransaction, retention: Retention, lane: int) -> int:
    """From which number on all of a lane's versions are in the index. Not the highest horizon: one on a
    branch, in another lane, says nothing of what the head has below that position."""
    if not retention.horizons:
        return 0
    table = TimelineTable(row.timeline for row in load_timelines(transaction).values())
    here = [horizon for horizon in retention.horizons if horizon.timeline in table]
    return lane_horizons(table, here).get(lane, 0)


def _next_start(segments: SegmentMap, reader: JournalReader, stretch: Stretch, bad: int) -> int:
    """Where to go on after damage: behind the damaged frame if its length still leads to a frame, else at
    the next segment."""
    prefix = reader.prefix_at(stretch.timeline, bad)
    if prefix is not None and reader.prefix_at(stretch.timeline, prefix.end) is not None:
        return prefix.end
    later = [s.start for s in segments.of_timeline(stretch.timeline) if s.start > bad]
    return min([*later, stretch.end])
