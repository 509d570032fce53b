"""Which segments of a group's journal are no part of a branch: those that reclaim may take. How old they are,
and removing one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.group.core import GroupCore
from engine.history.bases import base_at, shared_below
from engine.history.timelines import Span
from engine.journal.format import timeline_directory
from engine.journal.segments import Segment
from protocol.errors import Corruption
from protocol.positions import Cut


@dataclass(frozen=True, slots=True)
class OldSegment:
    """A segment that may be truncated, and where its part of the lineage ends."""

    segment: Segment
    span: Span
    end: int


def lineage_segments(group: GroupCore) -> Iterator[OldSegment]:
    """Segments of the head's lineage that are no part of a branch, but for the last of the head's."""
    for span in group.spans(group.writer.written):
        segments = group.segments.of_timeline(span.timeline)
        for at, segment in enumerate(segments):
            following = segments[at + 1].start if at + 1 < len(segments) else None
            if following is not None and following <= span.end:
                yield OldSegment(segment, span, _gap_end(group, span.timeline, following))
                continue
            if (
                span.timeline != group.head.timeline
                and segment.start < span.end
                and not has_tail(group, span)
            ):
                end = min(span.end, group.end_of(span.timeline))
                yield OldSegment(segment, span, _gap_end(group, span.timeline, end))
            break


def has_tail(group: GroupCore, span: Span) -> bool:
    """Whether a timeline goes on past where the lineage leaves it: the rest is a branch."""
    return group.head.left.get(span.timeline, 0) > span.end


def _gap_end(group: GroupCore, timeline: int, end: int) -> int:
    """Where the frames before a place end: there, or where a base left a gap before it, and one on that where
    no frame came between the two."""
    while (base := base_at(group.timelines, Cut(timeline, end))) is not None:
        held = shared_below(group.timelines, base)
        if held is None or held == base.cut or held.timeline != timeline:
            break
        end = held.position
    return end


def frame_time(group: GroupCore, position: int) -> int:
    """UTC nanoseconds of the frame at a position of the head's lineage: while it is in the window, so is all
    that comes after. Now, if there is no frame yet; that of the newest, if it cannot be read: damage takes
    nothing out of the window."""
    for base in group.timelines.bases:
        held = shared_below(group.timelines, base)
        start = held.position if held else 0
        if start <= position < base.cut.position and group.holds_cut(base.cut):
            return base.utc_ns
    for span in group.spans(group.writer.written):
        if span.start <= position < span.end:
            try:
                prefix = group.reader.prefix_at(span.timeline, position)
            except (OSError, Corruption):
                prefix = None
            return prefix.utc_ns if prefix else group.head.utc_ns
    return group.clock.utc_ns()


def remove_segment(group: GroupCore, segment: Segment) -> None:
    """Remove a segment's file, and its timeline's directory with the last one."""
    group.segments.forget(segment)
    group.disk.remove(segment.path)
    if segment.timeline != group.head.timeline and not group.segments.of_timeline(segment.timeline):
        directory = timeline_directory(segment.timeline)
        if not group.disk.list_directory(directory):
            group.disk.remove(directory)
