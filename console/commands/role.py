"""`farshore switchover`, `takeover` and `failback`: moving a group's writing to the other site.

A takeover's plan and its result say the same: where this site goes on, and what is known of what it lacks.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from msgspec.structs import asdict, replace

from console.commands.pair import WAIT_TIMEOUT_S, wait_for
from console.confirming import confirmed, detaching
from console.figures import UNKNOWN, parse_span, size_text, span_text
from console.local_time import monotonic, pause
from console.options import seconds
from console.session import Session, session_of
from protocol.commands.base import Reply, check_name
from protocol.commands.pair import PairShow
from protocol.commands.role import (
    Failback,
    FailbackReply,
    Switchover,
    SwitchoverReply,
    Takeover,
    TakeoverReply,
)
from protocol.commands.site import SiteStatus
from protocol.errors import ExitCode, FarshoreError, NotFound, TimedOut, UsageError

SWITCHOVER_TIMEOUT_S = 300.0
# The site answers at once when the roles have swapped; until then progress is asked for in between.
SWITCHOVER_SLICE_S = 1.0
LOOK_INTERVAL_S = 0.5
CALL_GRACE_S = 30.0

GroupArgument = Annotated[str, typer.Argument(metavar="G", help="A group.")]
Confirm = Annotated[str, typer.Option("--confirm", metavar="NAME", help="What is moved once more: its name.")]


class SwitchoverStep(Reply, frozen=True, kw_only=True):
    """Progress of `switchover`; `lag_bytes`: how far the peer is behind."""

    group: str
    done: bool
    lag_bytes: int | None


def switchover(
    ctx: typer.Context,
    group: GroupArgument,
    confirm: Confirm = "",
    timeout: Annotated[
        float,
        typer.Option(
            metavar="S",
            callback=seconds,
            help="Seconds; then it ends with 22, and the hand-over goes on.",
        ),
    ] = SWITCHOVER_TIMEOUT_S,
) -> None:
    """Hand the writing to the peer without loss: hosts here are disconnected and reconnect there."""
    session = session_of(ctx)
    check_name(group, "group")

    def show() -> None:
        pair = session.call(PairShow(group=group))
        session.output.line(f"{group} would be written at {pair.peer or UNKNOWN}")
        session.output.fields(
            [
                ("state", f"{pair.state} ({pair.code})"),
                ("behind", f"{size_text(pair.lag_bytes)}, {span_text(pair.lag_s)}"),
                ("hosts", "those connected here are disconnected"),
            ]
        )

    confirm = confirmed(session, confirm, group, "hand it over", show=show)
    with detaching(session, group, "the hand-over"):
        data = _hand_over(session, group, confirm, timeout)
    session.output.result("switchover", data, lambda: _show_switchover(session, data))


def _hand_over(session: Session, group: str, confirm: str, timeout_s: float) -> SwitchoverReply:
    """Asked once; then only looked at, for once the roles have swapped this site refuses the command."""
    began = monotonic()
    deadline = began + timeout_s
    slice_s = min(SWITCHOVER_SLICE_S, timeout_s)
    with session.output.activity(f"{group}: handing over") as activity:
        command = Switchover(group=group, confirm=confirm, timeout_s=slice_s)
        data = session.call(command, slice_s + CALL_GRACE_S)
        while not data.done:
            if monotonic() >= deadline:
                raise TimedOut(
                    f"{group}: not at {data.peer} after {timeout_s:g} s; the hand-over goes on",
                    subject=group,
                    position=data.position.text,
                    next_step=f"farshore pair show {group}",
                )
            text = f"{group} {data.state}, behind {size_text(data.lag_bytes)}"
            activity.update(SwitchoverStep(group=group, done=False, lag_bytes=data.lag_bytes), text)
            pause(LOOK_INTERVAL_S)
            now = session.call(PairShow(group=group))
            swapped = now.role == "secondary"
            data = replace(data, **asdict(now), done=swapped, took_ms=(monotonic() - began) * 1e3)
    return data


def _show_switchover(session: Session, data: SwitchoverReply) -> None:
    group, peer = data.group, data.peer
    session.output.line(f"{group} is written at {peer} now")
    session.output.fields(
        [
            ("marker", session.cut_line(data.position)),
            ("took", f"{data.took_ms:.1f} ms"),
            ("hosts", f"reconnect at {peer}: `farshore volume uri {group}/VOLUME --site {peer}`"),
            ("back", f"farshore switchover {group} --site {peer}"),
        ]
    )


def takeover(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="G", help="A group.")] = None,
    peer: Annotated[
        str | None, typer.Option("--from", metavar="PEER", help="Every group that this peer writes.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be.")] = False,
    max_loss: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Refuse if more could be lost: 30s, 5m.")
    ] = None,
    confirm: Annotated[
        str, typer.Option("--confirm", metavar="G|PEER", help="The group's (or peer's) name once more.")
    ] = "",
) -> None:
    """Write here from now on because the peer is gone; refused while it answers."""
    session = session_of(ctx)
    if (group is None) == (peer is None):
        raise UsageError("name a group or --from PEER", next_step="farshore takeover G --plan")
    max_loss_s = None if max_loss is None else parse_span(max_loss)
    if group is not None:
        _take_over(session, check_name(group, "group"), max_loss_s, confirm, plan=plan)
        return
    peer = check_name(str(peer), "peer")
    _take_over_all(session, peer, max_loss_s, confirm, plan=plan)


def _take_over(session: Session, group: str, max_loss_s: float | None, confirm: str, *, plan: bool) -> None:
    if plan:
        data = _plan(session, group)
        session.output.result("takeover.plan", data, lambda: _show_takeover(session, data))
        return

    def show() -> None:
        _show_takeover(session, _plan(session, group))

    confirm = confirmed(session, confirm, group, "take it over", look="--plan", show=show)
    with session.output.activity(f"taking {group} over"):
        data = _do(session, group, max_loss_s)
    session.output.result("takeover", data, lambda: _show_takeover(session, data))


def _take_over_all(
    session: Session, peer: str, max_loss_s: float | None, confirm: str, *, plan: bool
) -> None:
    """Each group by itself: one that is refused does not hold up the others. Ends with 3 if only some were
    taken over, and with the first refusal's code if none was."""
    groups = [
        row.group for row in session.call(SiteStatus()).groups if row.peer == peer and row.role == "secondary"
    ]
    if not groups:
        raise NotFound(f"no group here is written at {peer}", subject=peer, next_step="farshore status")

    def show() -> None:
        for name in groups:
            _show_takeover(session, _plan(session, name))

    if not plan:
        confirm = confirmed(session, confirm, peer, "take its groups over", look="--plan", show=show)
    done: list[TakeoverReply] = []
    refused: list[FarshoreError] = []
    for name in groups:
        try:
            data = _plan(session, name) if plan else _do(session, name, max_loss_s)
        except FarshoreError as error:
            refused.append(error)
            session.output.error(error)
            continue
        done.append(data)
        kind = "takeover.plan" if plan else "takeover"
        session.output.result(kind, data, partial(_show_takeover, session, data))
    if refused:
        raise typer.Exit(int(ExitCode.PARTIAL if done else refused[0].exit_code))


