"""A schedule, as `stub_site` answers."""

from __future__ import annotations

from protocol.commands.keep import KeepInfo
from protocol.commands.schedule import ScheduleInfo, ScheduleNextReply, ScheduleRun

RUN = ScheduleRun(time="2027-03-28T01:00:00Z", local="2027-03-28 03:00:00 +0200 CEST")
SCHEDULE = ScheduleInfo(
    group="vm1",
    every_s=None,
    at=None,
    keep=KeepInfo(last=3, hourly=0, daily=0, weekly=0, monthly=0, yearly=0),
    freeze=None,
    window_s=86_400.0,
    window_bytes=None,
    window_from="site",
    set_at="2026-07-03T00:45:00Z",
    last_run=None,
    next_run=RUN.time,
    runs_here=True,
    failure=None,
    cron="30 2 * * *",
    zone="Europe/Berlin",
    next_runs=[RUN],
)
SCHEDULE_NEXT = ScheduleNextReply(
    group="vm1",
    every_s=None,
    at=None,
    cron="30 2 * * *",
    zone="Europe/Berlin",
    runs=[RUN],
)
