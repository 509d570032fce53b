"""`farshore drill report`, `verify` and `key`: what drills prove, for people at the site and for others.

A report with a `--format` is signed by the site and is verified by `drill verify`, on any machine and
without a site: there is only the file, and the key that whoever verifies it was given.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from shlex import quote
from typing import Annotated

import msgspec
import typer

from console.commands.drill import GroupOption, query_drills
from console.figures import parse_span, span_text
from console.local_time import now_ns
from console.session import Session, session_of
from console.sites import require_outside_sites
from console.unfinished_file import UnfinishedFile
from protocol.commands.base import ROWS_MAX, Reply, check_name
from protocol.commands.drill import (
    DrillInfo,
    DrillKey,
    DrillSign,
    DrillSummary,
    ReportFormat,
    SignedReport,
)
from protocol.cut_text import NS_PER_S
from protocol.errors import NotFound, UsageError, system_error
from protocol.proof_limits import REPORT_BYTES_MAX, REPORT_DRILLS_MAX

KEY_FILE_BYTES_MAX = 64 << 10


class GroupDrills(Reply, frozen=True, kw_only=True):
    """A group's drills of a span of time, and how many were `ok`; seconds are of those."""

    group: str
    drills: int
    ok: int
    last: DrillSummary
    recovery_median_s: float | None
    recovery_max_s: float | None
    data_age_max_s: float | None


class DrillReport(Reply, frozen=True, kw_only=True):
    """By group; those without a drill are left out."""

    since_s: float
    groups: list[GroupDrills]


