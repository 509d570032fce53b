"""`farshore verify`: is what a group holds at a site still there and unchanged; mend what is not.

Without `--deep` it is answered at once. With it, it is a job of the site: this command shows its progress and
its result, and may be left.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from console.figures import parse_rate, parse_span, size_text, span_text
from console.job_commands import follow_job
from console.session import Session, session_of
from protocol.command_base import check_name
from protocol.commands import Verify
from protocol.errors import ExitCode, UsageError
from protocol.job_commands import VerifyStart

VERIFY_TIMEOUT_S = 86_400.0
DEFAULT_RATE = "256M"
DAMAGE_LINES_MAX = 100


def verify(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="A group.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every byte too, as a job that can be left.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is damaged, from the peer where need be.")
    ] = False,
    rate: Annotated[
        str, typer.Option(metavar="BYTES", help="Bytes a second of --deep; none lifts the limit.")
    ] = DEFAULT_RATE,
    span: Annotated[
        str | None,
        typer.Option("--for", metavar="SPAN", help="Stop --deep after 30m, 2h; the next goes on there."),
    ] = None,
) -> None:
    """Check what a group holds here; ends with 24 when anything is damaged, 3 when --for ended it before."""
    session = session_of(ctx)
    check_name(group, "group")
    if not deep and not repair:
        if span is not None:
            raise UsageError("--for without --deep", next_step="add --deep")
        with session.output.activity(f"verifying {group}"):
            data = session.call(Verify(group=group), VERIFY_TIMEOUT_S)
    else:
        command = VerifyStart(
            group=group,
            deep=deep,
            repair=repair,
            rate_bytes_s=parse_rate(rate),
            for_s=parse_span(span) if span is not None else None,
        )
        data = follow_job(session, session.call(command))["result"]
    session.output.result("verify", data, lambda: _show(session, data))
    if not data["ok"]:
        raise typer.Exit(int(ExitCode.MISMATCH))
    if deep and not data["complete"]:
        raise typer.Exit(int(ExitCode.PARTIAL))


def _show(session: Session, data: dict[str, Any]) -> None:
    output = session.output
    counts = f"{data.get('frames')} frames, {size_text(data.get('bytes'))}, {data.get('versions')} versions"
    took = span_text(data.get("took_s"))
    if data.get("mended"):
        output.line(f"{data['group']}: {data['mended']} damaged places mended")
    if data["ok"]:
        partly = " so far" if data.get("deep") and not data.get("complete") else ""
        output.line(f"{data['group']} ok{partly}: {counts} in {took}")
        if data.get("verified"):
            output.line(f"  backups verified: {len(data['verified'])}")
        return
    output.line(f"{data['group']} damaged:")
    for damage in data["damage"][:DAMAGE_LINES_MAX]:
        output.line(f"  {damage['object']} {damage.get('position') or ''}: {damage['message']}")
        if damage.get("next"):
            output.line(f"    next: {damage['next']}")
    more = data.get("damaged", len(data["damage"])) - DAMAGE_LINES_MAX
    if more > 0:
        output.line(f"  and {more} more")
    for backup in data.get("backups") or []:
        output.line(f"  backup affected: {backup['label'] or backup['id']}")
    for volume in data.get("volumes") or []:
        output.line(f"  volume affected: {data['group']}/{volume}, as it is now")
