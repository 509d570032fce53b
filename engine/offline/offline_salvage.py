"""What a journal still holds, where the index that knew the rest is lost.

A timeline whose beginning was truncated is taken as if it began at nothing: at a cut, a block that was
written since its first frame is what it was, and every other reads as zeroes, whatever it held. Cuts before
that frame are refused as trimmed, as after any truncation. A volume whose creation was truncated has a name
made of its id, and the size that the writes to it show.

Bases are left out: without their row nobody knows what their blocks lie on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.group.group import Group
from engine.history.timelines import Timeline
from engine.history.unread import read_frame
from engine.journal.reader import BadFrame, JournalReader
from engine.journal.segments import SegmentMap
from engine.offline.offline_disk import OfflineDisk
from engine.retention.needed import NO_ANCHOR
from protocol.errors import Corruption, FarshoreError, RemoteProtocolError
from protocol.events import LAST_DATA_KIND, TimelineBegan, VolumeCreated, record_from_row
from protocol.frames import NO_DIGEST, Frame, FrameError, decode_rows
from protocol.limits import BLOCK_BYTES, SEGMENT_FILE_BYTES_MAX
from protocol.positions import NO_TIMELINE, POSITION_MAX, Cut, parse_cut, timeline_text


@dataclass(slots=True)
class Salvaged:
    """`since`: before it, on the way to the head, nothing is known; None if all is."""

    since: Cut | None = None
    notes: list[str] = field(default_factory=list)


def began_as(reader: JournalReader, timeline: int, start: int) -> TimelineBegan | None:
    """What the first frame of a timeline, at `start`, says of it; None if it says nothing."""
    try:
        frame = next(iter(reader.frames(timeline, start, start + 1, None)))
        record = record_from_row(decode_rows(frame.prefix, frame.raw)[0])
    except (FrameError, RemoteProtocolError):
        return None
    return record if isinstance(record, TimelineBegan) and record.fork == start else None


def salvage(group: Group, head: int) -> Salvaged:
    """Fill an empty group from its journal. Corruption if the head's timeline has no frame left."""
    found = Salvaged()
    group.segments.load()
    starts = _take_timelines(group)
    if head not in group.timelines:
        raise Corruption(
            f"nothing is left of timeline {timeline_text(head)}",
            subject=timeline_text(head),
            next_step="read the volumes at the peer",
        )
    blocks: dict[tuple[int, int], int] = {}
    for timeline in group.timelines.all():
        end, reason = _apply_frames(group, timeline, starts[timeline.id], blocks)
        group.head.left[timeline.id] = end
        if reason:
            found.notes.append(reason)
    _name_volumes(group, blocks, starts)
    starts |= _take_unknown(group)
    cut_off = {each: start for each, start in starts.items() if group.timelines.get(each).parent == 0 < start}
    group.kept.retention = replace(
        group.kept.retention,
        horizons=frozenset(Cut(each, start) for each, start in cut_off.items()),
        truncated={each: (start, NO_ANCHOR) for each, start in cut_off.items()},
    )
    end = group.head.left.pop(head)
    group.head.put(head, NO_DIGEST, group.head.utc_ns)
    group.writer.start(head, group.timelines.get(head).lane, end)
    found.since = group.kept.horizon()
    return found


def _take_timelines(group: Group) -> dict[int, int]:
    """Put every timeline into the group's table; where the frames of each begin."""
    starts, begun = {}, []
    for each in group.segments.timelines():
        start = group.segments.of_timeline(each)[0].start
        record = began_as(group.reader, each, start)
        if record is None and start == 0:
            continue  # a base
        starts[each] = start
        begun.append((start, each, record))
    for start, each, record in sorted(begun, key=lambda item: item[:2]):
        if record is None or record.parent not in group.timelines:
            _take_root(group, each, record)
            continue
        ends = record.sealed and group.reader.prefix_at(record.parent, start) is None
        lane = group.timelines.lane_for_child(record.parent, start, certain=ends)
        group.timelines.add(
            Timeline(
                id=each,
                parent=record.parent,
                fork=start,
                generation=record.generation,
                writer=record.writer,
                lane=lane,
            )
        )
    for timeline in group.timelines.all():
        group.segments.set_lane(timeline.id, timeline.lane)
    return starts


