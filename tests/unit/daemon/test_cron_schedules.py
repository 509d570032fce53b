"""Cron lines at work in a site: over changes of the clock, stops, and what this site cannot read."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from daemon.alerts.figures import copy_figures
from daemon.operations import backup
from daemon.operations.schedule import schedule_info
from daemon.scheduler import LOOK_EVERY_S, Scheduler
from daemon.site import Site
from engine.ports.clock import SystemClock
from protocol.commands.backup import BackupCreate
from protocol.commands.schedule import ScheduleSet
from protocol.events import NO_POLICY
from tests.unit.daemon.stage import answered, staged

NS = 1_000_000_000


class Wall:
    """The wall clock of every site in this process; monotonic time goes on as it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = time.time_ns
        self._ahead_ns = 0
        monkeypatch.setattr(SystemClock, "utc_ns", lambda _: self._real() + self._ahead_ns)

    def set(self, text: str) -> None:
        """To a time of UTC, and a second."""
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        self._ahead_ns = (int(moment.timestamp()) + 1) * NS - self._real()


async def taken(site: Site) -> int:
    """How many backups there are once a scheduler has looked that knows of nothing, as after a start."""
    group = site.groups["good"]
    run = Scheduler(site).look_at(group)
    if run is not None:
        await run
    return len(group.copies.at(group.spans()))


def test_each_time_is_taken_once_over_changes_of_the_clock_and_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall = Wall(monkeypatch)
    wall.set("2027-10-31 00:00")

    async def run() -> None:
        async with staged(names=("good",)) as stage:
            await answered(stage.a, ScheduleSet(group="good", cron="30 2 * * *", zone="Europe/Berlin"))
            assert await taken(stage.a) == 0
            for text, count in (
                ("2027-10-31 00:29", 0),
                ("2027-10-31 00:30", 1),  # 02:30, summer time
                ("2027-10-31 01:30", 1),  # 02:30 again
                ("2027-11-01 01:29", 1),
                ("2027-11-01 01:30", 2),
                ("2028-03-26 00:59", 3),  # after a stop of months, made up once
                ("2028-03-26 01:00", 4),  # 03:00: there is no 02:30
                ("2028-03-26 01:30", 4),
                ("2028-03-27 00:29", 4),
                ("2028-03-27 00:30", 5),
            ):
                wall.set(text)
                assert await taken(stage.a) == count, text

    asyncio.run(run())


def test_a_group_that_takes_its_time_keeps_no_other_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hook holds on, or its peer does not say that it has the backup; the site has other groups."""
    held: list[str] = []
    wall = Wall(monkeypatch)
    wall.set("2027-10-31 00:00")

    async def run() -> None:
        async with staged(names=("bad", "good")) as stage:
            never = asyncio.Event()
            create = backup.create

            async def slow(site: Site, command: BackupCreate) -> object:
                if command.group == "bad":
                    held.append(command.group)
                    await never.wait()
                return await create(site, command)

            monkeypatch.setattr(backup, "create", slow)
            for name in ("bad", "good"):
                await answered(stage.a, ScheduleSet(group=name, every_s=60))
            wall.set("2027-10-31 00:02")
            scheduler = Scheduler(stage.a)
            scheduler.start()
            try:
                good = stage.group("good")
                await stage.until(lambda: len(good.copies.at(good.spans())) == 1)
                await stage.until(lambda: held)
                await asyncio.sleep(1.5 * LOOK_EVERY_S)
                assert held == ["bad"], "one at a time of each"
            finally:
                await scheduler.close()

    asyncio.run(run())


def test_a_line_that_a_site_cannot_read_fails_as_a_run_does_and_harms_nothing_else() -> None:
    """The peer that wrote it knows a zone that is not known here."""

    async def run() -> None:
        async with staged(names=("good",)) as stage:
            policy = replace(NO_POLICY, cron="0 0 * * *", zone="Mars/Olympus")
            stage.group("good").append_records([policy])
            await stage.paired("good")
            assert await taken(stage.a) == 0
            assert "no time zone 'Mars/Olympus'" in stage.a.schedule_failures["good"]
            for site in (stage.a, stage.b):
                shown = schedule_info(site, site.groups["good"])
                assert "no time zone 'Mars/Olympus'" in (shown.failure or "")
                assert (shown.zone, shown.next_run, shown.next_runs) == ("Mars/Olympus", None, [])
                assert copy_figures(site, site.groups["good"]).slot_age_s is None
            await answered(stage.a, ScheduleSet(group="good", every_s=3600))
            assert schedule_info(stage.a, stage.group("good")).cron is None
            assert stage.said(stage.a, "schedule.failed") == ["good"]

    asyncio.run(run())
