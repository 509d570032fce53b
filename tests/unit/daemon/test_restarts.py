"""A child that ends is started again: later and later, and soon after one that lived."""

from __future__ import annotations

import asyncio

from daemon.restarts import AGAIN_MAX_S, AGAIN_S, restart_for_ever
from tests.sim.sim_loop import SimLoop
from tests.sim.world import SimClock, SimWorld


def test_the_delay_grows_while_children_die_young_and_begins_anew_after_one_that_lived() -> None:
    world = SimWorld(1)
    clock = SimClock(world)
    lives = iter([0.0, 1.0, AGAIN_MAX_S, 0.0, 0.0, 0.0, 0.0, AGAIN_MAX_S + 1.0, 0.0, 1e9])
    starts: list[float] = []
    delays: list[float] = []

    async def serve() -> None:
        starts.append(clock.monotonic())
        await asyncio.sleep(next(lives))

    loop = SimLoop(clock)
    loop.begin(restart_for_ever("test.defect", serve, clock, lambda _, delay_s: delays.append(delay_s)))
    world.run_for(1000.0)
    assert delays == [AGAIN_S, 2.0, 4.0, 8.0, 16.0, 32.0, AGAIN_MAX_S, AGAIN_S, 2.0]
    assert starts[:4] == [0.0, 1.0, 4.0, 4.0 + AGAIN_MAX_S + 4.0]
    loop.close()


def test_a_defect_is_told_and_ends_nothing() -> None:
    world = SimWorld(1)
    clock = SimClock(world)
    told: list[Exception | None] = []
    defect = OSError("no more processes")

    async def serve() -> None:
        if not told:
            raise defect

    loop = SimLoop(clock)
    loop.begin(restart_for_ever("test.defect", serve, clock, lambda error, _: told.append(error)))
    world.run_for(2.5)
    assert told == [defect, None]
    loop.close()
