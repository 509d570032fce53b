"""`farshore events`: what happened at a site."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from console.client import WAIT_GRACE_S
from console.session import Session, session_of
from protocol.commands.base import ROWS_MAX
from protocol.commands.event import EventInfo, Events, EventsReply

FOLLOW_SLICE_S = 20.0


def events(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as they happen, until Ctrl-C.")
    ] = False,
    since: Annotated[int | None, typer.Option(metavar="SEQ", help="Only those after this number.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=ROWS_MAX, help="At most this many of the past.")] = 100,
) -> None:
    """What happened at this site, oldest first."""
    session = session_of(ctx)
    data = session.call(Events(since=since, limit=limit))
    if not follow:
        session.output.result("events", data, lambda: _print_events(session, data))
        return
    while True:
        for event in data.events:
            session.output.result("event", event, partial(_print_event, session, event))
        session.output.flush()
        command = Events(since=data.next, limit=limit, wait_s=FOLLOW_SLICE_S)
        data = session.call(command, FOLLOW_SLICE_S + WAIT_GRACE_S)


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
