"""The clock of retention locks: it counts what the machine was up, whatever the wall clock says."""

from __future__ import annotations

import pytest

from engine.group.site_state import SITE_TABLES, SiteState
from engine.retention.lock_clock import CLOCK_KEY, LOCK_TABLE, SAVE_EVERY_NS, LockClock
from tests.sim.sim_store import SimStore, StoreFile
from tests.sim.world import SimClock, SimWorld

NS = 1_000_000_000
DAY_S = 86_400.0


@pytest.fixture
def world() -> SimWorld:
    return SimWorld(1)


@pytest.fixture
def state() -> SiteState:
    return SiteState(SimStore(StoreFile(), SITE_TABLES))


def started(state: SiteState, world: SimWorld, jumped_s: float = 0.0, at_least_ns: int = 0) -> LockClock:
    clock = SimClock(world)
    clock.jump(jumped_s)
    lock = LockClock(state, clock)
    lock.load(at_least_ns)
    return lock


def test_it_counts_seconds_and_no_jump_of_the_wall_clock(state: SiteState, world: SimWorld) -> None:
    clock = SimClock(world)
    lock = LockClock(state, clock)
    lock.load()
    began_ns = lock.now_ns()
    for jump_s in (400 * DAY_S, -800 * DAY_S):
        clock.jump(jump_s)
        world.run_for(10.0)
    assert lock.now_ns() - began_ns == 20 * NS


@pytest.mark.parametrize("jumped_s", [0.0, 100 * DAY_S, -100 * DAY_S])
def test_a_restart_in_the_same_boot_counts_what_passed(
    state: SiteState, world: SimWorld, jumped_s: float
) -> None:
    lock = started(state, world)
    world.run_for(5.0)
    lock.save_with({})
    saved_ns = lock.now_ns()
    world.run_for(3600.0)  # the daemon is off, the machine is not
    assert started(state, world, jumped_s).now_ns() - saved_ns == 3600 * NS


@pytest.mark.parametrize("jumped_s", [0.0, 20 * DAY_S, -20 * DAY_S])
def test_a_reboot_counts_nothing_for_the_time_between(
    state: SiteState, world: SimWorld, jumped_s: float
) -> None:
    """Twenty days off, or a clock set forward by twenty days: nobody can tell them apart."""
    lock = started(state, world)
    world.run_for(7.0)
    lock.save_with({})
    saved_ns = lock.now_ns()
    world.run_for(20 * DAY_S)
    world.reboot()
    world.run_for(30.0)
    again = started(state, world, jumped_s)
    assert again.now_ns() == saved_ns
    world.run_for(9.0)
    assert again.now_ns() == saved_ns + 9 * NS


def test_what_was_not_saved_before_a_reboot_is_lost_and_nothing_more(
    state: SiteState, world: SimWorld
) -> None:
    lock = started(state, world)
    lock.save_with({})
    assert not lock.due
    world.run_for(SAVE_EVERY_NS / NS)
    assert lock.due
    world.reboot()
    assert started(state, world).now_ns() == 0


def test_groups_of_a_site_agree(state: SiteState, world: SimWorld) -> None:
    one, other = started(state, world), started(state, world)
    world.run_for(5.0)
    one.save_with({})
    world.run_for(5.0)
    third = started(state, world)
    assert one.now_ns() == other.now_ns() == third.now_ns()


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x93\xa1b\x01", b"\x93\xa1b\xff\x01", b"\x90"])
def test_a_bad_row_counts_as_none(state: SiteState, world: SimWorld, value: bytes) -> None:
    state.put_notes(LOCK_TABLE, {CLOCK_KEY: value})
    assert started(state, world).now_ns() == 0
    assert started(state, world, at_least_ns=77).now_ns() == 77
