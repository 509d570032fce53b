"""A group's history by time."""

from __future__ import annotations

import heapq

from daemon.operations.paging import TimeSlices
from daemon.operations.registry import carries_out
from daemon.operations.shapes import time_or_none
from daemon.site import Site
from engine.history.over_time import BytesUntil, Happening, Mark, marks
from protocol.commands.timeline import MARKS_MAX, Timeline, TimelineBucket, TimelineMark, TimelineReply
from protocol.cut_text import NS_PER_S, time_text
from protocol.errors import UsageError

_MOVES = (Happening.SWITCHOVER, Happening.TAKEOVER)


@carries_out(Timeline)
async def timeline(site: Site, command: Timeline) -> TimelineReply:
    """Bytes and marks."""
    group = site.group(command.group)
    begin, end, count = command.from_ns, command.to_ns, command.buckets
    if end - begin < count:
        raise UsageError(
            f"from {time_text(begin)} to {time_text(end)} is no time for {count} buckets",
            subject=command.group,
            next_step="name a later end",
        )
    slices = TimeSlices(site)
    edges = [begin + (end - begin) * number // count for number in range(count + 1)]
    # What was written at the very moment of an edge belongs to the bucket that begins there.
    until = BytesUntil(group, [max(0, edge - 1) for edge in edges])
    for _ in until.walk():
        await slices.pause()
    newest: list[tuple[int, int, Mark]] = []
    happened = 0
    for found in marks(group, begin, end):
        await slices.pause()
        if found is None:
            continue
        happened += 1
        heapq.heappush(newest, (found.utc_ns, happened, found))
        if len(newest) > MARKS_MAX:
            heapq.heappop(newest)
    return TimelineReply(
        group=group.name,
        begin=time_text(begin),
        end=time_text(end),
        bucket_s=(end - begin) / count / NS_PER_S,
        held_from=time_or_none(until.begins_ns),
        exact=until.exact,
        buckets=_buckets(until, edges),
        marks=[_mark(site, found) for _, _, found in sorted(newest)],
        marks_left_out=happened - len(newest),
    )


def _buckets(until: BytesUntil, edges: list[int]) -> list[TimelineBucket]:
    held_from = until.begins_ns if until.begins_ns is not None and not until.is_whole else 0
    return [
        TimelineBucket(
            time=time_text(edge),
            # What was truncated may have been written there.
            bytes=None if edge < held_from else until.found[number + 1] - until.found[number],
        )
        for number, edge in enumerate(edges[:-1])
    ]


def _mark(site: Site, mark: Mark) -> TimelineMark:
    name = site.name_of(mark.name) if mark.what in _MOVES else mark.name
    return TimelineMark(kind=mark.what.value, time=time_text(mark.utc_ns), cut=str(mark.cut), name=name)
