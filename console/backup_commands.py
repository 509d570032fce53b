"""`farshore backup`: fix a moment of a group at both sites, and look at what is fixed."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from msgspec import UNSET

from console.client import CALL_TIMEOUT_S
from console.figures import UNKNOWN, parse_lock, size_text
from console.freezing import command_line_order, frozen_backup
from console.options import seconds
from console.session import Session, session_of
from protocol.command_base import check_name
from protocol.commands import BackupCreate, BackupList, BackupShow, parse_volume_name
from protocol.cut_text import check_label, parse_fixed_cut
from protocol.errors import ExitCode, UsageError
from protocol.limits import HOOK_TIMEOUT_MAX_S, HOOK_TIMEOUT_S

app = typer.Typer(
    help="Backups: named cuts, kept at both sites.", no_args_is_help=True, rich_markup_mode=None
)

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
    stuck = (data.get("freeze") or {}).get("stuck")

    def show() -> None:
        session.output.line(f"backup {data.get('label') or data['id']} of {scope}")
        show_backup(session, data)
        if stuck:
            session.output.note(f"error: hosts may still be frozen: {stuck}", "next: thaw them by hand")

    session.output.result("backup.create", data, show)
    return int(ExitCode.PARTIAL if stuck else ExitCode.OK)


@app.command("list")
def list_backups(
    ctx: typer.Context,
    scope: Annotated[str | None, typer.Argument(metavar="G|G/V", help="One group or volume only.")] = None,
) -> None:
    """Every backup that this site knows, newest first."""
    session = session_of(ctx)
    group, volume = (None, None) if scope is None else parse_scope(scope)
    data = session.call(BackupList(group=group, volume=volume))
    session.output.result(
        "backup.list",
        data,
        lambda: session.output.table(
            ("backup", "group", "volumes", "time", "state", "kept", "consistency", "id", "cut"),
            [_row(session, backup) for backup in data["backups"]],
            empty="no backups: farshore backup create G --label NAME",
        ),
    )


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


def states_text(state: dict[str, Any]) -> str:
    """`available`, when all sites agree, else `pending at par, available at lon`."""
    if len(set(state.values())) == 1:
        return f"{next(iter(state.values()))} at {', '.join(sorted(state))}"
    return ", ".join(f"{word} at {site}" for site, word in sorted(state.items())) or UNKNOWN


def _row(session: Session, backup: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(backup.get("label") or backup["id"]),
        str(backup["group"]),
        " ".join(backup.get("volumes") or []) or UNKNOWN,
        session.local(backup.get("time")),
        states_text(backup.get("state") or {}),
        _kept(session, backup),
        str(backup.get("consistency") or UNKNOWN),
        str(backup["id"]),
        str(backup["cut"]["text"]),
    )


def _kept(session: Session, backup: dict[str, Any]) -> str:
    words = ["pinned"] if backup.get("pinned") else []
    if backup.get("locked_until"):
        words.append(f"locked until {session.local(backup['locked_until'])}")
    return ", ".join(words) or UNKNOWN


def show_backup(session: Session, backup: dict[str, Any]) -> None:
    """All of a backup's row, for people."""
    took_ms = backup.get("took_ms")
    mirror, space = backup.get("remote_mirror"), backup.get("space")
    freeze = backup.get("freeze") or {}
    frozen_ms = freeze.get("frozen_ms")
    session.output.fields(
        [
            ("id", str(backup["id"])),
            ("label", str(backup.get("label") or "")),
            ("group", str(backup["group"])),
            ("volumes", " ".join(backup.get("volumes") or [])),
            ("cut", session.cut_line(backup["cut"])),
            ("time", f"{session.local(backup.get('time'))}, {backup.get('time') or UNKNOWN}"),
            ("state", states_text(backup.get("state") or {})),
            ("consistency", str(backup.get("consistency") or "")),
            ("kind", str(backup.get("kind") or "")),
            ("not frozen", str(freeze.get("failure") or "")),
            ("frozen for", "" if frozen_ms is None else f"{frozen_ms:.1f} ms"),
            ("pinned", "yes" if backup.get("pinned") else "no"),
            ("locked until", session.local(backup["locked_until"]) if backup.get("locked_until") else ""),
            ("verified", session.local(backup["verified_at"]) if backup.get("verified_at") else ""),
            ("damage", str(backup.get("damage") or "")),
            ("remote mirror", f"{mirror['from']} to {mirror['to']}" if mirror else ""),
            ("held by", ", ".join(backup.get("held_by") or [])),
            ("holds", size_text(space["bytes"]) if space else ""),
            ("unique", f"{size_text(space['unique_bytes'])}, free once it is deleted" if space else ""),
            ("took", "" if took_ms is None else f"{took_ms:.1f} ms"),
            ("exports", " ".join(backup.get("exports") or [])),
        ]
    )
