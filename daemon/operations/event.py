"""Commands about events: those that there are, and waiting for the next."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta

from daemon.operations.paging import NextPage, Page, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.site import Site
from protocol.commands.base import ROWS_MAX
from protocol.commands.event import EventInfo, Events, EventsReply


class EventKey(NamedTuple):
    """Its number. `left`: how many more were asked for."""

    seq: int
    left: Annotated[int, Meta(ge=0, lt=ROWS_MAX)]


@carries_out(Events)
async def events(site: Site, command: Events) -> Page[EventsReply] | NextPage:
    """The newest events, or those after a number; waits for the first if asked."""
    start = start_of(command, EventKey)
    since, limit = start or (command.since, command.limit)
    found, following, missed = await site.events.look_up(since, limit)
    if not found and command.wait_s and start is None:
        await site.events.wait_for_news(command.wait_s)
        found, following, missed = await site.events.look_up(since, limit)
    numbered = [(EventKey(event.seq, limit - count), event) for count, event in enumerate(found, 1)]
    rows, more = await rows_of(site, command, numbered, _as_it_is)
    if start:
        return NextPage({"events": rows, "next": following}, more)
    return Page(EventsReply(events=rows, next=following, missed=missed), more)


def _as_it_is(event: EventInfo) -> EventInfo:
    return event
