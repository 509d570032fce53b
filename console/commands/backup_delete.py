"""`farshore backup delete` and `backup prune`: which backups go."""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.backup import SPACE_TIMEOUT_S, GroupArgument, show_backup
from console.confirming import confirmed
from console.figures import size_text
from console.session import Session, session_of
from protocol.commands.backup import (
    BackupDelete,
    BackupDeleteMany,
    BackupDeleteManyReply,
    BackupDeleteReply,
    BackupPrune,
    BackupPruneReply,
)
from protocol.commands.base import check_name
from protocol.cut_text import parse_fixed_cut

KeepLast = Annotated[int | None, typer.Option("--keep-last", min=0, help="The newest N.")]
KeepHourly = Annotated[
    int | None, typer.Option("--keep-hourly", min=0, help="The newest of each of N hours.")
]
KeepDaily = Annotated[int | None, typer.Option("--keep-daily", min=0, help="The newest of each of N days.")]
KeepWeekly = Annotated[int | None, typer.Option("--keep-weekly", min=0, help="… of N weeks.")]
KeepMonthly = Annotated[int | None, typer.Option("--keep-monthly", min=0, help="… of N months.")]
KeepYearly = Annotated[int | None, typer.Option("--keep-yearly", min=0, help="… of N years.")]

# Of thousands.
DELETE_TIMEOUT_S = 600.0


def delete(
    ctx: typer.Context,
    group: GroupArgument,
    backups: Annotated[list[str], typer.Argument(metavar="LABEL|ID…", help="Their labels or ids.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would come free: looks through the index.")
    ] = False,
    confirm: Annotated[
        str, typer.Option(metavar="LABEL|ID|G", help="The backup's name once more; of several, the group's.")
    ] = "",
) -> None:
    """Delete backups at every site. Their moments can be read on while they lie in the any-point window."""
    session = session_of(ctx)
    if len(backups) > 1:
        delete_many(session, check_name(group, "group"), backups, confirm, dry_run=dry_run)
        return
    backup = backups[0]
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


def delete_many(session: Session, group: str, backups: list[str], confirm: str, *, dry_run: bool) -> None:
    """Several, in one stroke."""

    def command(*, dry: bool, said: str = "") -> BackupDeleteMany:
        cuts = tuple(parse_fixed_cut(backup) for backup in backups)
        return BackupDeleteMany(group=group, cuts=cuts, dry_run=dry, confirm=said)

    def look() -> None:
        _show_deletions(session, session.call(command(dry=True), SPACE_TIMEOUT_S))

    if not dry_run:
        verb = f"delete these {len(backups)} backups"
        confirm = confirmed(session, confirm, group, verb, look="--dry-run", show=look)
    with session.output.activity(f"looking at {len(backups)} backups" if dry_run else "deleting"):
        data = session.call(
            command(dry=dry_run, said=confirm), SPACE_TIMEOUT_S if dry_run else DELETE_TIMEOUT_S
        )
    session.output.result("backup.delete-many", data, lambda: _show_deletions(session, data))


def _show_deletions(session: Session, data: BackupDeleteManyReply) -> None:
    for row in data.deleted:
        verb = "would be deleted" if data.dry_run else "deleted"
        session.output.line(f"backup {row.label or row.id} of {data.group} {verb}")
    if data.unique_bytes is not None:
        session.output.line(f"would give back {size_text(data.unique_bytes)} at this site")


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
    data = session.call(command(dry=dry_run, said=confirm), DELETE_TIMEOUT_S)
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
    if data.left_out:
        session.output.note(f"{data.left_out} more backups are not shown: there are too many for one reply")
