"""Commands that look: cuts, the journal, verification."""

from __future__ import annotations

import asyncio
from typing import Any

from daemon.operations.shapes import cut_data, resolve, time_of
from daemon.site import Site
from engine.verify import verify_group
from protocol.commands import CutResolve, JournalShow, Verify
from protocol.cut_text import CutBackup, CutLabel, time_text
from protocol.errors import Busy, Corruption
from protocol.events import EventKind, Row
from protocol.frames import FramePrefix, decode_rows
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
    group = site.group(command.group)
    spans = group.spans(group.writer.written)
    ends = {span.timeline: span.end for span in spans}
    start = command.since.cut if command.since else None
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
            newest = _newest(
                site, group.name, span.timeline, span.start, span.end, command.limit - len(prefixes)
            )
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
                "writer": site.name_of(t.writer),
                "end": ends.get(t.id, t.fork),
            }
            for t in group.timelines.all()
        ],
        "segments": sum(len(group.segments.of_timeline(t)) for t in group.segments.timelines()),
        "bytes": group.segments.total_bytes(),
        "frames": [_frame(site, group.name, prefix) for prefix in prefixes],
        "next": str(following) if following and following != group.end else None,
    }


def _newest(site: Site, name: str, timeline: int, start: int, end: int, limit: int) -> list[FramePrefix]:
    """The last `limit` prefixes of a span: segments from the end until there are enough."""
    group = site.group(name)
    found: list[FramePrefix] = []
    stop = end
    for segment in reversed([s for s in group.segments.of_timeline(timeline) if s.start < end]):
        found = list(group.reader.prefixes(timeline, max(start, segment.start), stop)) + found
        stop = segment.start
        if len(found) >= limit:
            break
    return found[-limit:]


def _frame(site: Site, name: str, prefix: FramePrefix) -> Data:
    group = site.group(name)
    frame = next(iter(group.reader.frames(prefix.timeline, prefix.position, prefix.end, None)))
    kinds: dict[str, int] = {}
    for row in decode_rows(prefix, frame.raw):
        kinds[_word(row)] = kinds.get(_word(row), 0) + 1
    return {
        "position": str(Cut(prefix.timeline, prefix.position)),
        "bytes": prefix.frame_bytes,
        "time": time_text(prefix.utc_ns),
        "events": prefix.events,
        "kinds": kinds,
        "durable": prefix.durable,
        "digest": prefix.digest.hex(),
    }


def _word(row: Row) -> str:
    try:
        return EventKind(row[0]).name.lower()
    except ValueError:
        return f"kind {row[0]}"


async def verify(site: Site, command: Verify) -> Data:
    """Check a group's journal and index, away from the hosts' loop."""
    group = site.group(command.group)
    began = site.clock.monotonic()
    spans = group.spans(group.writer.durable)
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    end = group.folding.suspend("verify", lambda: None if begun.done() else begun.set_result(None))
    try:
        await begun
        found = await asyncio.to_thread(
            verify_group,
            site.directory / "groups" / group.name,
            group.store,
            group.name,
            spans,
            group.checkpoints.reached,
            command.deep,
        )
    finally:
        held = end()
    if not held:
        raise Busy(
            f"the journal of {group.name} ran full and was shortened in the meantime",
            subject=group.name,
            next_step="verify again, at a quieter time",
        )
    return {
        "group": group.name,
        "ok": not found.damage,
        "deep": command.deep,
        "frames": found.frames,
        "bytes": found.journal_bytes,
        "versions": found.versions,
        "damage": [_damage(error) for error in found.damage],
        "took_s": round(site.clock.monotonic() - began, 3),
    }


def _damage(error: Corruption) -> Data:
    return {
        "object": error.subject,
        "position": error.position,
        "message": error.message,
        "next": error.next_step,
    }
