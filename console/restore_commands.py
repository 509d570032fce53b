"""`farshore restore`: turn a volume or a group back to a cut.

Without `--confirm` the plan is shown first; a person at a terminal is then asked for the name, a script is
refused. What was planned is what is done: the restore names the position that the plan found.

With `--stop` and `--start` the host is stopped first and started last: a plan that would be refused, or a
stop that fails, leaves the volume and its hosts alone.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from console.figures import size_text, span_text
from console.host_commands import run_host_command, stop_host
from console.job_commands import follow_job
from console.session import Session, session_of
from protocol.command_base import check_name
from protocol.commands import RestoreGroup, RestoreVolume, check_confirm, parse_volume_name
from protocol.cut_text import CutPosition, NamedCut
from protocol.errors import ExitCode, FarshoreError

app = typer.Typer(help="Turn back to a cut.", no_args_is_help=True, rich_markup_mode=None)

RESTORE_TIMEOUT_S = 600.0
# How long hosts that were stopped may take to be gone at the site.
LEAVE_TIMEOUT_S = 10.0
LEAVE_POLL_S = 0.1

At = Annotated[str, typer.Option("--at", metavar="CUT", help="The moment to turn back to.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
Force = Annotated[bool, typer.Option("--force", help="Although hosts are connected: they get errors.")]
Online = Annotated[bool, typer.Option("--online", help="Open the export to hosts again.")]
Stop = Annotated[
    str,
    typer.Option("--stop", metavar="CMD", help="Run here first, to stop and unmount; its failure ends it."),
]
Start = Annotated[
    str, typer.Option("--start", metavar="CMD", help="Run here last, once the export is open to hosts again.")
]
Confirm = Annotated[
    str, typer.Option("--confirm", metavar="NAME", help="The name of what is restored once more.")
]
# (cut, dry run, confirmation) to the command that is sent.
Build = Callable[[NamedCut, bool, str], RestoreVolume | RestoreGroup]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What is asked for beside the restore itself; empty commands are none."""

    dry_run: bool
    force: bool
    confirm: str
    stop: str
    start: str

    def words(self) -> list[str]:
        """The commands as options of a command line."""
        given = (("--stop", self.stop), ("--start", self.start))
        return [f"{option} {shlex.quote(command)}" for option, command in given if command]


@app.command("volume")
def restore_volume(
    ctx: typer.Context,
    volume: Annotated[str, typer.Argument(metavar="G/V", help="Group and volume.")],
    at: At,
    dry_run: DryRun = False,
    force: Force = False,
    online: Online = False,
    stop: Stop = "",
    start: Start = "",
    confirm: Confirm = "",
) -> int:
    """Turn one volume back. Nothing is lost: what it was before stays a cut, and the way back is shown."""
    group, name = parse_volume_name(volume)

    def build(cut: NamedCut, plan_only: bool, confirmed: str) -> RestoreVolume:
        return RestoreVolume(
            group=group,
            volume=name,
            cut=cut,
            dry_run=plan_only,
            force=force,
            start=online or bool(start),
            confirm=confirmed,
        )

    around = Around(dry_run=dry_run, force=force, confirm=confirm, stop=stop, start=start)
    return _restore(session_of(ctx), volume, at, build, around)


@app.command("group")
def restore_group(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="A group.")],
    at: At,
    dry_run: DryRun = False,
    force: Force = False,
    online: Online = False,
    stop: Stop = "",
    start: Start = "",
    confirm: Confirm = "",
) -> int:
    """Turn every volume of a group back to one moment."""
    check_name(group, "group")

    def build(cut: NamedCut, plan_only: bool, confirmed: str) -> RestoreGroup:
        return RestoreGroup(
            group=group,
            cut=cut,
            dry_run=plan_only,
            force=force,
            start=online or bool(start),
            confirm=confirmed,
        )

    around = Around(dry_run=dry_run, force=force, confirm=confirm, stop=stop, start=start)
    return _restore(session_of(ctx), group, at, build, around)


def _restore(session: Session, name: str, at: str, build: Build, around: Around) -> int:
    cut, confirm = session.cut(at), around.confirm
    if around.dry_run:
        plan = session.call(build(cut, True, ""), RESTORE_TIMEOUT_S)
        session.output.result("restore.plan", plan, lambda: _show(session, name, plan))
        return int(ExitCode.OK)
    asks = not confirm and session.interactive
    if asks or around.stop:
        plan = session.call(build(cut, True, ""), RESTORE_TIMEOUT_S)
        found = plan["cut"]
        cut = CutPosition(timeline=int(found["timeline"], 16), position=found["position"])
        if asks:
            _show(session, name, plan)
            confirm = session.ask(f"type {name} to turn it back: ")
    check_confirm(confirm, name)
    if around.stop:
        stop_host(around.stop, name)
        _wait_until_gone(session, build(cut, True, ""))
    data = _carry_out(session, name, build(cut, False, confirm), around)
    data["undo"] = " ".join([str(data["undo"]), *around.words()])
    data["start_exit_code"] = code = run_host_command(around.start) if around.start else None
    session.output.result("restore", data, lambda: _show(session, name, data))
    if not code:
        return int(ExitCode.OK)
    session.output.note(f"error: {name} is turned back, but the start command ended with {code}")
    session.output.note(f"next: {around.start}")
    return int(ExitCode.PARTIAL)


def _wait_until_gone(session: Session, plan: RestoreVolume | RestoreGroup) -> None:
    """The site sees a host leave a moment after its command said so. One that stays is the restore's own
    business: refused, or disconnected by --force."""
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while session.call(plan, RESTORE_TIMEOUT_S)["hosts"] and time.monotonic() < deadline:
        time.sleep(LEAVE_POLL_S)


def _carry_out(
    session: Session, name: str, command: RestoreVolume | RestoreGroup, around: Around
) -> dict[str, Any]:
    try:
        with session.output.activity(f"turning {name} back"):
            data = session.call(command, RESTORE_TIMEOUT_S)
        job = data.pop("restoring", None)
        return data | follow_job(session, job)["result"] if job else data
    except FarshoreError:
        if around.stop:
            session.output.note(f"the hosts of {name} stay stopped")
            if around.start:
                session.output.note(f"to start them: farshore volume online, if it is closed; {around.start}")
        raise


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
            ("started", "yes" if data.get("start_exit_code") == 0 else ""),
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
