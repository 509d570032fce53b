"""`farshore backup pin | unpin | lock | delete | prune`: which backups are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.backup import SPACE_TIMEOUT_S, show_backup
from console.confirming import confirmed
from console.figures import parse_lock, size_text
from console.session import Session, session_of
from protocol.commands.backup import (
    BackupDelete,
    BackupDeleteReply,
    BackupLock,
    BackupPin,
    BackupPrune,
    BackupPruneReply,
)
from protocol.commands.base import check_name
from protocol.cut_text import parse_fixed_cut

GroupArgument = Annotated[str, typer.Argument(metavar="G", help="Its group.")]
BackupArgument = Annotated[str, typer.Argument(metavar="LABEL|ID", help="Its label or id.")]

KeepLast = Annotated[int | None, typer.Option("--keep-last", min=0, help="The newest N.")]
KeepHourly = Annotated[
    int | None, typer.Option("--keep-hourly", min=0, help="The newest of each of N hours.")
]
KeepDaily = Annotated[int | None, typer.Option("--keep-daily", min=0, help="The newest of each of N days.")]
KeepWeekly = Annotated[int | None, typer.Option("--keep-weekly", min=0, help="… of N weeks.")]
KeepMonthly = Annotated[int | None, typer.Option("--keep-monthly", min=0, help="… of N months.")]
KeepYearly = Annotated[int | None, typer.Option("--keep-yearly", min=0, help="… of N years.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to `farshore backup`."""
    app.command("pin")(pin)
    app.command("unpin")(unpin)
    app.command("lock")(lock)
    app.command("delete")(delete)
    app.command("prune")(prune)


def pin(ctx: typer.Context, group: GroupArgument, backup: BackupArgument) -> None:
    """Keep a backup until it is unpinned: it is neither deleted nor pruned."""
    _pin(session_of(ctx), group, backup, pinned=True)


def unpin(ctx: typer.Context, group: GroupArgument, backup: BackupArgument) -> None:
    """Let a backup be deleted and pruned again."""
    _pin(session_of(ctx), group, backup, pinned=False)


def _pin(session: Session, group: str, backup: str, *, pinned: bool) -> None:
    command = BackupPin(group=check_name(group, "group"), cut=parse_fixed_cut(backup), pinned=pinned)
    data = session.call(command)
    done = "pinned" if pinned else "unpinned"
    kind = "backup.pin" if pinned else "backup.unpin"
    session.output.result(kind, data, lambda: session.output.line(f"backup {backup} of {group} {done}"))


def lock(
    ctx: typer.Context,
    group: GroupArgument,
    backup: BackupArgument,
    span: Annotated[str, typer.Option("--for", metavar="SPAN", help="How long from now on: 30d, 12h.")],
) -> None:
    """Keep a backup from everybody for a time: nobody can delete it at either site, or shorten its lock."""
    session = session_of(ctx)
    command = BackupLock(
        group=check_name(group, "group"), cut=parse_fixed_cut(backup), lock_s=parse_lock(span)
    )
    data = session.call(command)
    until = session.local(data.locked_until)
    session.output.result(
        "backup.lock", data, lambda: session.output.line(f"backup {backup} of {group} locked until {until}")
    )


def delete(
    ctx: typer.Context,
    group: GroupArgument,
    backup: BackupArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would come free: looks through the index.")
    ] = False,
    confirm: Annotated[str, typer.Option(metavar="LABEL|ID", help="The backup's name once more.")] = "",
) -> None:
    """Delete a backup at every site. Its moment can be read on while it lies in the any-point window."""
    session = session_of(ctx)
    command = BackupDelete(group=check_name(group, "group"), cut=parse_fixed_cut(backup), dry_run=True)
    if dry_run:
        with session.output.activity(f"looking at {backup}"):
            data = session.call(command, SPACE_TIMEOUT_S)
        session.output.result("backup.delete", data, lambda: _show_deletion(session, data))
        return

    def look() -> None:
        _show_deletion(session, session.call(command, SPACE_TIMEOUT_S))

    confirm = confirmed(session, confirm, backup, "delete it", look="--dry-run", show=look)
    data = session.call(BackupDelete(group=group, cut=command.cut, confirm=confirm))
    session.output.result(
        "backup.delete", data, lambda: session.output.line(f"backup {backup} of {group} deleted")
    )


def _show_deletion(session: Session, data: BackupDeleteReply) -> None:
    show_backup(session, data)
    if data.unique_bytes is not None:
        session.output.line(f"would give back {size_text(data.unique_bytes)} at this site")


def prune(
    ctx: typer.Context,
    group: GroupArgument,
    keep_last: KeepLast = None,
    keep_hourly: KeepHourly = None,
    keep_daily: KeepDaily = None,
    keep_weekly: KeepWeekly = None,
    keep_monthly: KeepMonthly = None,
    keep_yearly: KeepYearly = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Labelled backups too; else they stay.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    confirm: Annotated[str, typer.Option(metavar="G", help="The group's name once more.")] = "",
) -> None:
    """Delete the backups that no keep rule keeps: those given here, else those of the group's schedule.

    Pinned backups stay, and so do those that are not whole at this site."""
    session = session_of(ctx)

    def command(*, dry: bool, said: str = "") -> BackupPrune:
        return BackupPrune(
            group=check_name(group, "group"),
            keep_last=keep_last,
            keep_hourly=keep_hourly,
            keep_daily=keep_daily,
            keep_weekly=keep_weekly,
            keep_monthly=keep_monthly,
            keep_yearly=keep_yearly,
            labelled=labelled,
            dry_run=dry,
            confirm=said,
        )

    if not dry_run:
        confirm = confirmed(
            session,
            confirm,
            group,
            "delete these",
            look="--dry-run",
            show=lambda: _show_plan(session, session.call(command(dry=True))),
        )
    data = session.call(command(dry=dry_run, said=confirm))
    session.output.result("backup.prune", data, lambda: _show_plan(session, data))


def _show_plan(session: Session, data: BackupPruneReply) -> None:
    verb = "would go" if data.dry_run else "deleted"
    rows = [(verb, row) for row in data.deleted]
    rows += [("kept", row) for row in data.kept] + [("left", row) for row in data.left]
    rows.sort(key=lambda item: item[1].time)
    session.output.table(
        ("", "backup", "time", "why"),
        [
            (word, row.label or row.id, session.local(row.time), ", ".join(row.why) or "no rule keeps it")
            for word, row in rows
        ],
        empty="no backups",
    )
