"""How large a segment is made, and how much of the file system stays free for the truncation of one."""

from __future__ import annotations

from engine.journal.segments import SegmentMap
from protocol.limits import INDEX_SHARE, INDEX_TRANSACTION_BYTES, SEGMENT_BYTES, SEGMENT_BYTES_MIN

SEGMENTS_IN_CAPACITY = 8


def next_segment_bytes(segments: SegmentMap, timeline: int, capacity_bytes: int) -> int:
    """The size of a timeline's next segment: at most what it holds by now, or an eighth of what the journal
    does, so that a group that is hardly written takes little; and so that eight fit into `capacity_bytes`,
    the limit and the room that there is, as the journal is shortened by whole ones."""
    own = sum(segment.size for segment in segments.of_timeline(timeline))
    held = max(own, segments.total_bytes() // SEGMENTS_IN_CAPACITY)
    size = SEGMENT_BYTES
    while size > SEGMENT_BYTES_MIN and (size > held or size * SEGMENTS_IN_CAPACITY > capacity_bytes):
        size //= 2
    return size


def least_segment_bytes(frame_bytes: int) -> int:
    """The smallest size of a segment that begins with such a frame."""
    return -(-frame_bytes // SEGMENT_BYTES_MIN) * SEGMENT_BYTES_MIN


def truncation_bytes(segments: SegmentMap, capacity_bytes: int) -> int:
    """What a truncation may need of the file system: it moves what cuts need of a segment into the index
    before the file goes, so room for it that the journal took would be lost for good. Of a segment that was
    made when there was more room, no more counts than one would have that is made now: little of it may be
    needed, and all of it may be more than there is."""
    moved_bytes = min(segments.largest_bytes(), capacity_bytes // SEGMENTS_IN_CAPACITY)
    return moved_bytes + moved_bytes // INDEX_SHARE + INDEX_TRANSACTION_BYTES
