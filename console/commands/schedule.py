"""`farshore schedule`: when a group is backed up, which backups stay, and how long any moment can be read."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from msgspec import structs
from msgspec.structs import asdict

from console.commands.backup_delete import (
    KeepDaily,
    KeepHourly,
    KeepLast,
    KeepMonthly,
    KeepWeekly,
    KeepYearly,
)
from console.drill_schedule import CheckArg, CheckHook, DrillAs, drill_fields, plan_of, set_drills
from console.empty_lists import nothing
from console.figures import UNKNOWN, parse_span, size_text, span_text
from console.options import After, Limit
from console.session import Session, session_of
from protocol.commands.base import check_name
from protocol.commands.schedule import (
    ScheduleInfo,
    ScheduleList,
    ScheduleNext,
    ScheduleRemove,
    ScheduleRun,
    ScheduleSet,
)
from protocol.errors import UsageError
from protocol.quantities import parse_bytes

app = typer.Typer(
    help="Backups by themselves, keep rules, and the any-point window of a group.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)

CronOption = Annotated[
    str | None, typer.Option(metavar="LINE", help="Minute, hour, day, month, day of the week: '30 2 * * *'.")
]
ZoneOption = Annotated[
    str | None, typer.Option("--tz", metavar="ZONE", help="Whose clock that is: Europe/Berlin; else UTC.")
]
GroupArgument = Annotated[str, typer.Argument(metavar="G", help="A group.")]


At = Annotated[
    str | None, typer.Option("--at", metavar="HH:MM", help="A backup each day then, of UTC or --tz.")
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window", metavar="SPAN", help="Any moment of that long can be read; `site`: as each is set."
    ),
]
WindowBytes = Annotated[
    str | None,
    typer.Option("--window-bytes", metavar="SIZE", help="Most journal for that; `site`: as each is set."),
]
Freeze = Annotated[
    str | None, typer.Option("--freeze", metavar="HOOK", help="Freeze with that hook of site.toml; `none`.")
]
Drill = Annotated[
    str | None,
    typer.Option(
        "--drill",
        metavar="SPAN|none",
        help="Drill its newest backup at this site: daily, weekly, monthly, 12h.",
    ),
]
ConfirmShorter = Annotated[
    str,
    typer.Option("--confirm", metavar="G", help="The group's name once more, to make the window shorter."),
]


@app.command("set")
def set_schedule(
    ctx: typer.Context,
    group: GroupArgument,
    every: Annotated[str | None, typer.Option(metavar="SPAN", help="A backup each 1h, 15m, …")] = None,
    at: At = None,
    cron: CronOption = None,
    zone: ZoneOption = None,
    keep_last: KeepLast = None,
    keep_hourly: KeepHourly = None,
    keep_daily: KeepDaily = None,
    keep_weekly: KeepWeekly = None,
    keep_monthly: KeepMonthly = None,
    keep_yearly: KeepYearly = None,
    window: Window = None,
    window_bytes: WindowBytes = None,
    freeze: Freeze = None,
    drill: Drill = None,
    check_hook: CheckHook = None,
    check_arg: CheckArg = None,
    drill_as: DrillAs = None,
    confirm: ConfirmShorter = "",
) -> None:
    """Change what is given here; the rest stays as it was. It holds at both sites, whichever writes; what
    is said of drills holds at this site."""
    session = session_of(ctx)
    if [every, at, cron].count(None) < 2:
        raise UsageError("--every, --at and --cron exclude each other", next_step="give one of them")
    if every is not None and zone is not None:
        raise UsageError("--every goes by no time zone", next_step="leave out --tz, or give --cron or --at")
    if at is not None and zone is not None:
        minute = _minute(at)
        at, cron = None, f"{minute % 60} {minute // 60} * * *"
    command = ScheduleSet(
        group=check_name(group, "group"),
        every_s=None if every is None else _seconds(every),
        at_minute=None if at is None else _minute(at),
        cron=cron,
        zone=zone,
        keep_last=keep_last,
        keep_hourly=keep_hourly,
        keep_daily=keep_daily,
        keep_weekly=keep_weekly,
        keep_monthly=keep_monthly,
        keep_yearly=keep_yearly,
        window_s=None if window is None else -1 if window == "site" else int(parse_span(window)),
        window_bytes=None if window_bytes is None else _bytes(window_bytes),
        freeze=None if freeze is None else "" if freeze == "none" else freeze,
        confirm=confirm,
    )
    of_drills = (drill, check_hook, check_arg, drill_as)
    if any(each is not None for each in of_drills):
        set_drills(session, command.group, *of_drills)
        if command == ScheduleSet(group=command.group, confirm=confirm):
            return
    data = session.call(command)
    session.output.result("schedule.set", data, lambda: _show(session, data))


def _seconds(text: str) -> int:
    seconds = int(parse_span(text))
    if seconds < 1:
        raise UsageError(f"a backup every {text} is too often", subject=text, next_step="--every 1s at most")
    return seconds


def _minute(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is no time of the day", subject=text, next_step="write it as 02:00, in UTC"
        )
    return int(match[1]) * 60 + int(match[2])


def _bytes(text: str) -> int:
    if text == "site":
        return 0
    size_bytes, rest = parse_bytes(text, "size")
    if rest or not size_bytes:
        raise UsageError(f"{text} is no size of a window", subject=text, next_step="write it as 512M or 50G")
    return size_bytes


@app.command()
def show(ctx: typer.Context, group: GroupArgument) -> None:
    """A group's schedule, keep rules and window, and how the last run went."""
    session = session_of(ctx)
    (data,) = session.call(ScheduleList(group=check_name(group, "group"))).schedules
    data = structs.replace(data, drill=plan_of(session, group))
    session.output.result("schedule.show", data, lambda: _show(session, data))


