"""`farshore verify`: is what a group holds at a site still there and unchanged; mend what is not.

Without `--deep` it is answered at once. With it, it is a job of the site: this command shows its progress and
its result, and may be left.
"""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.job import follow_job, job_result
from console.figures import parse_rate, parse_span, size_text, span_text
from console.session import Session, session_of
from protocol.commands.base import check_name
from protocol.commands.verify import Verify, VerifyReply, VerifyResult, VerifyStart
from protocol.errors import ExitCode, UsageError

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
        data = job_result(follow_job(session, session.call(command)), VerifyResult)
    session.output.result("verify", data, lambda: _show(session, data))
    if not data.ok:
        raise typer.Exit(int(ExitCode.MISMATCH))
    if deep and _ended_early(data):
        raise typer.Exit(int(ExitCode.PARTIAL))


def _ended_early(data: VerifyReply) -> bool:
    return isinstance(data, VerifyResult) and data.deep and not data.complete


def _show(session: Session, data: VerifyReply) -> None:
    output = session.output
    counts = f"{data.frames} frames, {size_text(data.bytes)}, {data.versions} versions"
    of_job = data if isinstance(data, VerifyResult) else None
    if of_job and of_job.mended:
        output.line(f"{data.group}: {of_job.mended} damaged places mended")
    if data.ok:
        partly = " so far" if _ended_early(data) else ""
        output.line(f"{data.group} ok{partly}: {counts} in {span_text(data.took_s)}")
        if of_job and of_job.verified:
            output.line(f"  backups verified: {len(of_job.verified)}")
        return
    output.line(f"{data.group} damaged:")
    for damage in data.damage[:DAMAGE_LINES_MAX]:
        output.line(f"  {damage.object} {damage.position}: {damage.message}")
        if damage.next:
            output.line(f"    next: {damage.next}")
    more = (of_job.damaged if of_job else len(data.damage)) - DAMAGE_LINES_MAX
    if more > 0:
        output.line(f"  and {more} more")
    if of_job:
        for backup in of_job.backups:
            output.line(f"  backup affected: {backup.label or backup.id}")
        for volume in of_job.volumes:
            output.line(f"  volume affected: {data.group}/{volume}, as it is now")
