"""Walking a group's own lineage across its forks, and saying it to another site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.history.timelines import Span
from engine.journal.reader import time_at
from protocol.errors import FarshoreError, Trimmed
from protocol.frames import Buffer, Frame
from protocol.limits import FRAME_BYTES_MAX
from protocol.messages import LineageRow
from protocol.positions import Cut

if TYPE_CHECKING:
    from engine.group.group import Group

LINEAGE_SAID_MAX = 256


def lineage_rows(group: Group) -> tuple[LineageRow, ...]:
    """The newest timelines up to the head, as messages carry them."""
    timelines = (group.timelines.get(span.timeline) for span in group.spans()[-LINEAGE_SAID_MAX:])
    return tuple((t.id, t.parent, t.fork, t.generation, t.writer) for t in timelines)


def fork_of(spans: list[Span], rows: tuple[LineageRow, ...], written: int) -> tuple[Cut, tuple[Span, ...]]:
    """The last place that this lineage and another site's, which ends at `written`, both hold (timeline 0:
    none is known), and what the other has past it."""
    mine = {span.timeline: span for span in spans}
    tail: list[Span] = []
    end = written
    for timeline, _, start, _, _ in reversed(rows):
        span = mine.get(timeline)
        if span is not None:
            position = min(end, span.end)
            if position < end:
                tail.append(Span(timeline, span.lane, position, end))
            return Cut(timeline, position), tuple(reversed(tail))
        tail.append(Span(timeline, 0, start, end))
        end = start
    return Cut(0, 0), tuple(reversed(tail))


def next_place(spans: list[Span], at: Cut) -> Cut | None:
    """Where the frame after cut `at` begins: there, or in the child where its timeline ends; None if nothing
    follows. `spans` end at what is written; timeline 0 stands before the root."""
    if at.timeline == 0 and spans:
        at = Cut(spans[0].timeline, spans[0].start)
    for index, span in enumerate(spans):
        if span.timeline == at.timeline:
            if at.position < span.end:
                return at
            if index + 1 < len(spans):
                return Cut(spans[index + 1].timeline, spans[index + 1].start)
    return None


def journal_leads(group: Group, cut: Cut) -> bool:
    """Whether all frames from a cut of the head's lineage (timeline 0: from the root) to the end are in the
    journal."""
    spans = group.spans(group.writer.written)
    if not spans:
        return True
    return group.kept.journal_reaches(cut if cut.timeline else Cut(spans[0].timeline, spans[0].start))


def frames_after(group: Group, at: Cut) -> Iterator[Frame]:
    """Frames of the head's lineage from cut `at` on, as they stand, each with its body checked. BadFrame
    where the journal cannot be read; NotFound if `at` is not on the lineage."""
    spans = group.spans(group.writer.written)
    place = next_place(spans, at)
    while place is not None:
        end = next(span.end for span in spans if span.timeline == place.timeline)
        yield from group.reader.frames(place.timeline, place.position, end, None)
        place = next_place(spans, Cut(place.timeline, end))


def frames_of_a_message(group: Group, at: Cut) -> tuple[list[Buffer], bool]:
    """The first of those, as many as one message takes, and whether they are all. Trimmed if the journal does
    not lead on from there; else as `frames_after`."""
    if group.holds_cut(at) and not journal_leads(group, at):
        raise Trimmed(f"from {at} on only the outcome is here; an operator chooses whose history stays")
    frames: list[Buffer] = []
    room = FRAME_BYTES_MAX
    for frame in frames_after(group, at):
        if frame.prefix.frame_bytes > room:
            return frames, False
        frames.append(frame.raw)
        room -= frame.prefix.frame_bytes
    return frames, True


def shared_ns(group: Group, rows: tuple[LineageRow, ...], written: int) -> int:
    """The time of the last frame here that another site, of that lineage to `written`, has, too; 0 if that is
    not known. What is past it may be left here, and what comes in its place may be older."""
    fork, _ = fork_of(group.spans(group.writer.written), rows, written)
    if fork == group.end:
        return group.head.utc_ns
    try:
        return time_at(group.reader, group.timelines, fork)
    except (FarshoreError, OSError):
        return 0
