"""`farshore backup`: fix a moment of a group at both sites, and look at what is fixed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from console.client import CALL_TIMEOUT_S
from console.figures import UNKNOWN, size_text
from console.session import Session, session_of
from protocol.command_base import check_name
from protocol.commands import BackupCreate, BackupList, BackupShow, parse_volume_name
from protocol.cut_text import check_label, parse_fixed_cut

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
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the sites.")] = CREATE_TIMEOUT_S,
) -> None:
    """Take a backup; ends when every attached site has it."""
    session = session_of(ctx)
    group, volume = parse_scope(scope)
    command = BackupCreate(
        group=group,
        volume=volume,
        label=None if label is None else check_label(label),
        cut=None if at is None else session.cut(at),
        pin=pin,
    )
    with session.output.activity(f"backing up {scope}"):
        data = session.call(command, timeout)

    def show() -> None:
        session.output.line(f"backup {data.get('label') or data['id']} of {scope}")
        show_backup(session, data)

    session.output.result("backup.create", data, show)


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
            ("backup", "group", "volumes", "time", "state", "pinned", "consistency", "id", "cut"),
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
        "pinned" if backup.get("pinned") else UNKNOWN,
        str(backup.get("consistency") or UNKNOWN),
        str(backup["id"]),
        str(backup["cut"]["text"]),
    )


def show_backup(session: Session, backup: dict[str, Any]) -> None:
    """All of a backup's row, for people."""
    took_ms = backup.get("took_ms")
    mirror, space = backup.get("remote_mirror"), backup.get("space")
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
            ("pinned", "yes" if backup.get("pinned") else "no"),
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
