"""Schedules: a group's policy, which says when it is backed up and what stays."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Confirm, Query, Reply
from protocol.commands.drill import DrillPlanInfo
from protocol.commands.keep import KeepCounts, KeepInfo
from protocol.commands.pages import ListReply, PagedCommand
from protocol.limits import (
    NAME_CHARS_MAX,
    SCHEDULE_SPAN_S_MAX,
    VOLUME_BYTES_MAX,
)
from protocol.roles import OperatorRole
from protocol.schedule_limits import CRON_LINE_CHARS_MAX, SCHEDULE_RUNS_MAX

# What they mean is checked by the site, which says where in the text it is wrong.
CronText = Annotated[str, Meta(min_length=1, max_length=CRON_LINE_CHARS_MAX)]
ZoneText = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Hook = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]


class ScheduleRun(Reply, frozen=True, kw_only=True):
    """When a backup is to be taken. `local`: in the zone of the schedule, with the offset that holds then and
    its abbreviation."""

    time: str
    local: str


class ScheduleInfo(Reply, frozen=True, kw_only=True):
    """A group's policy. `at` is `HH:MM` in UTC, `cron` a line in the time zone `zone`. `next_runs`: the first
    three, where the site can read the line. `keep` goes by days and weeks of `keep_zone`. The window is what
    holds at this site, null bytes being no bound of its own. `set_at`: when the policy was set. `runs_here`:
    the site that writes takes the backups. `failure`: of the last run here. `drill`: what this site is to
    drill, which only `schedule show` says."""

    group: str
    every_s: int | None
    at: str | None
    keep: KeepInfo
    freeze: str | None
    window_s: float
    window_bytes: int | None
    window_from: Literal["group", "site"]
    set_at: str | None = field(name="set")
    last_run: str | None
    next_run: str | None
    runs_here: bool
    failure: str | None
    drill: DrillPlanInfo | None = None
    cron: str | None = None
    zone: str | None = None
    next_runs: list[ScheduleRun] = field(default_factory=list)
    keep_zone: str = "UTC"


class ScheduleSet(KeepCounts[ScheduleInfo], frozen=True, tag="schedule.set"):
    """Change a group's policy; null leaves a part as it is. `every_s`, `at_minute` and `cron` replace each
    other; `zone`, UTC without it, is that of `cron`, and of the keep rules too where the peer's version reads
    that. A cron line is refused if the peer cannot be asked
    whether it reads one, or runs a version that does not. A `window_s` below this site's `lock_window_s` is
    refused as locked.
    `window_s` -1 and `window_bytes` 0: as each site is set. `confirm` is `G`, needed to make the window
    shorter."""

    needs = OperatorRole.ADMIN

    group: Name
    every_s: Annotated[int, Meta(ge=1, le=SCHEDULE_SPAN_S_MAX)] | None = None
    at_minute: Annotated[int, Meta(ge=0, lt=1440)] | None = None
    cron: CronText | None = None
    zone: ZoneText | None = None
    window_s: Annotated[int, Meta(ge=-1, le=SCHEDULE_SPAN_S_MAX)] | None = None
    window_bytes: Annotated[int, Meta(ge=0, le=VOLUME_BYTES_MAX)] | None = None
    freeze: Hook | None = None
    confirm: Confirm = ""


class ScheduleNextReply(Reply, frozen=True, kw_only=True):
    """Soonest first; fewer than were asked for where there are no more within 50 years."""

    group: str | None
    every_s: int | None
    at: str | None
    cron: str | None
    zone: str
    runs: list[ScheduleRun]


class ScheduleNext(Query[ScheduleNextReply], frozen=True, tag="schedule.next"):
    """When the next backups of a group are due, or those of a cron line that is not set yet."""

    group: Name | None = None
    cron: CronText | None = None
    zone: ZoneText | None = None
    count: Annotated[int, Meta(ge=1, le=SCHEDULE_RUNS_MAX)] = 5


class ScheduleListReply(ListReply, frozen=True, kw_only=True):
    """By group."""

    schedules: list[ScheduleInfo]


class ScheduleList(PagedCommand[ScheduleListReply], frozen=True, tag="schedule.list"):
    """The policies of all groups, or of one."""

    group: Name | None = None


class ScheduleRemove(BaseCommand[ScheduleInfo], frozen=True, tag="schedule.remove"):
    """No more backups by themselves and none pruned; the window stays."""

    needs = OperatorRole.ADMIN

    group: Name
