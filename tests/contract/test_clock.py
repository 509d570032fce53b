"""What the engine counts on in a clock, held by the machine's and by the simulator's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.contract.drivers import Driver, LoopDriver, SimDriver
from tests.sim.world import Crashed, SimClock, SimWorld


@pytest.fixture(params=["sim", "real"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    if request.param == "sim":
        yield SimDriver()
        return
    real = LoopDriver()
    yield real
    real.close()


def test_calls_run_in_the_order_of_their_delays(driver: Driver) -> None:
    ran: list[str] = []
    for name, delay_s in (("late", 0.03), ("early", 0.01), ("middle", 0.02)):
        driver.clock.call_later(delay_s, driver.watch(partial(ran.append, name)))
    driver.run_until(lambda: len(ran) == 3)
    assert ran == ["early", "middle", "late"]


def test_call_soon_keeps_order_and_does_not_call_at_once(driver: Driver) -> None:
    ran: list[int] = []
    for number in range(5):
        driver.clock.call_soon(driver.watch(partial(ran.append, number)))
    assert ran == []
    driver.run_until(lambda: len(ran) == 5)
    assert ran == [0, 1, 2, 3, 4]


def test_a_cancelled_call_does_not_run(driver: Driver) -> None:
    ran: list[str] = []
    timer = driver.clock.call_later(0.001, lambda: ran.append("cancelled"))
    driver.clock.call_later(0.01, driver.watch(lambda: ran.append("other")))
    timer.cancel()
    timer.cancel()
    driver.run_until(lambda: bool(ran))
    assert ran == ["other"]


def test_cancelling_after_the_call_is_fine(driver: Driver) -> None:
    ran: list[str] = []
    timer = driver.clock.call_soon(driver.watch(lambda: ran.append("ran")))
    driver.run_until(lambda: bool(ran))
    timer.cancel()


def test_monotonic_time_covers_the_delay(driver: Driver) -> None:
    start_s = driver.clock.monotonic()
    ended_s: list[float] = []
    driver.clock.call_later(0.02, driver.watch(lambda: ended_s.append(driver.clock.monotonic())))
    driver.run_until(lambda: bool(ended_s))
    # A loop may call up to its clock's resolution early.
    assert ended_s[0] - start_s >= 0.019


def test_who_waits_for_a_tiny_rest_of_time_sees_it_go_by(driver: Driver) -> None:
    start_s = driver.clock.monotonic()
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if driver.clock.monotonic() == start_s and asked < 100_000:
            driver.clock.call_later(7e-15, driver.watch(ask))

    ask()
    driver.run_until(lambda: driver.clock.monotonic() > start_s)
    assert asked < 100_000


def test_events_that_let_no_time_go_by_are_found() -> None:
    world = SimWorld(1)
    clock = SimClock(world)

    def again() -> None:
        clock.call_soon(again)

    again()
    with pytest.raises(RuntimeError, match="no time goes by"):
        world.run_for(1.0)


def test_utc_is_in_nanoseconds_of_this_age(driver: Driver) -> None:
    assert 1_600_000_000 * 10**9 < driver.clock.utc_ns() < 5_000_000_000 * 10**9


def test_a_jump_of_the_wall_clock_leaves_timers_alone() -> None:
    world = SimWorld(1)
    clock = SimClock(world)
    ran: list[float] = []
    before_ns = clock.utc_ns()
    clock.call_later(1.0, lambda: ran.append(clock.monotonic()))
    clock.jump(-3600)
    assert clock.utc_ns() == before_ns - 3600 * 10**9
    world.run_for(2.0)
    assert ran == [1.0]


def test_a_stopped_clock_calls_nothing_and_raises() -> None:
    world = SimWorld(1)
    clock = SimClock(world)
    ran: list[str] = []
    clock.call_later(1.0, lambda: ran.append("zombie"))
    clock.stop()
    world.run_for(2.0)
    assert ran == []
    with pytest.raises(Crashed):
        clock.call_soon(lambda: None)
    with pytest.raises(Crashed):
        clock.monotonic()


def test_uptime_goes_on_within_one_boot(driver: Driver) -> None:
    before, ended = driver.clock.uptime(), []
    driver.clock.call_later(0.02, driver.watch(lambda: ended.append(driver.clock.uptime())))
    driver.run_until(lambda: bool(ended))
    assert ended[0].boot == before.boot != ""
    assert 0.015 * 10**9 < ended[0].ns - before.ns < 60 * 10**9


def test_a_reboot_is_seen() -> None:
    world = SimWorld(1)
    clock = SimClock(world)
    world.run_for(5.0)
    before = clock.uptime()
    world.reboot()
    assert clock.uptime().boot != before.boot
    assert clock.uptime().ns == 0
