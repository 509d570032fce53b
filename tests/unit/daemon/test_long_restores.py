"""What a restore by writes needs is held for a day; one that goes on says so anew, here and at the peer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.operations import restore_by_writes
from daemon.operations.restore import _carry_out
from daemon.operations.restore_by_writes import KEEP_S
from engine.group.group import Group
from engine.peering.restore_ways import Chosen, Way
from engine.retention.timed_leases import asked_lease
from protocol.positions import Cut
from site_primary.restore_volume import plan_restore
from tests.unit.daemon.stage import staged
from tests.unit.daemon.test_failed_restores import closed, restore_to, written_twice

LEASE = "restore good/v"
JOB: Any = SimpleNamespace(done=0, progress=lambda *_: None)


def holds(group: Group) -> list[tuple[str, Cut, float]]:
    """What is held there for a time from now on."""
    found: list[tuple[str, Cut, float]] = []
    timed: Any = group.kept.timed
    hold = timed.hold

    def noted(name: str, cut: Cut, for_s: float) -> None:
        found.append((name, cut, for_s))
        hold(name, cut, for_s)

    timed.hold = noted
    return found


@pytest.mark.parametrize("way", [Way.WRITE, Way.FETCH])
def test_what_it_needs_is_held_for_as_long_as_it_takes(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_by_writes, "HOLD_ON_S", 0.0)  # every step is an hour

    async def play() -> None:
        async with staged(("good",)) as stage:
            group, cut = await written_twice(stage)
            await stage.paired("good")
            before = group.end
            common = before if way is Way.FETCH else None
            chosen = Chosen(way=way, cut=cut, lease=LEASE, there=True, common=common)
            plan = plan_restore(group, ["v"], cut, skip_missing=False)
            here, there = holds(group), holds(stage.group("good", "b"))
            await _carry_out(stage.a, group, plan, chosen, restore_to(cut), "good/v", "volume", JOB)
            assert closed(stage, group) is None
            assert here.count(("undo good/v", before, KEEP_S)) == 2 + 1  # before and after hosts go; one step
            assert here.count((LEASE, cut, KEEP_S)) == (3 if way is Way.WRITE else 0)
            assert there.count((asked_lease("a", LEASE), cut, KEEP_S)) == 1
            assert there.count((asked_lease("a", f"{LEASE}, from"), before, KEEP_S)) == (1 if common else 0)

    asyncio.run(play())