def report(
    ctx: typer.Context,
    group: GroupOption = None,
    group_option: Annotated[str | None, typer.Option("--group", metavar="G", help="The same.")] = None,
    backup: Annotated[
        str | None, typer.Option(metavar="LABEL|ID", help="Signed: drills of that backup only.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="text|json|html", help="Signed, in that format.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Signed: write it there instead of printing it.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Although FILE exists.")] = False,
    since: Annotated[str, typer.Option(metavar="SPAN", help="How far back: 90d.")] = "365d",
    limit: Annotated[
        int, typer.Option(help="Signed: at most so many drills.", min=1, max=REPORT_DRILLS_MAX)
    ] = 10,
) -> None:
    """What the drills of a span of time prove: one line a group; or with --backup, --format or --output each
    drill with its check, versions and digests, signed by the site, for `drill verify`."""
    session = session_of(ctx)
    if group is not None and group_option is not None:
        raise UsageError("a group twice", next_step="write G, or --group G")
    group = group or group_option
    if output is not None and str(output) == "-":
        output, form = None, form or "text"  # it is printed, as without a FILE
    if backup is None and form is None and output is None:
        _summary(session, group, since)
        return
    if backup is not None and group is None:
        raise UsageError("a backup of which group?", subject=backup, next_step=f"--group G --backup {backup}")
    command = DrillSign(
        group=None if group is None else check_name(group, "group"),
        backup=backup or "",
        since_utc_ns=max(0, now_ns() - int(parse_span(since) * NS_PER_S)),
        limit=limit,
        format=_format(form, output),
    )
    with session.output.activity("signing"):
        data = session.call(command)
    if output is not None:
        require_outside_sites(output, session.site.directory)
        with UnfinishedFile(output, replace=replace) as file:
            file.write(data.document.encode())
            file.make_durable()
            file.finish()
    session.output.result("drill.report.signed", data, lambda: _show_signed(session, data, output))


def _format(form: str | None, output: Path | None) -> ReportFormat:
    """As it is said, else as the file is called."""
    known: dict[str, ReportFormat] = {"text": "text", "json": "json", "html": "html"}
    if form is None:
        return known.get(output.suffix.removeprefix("."), "text") if output else "text"
    if form not in known:
        raise UsageError(f"no format {form!r}", subject=form, next_step="--format text, json or html")
    return known[form]


def _show_signed(session: Session, data: SignedReport, output: Path | None) -> None:
    if output is None:
        # Nothing in it is unprintable, so it is printed as it is.
        session.output.lines(data.document.removesuffix("\n"))
        return
    session.output.line(f"{output}: {len(data.drills)} drills, signed by {data.fingerprint}")
    session.output.note(f"verify it anywhere: `farshore drill verify {quote(str(output))} --key {data.key}`")


def _summary(session: Session, group: str | None, since: str) -> None:
    oldest_ns = now_ns() - int(parse_span(since) * NS_PER_S)
    found = session.call(query_drills(group, ROWS_MAX)).drills
    drills = [each for each in found if int(each.drill, 16) >= oldest_ns]
    rows = [
        _reported(name, [each for each in drills if each.group == name])
        for name in sorted({each.group for each in drills})
    ]
    session.output.result(
        "drill.report",
        DrillReport(since_s=parse_span(since), groups=rows),
        lambda: session.output.table(
            ("group", "drills", "good", "last", "result", "median", "slowest", "oldest data"),
            [
                (
                    row.group,
                    str(row.drills),
                    str(row.ok),
                    session.local(row.last.started),
                    "ok" if row.last.ok else "failed",
                    span_text(row.recovery_median_s),
                    span_text(row.recovery_max_s),
                    span_text(row.data_age_max_s),
                )
                for row in rows
            ],
            empty=f"no drills in the last {since}: `farshore drill run G`",
        ),
    )


def _reported(group: str, drills: list[DrillInfo]) -> GroupDrills:
    """One group's row. `drills`: newest first, at least one."""
    good = [each for each in drills if each.ok]
    times = [each.recovery_s for each in good]
    ages = [each.data_age_s for each in good if each.data_age_s is not None]
    return GroupDrills(
        group=group,
        drills=len(drills),
        ok=len(good),
        last=msgspec.convert(msgspec.to_builtins(drills[0]), DrillSummary),
        recovery_median_s=round(statistics.median(times), 3) if times else None,
        recovery_max_s=max(times, default=None),
        data_age_max_s=max(ages, default=None),
    )


def key(ctx: typer.Context) -> None:
    """The public key by which this site's reports are verified; made now if there is none. Give it to whoever
    is to verify them, and have them compare the fingerprint with you."""
    session = session_of(ctx)
    data = session.call(DrillKey())
    session.output.result(
        "drill.key",
        data,
        lambda: session.output.fields(
            [("site", data.site), ("key", data.key), ("fingerprint", data.fingerprint)]
        ),
    )


class VerifiedDrill(Reply, frozen=True, kw_only=True):
    """A drill that a verified report is about."""

    drill: str
    group: str
    backup: str
    position: str
    started: str
    ok: bool


class VerifiedReport(Reply, frozen=True, kw_only=True):
    """A report that is what the key's owner signed; `site` and `made` as it says."""

    file: str
    format: str
    site: str
    made: str
    key: str
    fingerprint: str
    drills: list[VerifiedDrill]


def verify(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A report that was signed.")],
    trusted: Annotated[
        str,
        typer.Option(
            "--key", metavar="KEY|FINGERPRINT|FILE", help="As `drill key` prints it, or a file that has it."
        ),
    ],
) -> None:
    """Whether a report is what the owner of a key signed; needs no site. Ends with 24 if a byte of it was
    changed, with 12 if another key signed it. What it proves is said then: a drill that failed is one that
    was proven to have failed."""
    from protocol.drill_report import verified_report
    from protocol.signatures import check_trusted

    session = session_of(ctx)
    document = _read(file, REPORT_BYTES_MAX + 1)
    given = Path(trusted)
    is_text = ":" in trusted and not given.exists()
    known = check_trusted(
        trusted if is_text else _read(given, KEY_FILE_BYTES_MAX).decode(errors="replace"),
        "--key" if is_text else trusted,
    )
    form, statement = verified_report(document, known, str(file))
    data = VerifiedReport(
        file=str(file),
        format=form,
        site=statement.site,
        made=statement.made,
        key=statement.key,
        fingerprint=statement.fingerprint,
        drills=[
            VerifiedDrill(
                drill=each.drill,
                group=each.group,
                backup=(each.proof.backup or each.proof.backup_id) if each.proof else "",
                position=each.cut.text,
                started=each.started,
                ok=each.ok,
            )
            for each in statement.drills
        ],
    )

    def show() -> None:
        session.output.line(f"{file}: unchanged, signed by site {data.site} on {data.made}")
        session.output.line(f"key {data.fingerprint}")
        session.output.table(
            ("group", "backup", "started", "result", "position"),
            [
                (each.group, each.backup or "-", each.started, "good" if each.ok else "failed", each.position)
                for each in data.drills
            ],
            empty="it is about no drill",
        )

    session.output.result("drill.verify", data, show)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no file {path}", subject=str(path), next_step="name a file, or a key as text"
        ) from error
    except OSError as error:
        raise system_error(error) from error