def _plan(session: Session, group: str) -> TakeoverReply:
    return session.call(Takeover(group=group, plan=True))


def _do(session: Session, group: str, max_loss_s: float | None) -> TakeoverReply:
    return session.call(Takeover(group=group, max_loss_s=max_loss_s, confirm=group))


def _show_takeover(session: Session, data: TakeoverReply) -> None:
    group, done, peer = data.group, data.done, data.peer
    took_ms, until, lost = data.took_ms, data.none_lost_until, data.known_lost_bytes
    session.output.line(f"{group} {'is' if done else 'would be'} written here from {data.position.text}")
    if not done:
        next_step = f"farshore takeover {group} --confirm {group}"
    elif peer:
        next_step = f"`farshore volume uri {group}/VOLUME`; once {peer} is back: `farshore failback {group}`"
    else:
        next_step = f"farshore volume uri {group}/VOLUME"
    session.output.fields(
        [
            ("loss", data.statement),
            ("position", session.cut_line(data.position)),
            ("none lost until", f"{session.local(until)}, {until}" if until else UNKNOWN),
            ("known lost", f"{size_text(lost)} of journal" if lost else "nothing that is known of"),
            ("may be lost", _may_be_lost(data)),
            ("peer", peer),
            ("took", "" if took_ms is None else f"{took_ms:.1f} ms"),
            ("next", next_step),
        ]
    )


def _may_be_lost(data: TakeoverReply) -> str:
    """Counted up to now: when the other site wrote last is not known here."""
    if data.nothing_lost:
        return "nothing"
    return "an unknown amount" if data.age_s is None else f"writes of the last {span_text(data.age_s)}"


def failback(
    ctx: typer.Context,
    group: GroupArgument,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="S",
            callback=seconds,
            help="Seconds to wait until it is paired; then it ends with 22.",
        ),
    ] = WAIT_TIMEOUT_S,
) -> None:
    """Let the site that came back follow this one; what it alone had stays there as a branch."""
    session = session_of(ctx)
    check_name(group, "group")
    began = monotonic()
    with detaching(session, group, "the resync"):
        with session.output.activity(f"{group}: asking the other site"):
            data = session.call(Failback(group=group))
        if data.state != "paired":
            wait_for(session, group, "paired", None, max(0.0, timeout - (monotonic() - began)))
            data = replace(data, **asdict(session.call(PairShow(group=group))))
    session.output.result("failback", data, lambda: _show_failback(session, data))


def _show_failback(session: Session, data: FailbackReply) -> None:
    group, peer, tail = data.group, data.peer, data.tail_bytes
    session.output.line(f"{group} is {data.state} ({data.code}): {peer} follows this site")
    kept = f"{size_text(tail)} of journal: `farshore branch list {group} --site {peer}`" if tail else "none"
    session.output.fields(
        [
            ("fork", session.cut_line(data.fork)),
            (f"branch at {peer}", kept),
            ("next", f"stop the hosts; `farshore switchover {group}` moves the writing to {peer}"),
        ]
    )
