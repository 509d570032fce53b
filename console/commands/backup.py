"""`farshore backup`: fix a moment of a group at both sites, look at what is fixed, and say what is kept."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import UNSET

from console.client import CALL_TIMEOUT_S
from console.empty_lists import nothing
from console.figures import UNKNOWN, parse_lock, size_text
from console.freezing import FrozenBackup, command_line_order, frozen_backup
from console.options import After, Limit, seconds
from console.proven import proven_fields
from console.session import Session, session_of
from protocol.commands.backup import (
    BackupCreate,
    BackupCreateReply,
    BackupInfo,
    BackupList,
    BackupLock,
    BackupPin,
    BackupShow,
    BackupShowReply,
)
from protocol.commands.base import check_name, parse_volume_name
from protocol.cut_text import check_label, parse_fixed_cut
from protocol.errors import ExitCode, UsageError
from protocol.limits import HOOK_TIMEOUT_MAX_S, HOOK_TIMEOUT_S

app = typer.Typer(
    help="Backups: named cuts, kept at both sites.", no_args_is_help=True, rich_markup_mode=None
)

GroupArgument = Annotated[str, typer.Argument(metavar="G", help="Its group.")]
BackupArgument = Annotated[str, typer.Argument(metavar="LABEL|ID", help="Its label or id.")]

CREATE_TIMEOUT_S = 120.0
SPACE_TIMEOUT_S = 3600.0


def parse_scope(text: str) -> tuple[str, str | None]:
    """Group and, of `G/V`, volume. Raises UsageError."""
    if "/" in text:
        return parse_volume_name(text)
    return check_name(text, "group"), None


@app.command()
def create(
    ctx: typer.Context,
    scope: Annotated[str, typer.Argument(metavar="G|G/V", help="A group, or one volume of it.")],
    label: Annotated[str | None, typer.Option(help="A name for it, which never changes.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="CUT", help="A moment of the past instead of now.")
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Keep it until it is unpinned.")] = False,
    lock: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Nobody can delete it for so long, as 30d."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(callback=seconds, help="Seconds to wait for the sites.")
    ] = CREATE_TIMEOUT_S,
    freeze: Annotated[
        str | None, typer.Option(metavar="HOOK", help="Hold hosts still by a hook of the site's site.toml.")
    ] = None,
    freeze_command: Annotated[
        str | None, typer.Option(metavar="CMD", help="Hold hosts still by a command, run here.")
    ] = None,
    thaw_command: Annotated[
        str | None, typer.Option(metavar="CMD", help="Let them go on; always run, also at the time-out.")
    ] = None,
    freeze_timeout: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=HOOK_TIMEOUT_MAX_S,
            # A bound alone lets nan through, with some parsers.
            callback=seconds,
            help="Seconds from the start of the freeze to the thaw at the latest.",
        ),
    ] = HOOK_TIMEOUT_S,
) -> int:
    """Take a backup; ends when every attached site has it (exit 3: taken, but the thaw failed)."""
    session = session_of(ctx)
    group, volume = parse_scope(scope)
    by_command = freeze_command is not None or thaw_command is not None
    if by_command and (freeze is not None or at is not None):
        raise UsageError("either --freeze HOOK, or --freeze-command and --thaw-command, or --at CUT")
    command = BackupCreate(
        group=group,
        volume=volume,
        label=None if label is None else check_label(label),
        cut=None if at is None else session.cut(at),
        pin=pin,
        freeze=None if freeze is None else check_name(freeze, "hook"),
        frozen=by_command,
        lock_s=UNSET if lock is None else parse_lock(lock),
    )
    with session.output.activity(f"backing up {scope}"):
        if by_command:
            order = command_line_order(group, freeze_command, thaw_command, freeze_timeout)
            data = frozen_backup(session, command, order, timeout)
        else:
            data = session.call(command, timeout)
    stuck = data.freeze.stuck if data.freeze else ""

    def show() -> None:
        session.output.line(f"backup {data.label or data.id} of {scope}")
        show_backup(session, data)
        if stuck:
            session.output.note(f"error: hosts may still be frozen: {stuck}", "next: thaw them by hand")

    session.output.result("backup.create", data, show)
    return int(ExitCode.PARTIAL if stuck else ExitCode.OK)


@app.command("list")
def list_backups(
    ctx: typer.Context,
    scope: Annotated[str | None, typer.Argument(metavar="G|G/V", help="One group or volume only.")] = None,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Every backup that this site knows, newest first."""
    session = session_of(ctx)
    group, volume = (None, None) if scope is None else parse_scope(scope)
    data = session.listed(BackupList(group=group, volume=volume), limit, after)
    session.output.result(
        "backup.list",
        data,
        lambda: session.output.table(
            ("backup", "group", "volumes", "time", "state", "kept", "consistency", "id", "cut"),
            [_row(session, backup) for backup in data.backups],
            empty=nothing(session, data.backups, "no backups: `farshore backup create G --label NAME`"),
        ),
    )
    session.say_more(data)


