"""A wrong clock does not take the any-point window with it."""

from __future__ import annotations

from engine.retention.window_time import SPEED_MAX, WindowTime
from tests.sim.world import NS, SimClock, SimWorld

YEAR_S = 365 * 86_400.0
HOUR_S = 3600.0


def test_it_is_the_newest_writes_time_while_clocks_are_right() -> None:
    world = SimWorld(1)
    clock = SimClock(world)
    time = WindowTime(clock)
    assert time.utc_ns(0) == 0
    for _ in range(3):
        assert time.utc_ns(clock.utc_ns()) == clock.utc_ns()
        world.run_for(HOUR_S)
    idle_since = clock.utc_ns()
    world.run_for(YEAR_S)
    assert time.utc_ns(idle_since) == idle_since


def test_a_clock_that_jumps_a_year_ahead_moves_it_no_faster_than_twice_the_time_that_passes() -> None:
    world = SimWorld(1)
    clock = SimClock(world)
    time = WindowTime(clock)
    began = time.utc_ns(clock.utc_ns())
    clock.jump(YEAR_S)
    assert time.utc_ns(clock.utc_ns()) == began
    for hours in range(1, 5):
        world.run_for(HOUR_S)
        assert time.utc_ns(clock.utc_ns()) == began + SPEED_MAX * hours * int(HOUR_S) * NS
    clock.jump(-YEAR_S)
    assert time.utc_ns(clock.utc_ns()) == clock.utc_ns()


def test_a_site_whose_own_clock_is_ahead_goes_by_the_writers_times() -> None:
    world = SimWorld(1)
    writer, follower = SimClock(world), SimClock(world)
    follower.jump(YEAR_S)
    time = WindowTime(follower)
    for _ in range(100):
        assert time.utc_ns(writer.utc_ns()) == writer.utc_ns()
        world.run_for(HOUR_S)
