"""Stages of journal pressure: in order, left later than entered, with the time that is left."""

from __future__ import annotations

import pytest

from engine.retention.pressure import Measure, Pressure, Stage


def measure(held: int, *, at_s: float = 0.0, written: int = 0, lacking: bool = False) -> Measure:
    return Measure(monotonic_s=at_s, held_bytes=held, capacity_bytes=1000, written=written, lacking=lacking)


def test_stages_follow_each_other() -> None:
    pressure = Pressure(throttle=True)
    assert pressure.step(measure(599)) == []
    assert pressure.step(measure(600)) == [Stage.WARNING]
    assert pressure.step(measure(750)) == [Stage.THROTTLE]
    assert pressure.step(measure(850)) == [Stage.DETACH]
    assert pressure.step(measure(900, lacking=True)) == [Stage.FULL]
    assert pressure.step(measure(100)) == [Stage.NORMAL]


def test_each_is_told_of_if_several_are_passed_at_once() -> None:
    assert Pressure(throttle=True).step(measure(990)) == [Stage.WARNING, Stage.THROTTLE, Stage.DETACH]
    assert Pressure(throttle=False).step(measure(990)) == [Stage.WARNING, Stage.DETACH]


@pytest.mark.parametrize(("held", "stage"), [(849, Stage.DETACH), (800, Stage.DETACH), (799, Stage.WARNING)])
def test_a_stage_is_left_later_than_it_is_entered(held: int, stage: Stage) -> None:
    pressure = Pressure(throttle=False)
    pressure.step(measure(850))
    pressure.step(measure(held))
    assert pressure.stage is stage


def test_the_time_to_full_follows_the_rate_of_writing() -> None:
    pressure = Pressure(throttle=False)
    pressure.step(measure(500))
    pressure.step(measure(600, at_s=30.0, written=300))
    assert pressure.time_to_full_s == pytest.approx(400 / 10)
    pressure.step(measure(100, at_s=31.0, written=310))
    assert pressure.time_to_full_s is None


def test_no_capacity_is_not_a_division_by_nothing() -> None:
    pressure = Pressure(throttle=False)
    nothing = Measure(monotonic_s=0.0, held_bytes=0, capacity_bytes=0, written=0, lacking=False)
    pressure.step(nothing)
    assert pressure.stage is Stage.DETACH
