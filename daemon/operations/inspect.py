"""Commands that look: cuts and the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from daemon.operations.shapes import cut_data, resolve, time_of
from daemon.site import Site
from engine.group import Group
from engine.timelines import Span
from engine.unread import read_frame
from protocol.commands import CutResolve, JournalShow
from protocol.cut_text import CutBackup, CutLabel, time_text
from protocol.errors import NotFound
from protocol.events import EventKind, Row
from protocol.frames import FramePrefix
from protocol.positions import Cut, timeline_text

Data = dict[str, Any]


async def cut_resolve(site: Site, command: CutResolve) -> Data:
    """What a name stands for."""
    group = site.group(command.group)
    cut = resolve(site, group, command.cut)
    copy = None
    if isinstance(command.cut, CutLabel):
        copy = group.copies.find(group.spans(), command.cut.label, group.name)
    elif isinstance(command.cut, CutBackup):
        copy = group.copies.find(group.spans(), command.cut.backup_id, group.name)
    return cut_data(cut, time_of(group, cut)) | {
        "group": group.name,
        "label": copy.label or None if copy else None,
        "backup_id": f"{copy.id:016x}" if copy else None,
        "complete_until": time_text(site.complete_until_ns(group.name)),
    }


async def journal_show(site: Site, command: JournalShow) -> Data:
    """Timelines and frames."""
    return journal_data(site.group(command.group), command, site.name_of)


def journal_data(group: Group, command: JournalShow, name_of: Callable[[str], str]) -> Data:
    """The same of an open group; `name_of` gives a site's name by its id."""
    spans = group.spans(group.writer.written)
    ends = {span.timeline: span.end for span in spans}
    start = command.since.cut if command.since else None
    if start is not None:
        _check_start(group, spans, start)
    prefixes: list[FramePrefix] = []
    for span in spans if start else reversed(spans):
        if start is not None:
            if span.end <= start.position or len(prefixes) >= command.limit:
                continue
            begin = start.position if span.timeline == start.timeline else span.start
            for prefix in group.reader.prefixes(span.timeline, begin, span.end):
                prefixes.append(prefix)
                if len(prefixes) >= command.limit:
                    break
        elif len(prefixes) < command.limit:
            newest = _newest(group, span.timeline, span.start, span.end, command.limit - len(prefixes))
            prefixes = newest + prefixes
    following = Cut(prefixes[-1].timeline, prefixes[-1].end) if prefixes else None
    return {
        "group": group.name,
        "head": cut_data(group.end, group.utc_ns),
        "timelines": [
            {
                "timeline": timeline_text(t.id),
                "parent": timeline_text(t.parent) if t.parent else None,
                "fork": t.fork,
                "generation": t.generation,
                "writer": name_of(t.writer),
                "end": ends.get(t.id, t.fork),
            }
            for t in group.timelines.all()
        ],
        "segments": sum(len(group.segments.of_timeline(t)) for t in group.segments.timelines()),
        "bytes": group.segments.total_bytes(),
        "frames": [_frame(group, prefix) for prefix in prefixes],
        "next": str(following) if following and following != group.end else None,
    }


def _check_start(group: Group, spans: Sequence[Span], start: Cut) -> None:
    """NotFound unless frames begin there, or end: an answer without any would say that there are none."""
    for span in spans:
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


def _newest(group: Group, timeline: int, start: int, end: int, limit: int) -> list[FramePrefix]:
    """The last `limit` prefixes of a span: segments from the end until there are enough."""
    found: list[FramePrefix] = []
    stop = end
    for segment in reversed([s for s in group.segments.of_timeline(timeline) if s.start < end]):
        found = list(group.reader.prefixes(timeline, max(start, segment.start), stop)) + found
        stop = segment.start
        if len(found) >= limit:
            break
    return found[-limit:]


def _frame(group: Group, prefix: FramePrefix) -> Data:
    frame = next(iter(group.reader.frames(prefix.timeline, prefix.position, prefix.end, None)))
    kinds: dict[str, int] = {}
    said = read_frame(frame)
    for row in said.rows:
        kinds[_word(row)] = kinds.get(_word(row), 0) + 1
    return {
        "position": str(Cut(prefix.timeline, prefix.position)),
        "bytes": prefix.frame_bytes,
        "time": time_text(prefix.utc_ns),
        "events": prefix.events,
        "kinds": kinds,
        "durable": prefix.durable,
        "digest": prefix.digest.hex(),
    } | ({"unread": said.unread.reason} if said.unread else {})


def _word(row: Row) -> str:
    try:
        return EventKind(row[0]).name.lower()
    except ValueError:
        return f"kind {row[0]}"
