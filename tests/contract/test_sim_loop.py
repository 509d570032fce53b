"""The simulator's loop: coroutines in virtual time, and what ends a process passes through them."""

from __future__ import annotations

import asyncio

import pytest

from tests.sim.mortal import ProcessDied
from tests.sim.sim_loop import SimLoop
from tests.sim.world import SimClock, SimWorld


@pytest.fixture
def world() -> SimWorld:
    return SimWorld(1)


@pytest.fixture
def loop(world: SimWorld) -> SimLoop:
    return SimLoop(SimClock(world))


def test_a_coroutine_runs_at_once_up_to_where_it_waits(world: SimWorld, loop: SimLoop) -> None:
    said: list[tuple[str, float]] = []

    async def work() -> None:
        said.append(("begins", loop.time()))
        await asyncio.sleep(2.0)
        said.append(("slept", loop.time()))

    loop.begin(work())
    assert said == [("begins", 0.0)]
    world.run_for(5.0)
    assert said == [("begins", 0.0), ("slept", 2.0)]


@pytest.mark.parametrize("told", [True, False])
def test_what_is_awaited_comes_or_the_time_is_over(world: SimWorld, loop: SimLoop, told: bool) -> None:
    news = asyncio.Event()
    found: list[object] = []

    async def work() -> None:
        try:
            found.append(await asyncio.wait_for(news.wait(), 3.0))
        except TimeoutError:
            found.append(loop.time())

    loop.begin(work())
    if told:
        world.schedule(1.0, news.set)
    world.run_for(5.0)
    assert found == [True if told else 3.0]


def test_a_death_in_a_task_ends_what_runs_it(world: SimWorld, loop: SimLoop) -> None:
    async def inner() -> None:
        raise ProcessDied("a", power=False)

    async def work() -> None:
        await asyncio.wait_for(inner(), 1.0)

    loop.begin(work())
    with pytest.raises(ProcessDied):
        world.run_for(1.0)


def test_an_error_that_nobody_handles_is_raised(world: SimWorld, loop: SimLoop) -> None:
    async def work() -> None:
        await asyncio.sleep(0.1)
        raise KeyError("a defect")

    loop.begin(work())
    with pytest.raises(KeyError):
        world.run_for(1.0)


def test_nothing_goes_on_once_the_process_has_died(world: SimWorld) -> None:
    clock = SimClock(world)
    loop = SimLoop(clock)
    said: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1.0)
            said.append("slept")
        finally:
            said.append("closed")

    loop.begin(work())
    clock.stop()
    loop.close()
    assert said == ["closed"]
    world.run_for(5.0)
    assert said == ["closed"]
