"""The zone of keep rules: set with a schedule, unless the peer could not read it; and zones are looked up
beside the loop."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any
from zoneinfo import available_timezones

import pytest
from msgspec.structs import replace

from daemon.operations.schedule import schedule_info
from engine.peering import peer_answers
from engine.ports import time_zones
from engine.ports.clock import SystemClock
from protocol.commands.backup import BackupCreate, BackupPrune
from protocol.commands.base import BaseCommand
from protocol.commands.peer import PeerSet, RateWindow
from protocol.commands.schedule import ScheduleNext, ScheduleRemove, ScheduleSet
from protocol.errors import UsageError
from protocol.events import NO_POLICY, PolicySet
from protocol.peer_requests import CRON_LINES
from protocol.wire import WireDecoder
from tests.unit.daemon.stage import Stage, carried_out, staged

BERLIN = "Europe/Berlin"
NIGHTLY = ScheduleSet(group="good", cron="30 2 * * *", zone=BERLIN)


def zone_at(stage: Stage, name: str) -> str:
    site = getattr(stage, name)
    return schedule_info(site, site.groups["good"]).keep_zone


async def set_and_changed(stage: Stage) -> None:
    assert (await carried_out(stage.a, NIGHTLY)).keep_zone == BERLIN
    await stage.until(lambda: zone_at(stage, "b") == BERLIN)
    kept = await carried_out(stage.a, ScheduleSet(group="good", keep_daily=7))
    assert (kept.keep.daily, kept.keep_zone) == (7, BERLIN)
    assert (await carried_out(stage.a, ScheduleSet(group="good", zone="UTC"))).keep_zone == "UTC"
    assert (await carried_out(stage.a, ScheduleSet(group="good", zone=BERLIN))).keep_zone == BERLIN
    assert (await carried_out(stage.a, ScheduleSet(group="good", every_s=3600))).keep_zone == "UTC"


async def what_was_set_by_an_earlier_version(stage: Stage) -> None:
    policy = replace(NO_POLICY, cron="30 2 * * *", zone=BERLIN, keep=(0, 0, 7, 0, 0, 0))
    stage.group("good").append_records([policy])
    changed = await carried_out(stage.a, ScheduleSet(group="good", keep_weekly=2))
    assert (changed.keep.daily, changed.keep.weekly, changed.zone, changed.keep_zone) == (7, 2, BERLIN, "UTC")
    assert (await carried_out(stage.a, NIGHTLY)).keep_zone == BERLIN


async def a_peer_of_an_earlier_version(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await carried_out(stage.a, ScheduleRemove(group="good"))
    with monkeypatch.context() as older:
        older.setattr(peer_answers, "READABLE", frozenset({CRON_LINES}))
        made = await carried_out(stage.a, NIGHTLY)
        assert (made.zone, made.keep_zone) == (BERLIN, "UTC")
        await stage.paired("good")
    assert (await carried_out(stage.a, NIGHTLY)).keep_zone == BERLIN


async def prunes_go_by_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 21:30 and 22:30 of UTC, which in summer are two days in Berlin."""
    for hour in (21, 22):
        at_ns = int(datetime(2027, 6, 1, hour, 30, tzinfo=UTC).timestamp()) * 10**9
        monkeypatch.setattr(SystemClock, "utc_ns", lambda _, at_ns=at_ns: at_ns)
        await carried_out(stage.a, BackupCreate(group="good"))
    plan = BackupPrune(group="good", keep_daily=9, dry_run=True)
    pruned = await carried_out(stage.a, plan)
    assert (pruned.zone, pruned.deleted) == (BERLIN, [])
    assert [row.why for row in pruned.kept] == [["daily 2027-06-01"], ["daily 2027-06-02"]]
    await carried_out(stage.a, ScheduleRemove(group="good"))
    pruned = await carried_out(stage.a, plan)
    assert (pruned.zone, len(pruned.deleted)) == ("UTC", 1)
    stage.group("good").append_records([replace(NO_POLICY, keep_zone="Mars/Olympus")])
    with pytest.raises(UsageError, match="knows no time zone"):
        await carried_out(stage.a, plan)


def test_keep_rules_go_by_the_zone_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with staged(("good",)) as stage:
            await set_and_changed(stage)
            await what_was_set_by_an_earlier_version(stage)
            await a_peer_of_an_earlier_version(stage, monkeypatch)
            with monkeypatch.context() as clocks:
                await prunes_go_by_it(stage, clocks)

    asyncio.run(main())


def test_the_bytes_of_a_policy_are_those_of_earlier_versions_unless_it_has_a_zone_of_its_own() -> None:
    plain = replace(NO_POLICY, every_s=60)
    cron = replace(NO_POLICY, cron="0 0 * * *", zone=BERLIN)
    zoned = replace(cron, keep_zone=BERLIN)
    assert [len(each.to_row()) for each in (plain, cron, zoned)] == [7, 9, 10]
    for each in (plain, cron, zoned, replace(plain, keep_zone=BERLIN)):
        assert WireDecoder(PolicySet).decode(each.encode()) == each


def test_zones_are_looked_up_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads hundreds of files: up to 20 ms in which no host was answered."""
    threads = []

    def looked_up() -> set[str]:
        threads.append(threading.current_thread())
        return available_timezones()

    monkeypatch.setattr(time_zones, "available_timezones", looked_up)
    window = RateWindow(from_minute=1, until_minute=2, zone=BERLIN, rate_bytes_s=1 << 20)

    async def main() -> None:
        async with staged(("good",)) as stage:
            await carried_out(stage.a, NIGHTLY)
            await carried_out(stage.a, ScheduleNext(cron="0 0 * * *", zone=BERLIN))
            await carried_out(stage.a, PeerSet(peer="b", window=window))
            wrong: list[BaseCommand[Any]] = [
                replace(NIGHTLY, zone="Europe/Berlim"),
                ScheduleNext(cron="0 0 * * *", zone="Europe/Berlim"),
                PeerSet(peer="b", window=replace(window, zone="Europe/Berlim")),
            ]
            for command in wrong:
                with pytest.raises(UsageError, match="no time zone") as caught:
                    await carried_out(stage.a, command)
                assert "did you mean Europe/Berlin?" in caught.value.next_step

    asyncio.run(main())
    assert len(threads) >= 6
    assert threading.current_thread() not in threads
