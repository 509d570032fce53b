"""Whatever looks at every group lets hosts have their turn between some of them."""

from __future__ import annotations

import asyncio

import pytest

from daemon import scheduler
from daemon.alerts import watch
from daemon.alerts.watch import AlertWatch
from daemon.scheduler import Scheduler
from engine.group.group import Group
from tests.unit.daemon.stage import staged

NAMES = ("one", "other", "third", "fourth")


def test_the_scheduler_stops_between_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "GROUPS_A_TURN", 2)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> dict[str, int]:
        async with staged(names=(), alone=NAMES) as stage:
            looked: dict[str, int] = {}

            def look(_: Scheduler, group: Group) -> None:
                looked.setdefault(group.name, turns)

            monkeypatch.setattr(Scheduler, "look_at", look)
            others, looks = asyncio.ensure_future(count()), Scheduler(stage.a)
            looks.start()
            await stage.until(lambda: len(looked) == len(NAMES))
            await looks.close()
            others.cancel()
            return looked

    first, second, third, fourth = (at for _, at in sorted(asyncio.run(run()).items()))
    assert first == second < third == fourth


def test_alerts_look_at_the_site_once_while_all_groups_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "GROUPS_A_LOOK", 1)
    seen: list[str] = []

    async def run() -> None:
        async with staged(names=(), alone=NAMES) as stage:
            monkeypatch.setattr(AlertWatch, "_look_at", lambda _, group, *__: seen.append(group.name))
            monkeypatch.setattr(AlertWatch, "_look_at_site", lambda _: seen.append("the site"))
            alerts = AlertWatch(stage.a)
            alerts.start()
            await stage.until(lambda: len(seen) >= 10)
            await alerts.close()

    asyncio.run(run())
    assert seen[:10] == ["the site", *sorted(NAMES), "the site", *sorted(NAMES)]


def test_alerts_look_at_some_groups_at_a_time_and_at_all_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "GROUPS_A_LOOK", 2)
    seen: list[str] = []

    async def run() -> None:
        async with staged(names=(), alone=NAMES) as stage:
            monkeypatch.setattr(AlertWatch, "_look_at", lambda _, group, *__: seen.append(group.name))
            alerts = AlertWatch(stage.a)
            for looks in range(1, 5):
                alerts.look()
                assert len(seen) == 2 * looks

    asyncio.run(run())
    assert seen == [*sorted(NAMES), *sorted(NAMES)]