@app.command()
def show(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="Its group.")],
    backup: Annotated[str, typer.Argument(metavar="LABEL|ID", help="Its label or id.")],
    space: Annotated[
        bool, typer.Option("--space", help="Also what it takes: looks through the whole index.")
    ] = False,
) -> None:
    """One backup: where it is, what else needs it, and under which names hosts can read it."""
    session = session_of(ctx)
    command = BackupShow(group=check_name(group, "group"), cut=parse_fixed_cut(backup), space=space)
    with session.output.activity(f"looking at {backup}"):
        data = session.call(command, SPACE_TIMEOUT_S if space else CALL_TIMEOUT_S)
    session.output.result("backup.show", data, lambda: show_backup(session, data))


def states_text(state: dict[str, str]) -> str:
    """`available`, when all sites agree, else `pending at par, available at lon`."""
    if len(set(state.values())) == 1:
        return f"{next(iter(state.values()))} at {', '.join(sorted(state))}"
    return ", ".join(f"{word} at {site}" for site, word in sorted(state.items())) or UNKNOWN


def _row(session: Session, backup: BackupInfo) -> tuple[str, ...]:
    return (
        backup.label or backup.id,
        backup.group,
        " ".join(backup.volumes) or UNKNOWN,
        session.local(backup.time),
        states_text(backup.state),
        _kept(session, backup),
        backup.consistency,
        backup.id,
        backup.cut.text,
    )


def _kept(session: Session, backup: BackupInfo) -> str:
    words = ["pinned"] if backup.pinned else []
    if backup.locked_until:
        words.append(f"locked until {session.local(backup.locked_until)}")
    return ", ".join(words) or UNKNOWN


def show_backup(session: Session, backup: BackupInfo) -> None:
    """All of a backup's row, for people."""
    created = backup if isinstance(backup, BackupCreateReply) else None
    exports = backup.exports if isinstance(backup, BackupShowReply | FrozenBackup) else []
    space = backup.space if isinstance(backup, BackupShowReply) else UNSET
    mirror = backup.remote_mirror
    freeze = created.freeze if created else None
    frozen_ms = freeze.frozen_ms if freeze else None
    session.output.fields(
        [
            ("id", backup.id),
            ("label", backup.label or ""),
            ("group", backup.group),
            ("volumes", " ".join(backup.volumes)),
            ("cut", session.cut_line(backup.cut)),
            ("time", f"{session.local(backup.time)}, {backup.time}"),
            ("state", states_text(backup.state)),
            ("consistency", backup.consistency),
            ("kind", backup.kind),
            ("not frozen", freeze.failure if freeze else ""),
            ("frozen for", "" if frozen_ms is None else f"{frozen_ms:.1f} ms"),
            ("pinned", "yes" if backup.pinned else "no"),
            ("locked until", session.local(backup.locked_until) if backup.locked_until else ""),
            ("verified", session.local(backup.verified_at) if backup.verified_at else ""),
            *proven_fields(session, backup),
            ("damage", backup.damage or ""),
            ("remote mirror", f"{mirror.source} to {mirror.to}" if mirror else ""),
            ("held by", ", ".join(backup.held_by)),
            ("holds", size_text(space.bytes) if space else ""),
            ("unique", f"{size_text(space.unique_bytes)}, free once it is deleted" if space else ""),
            ("took", f"{created.took_ms:.1f} ms" if created else ""),
            ("exports", " ".join(exports)),
        ]
    )


@app.command()
def pin(ctx: typer.Context, group: GroupArgument, backup: BackupArgument) -> None:
    """Keep a backup until it is unpinned: it is neither deleted nor pruned."""
    _pin(session_of(ctx), group, backup, pinned=True)


@app.command()
def unpin(ctx: typer.Context, group: GroupArgument, backup: BackupArgument) -> None:
    """Let a backup be deleted and pruned again."""
    _pin(session_of(ctx), group, backup, pinned=False)


def _pin(session: Session, group: str, backup: str, *, pinned: bool) -> None:
    command = BackupPin(group=check_name(group, "group"), cut=parse_fixed_cut(backup), pinned=pinned)
    data = session.call(command)
    done = "pinned" if pinned else "unpinned"
    kind = "backup.pin" if pinned else "backup.unpin"
    session.output.result(kind, data, lambda: session.output.line(f"backup {backup} of {group} {done}"))


@app.command()
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
