"""`farshore restore`: turn a volume or a group back to a cut.

Without `--confirm` the plan is shown first; a person at a terminal is then asked for the name, a script is
refused. What was planned is what is done: the restore names the position that the plan found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from console.figures import size_text, span_text
from console.session import Session, session_of
from protocol.command_base import check_name
from protocol.commands import RestoreGroup, RestoreVolume, check_confirm, parse_volume_name
from protocol.cut_text import CutPosition, NamedCut

app = typer.Typer(help="Turn back to a cut.", no_args_is_help=True, rich_markup_mode=None)

RESTORE_TIMEOUT_S = 600.0

At = Annotated[str, typer.Option("--at", metavar="CUT", help="The moment to turn back to.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
Force = Annotated[bool, typer.Option("--force", help="Although hosts are connected: they get errors.")]
Start = Annotated[bool, typer.Option("--start", help="Open the export to hosts again.")]
Confirm = Annotated[
    str, typer.Option("--confirm", metavar="NAME", help="The name of what is restored once more.")
]
# (cut, dry run, confirmation) to the command that is sent.
Build = Callable[[NamedCut, bool, str], RestoreVolume | RestoreGroup]


@app.command("volume")
def restore_volume(
    ctx: typer.Context,
    volume: Annotated[str, typer.Argument(metavar="G/V", help="Group and volume.")],
    at: At,
    dry_run: DryRun = False,
    force: Force = False,
    start: Start = False,
    confirm: Confirm = "",
) -> None:
    """Turn one volume back. Nothing is lost: what it was before stays a cut, and the way back is shown."""
    group, name = parse_volume_name(volume)

    def build(cut: NamedCut, plan_only: bool, confirmed: str) -> RestoreVolume:
        return RestoreVolume(
            group=group,
            volume=name,
            cut=cut,
            dry_run=plan_only,
            force=force,
            start=start,
            confirm=confirmed,
        )

    _restore(session_of(ctx), volume, at, build, dry_run=dry_run, confirm=confirm)


@app.command("group")
def restore_group(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="A group.")],
    at: At,
    dry_run: DryRun = False,
    force: Force = False,
    start: Start = False,
    confirm: Confirm = "",
) -> None:
    """Turn every volume of a group back to one moment."""
    check_name(group, "group")

    def build(cut: NamedCut, plan_only: bool, confirmed: str) -> RestoreGroup:
        return RestoreGroup(
            group=group, cut=cut, dry_run=plan_only, force=force, start=start, confirm=confirmed
        )

    _restore(session_of(ctx), group, at, build, dry_run=dry_run, confirm=confirm)


def _restore(session: Session, name: str, at: str, build: Build, *, dry_run: bool, confirm: str) -> None:
    cut = session.cut(at)
    if dry_run:
        plan = session.call(build(cut, True, ""), RESTORE_TIMEOUT_S)
        session.output.result("restore.plan", plan, lambda: _show(session, name, plan))
        return
    if not confirm and session.interactive:
        plan = session.call(build(cut, True, ""), RESTORE_TIMEOUT_S)
        _show(session, name, plan)
        found = plan["cut"]
        cut = CutPosition(timeline=int(found["timeline"], 16), position=found["position"])
        confirm = input(f"type {name} to turn it back: ").strip()
    check_confirm(confirm, name)
    with session.output.activity(f"turning {name} back"):
        data = session.call(build(cut, False, confirm), RESTORE_TIMEOUT_S)
    session.output.result("restore", data, lambda: _show(session, name, data))


def _show(session: Session, name: str, data: dict[str, Any]) -> None:
    planned = bool(data.get("dry_run"))
    took_ms, checked = data.get("took_ms"), data.get("checked_blocks")
    hosts = [f"{host['volume']} {host['client']}" for host in data.get("hosts") or []]
    session.output.line(f"{name} {'would be' if planned else 'is'} turned back to {data['cut']['text']}")
    session.output.fields(
        [
            ("volumes", " ".join(data.get("volumes") or [])),
            ("cut", session.cut_line(data["cut"])),
            ("discards", _discarded(data)),
            ("by", _by(data)),
            ("hosts", ", ".join(hosts) or "none"),
            ("reverted at", str(data.get("position") or "")),
            ("checked", "" if planned or checked is None else f"{checked} blocks"),
            ("full compare", f"farshore job watch {data['job']}" if data.get("job") else ""),
            ("took", "" if took_ms is None else f"{took_ms:.1f} ms"),
            (
                "export",
                "" if planned else ("online" if data.get("online") else "offline: farshore volume online"),
            ),
            ("undo", str(data.get("undo") or "")),
        ]
    )


def _by(data: dict[str, Any]) -> str:
    way, size = data.get("way"), size_text(data.get("copied_bytes"))
    most = "up to " if data.get("dry_run") else ""
    return {
        "write": f"writing {most}{size}: the other site no longer holds that cut",
        "fetch": f"writing {most}{size} from the other site, which alone holds that cut",
    }.get(str(way), "")


def _discarded(data: dict[str, Any]) -> str:
    size, span = data.get("discarded_bytes"), data.get("discarded_s")
    if size is None and span is None:
        return ""
    return f"{size_text(size)} written in the last {span_text(span)}"