def _take_root(group: Group, timeline: int, record: TimelineBegan | None) -> None:
    group.timelines.add(
        Timeline(
            id=timeline,
            parent=NO_TIMELINE,
            fork=0,
            generation=record.generation if record else 0,
            writer=record.writer if record else "",
            lane=group.timelines.lane_for_child(NO_TIMELINE, 0, certain=False),
        )
    )


def _apply_frames(
    group: Group, timeline: Timeline, start: int, blocks: dict[tuple[int, int], int]
) -> tuple[int, str]:
    """Where a timeline's whole frames end, and why if that is not at its end. `blocks` learns how far each
    (timeline, volume) was written."""
    end = start
    try:
        for frame in group.reader.frames(timeline.id, start, POSITION_MAX, None):
            _take(group, timeline, frame, blocks)
            end, group.head.utc_ns = frame.prefix.end, max(group.head.utc_ns, frame.prefix.utc_ns)
    except BadFrame as error:
        if any(each.start > end for each in group.segments.of_timeline(timeline.id)):
            return end, f"the journal is damaged at {error}; what follows there was left out"
    return end, ""


def _take(group: Group, timeline: Timeline, frame: Frame, blocks: dict[tuple[int, int], int]) -> None:
    said = read_frame(frame)
    if said.unread is not None:
        group.unread.apply(said.unread)
    for row in said.rows:
        if row[0] <= LAST_DATA_KIND:
            _, volume, first, count = row
            blocks[timeline.id, volume] = max(first + count, blocks.get((timeline.id, volume), 0))
    group.take(frame.prefix, timeline.lane, said.rows)


def _take_unknown(group: Group) -> dict[int, int]:
    """Timelines that reverts go back to and of which nothing is left: known, and nowhere readable."""
    unknown = {entry.cut.timeline for entry in group.volumes.all_reverts()}
    unknown = {each for each in unknown if each not in group.timelines}
    for each in sorted(unknown):
        _take_root(group, each, None)
        group.head.left[each] = 0
    return dict.fromkeys(unknown, POSITION_MAX)


def _name_volumes(group: Group, blocks: dict[tuple[int, int], int], starts: dict[int, int]) -> None:
    """Volumes that were written and whose creation is not in the journal, at the root of their lineage."""
    unnamed: dict[tuple[int, int], int] = {}
    for (timeline, volume), count in blocks.items():
        root = group.timelines.lineage(timeline)[0].timeline
        if volume < starts[root]:
            unnamed[root, volume] = max(count, unnamed.get((root, volume), 0))
    for (root, volume), count in sorted(unnamed.items()):
        record = VolumeCreated(name=f"volume-{volume:x}", size_bytes=count * BLOCK_BYTES)
        group.volumes.created(root, volume, record)


def leave_out(disk: OfflineDisk, error: Corruption) -> bool:
    """Let a timeline end where it is damaged, and no file of it be larger than a segment. False if it was so
    already."""
    try:
        bad = parse_cut(error.position)
    except FarshoreError:
        return False
    segments = SegmentMap(disk)
    changed = False
    try:
        segments.load_timeline(bad.timeline)
        large = [s for s in segments.of_timeline(bad.timeline) if s.size > SEGMENT_FILE_BYTES_MAX]
        for segment in large:
            disk.limit(segment.path, SEGMENT_FILE_BYTES_MAX)
        if large:
            return True
        for segment in segments.of_timeline(bad.timeline):
            if segment.start + segment.size > bad.position:
                size = max(0, bad.position - segment.start)
                changed = changed or size < segment.size
                if size:
                    disk.limit(segment.path, size)
                else:
                    disk.remove(segment.path)
    finally:
        segments.close()
    return changed
