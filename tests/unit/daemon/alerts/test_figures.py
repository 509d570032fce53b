"""Figures of a site that events come of."""

from __future__ import annotations

import asyncio

import pytest

from daemon.alerts.figures import copy_figures, pair_figures
from daemon.operations import dispatch
from daemon.operations.drill_row import last_drill
from protocol.commands.backup import BackupCreate
from protocol.commands.drill import DrillPlans, DrillPlanSet, DrillRecord
from protocol.cut_text import CutPosition
from tests.unit.daemon.stage import carried_out, open_site, staged

YEAR_NS = 365 * 86_400 * 10**9


def test_what_a_peer_lacks_is_not_known_before_it_was_compared() -> None:
    """After a start the whole journal counted, and `pair.lagging` was sent of a pair that was equal."""

    async def play() -> None:
        async with staged(("good",)) as stage:
            await stage.write("good")
            await stage.paired("good")
            # The peer may have it before its word of that is here.
            await stage.until(lambda: not stage.a.shippers["good"].lag_bytes)
            found = pair_figures(stage.a, stage.group("good"), frozenset())
            assert (found.lag_bytes, found.lag_s) == (0, 0.0)
            await stage.b.stop()
            await stage.write("good", b"n")
            found = pair_figures(stage.a, stage.group("good"), frozenset())
            assert found.lag_bytes  # it is known of a peer that went away
            await stage.a.stop()
            stage.a = open_site(stage.a.directory)
            await stage.a.start()
            found = pair_figures(stage.a, stage.group("good"), frozenset())
            assert (found.lag_bytes, found.lag_s) == (None, None)

    asyncio.run(play())


def test_what_is_dated_ahead_of_the_clock_makes_no_drill_late_and_nothing_young(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a clock that was a year ahead nothing was drilled for a year, no alert said so, and the newest
    backup and drill were 0 s old for as long."""

    async def play() -> None:
        async with staged((), alone=("good",)) as stage:
            site, group = stage.a, stage.group("good")

            async def drilled(ago_s: int) -> str:
                record = DrillRecord(
                    group="good",
                    volumes=("v",),
                    cut=CutPosition(timeline=group.end.timeline, position=group.end.position),
                    started_utc_ns=site.clock.utc_ns() - ago_s * 10**9,
                    ok=True,
                    recovery_s=0.0,
                    steps=(),
                )
                return (await carried_out(site, record)).drill

            async def is_due() -> bool:
                (plan,) = (await carried_out(site, DrillPlans(group="good"))).plans
                return plan.is_due

            right = type(site.clock).utc_ns
            monkeypatch.setattr(type(site.clock), "utc_ns", lambda self: right(self) + YEAR_NS)
            await dispatch(site, DrillPlanSet(group="good", every_s=3600, hook="sqlite"))
            await dispatch(site, BackupCreate(group="good"))
            ahead = await drilled(0)
            assert not await is_due()
            figures = copy_figures(site, group)
            assert figures.backup_age_s is not None
            assert figures.drill_age_s is not None

            monkeypatch.setattr(type(site.clock), "utc_ns", right)
            figures = copy_figures(site, group)
            assert (figures.backup_age_s, figures.drill_age_s) == (None, None)
            assert await is_due()
            newest = last_drill(site, "good")
            assert newest is not None  # there is no other
            assert f"{newest.drill.started_utc_ns:016x}" == ahead
            await drilled(7200)
            assert await is_due()
            late_s = copy_figures(site, group).drill_due_s
            assert late_s is not None
            assert 3600 <= late_s < 3660
            await drilled(60)
            assert not await is_due()
            age_s, newest = copy_figures(site, group).drill_age_s, last_drill(site, "good")
            assert age_s is not None
            assert newest is not None
            assert 60 <= age_s < 120
            assert newest.drill.started_utc_ns < site.clock.utc_ns()

    asyncio.run(play())
