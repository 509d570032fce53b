"""`farshore events`: what happened at a site."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

import typer
from msgspec.structs import replace

from console.client import WAIT_GRACE_S
from console.figures import utc_ns
from console.session import Session, session_of
from protocol.commands.base import ROWS_MAX
from protocol.commands.event import EventInfo, Events, EventsReply
from protocol.cut_text import CutTime
from protocol.errors import UsageError

FOLLOW_SLICE_S = 20.0
_NUMBER = re.compile(r"-?\d+", re.ASCII)


def events(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as they happen, until Ctrl-C.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(metavar="SEQ|TIME", help="Only those after this number, or since then: 10m.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=ROWS_MAX, help="At most this many of the past.")] = 100,
) -> None:
    """What happened at this site, oldest first."""
    session = session_of(ctx)
    if since is None or _NUMBER.fullmatch(since):
        data = session.call(Events(since=None if since is None else int(since), limit=limit))
    else:
        data = _since_time(session, _moment_ns(session, since), limit)
    if not follow:
        session.output.result("events", data, lambda: _print_events(session, data))
        return
    while True:
        for event in data.events:
            session.output.result("event", event, partial(_print_event, session, event))
        session.output.flush()
        command = Events(since=data.next, limit=limit, wait_s=FOLLOW_SLICE_S)
        data = session.call(command, FOLLOW_SLICE_S + WAIT_GRACE_S)


def _moment_ns(session: Session, text: str) -> int:
    cut = session.since(text)
    if not isinstance(cut, CutTime):
        raise UsageError(
            f"{text!r} is neither an event's number nor a time",
            subject=text,
            next_step="write it as 10m, 02:45, yesterday 14:00, or a number that --json shows",
        )
    return cut.utc_ns


def _since_time(session: Session, since_ns: int, limit: int) -> EventsReply:
    """The newest `limit` of those that happened since. A clock that was put back does not hide later ones."""
    found: list[EventInfo] = []
    after = -1
    data = session.call(Events(since=0, limit=ROWS_MAX))
    while data.events and data.next > after:
        found += data.events
        after = data.next
        data = session.call(Events(since=after, limit=ROWS_MAX))
    first = next((at for at, each in enumerate(found) if utc_ns(each.time) >= since_ns), len(found))
    return replace(data, events=found[first:][-limit:], missed=False)


def _print_events(session: Session, data: EventsReply) -> None:
    if data.missed:
        session.output.note("older events are gone")
    for event in data.events:
        _print_event(session, event)


def _print_event(session: Session, event: EventInfo) -> None:
    words = [
        session.local(event.time),
        f"{event.level:<7}",
        event.kind,
        event.object or event.group or "",
        event.position,
        event.message,
        f"by {event.by}" if event.by else "",
    ]
    session.output.line("  ".join(word for word in words if word))
