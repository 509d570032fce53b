"""`farshore pair` and `wait`: replicate a group to a peer, change or pause that, go on, and end it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from msgspec import UNSET
from msgspec.structs import asdict

from console.client import WAIT_GRACE_S
from console.confirming import confirmed
from console.figures import age_text, mode_text, size_text, span_text
from console.local_time import monotonic
from console.options import seconds
from console.peer_choice import peer_or_token
from console.session import Session, position_argument, session_of
from protocol.commands.base import check_name
from protocol.commands.pair import (
    PairCreate,
    PairDelete,
    PairInfo,
    PairResync,
    PairSet,
    PairShow,
    PairSplit,
    WaitFor,
    WaitReply,
)
from protocol.errors import TimedOut, UsageError

app = typer.Typer(help="Replication of a group.", no_args_is_help=True, rich_markup_mode=None)

GroupArgument = Annotated[str, typer.Argument(metavar="G", help="A group.")]
CREATE_TIMEOUT_S = 60.0
STATES = ("simplex", "copying", "paired", "split", "suspended", "journal-filling", "taken-over", "diverged")
WAIT_SLICE_S = 1.0
WAIT_TIMEOUT_S = 300.0
MODE_HELP = "async: hosts do not wait for the peer; sync: until it is silent; sync-strict: in any case."
PeerOption = Annotated[
    str,
    typer.Option("--with", metavar="PEER|TOKEN", help="The peer that gets the copy, or its token."),
]


class Mode(StrEnum):
    """When a host's write is acknowledged."""

    ASYNC = "async"
    SYNC = "sync"
    SYNC_STRICT = "sync-strict"


class Source(StrEnum):
    """Whose content stays."""

    LOCAL = "local"
    REMOTE = "remote"


@app.command()
def create(
    ctx: typer.Context,
    group: GroupArgument,
    peer: PeerOption,
    mode: Annotated[Mode, typer.Option(help=MODE_HELP)] = Mode.ASYNC,
    replace: Annotated[
        bool, typer.Option("--replace", help="In place of the peer that the group has, which is gone.")
    ] = False,
    confirm: Annotated[str, typer.Option(metavar="G", help="For --replace: the name once more.")] = "",
) -> None:
    """Replicate a group of this site to a peer; farshore wait G tells when the peer has it all."""
    session = session_of(ctx)
    check_name(group, "group")
    peer = peer_or_token(session, peer)
    if replace:

        def show() -> None:
            session.output.line(f"{group}: the peer that it has now gets nothing more")

        confirm = confirmed(session, confirm, group, f"replicate it to {peer} instead", show=show)
    command = PairCreate(
        group=group,
        peer=peer,
        mode=mode.value,
        replace=True if replace else UNSET,
        confirm=confirm or UNSET,
    )
    data = session.call(command, CREATE_TIMEOUT_S)
    session.output.result("pair.create", data, lambda: _show(session, data))


@app.command()
def show(ctx: typer.Context, group: GroupArgument) -> None:
    """One group's pair: state, watermarks at both sites, and how far the peer is behind."""
    session = session_of(ctx)
    data = session.call(PairShow(group=check_name(group, "group")))
    session.output.result("pair.show", data, lambda: _show(session, data))


@app.command()
def split(
    ctx: typer.Context,
    group: GroupArgument,
    confirm: Annotated[
        str, typer.Option(metavar="G", help="Leave sync-strict although the peer does not answer.")
    ] = "",
) -> None:
    """Pause replication; the peer keeps its last consistent cut, this site's journal what is to come."""
    session = session_of(ctx)
    command = PairSplit(group=check_name(group, "group"), confirm=confirm)
    data = session.call(command, CREATE_TIMEOUT_S)
    session.output.result("pair.split", data, lambda: _show(session, data))


