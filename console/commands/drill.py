"""`farshore drill`: try a recovery out on a clone, and keep what it showed."""

from __future__ import annotations

import statistics
from typing import Annotated

import msgspec
import typer

from console.commands.backup import parse_scope
from console.figures import UNKNOWN, age_s, age_text, parse_span, span_text
from console.local_time import monotonic, now_ns
from console.mounts.checks import CHECK_TIMEOUT_S
from console.mounts.clones import until_told
from console.mounts.drill import DrillPlan, drill, step_rows
from console.mounts.mounting import require_root
from console.mounts.partition_choice import PartitionOption, parse_partitions
from console.options import seconds
from console.session import Session, fixed_cut, session_of
from protocol.commands.base import ROWS_MAX, Reply, check_name
from protocol.commands.cut import CutResolve, CutResolveReply
from protocol.commands.drill import DrillInfo, DrillList, DrillRecord, DrillSummary
from protocol.cut_text import NS_PER_S, CutLatest, time_text
from protocol.errors import ExitCode, NotFound, UsageError

app = typer.Typer(
    help="Recoveries tried out on clones, and measured.", no_args_is_help=True, rich_markup_mode=None
)

GroupOption = Annotated[str | None, typer.Argument(metavar="G", help="One group only.")]


@app.command()
def run(
    ctx: typer.Context,
    scope: Annotated[str, typer.Argument(metavar="G|G/V", help="A group, or one volume of it.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="CUT", help="By default the newest at this site.")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="Says by exit code 0 that all is well; FARSHORE_MOUNT and the like are in its environment.",
        ),
    ] = None,
    volume: Annotated[str | None, typer.Option(metavar="V", help="One volume only.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Nothing is mounted: the check reads FARSHORE_DEVICE.")
    ] = False,
    partition: PartitionOption = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", callback=seconds, help="Seconds for the check.")
    ] = CHECK_TIMEOUT_S,
) -> None:
    """Recover a group on a temporary clone: replay and check its file systems, mount them, run the check;
    measure the time and the data's age, and record it. Nothing of the group is touched; needs root.

    Ends with 1 when the copy did not prove good."""
    session = session_of(ctx)
    began, started_ns = monotonic(), now_ns()
    group, named = parse_scope(scope)
    if volume is not None and named is not None:
        raise UsageError("a volume twice", next_step="write G/V, or G and --volume V")
    if raw and check is None:
        raise UsageError("--raw without a check would prove nothing", next_step="add --check CMD")
    if raw and partition:
        raise UsageError("--raw and --partition together", next_step="with --raw the check finds its way")
    require_root()
    wanted = named if volume is None else check_name(volume, "volume")
    asked = CutLatest() if at is None else session.cut(at)
    cut = session.call(CutResolve(group=group, cut=asked))
    plan = DrillPlan(
        group=group,
        volume=wanted,
        cut=fixed_cut(cut),
        cut_time=cut.time or "",
        check=check,
        timeout_s=timeout,
        partitions=parse_partitions(partition or ()),
        raw=raw,
    )
    with until_told():
        result = drill(session, plan, began)
    record = DrillRecord(
        group=group,
        volumes=result.volumes,
        cut=plan.cut,
        started_utc_ns=started_ns,
        ok=result.ok,
        recovery_s=round(result.recovery_s, 3),
        data_age_s=_data_age_s(cut, started_ns, newest=isinstance(asked, CutLatest)),
        steps=tuple(result.steps),
    )
    data = session.call(record)
    session.output.result("drill.run", data, lambda: _show(session, data))
    if not data.ok:
        raise typer.Exit(int(ExitCode.FAILED))


def _data_age_s(cut: CutResolveReply, started_ns: int, *, newest: bool) -> float | None:
    """How far what the drill recovers is behind. The newest cut stands for all up to `complete_until`, though
    its last frame may be older: nothing was written since."""
    started = time_text(started_ns)
    ages = [age_s(cut.time, started), age_s(cut.complete_until, started) if newest else None]
    known = [age for age in ages if age is not None]
    return round(min(known), 3) if known else None


@app.command("list")
def list_drills(
    ctx: typer.Context,
    group: GroupOption = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=ROWS_MAX)] = 50,
) -> None:
    """Drills that were run at this site, newest first."""
    session = session_of(ctx)
    data = session.call(_query(group, limit))
    session.output.result(
        "drill.list",
        data,
        lambda: session.output.table(
            ("drill", "group", "started", "result", "recovery", "data age", "cut"),
            [
                (
                    each.drill,
                    each.group,
                    session.local(each.started),
                    "ok" if each.ok else "failed",
                    span_text(each.recovery_s),
                    span_text(each.data_age_s),
                    each.cut.text,
                )
                for each in data.drills
            ],
            empty="no drills: `farshore drill run G`",
        ),
    )


@app.command()
def show(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="A group.")],
    drill_id: Annotated[
        str | None, typer.Argument(metavar="DRILL", help="As `drill list` names it; the newest by default.")
    ] = None,
) -> None:
    """One drill with its steps."""
    session = session_of(ctx)
    found = session.call(_query(group, 1 if drill_id is None else ROWS_MAX)).drills
    wanted = [each for each in found if drill_id in (None, each.drill)]
    if not wanted:
        raise NotFound(
            f"no drill {drill_id or ''} of {group} here".replace("  ", " "),
            subject=group,
            next_step=f"farshore drill list {group}",
        )
    session.output.result("drill.show", wanted[0], lambda: _show(session, wanted[0]))


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


@app.command()
def report(
    ctx: typer.Context,
    group: GroupOption = None,
    since: Annotated[str, typer.Option(metavar="SPAN", help="How far back: 90d.")] = "365d",
) -> None:
    """What the drills of a span of time prove, one line a group: how many, how good, how long, how old."""
    session = session_of(ctx)
    oldest_ns = now_ns() - int(parse_span(since) * NS_PER_S)
    found = session.call(_query(group, ROWS_MAX)).drills
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


def _query(group: str | None, limit: int) -> DrillList:
    return DrillList(group=None if group is None else check_name(group, "group"), limit=limit)


def _show(session: Session, data: DrillInfo) -> None:
    output = session.output
    verdict = "recovered" if data.ok else "did not prove good"
    output.line(f"{data.group} {verdict} at {data.site} in {span_text(data.recovery_s)}")
    output.fields(
        [
            ("drill", data.drill),
            ("started", session.local(data.started)),
            ("cut", session.cut_line(data.cut)),
            ("data", age_text(data.data_age_s) if data.data_age_s is not None else UNKNOWN),
            ("volumes", " ".join(data.volumes)),
        ]
    )
    output.table(("volume", "step", "state", "took", "said"), step_rows(data.steps), empty="no steps")
