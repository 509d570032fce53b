"""Opening a group: from what is on disk to a group that can be read and written.

    1. timelines and records from the index; timelines that began after the checkpoint from their first frames
    2. every frame of the head's lineage past what is indexed: checked, into memtable and records
    3. the torn tail, if any, cut and the journal made durable, before anything is read or appended
    4. directories of timelines that never got past their first frame removed

Damage is `Corruption` with its position: the group is then not opened, and nothing was changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.checkpoint import IndexedTimeline, load_checkpoint, load_records, load_timelines
from engine.group import Group, records_of
from engine.journal.format import JOURNAL_DIRECTORY, SPARE_PATH, timeline_directory
from engine.journal.reader import BadFrame
from engine.journal.recovery import JournalEnd, cut_tail, walk_to_end
from engine.timelines import Span, Timeline
from protocol.errors import Corruption, RemoteProtocolError
from protocol.events import TimelineBegan, record_from_row
from protocol.frames import NO_DIGEST, Frame, FrameError, decode_rows
from protocol.positions import Cut, timeline_text


@dataclass(slots=True)
class Recovered:
    """What opening a group found: frames and bytes replayed since the checkpoint, and the torn tail."""

    frames: int = 0
    replayed_bytes: int = 0
    torn_bytes: int = 0
    torn_at: str = ""
    reason: str = ""
    removed: list[str] = field(default_factory=list)


def recover_group(group: Group) -> Recovered:
    """Open a group. Corruption if what was promised cannot be read; OSError if the disk fails."""
    found = Recovered()
    if not group.disk.exists(JOURNAL_DIRECTORY):
        group.disk.make_directory(JOURNAL_DIRECTORY)
    if group.disk.exists(SPARE_PATH):
        group.disk.remove(SPARE_PATH)
    group.segments.load()
    with group.store.read() as transaction:
        indexed = load_timelines(transaction)
        checkpoint = load_checkpoint(transaction)
        records = list(load_records(transaction))
    head = group.state.group(group.name).head
    _load_timelines(group, indexed, head, found)
    for timeline, position, frame_position, utc_ns, row in records:
        group.take_record(timeline, frame_position, position, utc_ns, record_from_row(row))
    if head == 0:
        return found
    if checkpoint is not None and checkpoint.timeline == head:
        group.checkpoints.reached = checkpoint.position
    end = _replay(group, indexed, head, found)
    cut_tail(group.disk, group.segments, head, _start(group, indexed, group.spans()[-1])[0], end.position)
    group.head = head
    group.digest = end.digest
    group.utc_ns = end.utc_ns
    group.writer.start(head, group.timelines.get(head).lane, end.position)
    if end.torn_bytes:
        found.torn_bytes, found.torn_at, found.reason = (
            end.torn_bytes,
            str(Cut(head, end.position)),
            end.reason,
        )
    return found


def _load_timelines(group: Group, indexed: dict[int, IndexedTimeline], head: int, found: Recovered) -> None:
    """Fill the table of timelines and give every one its lane."""
    for row in sorted(indexed.values(), key=lambda row: row.timeline.generation):
        group.timelines.add(row.timeline)
    fresh: list[tuple[int, TimelineBegan, bool]] = []
    for timeline_id in group.segments.timelines():
        if timeline_id not in group.timelines:
            first = _first_frame(group, timeline_id)
            if first is None and timeline_id == head:
                raise Corruption(
                    f"the head timeline {timeline_text(head)} has no first frame",
                    subject=timeline_directory(head),
                    next_step="nothing was changed; restore the file, or take over at the peer",
                )
            if first is None:
                _remove_timeline(group, timeline_id, found)
            else:
                fresh.append((timeline_id, *first))
    ancestors = _ancestors(fresh, head)
    for timeline_id, began, alone in sorted(fresh, key=lambda item: item[1].generation):
        if alone and timeline_id != head and timeline_id not in ancestors:
            _remove_timeline(group, timeline_id, found)
            continue
        beyond = began.parent and group.reader.prefix_at(began.parent, began.fork) is not None
        parent_end = began.fork + 1 if beyond else began.fork
        group.timelines.add(
            Timeline(
                id=timeline_id,
                parent=began.parent,
                fork=began.fork,
                generation=began.generation,
                writer=began.writer,
                lane=group.timelines.lane_for_child(began.parent, began.fork, parent_end),
            )
        )
    for timeline in group.timelines.all():
        group.segments.set_lane(timeline.id, timeline.lane)
    group.head = head


def _ancestors(fresh: list[tuple[int, TimelineBegan, bool]], head: int) -> set[int]:
    parents = {timeline_id: began.parent for timeline_id, began, _ in fresh}
    found = set()
    while head in parents:
        head = parents[head]
        found.add(head)
    return found


def _first_frame(group: Group, timeline: int) -> tuple[TimelineBegan, bool] | None:
    """How a timeline began, and whether nothing follows; None if its first frame is not there."""
    start = group.segments.of_timeline(timeline)[0].start
    try:
        frame = next(iter(group.reader.frames(timeline, start, start + 1, None)))
        record = record_from_row(decode_rows(frame.prefix, frame.raw)[0])
    except (FrameError, RemoteProtocolError):
        return None
    if not isinstance(record, TimelineBegan) or record.fork != start:
        return None
    return record, group.reader.prefix_at(timeline, frame.prefix.end) is None


def _remove_timeline(group: Group, timeline: int, found: Recovered) -> None:
    for segment in group.segments.of_timeline(timeline):
        group.segments.forget(segment)
        group.disk.remove(segment.path)
    group.disk.remove(timeline_directory(timeline))
    found.removed.append(timeline_text(timeline))


def _start(group: Group, indexed: dict[int, IndexedTimeline], span: Span) -> tuple[int, bytes]:
    """Where the walk of a span begins, and the digest there."""
    row = indexed.get(span.timeline)
    if row is not None and row.digest:
        return row.indexed, row.digest
    timeline = group.timelines.get(span.timeline)
    if timeline.parent == 0:
        return span.start, NO_DIGEST
    return span.start, group.reader.digest_at(group.timelines, timeline.parent, timeline.fork)


def _replay(group: Group, indexed: dict[int, IndexedTimeline], head: int, found: Recovered) -> JournalEnd:
    """Walk the head's lineage from what is indexed to its end."""
    end: JournalEnd | None = None
    for span in group.timelines.lineage(head):

        def take(frame: Frame, lane: int = span.lane) -> None:
            rows = decode_rows(frame.prefix, frame.raw)
            records_of(rows)
            group.take(frame.prefix, lane, rows)
            group.utc_ns = frame.prefix.utc_ns
            found.frames += 1
            found.replayed_bytes += frame.prefix.frame_bytes

        start, digest = _start(group, indexed, span)
        if span.timeline == head:
            promised = max(start, group.checkpoints.reached)
            end = walk_to_end(
                group.reader,
                group.segments,
                timeline=head,
                start=start,
                digest=digest,
                promised=promised,
                on_frame=take,
            )
        elif start < span.end:
            try:
                for frame in group.reader.frames(span.timeline, start, span.end, digest):
                    take(frame)
            except BadFrame as error:
                raise Corruption(
                    f"the journal is damaged at {error}, below a fork",
                    subject=timeline_directory(span.timeline),
                    position=str(Cut(error.timeline, error.position)),
                    next_step="nothing was cut; restore the file, or take over at the peer",
                ) from error
    if end is None:
        raise Corruption(f"the head timeline {timeline_text(head)} is not on disk", subject=group.name)
    if end.utc_ns == 0:
        end = JournalEnd(
            position=end.position,
            digest=end.digest,
            utc_ns=_time_at(group, Cut(head, end.position)),
            torn_bytes=end.torn_bytes,
            reason=end.reason,
        )
    return end


def _time_at(group: Group, cut: Cut) -> int:
    """The time of the last frame before a cut: time in a journal never goes back, over restarts too."""
    timeline = group.timelines.get(cut.timeline)
    if cut.position > timeline.fork:
        before = group.reader.frame_before(cut.timeline, cut.position)
        return before.utc_ns if before else group.utc_ns
    return _time_at(group, Cut(timeline.parent, timeline.fork)) if timeline.parent else 0