@app.command()
def resync(
    ctx: typer.Context,
    group: GroupArgument,
    source: Annotated[
        Source | None,
        typer.Option(help="Whose history stays if both sites wrote; without it that is refused (21)."),
    ] = None,
) -> None:
    """Go on after a split, an error or a divergence: only what differs is sent."""
    session = session_of(ctx)
    command = PairResync(group=check_name(group, "group"), source=source.value if source else None)
    data = session.call(command, CREATE_TIMEOUT_S)
    session.output.result("pair.resync", data, lambda: _show(session, data))


@app.command("set")
def change(
    ctx: typer.Context,
    group: GroupArgument,
    mode: Annotated[Mode | None, typer.Option(help="When a host's write is acknowledged.")] = None,
    confirm: Annotated[
        str,
        typer.Option(
            "--confirm", metavar="G", help="To leave sync-strict while the peer does not answer: its name."
        ),
    ] = "",
) -> None:
    """Change a pair while it runs."""
    session = session_of(ctx)
    check_name(group, "group")
    if mode is None:
        raise UsageError("nothing to set", subject=group, next_step=f"farshore pair set {group} --mode sync")
    data = session.call(PairSet(group=group, mode=mode.value, confirm=confirm), CREATE_TIMEOUT_S)
    session.output.result("pair.set", data, lambda: _show(session, data))


@app.command()
def delete(
    ctx: typer.Context,
    group: GroupArgument,
    confirm: Annotated[str, typer.Option("--confirm", metavar="G", help="The group's name once more.")] = "",
) -> None:
    """End the pair at this site; the peer keeps its copy."""
    session = session_of(ctx)
    check_name(group, "group")
    confirm = confirmed(
        session,
        confirm,
        group,
        "end its pair here",
        show=lambda: _show(session, session.call(PairShow(group=group))),
    )
    data = session.call(PairDelete(group=group, confirm=confirm), CREATE_TIMEOUT_S)

    def show() -> None:
        session.output.line(f"{group} has no pair here any more")
        session.output.note(
            f"{data.peer} keeps its copy, and if it writes {group} it begins the pair again here: "
            f"give the command there too"
        )

    session.output.result("pair.delete", data, show)


def _show(session: Session, data: PairInfo) -> None:
    session.output.fields(
        [
            ("group", data.group),
            ("state", f"{data.state} ({data.code})"),
            ("reason", data.reason),
            ("role", data.role or ""),
            ("fetching", "takes in what the peer holds" if data.fetching else ""),
            ("mode", mode_text(data)),
            ("peer", f"{data.peer or ''}{_connection(data)}"),
            ("head", f"{data.head.timeline}:{data.head.position}" if data.head else ""),
            ("written", _offset(data.written)),
            ("durable", _offset(data.durable)),
            ("checkpointed", _offset(data.checkpointed)),
            ("shipped", _offset(data.shipped)),
            ("sent", _sent(data)),
            ("remote written", _offset(data.remote_written)),
            ("remote durable", _offset(data.remote_durable)),
            ("remote timeline", data.remote.timeline if data.remote else ""),
            ("behind", f"{size_text(data.lag_bytes)}, {span_text(data.lag_s)}"),
            ("to copy", _to_copy(data)),
            ("applied", age_text(data.applied_age_s)),
            ("complete until", data.complete_until or ""),
        ]
    )


def _to_copy(data: PairInfo) -> str:
    left = data.resync_left_bytes
    return "" if left is None else f"{size_text(left)}, {span_text(data.resync_eta_s)}"


def _offset(value: int | None) -> str:
    return "" if value is None else str(value)


def _sent(data: PairInfo) -> str:
    if data.sent_bytes is None:
        return ""
    wire = f" ({size_text(data.wire_bytes)} on the wire)" if data.wire_bytes else ""
    return size_text(data.sent_bytes) + wire


def _connection(data: PairInfo) -> str:
    if not data.peer:
        return ""
    return " (connected)" if data.peer_connected else " (not connected)"


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
