"""`farshore wait`, `events` and `journal show`: watching a group and its history."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict

from console.commands.site import run_daemon
from console.figures import size_text, span_text
from console.local_time import monotonic
from console.options import seconds
from console.session import Session, position_argument, session_of
from protocol.commands.base import ROWS_MAX, check_name
from protocol.commands.event import EventInfo, Events, EventsReply
from protocol.commands.journal import FrameInfo, JournalShow, JournalShowReply, OfflineJournalReply
from protocol.commands.pair import WaitFor, WaitReply
from protocol.errors import TimedOut, UsageError

STATES = ("simplex", "copying", "paired", "split", "suspended", "journal-filling", "taken-over", "diverged")
WAIT_SLICE_S = 1.0
WAIT_TIMEOUT_S = 300.0
# A daemon that is slow for a moment must not end a long wait.
WAIT_GRACE_S = 10.0
FOLLOW_SLICE_S = 20.0

journal_app = typer.Typer(help="A group's journal.", no_args_is_help=True, rich_markup_mode=None)

GroupArgument = Annotated[str, typer.Argument(metavar="G", help="A group.")]


class WaitStep(WaitReply, frozen=True, kw_only=True):
    """Progress of `wait` and `failback`: where the group is now."""

    group: str


def wait(
    ctx: typer.Context,
    group: GroupArgument,
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.")] = None,
    position: Annotated[
        str | None, typer.Option(metavar="TIMELINE:POSITION", help="Durable at both sites.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", callback=seconds, help="Seconds; then it ends with 22.")
    ] = WAIT_TIMEOUT_S,
) -> None:
    """Wait for a state, or until both sites hold a position: by default all that is written now."""
    session = session_of(ctx)
    check_name(group, "group")
    if state is not None and position is not None:
        raise UsageError("--state and --position together", next_step="wait for one, then for the other")
    if state is not None and state not in STATES:
        raise UsageError(f"no state {state!r}", subject=state, next_step=f"use one of {', '.join(STATES)}")
    data = wait_for(session, group, state, position, timeout)

    def show() -> None:
        session.output.line(f"{group} {data.state} ({data.code}) at {data.position}")

    session.output.result("wait", data, show)


def wait_for(
    session: Session, group: str, state: str | None, position: str | None, timeout_s: float
) -> WaitReply:
    """Asks in slices, for its progress. The position that the first answer names is what is waited for, or a
    busy group would never be done. Raises TimedOut."""
    deadline = monotonic() + timeout_s
    first_lag: int | None = None
    what = state or position or "all that is written now"
    with session.output.activity(f"{group}: waiting for {what}") as activity:
        while True:
            slice_s = max(0.0, min(WAIT_SLICE_S, deadline - monotonic()))
            command = WaitFor(
                group=group, state=state, position=position_argument(position), timeout_s=slice_s
            )
            data = session.call(command, slice_s + WAIT_GRACE_S)
            if data.reached:
                return data
            if state is None:
                position = data.position
            if monotonic() >= deadline:
                raise _timed_out(group, what, data, timeout_s)
            lag = data.lag_bytes
            first_lag = lag if first_lag is None else first_lag
            text = f"{group} {data.state}, behind {size_text(lag)} {span_text(data.lag_s)}"
            done = None if lag is None or first_lag is None else max(0, first_lag - lag)
            step = WaitStep(group=group, **asdict(data))
            activity.update(step, text, done=done, total=first_lag or None)


def _timed_out(group: str, what: str, data: WaitReply, timeout_s: float) -> TimedOut:
    behind = f"behind {size_text(data.lag_bytes)}"
    return TimedOut(
        f"{group}: not {what} after {timeout_s:g} s; it is {data.state} ({data.code}), {behind}",
        subject=group,
        position=data.position,
        next_step=f"farshore pair show {group}",
    )


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
    ]
    session.output.line("  ".join(word for word in words if word))


@journal_app.command("show")
def show_journal(
    ctx: typer.Context,
    group: GroupArgument,
    since: Annotated[
        str | None, typer.Option(metavar="TIMELINE:POSITION", help="From this frame on.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=ROWS_MAX, help="At most this many frames.")] = 50,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="A dead site's data directory, or a copy.")
    ] = None,
) -> None:
    """Frames of a group's journal and its timelines; by default the newest.

    With --dir no daemon is asked and nothing there is changed; the backups that can be read are shown too."""
    session = session_of(ctx)
    command = JournalShow(group=check_name(group, "group"), since=position_argument(since), limit=limit)
    if directory is None:
        data = session.call(command)
    else:
        words = ["journal", os.path.abspath(directory), f"--group={group}", f"--limit={limit}"]
        data = run_daemon([*words, *([f"--since={since}"] if since else [])], OfflineJournalReply)
    session.output.result("journal.show", data, lambda: _show_journal(session, data))


def _show_journal(session: Session, data: JournalShowReply) -> None:
    output = session.output
    for each in data.timelines:
        origin = f"from {each.parent}:{each.fork}" if each.parent else "the first"
        writer = each.writer or "?"
        output.line(f"timeline {each.timeline} by {writer}, generation {each.generation}, {origin}")
    output.table(
        ("position", "bytes", "time", "events", "kinds", "digest"),
        [_frame_row(session, frame) for frame in data.frames],
        empty="no frames",
    )
    if isinstance(data, OfflineJournalReply):
        for backup in data.backups:
            output.line(f"backup {backup.label or backup.id} at {session.cut_line(backup.cut)}")
        for note in data.notes:
            output.note(f"note: {note}")
    output.note(f"{data.segments} segments, {size_text(data.bytes)}")
    if data.next:
        output.note(f"more: farshore journal show {data.group} --since {data.next}")


def _frame_row(session: Session, frame: FrameInfo) -> tuple[str, ...]:
    kinds = " ".join(f"{name}:{count}" for name, count in sorted(frame.kinds.items()))
    if frame.unread:
        kinds = f"{kinds} not understood: {frame.unread}".strip()
    return (
        frame.position,
        str(frame.bytes),
        session.local(frame.time),
        str(frame.events),
        kinds,
        frame.digest[:16],
    )
