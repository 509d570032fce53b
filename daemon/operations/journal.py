"""Commands about journals: their timelines and frames."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Annotated, NamedTuple

from msgspec import UNSET, Meta

from daemon.operations.paging import NextPage, Page, in_slices, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info
from daemon.site import Site
from engine.group.core import GroupCore
from engine.history.unread import read_frame
from engine.steps import at_once
from protocol.bounds import AnyTimeline, Position
from protocol.commands.base import ROWS_MAX
from protocol.commands.journal import FrameInfo, JournalShow, JournalShowReply, TimelineInfo
from protocol.cut_text import time_text
from protocol.errors import NotFound
from protocol.events import EventKind, Row
from protocol.frames import FramePrefix
from protocol.positions import Cut, timeline_text


class FrameKey(NamedTuple):
    """Where a frame ends. `left`: how many more were asked for."""

    timeline: AnyTimeline
    position: Position
    left: Annotated[int, Meta(ge=0, lt=ROWS_MAX)]


@carries_out(JournalShow)
async def show(site: Site, command: JournalShow) -> Page[JournalShowReply] | NextPage:
    """Timelines and frames."""
    group = site.group(command.group)
    start = start_of(command, FrameKey)
    if start is None:
        since, limit = _since(group, command), command.limit
    else:
        since, limit = Cut(start.timeline, start.position), start.left
    prefixes = await in_slices(site, _frames(group, since, limit))
    numbered = (
        (FrameKey(prefix.timeline, prefix.end, limit - count), prefix)
        for count, prefix in enumerate(prefixes, 1)
        # Truncated meanwhile, it is not there to be shown.
        if group.reader.prefix_at(prefix.timeline, prefix.position) is not None
    )
    frames, more = await rows_of(site, command, numbered, lambda prefix: _frame(group, prefix))
    following = _following(group, prefixes)
    if start:
        return NextPage({"frames": frames, "next": following}, more)
    return Page(_reply(group, frames, following, site.name_of), more)


def journal_of(group: GroupCore, command: JournalShow, name_of: Callable[[str], str]) -> JournalShowReply:
    """The same of an open group; `name_of` gives a site's name by its id."""
    prefixes = at_once(_frames(group, _since(group, command), command.limit))
    frames = [_frame(group, prefix) for prefix in prefixes]
    return _reply(group, frames, _following(group, prefixes), name_of)


def _since(group: GroupCore, command: JournalShow) -> Cut | None:
    """Where to begin, as it was asked for. NotFound unless that is a boundary of the history held."""
    start = command.since.cut if command.since else None
    if start is not None:
        _check_start(group, start)
    return start


def _frames(group: GroupCore, start: Cut | None, limit: int) -> Generator[None, None, list[FramePrefix]]:
    """The first `limit` frames from `start` on, or else the last ones; step by step."""
    spans = group.spans(group.writer.written)
    prefixes: list[FramePrefix] = []
    for span in spans if start else reversed(spans):
        if start is not None:
            if span.end <= start.position or len(prefixes) >= limit:
                continue
            begin = start.position if span.timeline == start.timeline else span.start
            for prefix in group.reader.prefixes(span.timeline, begin, span.end):
                yield
                prefixes.append(prefix)
                if len(prefixes) >= limit:
                    break
        elif len(prefixes) < limit:
            newest = yield from _newest(group, span.timeline, span.start, span.end, limit - len(prefixes))
            prefixes = newest + prefixes
    return prefixes


def _following(group: GroupCore, prefixes: list[FramePrefix]) -> str | None:
    """Where the frames after these begin; None if there are none."""
    following = Cut(prefixes[-1].timeline, prefixes[-1].end) if prefixes else None
    return str(following) if following and following != group.end else None


def _reply(
    group: GroupCore, frames: list[FrameInfo], following: str | None, name_of: Callable[[str], str]
) -> JournalShowReply:
    ends = {span.timeline: span.end for span in group.spans(group.writer.written)}
    return JournalShowReply(
        group=group.name,
        head=cut_info(group.end, group.head.utc_ns),
        timelines=[
            TimelineInfo(
                timeline=timeline_text(t.id),
                parent=timeline_text(t.parent) if t.parent else None,
                fork=t.fork,
                generation=t.generation,
                writer=name_of(t.writer),
                end=ends.get(t.id, t.fork),
            )
            for t in group.timelines.all()
        ],
        segments=sum(len(group.segments.of_timeline(t)) for t in group.segments.timelines()),
        bytes=group.segments.total_bytes(),
        frames=frames,
        next=following,
    )


def _check_start(group: GroupCore, start: Cut) -> None:
    """NotFound unless frames begin there, or end: an answer without any would say that there are none."""
    for span in group.spans(group.writer.written):
        if span.timeline == start.timeline and span.start <= start.position <= span.end:
            # What a damaged frame comes before is a boundary all the same.
            if group.reader.prefix_at(start.timeline, start.position) is None:
                group.reader.digest_at(group.timelines, start.timeline, start.position)
            return
    raise NotFound(
        f"{start} is not in the history of {group.name} that is held here",
        subject=group.name,
        position=str(start),
        next_step=f"`farshore journal show {group.name}` prints boundaries",
    )


def _newest(
    group: GroupCore, timeline: int, start: int, end: int, limit: int
) -> Generator[None, None, list[FramePrefix]]:
    """The last `limit` prefixes of a span: segments from the end until there are enough."""
    found: list[FramePrefix] = []
    stop = end
    for segment in reversed([s for s in group.segments.of_timeline(timeline) if s.start < end]):
        earlier = []
        for prefix in group.reader.prefixes(timeline, max(start, segment.start), stop):
            yield
            earlier.append(prefix)
        found = earlier + found
        stop = segment.start
        if len(found) >= limit:
            break
    return found[-limit:]


def _frame(group: GroupCore, prefix: FramePrefix) -> FrameInfo:
    frame = next(iter(group.reader.frames(prefix.timeline, prefix.position, prefix.end, None)))
    kinds: dict[str, int] = {}
    said = read_frame(frame)
    for row in said.rows:
        kinds[_word(row)] = kinds.get(_word(row), 0) + 1
    return FrameInfo(
        position=str(Cut(prefix.timeline, prefix.position)),
        bytes=prefix.frame_bytes,
        time=time_text(prefix.utc_ns),
        events=prefix.events,
        kinds=kinds,
        durable=prefix.durable,
        digest=prefix.digest.hex(),
        unread=said.unread.reason if said.unread else UNSET,
    )


def _word(row: Row) -> str:
    try:
        return EventKind(row[0]).name.lower()
    except ValueError:
        return f"kind {row[0]}"
