"""Events: what happened at a site."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.commands.base import Reply, Rows, WaitSeconds
from protocol.commands.pages import PagedCommand

Level = Literal["info", "warning", "error"]
Scalar = str | int | float | bool | None


class EventInfo(Reply, frozen=True, kw_only=True):
    """One event. `by`: who caused it, as `uid:1000`, `operator:NAME`, `peer:NAME` or `schedule`; empty if the
    site did by itself. `fields`: what the message says, by name. `resolved`: what an earlier event of
    this kind, group and object said is over. `site`: the peer where it happened, null for this site."""

    seq: int
    time: str
    level: Level
    kind: str
    group: str | None
    object: str
    position: str
    message: str
    by: str = ""
    fields: dict[str, Scalar] = msgspec.field(default_factory=dict)
    resolved: bool = False
    site: str | None = None


class EventsReply(Reply, frozen=True, kw_only=True):
    """Oldest first. `next`: `since` of the next call; `missed`: older ones were dropped."""

    events: list[EventInfo]
    next: int
    missed: bool


class Events(PagedCommand[EventsReply], frozen=True, tag="events"):
    """The site's events with a number above `since`, oldest first, the newest `limit` of them when `since` is
    null. With none yet, waits `wait_s` for the first."""

    since: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    limit: Rows = 100
    wait_s: WaitSeconds = 0.0