@app.command("list")
def list_schedules(
    ctx: typer.Context,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Every group's schedule."""
    session = session_of(ctx)
    data = session.listed(ScheduleList(), limit, after)
    session.output.result(
        "schedule.list",
        data,
        lambda: session.output.table(
            ("group", "backup", "keeps", "window", "last run", "next run", "failure"),
            [_row(session, schedule) for schedule in data.schedules],
            empty=nothing(session, data.schedules, "no groups: `farshore volume create G/V --size 10G`"),
        ),
    )
    session.say_more(data)


@app.command("next")
def show_next(
    ctx: typer.Context,
    group: Annotated[
        str | None, typer.Argument(metavar="G", help="A group; or a line that is not set yet, by --cron.")
    ] = None,
    cron: CronOption = None,
    zone: ZoneOption = None,
    count: Annotated[int, typer.Option(metavar="N", help="So many.")] = 5,
) -> None:
    """When the next backups are due, in the schedule's time zone and in yours."""
    session = session_of(ctx)
    name = None if group is None else check_name(group, "group")
    data = session.call(ScheduleNext(group=name, cron=cron, zone=zone, count=count))
    session.output.result(
        "schedule.next",
        data,
        lambda: session.output.table(
            (data.zone, "here"),
            [(run.local, session.local(run.time)) for run in data.runs],
            empty=f"none: `farshore schedule set {group or 'G'} --cron '30 2 * * *' --tz Europe/Berlin`",
        ),
    )


@app.command()
def remove(ctx: typer.Context, group: GroupArgument) -> None:
    """Take and prune no more backups by itself. The window stays; `set --window site` ends it too."""
    session = session_of(ctx)
    data = session.call(ScheduleRemove(group=check_name(group, "group")))
    session.output.result("schedule.remove", data, lambda: session.output.line(f"no schedule for {group}"))


def _when(schedule: ScheduleInfo) -> str:
    if schedule.every_s:
        return f"every {span_text(schedule.every_s)}"
    if schedule.cron:
        return f"{schedule.cron} {schedule.zone}"
    return f"at {schedule.at} UTC" if schedule.at else "never"


def _keeps(schedule: ScheduleInfo) -> str:
    rules = [f"{count} {name}" for name, count in asdict(schedule.keep).items() if count]
    zone = "" if schedule.keep_zone == "UTC" or not rules else f" (by the days of {schedule.keep_zone})"
    return (", ".join(rules) or "all") + zone


def _window(schedule: ScheduleInfo) -> str:
    size_bytes = schedule.window_bytes
    bound = f", at most {size_text(size_bytes)}" if size_bytes is not None else ""
    return f"{span_text(schedule.window_s)}{bound}"


def _row(session: Session, schedule: ScheduleInfo) -> tuple[str, ...]:
    return (
        schedule.group,
        _when(schedule),
        _keeps(schedule),
        _window(schedule),
        session.local(schedule.last_run),
        _next_run(session, schedule),
        schedule.failure or UNKNOWN,
    )


def _next_run(session: Session, schedule: ScheduleInfo) -> str:
    if not schedule.next_runs:
        return session.local(schedule.next_run)
    return _run(session, schedule, schedule.next_runs[0])


def _run(session: Session, schedule: ScheduleInfo, run: ScheduleRun) -> str:
    """In the zone of a cron line; in this person's own where none was chosen."""
    return run.local if schedule.cron else session.local(run.time)


def _show(session: Session, schedule: ScheduleInfo) -> None:
    here = "this site" if schedule.runs_here else "the site that writes"
    session.output.fields(
        [
            ("group", schedule.group),
            ("backup", f"{_when(schedule)}, taken by {here}"),
            ("keeps", _keeps(schedule)),
            ("freeze", schedule.freeze or ""),
            ("window", f"{_window(schedule)} (set for the {schedule.window_from})"),
            ("last run", session.local(schedule.last_run) if schedule.last_run else ""),
            *(("next run", _run(session, schedule, run)) for run in schedule.next_runs),
            ("failure", schedule.failure or ""),
            *drill_fields(session, schedule.drill),
        ]
    )
