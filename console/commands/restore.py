"""`farshore restore`: turn a volume or a group back to a cut.

Without `--confirm` the plan is shown first; a person at a terminal is then asked for the name, a script is
refused. What was planned is what is done: the restore names the position that the plan found.

With `--stop` and `--start` the host is stopped first and started last: a plan that would be refused, or a
stop that fails, leaves the volume and its hosts alone.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import Annotated

import typer
from msgspec import UNSET
from msgspec.structs import asdict, replace

from console.commands.job import follow_job, job_result
from console.figures import size_text, span_text
from console.host_commands import run_host_command, stop_host
from console.session import Session, fixed_cut, session_of
from protocol.commands.base import check_confirm, check_name, parse_volume_name
from protocol.commands.restore import RestoreFigures, RestoreGroup, RestoreReply, RestoreVolume
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
Restore = RestoreVolume | RestoreGroup


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


class Restored(RestoreReply, frozen=True, kw_only=True):
    """A restore, and what the `--start` command ended with; null without one."""

    start_exit_code: int | None


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
    session = session_of(ctx)
    command = RestoreVolume(
        group=group, volume=name, cut=session.cut(at), force=force, start=online or bool(start)
    )
    around = Around(dry_run=dry_run, force=force, confirm=confirm, stop=stop, start=start)
    return _restore(session, volume, command, around)


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
    session = session_of(ctx)
    command = RestoreGroup(group=group, cut=session.cut(at), force=force, start=online or bool(start))
    around = Around(dry_run=dry_run, force=force, confirm=confirm, stop=stop, start=start)
    return _restore(session, group, command, around)


def _restore(session: Session, name: str, command: Restore, around: Around) -> int:
    confirm = around.confirm
    if around.dry_run:
        plan = session.call(replace(command, dry_run=True), RESTORE_TIMEOUT_S)
        session.output.result("restore.plan", plan, lambda: _show(session, name, plan))
        return int(ExitCode.OK)
    asks = not confirm and session.interactive
    if asks or around.stop:
        plan = session.call(replace(command, dry_run=True), RESTORE_TIMEOUT_S)
        command = replace(command, cut=fixed_cut(plan.cut))
        if asks:
            _show(session, name, plan)
            confirm = session.ask(f"type {name} to turn it back: ")
    check_confirm(confirm, name)
    if around.stop:
        stop_host(around.stop, name)
        _wait_until_gone(session, replace(command, dry_run=True))
    done = _carry_out(session, name, replace(command, confirm=confirm), around)
    done = replace(done, undo=" ".join([session.output.pasted(done.undo), *around.words()]))
    code = run_host_command(around.start) if around.start else None
    data = Restored(**asdict(done), start_exit_code=code)
    session.output.result("restore", data, lambda: _show(session, name, data))
    if not code:
        return int(ExitCode.OK)
    session.output.note(f"error: {name} is turned back, but the start command ended with {code}")
    session.output.note(f"next: {around.start}")
    return int(ExitCode.PARTIAL)


def _online(name: str) -> str:
    return f"`farshore volume online {name if '/' in name else f'{name}/VOLUME'}`"


def _wait_until_gone(session: Session, plan: Restore) -> None:
    """The site sees a host leave a moment after its command said so. One that stays is the restore's own
    business: refused, or disconnected by --force."""
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while session.call(plan, RESTORE_TIMEOUT_S).hosts and time.monotonic() < deadline:
        time.sleep(LEAVE_POLL_S)


def _carry_out(session: Session, name: str, command: Restore, around: Around) -> RestoreReply:
    try:
        with session.output.activity(f"turning {name} back"):
            data = session.call(command, RESTORE_TIMEOUT_S)
        if not data.restoring:
            return data
        figures = job_result(follow_job(session, data.restoring), RestoreFigures)
        return replace(data, restoring=UNSET, **asdict(figures))
    except FarshoreError:
        if around.stop:
            session.output.note(f"the hosts of {name} stay stopped")
            if around.start:
                session.output.note(f"to start them: {_online(name)}, if it is closed; {around.start}")
        raise


def _show(session: Session, name: str, data: RestoreReply) -> None:
    planned = data.dry_run
    started = isinstance(data, Restored) and data.start_exit_code == 0
    hosts = [f"{host.volume} {host.client}" for host in data.hosts]
    session.output.line(f"{name} {'would be' if planned else 'is'} turned back to {data.cut.text}")
    session.output.fields(
        [
            ("volumes", " ".join(data.volumes)),
            ("cut", session.cut_line(data.cut)),
            ("discards", _discarded(data)),
            ("by", _by(data)),
            ("hosts", ", ".join(hosts) or "none"),
            ("reverted at", data.position or ""),
            ("checked", "" if planned else f"{data.checked_blocks} blocks"),
            ("full compare", f"farshore job watch {data.job}" if data.job else ""),
            ("took", "" if data.took_ms is None else f"{data.took_ms:.1f} ms"),
            ("export", "" if planned else "online" if data.online else f"offline: {_online(name)}"),
            ("started", "yes" if started else ""),
            ("undo", data.undo),
        ]
    )


def _by(data: RestoreReply) -> str:
    size = f"{'up to ' if data.dry_run else ''}{size_text(data.copied_bytes)}"
    return {
        "revert": "",
        "write": f"writing {size}: the other site no longer holds that cut",
        "fetch": f"writing {size} from the other site, which alone holds that cut",
    }[data.way]


def _discarded(data: RestoreReply) -> str:
    size, span = data.discarded_bytes, data.discarded_s
    if size is None and span is None:
        return ""
    return f"{size_text(size)} written in the last {span_text(span)}"
