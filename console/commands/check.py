"""`farshore check`: for monitors. Ends as their plugins do: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""

from __future__ import annotations

from typing import Annotated

import typer

from console.checks import CheckReply, Limits, State, check_lines, line, plugin_text, reply_of
from console.figures import parse_span
from console.session import Session, session_of
from protocol.commands.base import check_name
from protocol.commands.schedule import ScheduleList
from protocol.commands.site import SiteStatus, SiteStatusReply
from protocol.errors import FarshoreError, Unreachable


def check(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="[G]", help="One group instead of all.")] = None,
    lag: Annotated[
        str | None, typer.Option("--max-lag", metavar="SPAN", help="CRITICAL if the peer is further behind.")
    ] = None,
    backup_age: Annotated[
        str | None,
        typer.Option(
            "--max-backup-age", metavar="SPAN", help="CRITICAL if the last backup is older, or none is."
        ),
    ] = None,
    drill_age: Annotated[
        str | None,
        typer.Option("--max-drill-age", metavar="SPAN", help="The same of the last drill that succeeded."),
    ] = None,
    nagios: Annotated[
        bool, typer.Option("--nagios", help="One line with figures, as monitoring plugins print it.")
    ] = False,
) -> None:
    """Is all well? Ends with 0 if so, 1 for a warning, 2 if it is critical, 3 if nothing could be checked."""
    session = session_of(ctx)
    if group is not None:
        check_name(group, "group")
    limits = Limits(
        # An empty one, as of a variable that is not set, is refused: what was asked for would not be checked.
        lag_s=None if lag is None else parse_span(lag),
        backup_age_s=None if backup_age is None else parse_span(backup_age),
        drill_age_s=None if drill_age is None else parse_span(drill_age),
    )
    reply = _checked(session, group, limits)
    subject = group or session.output.site or "site"
    session.output.result("check", reply, lambda: _show(session, reply, subject, nagios=nagios))
    raise typer.Exit(reply.exit_code)


def _checked(session: Session, group: str | None, limits: Limits) -> CheckReply:
    """What cannot be asked is no error of the command: a monitor is told."""
    try:
        status = session.call(SiteStatus())
        schedules = session.call(ScheduleList(group=group)).schedules if _is_open(status, group) else []
    except FarshoreError as error:
        state = State.CRITICAL if isinstance(error, Unreachable) else State.UNKNOWN
        return reply_of([line(state, "daemon", session.output.site or "site", error.message)])
    return reply_of(check_lines(status, schedules, group, limits))


def _is_open(status: SiteStatusReply, group: str | None) -> bool:
    """Whether there is a schedule to ask for."""
    return any(each.group == group or group is None for each in status.groups if each.role is not None)


def _show(session: Session, reply: CheckReply, subject: str, *, nagios: bool) -> None:
    if nagios:
        session.output.lines(plugin_text(reply, subject))
        return
    for each in reply.checks:
        session.output.line(f"{each.state:<8}  {each.check} {each.object}: {each.text}")
